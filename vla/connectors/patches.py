"""One token for each patch of each camera: a linear layer, two with GELU (LLaVA 1.5), or three (`mlp3`).

The three-layer one is that of fused towers (Prismatic, OpenVLA): it first widens the features by four.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from reflexarc.configs.policy import PatchConfig

WIDEN = 4


class PatchConnector(nn.Module):
    """Projects features and adds a learned place and camera. Gated tokens are projected by one layer."""

    def __init__(
        self, config: PatchConfig, *, cameras: int, features: int, grid: tuple[int, int], width: int
    ) -> None:
        super().__init__()
        places = grid[0] * grid[1]
        self.tokens = cameras * places
        self.norm = nn.LayerNorm(features)
        sizes = {
            "mlp": (features, width, width),
            "mlp3": (features, WIDEN * features, width, width),
        }.get(config.kind, (features, width))
        self.project = _mlp(sizes)
        self.place = nn.Parameter(torch.randn(places, width) * 0.02)
        self.camera = nn.Parameter(torch.randn(cameras, 1, width) * 0.02)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """maps (B, C, F, h, w) to tokens (B, C·h·w, width); the condition is not used."""
        tokens: Tensor = self.project(self.norm(maps.flatten(3).transpose(2, 3)))
        return (tokens + self.place + self.camera).flatten(1, 2)


def _mlp(sizes: tuple[int, ...]) -> nn.Module:
    """Linear layers with GELU between them."""
    layers: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
    for inputs, outputs in itertools.pairwise(sizes[1:]):
        layers += [nn.GELU(), nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers) if len(layers) > 1 else layers[0]
