"""What every vision tower offers, and the table of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from torch import Tensor, nn

from reflexarc.configs.policy import ModelConfig
from reflexarc.vla.vision.conv import ConvTower
from reflexarc.vla.vision.transformer import FusedTower, TransformerTower


class VisionTower(Protocol):
    """width: features F of a place. grid: (h, w) places."""

    width: int
    grid: tuple[int, int]

    def __call__(self, images: Tensor, condition: Tensor) -> Tensor:
        """images (B, C, 3, H, W) in [-1, 1] and the instruction's summary (B, E) to maps (B, C, F, h, w)."""


def _conv(config: ModelConfig) -> nn.Module:
    return ConvTower(cast(Any, config.vision), len(config.cameras), config.image_size, config.condition_width)


def _transformer(config: ModelConfig) -> nn.Module:
    return TransformerTower(cast(Any, config.vision), config.image_size)


def _fused(config: ModelConfig) -> nn.Module:
    return FusedTower(cast(Any, config.vision), config.image_size)


TOWERS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "conv": _conv,
    "vit": _transformer,
    "siglip": _transformer,
    "dinov2": _transformer,
    "fused": _fused,
}


def build_tower(config: ModelConfig) -> VisionTower:
    """The tower that `config.vision.kind` names, with random weights."""
    return cast(VisionTower, TOWERS[config.vision.kind](config))
