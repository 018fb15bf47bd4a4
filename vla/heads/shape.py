"""The sizes that a head is built for."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from reflexarc.configs.policy import LanguageConfig


@dataclasses.dataclass(frozen=True, slots=True)
class HeadShape:
    """language: the trunk's sizes. horizon: actions H in a chunk. fast_tokens: size of the FAST vocabulary, or 0.

    fixed: (D,) int64, the bin of a dimension that never varies, -1 for the others.
    """

    language: LanguageConfig
    horizon: int
    fixed: Tensor
    fast_tokens: int = 0

    @property
    def dims(self) -> int:
        """Dimensions D of an action."""
        return len(self.fixed)

    @property
    def varies(self) -> Tensor:
        """(V,) int64, the dimensions that vary: the only ones that are learned."""
        return torch.nonzero(self.fixed < 0)[:, 0]
