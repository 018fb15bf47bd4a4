"""What a head learns from, and what it answers: the same three ways of writing a chunk."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Labels:
    """The true chunks of a batch.

    bins: (B, H, D) int64. values: (B, H, D) float32 in [-1, 1] over the bounds of the bins; what is no label repeats
    the last that is one. tokens: (B, T) int64 FAST tokens, -1 behind the last; T is 0 where no head reads them.
    mask: (B, H) bool, false where an action is no label. smoothing: width in bins of binned heads' soft targets.
    words: (B, L) int64 ids of the subtask, padded; where a planner learns to say it.
    """

    bins: Tensor
    values: Tensor
    tokens: Tensor
    mask: Tensor
    smoothing: float = 0.0
    words: Tensor | None = None

    def to(self, device: torch.device) -> Labels:
        """The same labels on another device."""
        bins, values, tokens, mask = (
            each.to(device) for each in (self.bins, self.values, self.tokens, self.mask)
        )
        words = None if self.words is None else self.words.to(device)
        return Labels(bins, values, tokens, mask, self.smoothing, words)

    def answer(self) -> Answer:
        """What a head that is always right says in tokens: FAST's where there are any, else bins."""
        return Answer(tokens=self.tokens) if self.tokens.shape[1] else Answer(bins=self.bins)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A batch of chunks, or of subtasks, as a head says them: exactly one is there, written as in `Labels`.

    latent: (B, Z), what a slow level says.
    """

    bins: Tensor | None = None
    values: Tensor | None = None
    tokens: Tensor | None = None
    words: Tensor | None = None
    latent: Tensor | None = None
