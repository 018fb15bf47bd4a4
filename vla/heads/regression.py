"""A whole chunk of numbers in one pass, trained with L1 (OpenVLA-OFT, Kim et al. 2025, section IV-B).

One query for each action; within the block all see all. A residual MLP (OFT's: norm, linear, ReLU; blocks of norm,
linear, ReLU with a skip; norm, linear) turns a query's hidden state into the action's numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reflexarc.configs.policy import RegressionHeadConfig
from reflexarc.vla.commitment import Commitment
from reflexarc.vla.heads.shape import HeadShape
from reflexarc.vla.labels import Answer, Labels
from reflexarc.vla.loss import masked_mean
from reflexarc.vla.trunk import Prefix, Trunk


class Block(nn.Module):
    """x + ReLU(linear(norm(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        mapped: Tensor = self.layers(x)
        return x + mapped


class RegressionHead(nn.Module):
    """See the header. Dimensions that never vary are 0."""

    varies: Tensor

    def __init__(self, config: RegressionHeadConfig, shape: HeadShape) -> None:
        super().__init__()
        width, self.dims = shape.language.width, shape.dims
        self.register_buffer("varies", shape.varies, persistent=False)
        self.queries = nn.Parameter(torch.randn(shape.horizon, width) * 0.3)
        self.read = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.ReLU(),
            *(Block(width) for _ in range(config.blocks)),
            nn.LayerNorm(width),
            nn.Linear(width, len(self.varies)),
        )

    def forward(self, trunk: Trunk, prefix: Prefix, plan: Tensor) -> Tensor:
        """(B, H, V) numbers of the dimensions that vary. plan: (B, width)."""
        hidden = trunk.extend(self.queries + plan[:, None], prefix, causal=False)
        with torch.autocast(hidden.device.type, enabled=False):
            numbers: Tensor = self.read(hidden.float())
        return numbers

    def loss(self, trunk: Trunk, prefix: Prefix, plan: Tensor, labels: Labels) -> Tensor:
        """See `Head`."""
        wrong = (self(trunk, prefix, plan) - labels.values[..., self.varies]).abs()
        return masked_mean(wrong.mean(-1), labels.mask)

    def decode(
        self, trunk: Trunk, prefix: Prefix, plan: Tensor, committed: Commitment | None = None
    ) -> Answer:
        """See `Head`. What is committed changes nothing: numbers are read at once."""
        numbers = self(trunk, prefix, plan)
        values = numbers.new_zeros(*numbers.shape[:2], self.dims)
        values[..., self.varies] = numbers
        return Answer(values=values)
