"""A few tokens a camera, each looking at one place of the image that the words choose.

A learned query, shifted by the instruction's summary, attends over the map. The token carries the features found there
and *where* that is: the mean and the spread of the attention, in image coordinates. Such a mean is finer than the
grid (spatial soft-argmax, Levine et al. 2016), which is what makes an arm precise after few demonstrations; few
tokens keep the language model cheap (Perceiver resampler, Alayrac et al. 2022). Places are computed in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from reflexarc.configs.policy import ResamplerConfig

OCTAVES = 4


class Resampler(nn.Module):
    """See the header; `tokens` of each camera."""

    places: Tensor
    scores: Tensor | None = None
    """(B, C, slots, P) of the last forward pass in training, for the loss that says where to look."""

    def __init__(
        self,
        config: ResamplerConfig,
        *,
        cameras: int,
        features: int,
        grid: tuple[int, int],
        condition: int,
        width: int,
    ) -> None:
        super().__init__()
        self.slots = config.tokens
        self.key_width = config.key_width
        self.tokens = cameras * config.tokens
        self.query = nn.Parameter(torch.randn(cameras, config.tokens, config.key_width))
        self.steer = nn.Linear(condition, cameras * config.tokens * config.key_width)
        self.key = nn.Conv2d(features, config.key_width, 1)
        self.place_key = nn.Parameter(torch.randn(config.key_width, *grid) * 0.1)
        self.value = nn.Conv2d(features, features, 1)
        self.project = nn.Sequential(
            nn.Linear(features + 4 + 4 * OCTAVES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.slot = nn.Parameter(torch.randn(cameras, config.tokens, width) * 0.02)
        self.register_buffer("places", _places(grid), persistent=False)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """maps (B, C, F, h, w), condition (B, E) to tokens (B, C·slots, width)."""
        batch, cameras = maps.shape[:2]
        flat = maps.flatten(0, 1)
        keys = (self.key(flat) + self.place_key).flatten(2).unflatten(0, (batch, cameras))
        steer = self.steer(condition).unflatten(1, (cameras, self.slots, self.key_width))
        scores = ((self.query + steer) / math.sqrt(self.key_width)) @ keys
        self.scores = scores if self.training else None
        attention = scores.float().softmax(-1)
        values = self.value(flat).flatten(2).unflatten(0, (batch, cameras))
        found = attention.to(values.dtype) @ values.transpose(-1, -2)
        with torch.autocast(maps.device.type, enabled=False):
            tokens: Tensor = self.project(torch.cat([found.float(), self._where(attention)], dim=-1))
            return (tokens + self.slot).flatten(1, 2)

    def _where(self, attention: Tensor) -> Tensor:
        """(..., P) float32 attention to (..., 4 + 4·OCTAVES): mean, spread, and the mean's sines and cosines."""
        mean = attention @ self.places
        spread = (attention @ self.places.square() - mean.square()).clamp_min(1e-6).sqrt()
        octaves = math.pi * 2.0 ** torch.arange(OCTAVES, device=mean.device)
        phases = (mean[..., None] * octaves).flatten(-2)
        return torch.cat([mean, spread, phases.sin(), phases.cos()], dim=-1)


def _places(grid: tuple[int, int]) -> Tensor:
    """(h·w, 2) image coordinates of the cell centres, x right and y down, in [-1, 1]."""
    rows = (torch.arange(grid[0]) + 0.5) / grid[0] * 2 - 1
    columns = (torch.arange(grid[1]) + 0.5) / grid[1] * 2 - 1
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)
