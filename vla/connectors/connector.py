"""What every connector offers, and the table of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from torch import Tensor, nn

from reflexarc.configs.policy import ModelConfig
from reflexarc.vla.connectors.patches import PatchConnector
from reflexarc.vla.connectors.queries import QueryConnector
from reflexarc.vla.connectors.resampler import Resampler
from reflexarc.vla.vision import VisionTower


class Connector(Protocol):
    """tokens: number of tokens N it makes of all cameras together, as many of each, camera by camera."""

    tokens: int

    def __call__(self, maps: Tensor, condition: Tensor) -> Tensor:
        """maps (B, C, F, h, w) and the instruction's summary (B, E) to tokens (B, N, width)."""


def _patches(config: Any, *, condition: int, **sizes: Any) -> nn.Module:
    return PatchConnector(config, **sizes)


CONNECTORS: dict[str, Callable[..., nn.Module]] = {
    "resampler": Resampler,
    "perceiver": QueryConnector,
    "qformer": QueryConnector,
    "linear": _patches,
    "mlp": _patches,
    "mlp3": _patches,
    "gated": _patches,
}


def build_connector(config: ModelConfig, tower: VisionTower) -> Connector:
    """The connector that `config.connector.kind` names, for this tower."""
    made = CONNECTORS[config.connector.kind](
        config.connector,
        cameras=len(config.cameras),
        features=tower.width,
        grid=tower.grid,
        condition=config.condition_width,
        width=config.language.width,
    )
    return cast(Connector, made)
