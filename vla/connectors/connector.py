"""What every connector offers, and the table of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from torch import Tensor, nn

from reflexarc.configs.policy import ModelConfig, PatchConfig, ResamplerConfig
from reflexarc.vla.connectors.patches import PatchConnector
from reflexarc.vla.connectors.resampler import Resampler
from reflexarc.vla.vision import VisionTower


class Connector(Protocol):
    """tokens: number of tokens N it makes of all cameras together."""

    tokens: int

    def __call__(self, maps: Tensor, condition: Tensor) -> Tensor:
        """maps (B, C, F, h, w) and the instruction's summary (B, E) to tokens (B, N, width)."""


def _resampler(config: ModelConfig, tower: VisionTower) -> nn.Module:
    assert isinstance(config.connector, ResamplerConfig)
    return Resampler(
        config.connector,
        cameras=len(config.cameras),
        features=tower.width,
        grid=tower.grid,
        condition=config.condition_width,
        width=config.language.width,
    )


def _patches(config: ModelConfig, tower: VisionTower) -> nn.Module:
    assert isinstance(config.connector, PatchConfig)
    return PatchConnector(
        config.connector.kind, len(config.cameras), tower.width, tower.grid, config.language.width
    )


CONNECTORS: dict[str, Callable[[ModelConfig, VisionTower], nn.Module]] = {
    "resampler": _resampler,
    "linear": _patches,
    "mlp": _patches,
}


def build_connector(config: ModelConfig, tower: VisionTower) -> Connector:
    """The connector that `config.connector.kind` names, for this tower."""
    return cast(Connector, CONNECTORS[config.connector.kind](config, tower))
