"""A small convolutional tower that learns from few demonstrations on a CPU.

Pixels are folded into channels 4×4 (no convolution ever runs at full resolution), then residual blocks run at
stride 4 and stride 8, and the coarse map is added to the fine one. Every block is modulated by the words (FiLM, Perez
et al. 2018), so that features of the things asked for can be told apart early. All cameras share the weights; a
learned vector says which camera it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reflexarc.configs.policy import ConvVisionConfig

FOLD = 4
GROUPS = 8


class FilmBlock(nn.Module):
    """Convolution, group norm, scale and shift by the condition, SiLU; with a skip where the shape allows."""

    def __init__(self, inputs: int, outputs: int, stride: int, condition: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.GroupNorm(GROUPS, outputs)
        self.film = nn.Linear(condition, 2 * outputs)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        self.skip = inputs == outputs and stride == 1

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (N, inputs, h, w), condition (N, E) to (N, outputs, h/stride, w/stride)."""
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        y = F.silu(self.norm(self.conv(x)) * (1.0 + scale) + shift)
        return x + y if self.skip else y


class ConvTower(nn.Module):
    """See the header; `width` features at stride 4."""

    def __init__(self, config: ConvVisionConfig, cameras: int, image_size: int, condition: int) -> None:
        super().__init__()
        self.width = config.width
        self.grid = (image_size // FOLD, image_size // FOLD)
        self.camera = nn.Parameter(torch.randn(cameras, condition) * 0.02)
        fine, coarse = config.width, 2 * config.width
        self.stem = FilmBlock(3 * FOLD * FOLD, fine, 1, condition)
        self.fine = nn.ModuleList(FilmBlock(fine, fine, 1, condition) for _ in range(config.blocks))
        self.down = FilmBlock(fine, coarse, 2, condition)
        self.coarse = nn.ModuleList(FilmBlock(coarse, coarse, 1, condition) for _ in range(config.blocks))
        self.up = nn.Conv2d(coarse, fine, 1)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """images (B, C, 3, H, W) in [-1, 1] and condition (B, E) to maps (B, C, F, H/4, W/4)."""
        batch, cameras = images.shape[:2]
        told = (condition[:, None] + self.camera).flatten(0, 1)
        x: Tensor = self.stem(F.pixel_unshuffle(images.flatten(0, 1), FOLD), told)
        for block in self.fine:
            x = block(x, told)
        y = self.down(x, told)
        for block in self.coarse:
            y = block(y, told)
        x = x + F.interpolate(self.up(y), scale_factor=2.0, mode="nearest")
        return torch.unflatten(x, 0, (batch, cameras))
