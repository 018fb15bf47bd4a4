"""How a model is told what it feels: all numbers as one token (π0), or as text, one of 256 bins for each (π0.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from reflexarc.configs.policy import ACTION_BINS
from reflexarc.vla.trunk import Trunk

REACH = 4.0
"""Standard deviations that the bins of the text reach to either side."""


class State(Protocol):
    """From normalised numbers (B, P) to the numbers as they were told (B, P) and tokens (B, T, width)."""

    def __call__(self, proprio: Tensor, trunk: Trunk) -> tuple[Tensor, Tensor]:
        """See the class."""


class StateToken(nn.Sequential):
    """All numbers as one token."""

    def __init__(self, proprio: int, width: int) -> None:
        super().__init__(nn.Linear(proprio, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, proprio: Tensor, trunk: Trunk) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """See `State`."""
        token = proprio
        with torch.autocast(proprio.device.type, enabled=False):
            for layer in self:
                token = layer(token)
        return proprio, token[:, None]


class StateText(nn.Module):
    """Each number as one of the 256 ids of the vocabulary that actions are written in; `slots` say which number it is.

    What else the model is told of its state is rounded to the bins too.
    """

    def __init__(self, proprio: int, width: int) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.randn(proprio, width) * 0.3)

    def forward(self, proprio: Tensor, trunk: Trunk) -> tuple[Tensor, Tensor]:
        """See `State`."""
        bins = ((proprio / REACH + 1.0) * (ACTION_BINS / 2)).floor().clamp(0, ACTION_BINS - 1)
        told = ((bins + 0.5) / (ACTION_BINS / 2) - 1.0) * REACH
        return told, trunk.embed(bins.long() + trunk.words) + self.slots


STATES: dict[str, Callable[[int, int], nn.Module]] = {"token": StateToken, "text": StateText}


def build_state(kind: str, proprio: int, width: int) -> State:
    """The way of that kind, for `proprio` numbers."""
    return cast(State, STATES[kind](proprio, width))
