"""Action heads: from a prefix to a chunk of action tokens. `HEADS` names them by kind."""

from reflexarc.vla.heads.autoregressive import AutoregressiveHead
from reflexarc.vla.heads.head import HEADS, Head, build_head, read_bins, read_tokens
from reflexarc.vla.heads.parallel import ParallelHead

__all__ = ["HEADS", "AutoregressiveHead", "Head", "ParallelHead", "build_head", "read_bins", "read_tokens"]
