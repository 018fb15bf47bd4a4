"""Action heads: from a prefix to a chunk of actions. `HEADS` names them by kind; each has its own loss."""

from reflexarc.vla.heads.head import HEADS, Head, build_head
from reflexarc.vla.heads.readout import read_bins, read_tokens
from reflexarc.vla.heads.shape import HeadShape
from reflexarc.vla.labels import Answer, Labels

__all__ = ["HEADS", "Answer", "Head", "HeadShape", "Labels", "build_head", "read_bins", "read_tokens"]
