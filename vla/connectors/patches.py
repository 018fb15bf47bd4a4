"""One token for each patch of each camera: a linear layer, or two with GELU (LLaVA 1.5, OpenVLA)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchConnector(nn.Module):
    """Projects features and adds a learned place and camera."""

    def __init__(self, kind: str, cameras: int, features: int, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        places = grid[0] * grid[1]
        self.tokens = cameras * places
        self.norm = nn.LayerNorm(features)
        first = nn.Linear(features, width)
        self.project = nn.Sequential(first, nn.GELU(), nn.Linear(width, width)) if kind == "mlp" else first
        self.place = nn.Parameter(torch.randn(places, width) * 0.02)
        self.camera = nn.Parameter(torch.randn(cameras, 1, width) * 0.02)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """maps (B, C, F, h, w) to tokens (B, C·h·w, width); the condition is not used."""
        tokens: Tensor = self.project(self.norm(maps.flatten(3).transpose(2, 3)))
        return (tokens + self.place + self.camera).flatten(1, 2)
