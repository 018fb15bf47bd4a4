"""A whole chunk of action tokens in one pass (OpenVLA-OFT, Kim et al. 2025).

One query for each action of the chunk; within the block all see all. The hidden state of a query is expanded to one
vector for each dimension, and each of these is decoded by the shared 256 action rows of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reflexarc.vla.heads.readout import read_tokens
from reflexarc.vla.trunk import Prefix, Trunk


class ParallelHead(nn.Module):
    """See the header. fixed: (D,) the bin of a dimension that never varies, -1 for the others."""

    fixed: Tensor

    def __init__(self, width: int, horizon: int, fixed: Tensor) -> None:
        super().__init__()
        dims = len(fixed)
        self.register_buffer("fixed", fixed, persistent=False)
        self.queries = nn.Parameter(torch.randn(horizon, width) * 0.3)
        self.expand = nn.Linear(width, dims * width)
        self.bias = nn.Parameter(torch.zeros(dims, 256))
        self.dims = dims

    def forward(self, trunk: Trunk, prefix: Prefix, plan: Tensor, bins: Tensor) -> Tensor:
        """Logits (B, H, D, 256); `bins` are not looked at. plan: (B, width)."""
        return self._logits(trunk, prefix, plan)

    def decode(self, trunk: Trunk, prefix: Prefix, plan: Tensor, readout: str) -> Tensor:
        """Bins (B, H, D) int64."""
        return read_tokens(self._logits(trunk, prefix, plan), readout, self.fixed)

    def _logits(self, trunk: Trunk, prefix: Prefix, plan: Tensor) -> Tensor:
        hidden = trunk.extend(self.queries + plan[:, None], prefix, causal=False)
        each = self.expand(hidden).unflatten(-1, (self.dims, -1))
        return trunk.action_logits(each) + self.bias
