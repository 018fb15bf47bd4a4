"""A whole chunk of action tokens in one pass (OpenVLA-OFT, Kim et al. 2025).

One query for each action of the chunk; within the block all see all. The hidden state of a query is expanded to one
vector for each dimension, and each of these is decoded by the shared 256 action rows of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reflexarc.configs.policy import BinsHeadConfig
from reflexarc.vla.commitment import Commitment
from reflexarc.vla.heads.readout import read_tokens
from reflexarc.vla.heads.shape import HeadShape
from reflexarc.vla.labels import Answer, Labels
from reflexarc.vla.loss import binned_loss
from reflexarc.vla.trunk import Prefix, Trunk


class ParallelHead(nn.Module):
    """See the header."""

    fixed: Tensor

    def __init__(self, config: BinsHeadConfig, shape: HeadShape) -> None:
        super().__init__()
        width, self.dims = shape.language.width, shape.dims
        self.readout = config.readout
        self.register_buffer("fixed", shape.fixed, persistent=False)
        self.queries = nn.Parameter(torch.randn(shape.horizon, width) * 0.3)
        self.expand = nn.Linear(width, self.dims * width)
        self.bias = nn.Parameter(torch.zeros(self.dims, 256))

    def forward(self, trunk: Trunk, prefix: Prefix, plan: Tensor) -> Tensor:
        """Logits (B, H, D, 256). plan: (B, width)."""
        hidden = trunk.extend(self.queries + plan[:, None], prefix, causal=False)
        each = self.expand(hidden).unflatten(-1, (self.dims, -1))
        return trunk.action_logits(each) + self.bias

    def loss(self, trunk: Trunk, prefix: Prefix, plan: Tensor, labels: Labels) -> Tensor:
        """See `Head`."""
        return binned_loss(self(trunk, prefix, plan), labels, self.fixed)

    def decode(
        self, trunk: Trunk, prefix: Prefix, plan: Tensor, committed: Commitment | None = None
    ) -> Answer:
        """See `Head`. All tokens are read at once: those that are decided have no say in the others."""
        decided = self.fixed if committed is None else committed.decided(self.fixed)
        return Answer(bins=read_tokens(self(trunk, prefix, plan), self.readout, decided))
