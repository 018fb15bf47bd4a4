"""What a model is given, as tensors."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Inputs:
    """A batch.

    images: (B, C, 3, S, S) float32 in [-1, 1], cameras in the order of the configuration. seen: (B, C) bool, false
    where a camera is missing. words: (B, L) int64 ids.
    proprio: (B, P) float32, normalised. tcp: (B, 3) float32 m, base frame: the commanded TCP position, onto which
    the actions are composed.

    Where there is a slow level: latent (B, Z) float32, what it said; earlier: what it is to be asked about, if that is
    another instant.
    """

    images: Tensor
    seen: Tensor
    words: Tensor
    proprio: Tensor
    tcp: Tensor
    latent: Tensor | None = None
    earlier: Inputs | None = None

    def to(self, device: torch.device) -> Inputs:
        """The same batch on another device."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved = {name: each.to(device) for name, each in fields.items() if each is not None}
        return dataclasses.replace(self, **moved)
