"""One vector of all that a slow level has made of words, pictures and state (Helix S2, Figure AI 2025).

A learned query reads the prefix. What the vector means is nobody's label: the fast level's loss flows back through it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reflexarc.configs.errors import PolicyError
from reflexarc.configs.policy import LatentHeadConfig
from reflexarc.vla.commitment import Commitment
from reflexarc.vla.heads.shape import HeadShape
from reflexarc.vla.labels import Answer, Labels
from reflexarc.vla.trunk import Prefix, Trunk


class LatentHead(nn.Module):
    """Its numbers are normed: a latent is of the same size whatever was seen."""

    def __init__(self, config: LatentHeadConfig, shape: HeadShape) -> None:
        super().__init__()
        width = shape.language.width
        self.query = nn.Parameter(torch.randn(width) * 0.3)
        self.leave = nn.Sequential(nn.Linear(width, config.width), nn.LayerNorm(config.width))

    def forward(self, trunk: Trunk, prefix: Prefix, plan: Tensor) -> Tensor:
        """(B, Z) float32. plan: (B, width)."""
        hidden = trunk.extend((self.query + plan)[:, None], prefix, causal=False)
        with torch.autocast(hidden.device.type, enabled=False):
            latent: Tensor = self.leave(hidden[:, 0].float())
        return latent

    def loss(self, trunk: Trunk, prefix: Prefix, plan: Tensor, labels: Labels) -> Tensor:
        """Raises PolicyError: see the header."""
        raise PolicyError(
            "the head latent has no labels of its own; it is trained as model.slow, by the level below"
        )

    def decode(
        self, trunk: Trunk, prefix: Prefix, plan: Tensor, committed: Commitment | None = None
    ) -> Answer:
        """See `Head`."""
        return Answer(latent=self(trunk, prefix, plan))
