"""Between actions in the units of the world and what heads learn and say: the one place that knows all three forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from reflexarc.configs.errors import PolicyError
from reflexarc.configs.policy import ACTION_BINS
from reflexarc.vla.labels import Answer, Labels
from reflexarc.vla.tokenizers import FastTokenizer, UniformTokenizer
from reflexarc.wire.messages import F64, TokenRange


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Said:
    """A batch of answers, read. actions: (B, H, D) float64. bins: (B, H, D) int64, for log and view.

    tokens: what the model said in ids of its own tokenizer, for each row; empty where it said numbers.
    """

    actions: F64
    bins: NDArray[np.int64]
    tokens: list[list[int]]


class ActionCodec:
    """grid: the bounds of all dimensions and their bins. horizon: actions H. fast: where the head says FAST tokens.

    first_id: the vocabulary's id of bin 0.
    """

    def __init__(
        self, grid: UniformTokenizer, horizon: int, fast: FastTokenizer | None = None, first_id: int = 0
    ) -> None:
        self.grid, self.horizon, self.fast, self._first_id = grid, horizon, fast, first_id
        self._varies = np.flatnonzero(grid.varies)

    @property
    def id(self) -> str:
        """Names the tokens."""
        return self.grid.id if self.fast is None else self.fast.id

    @property
    def token_range(self) -> TokenRange:
        """Which tokens an answer may hold; of FAST, up to two for a coefficient (`heads/fast.py`)."""
        count = self.horizon * self.grid.size
        if self.fast is not None:
            return TokenRange(end=self.fast.size, most=2 * count)
        return TokenRange(first=self._first_id, end=self._first_id + ACTION_BINS, most=count)

    def labels(self, actions: F64, mask: NDArray[np.bool_], smoothing: float = 0.0) -> Labels:
        """actions: (B, H, D), of which the first ones of each row are labels: mask (B, H)."""
        whole = repeat_last(actions, mask)
        values = self.grid.normalise(whole)
        return Labels(
            bins=torch.from_numpy(self.grid.encode(actions)),
            values=torch.from_numpy(values.astype(np.float32)),
            tokens=self._tokens(values),
            mask=torch.from_numpy(mask),
            smoothing=smoothing,
        )

    def read(self, answer: Answer) -> Said:
        """What a head said, in the units of the world."""
        if answer.bins is not None:
            bins = answer.bins.cpu().numpy()
            return Said(self.grid.decode(bins), bins, (bins.reshape(len(bins), -1) + self._first_id).tolist())
        if answer.values is not None:
            actions = self.grid.restore(answer.values.cpu().double().numpy())
            return Said(actions, self.grid.encode(actions), [[] for _ in actions])
        if answer.words is not None:
            raise PolicyError("this model says words, not actions: it is a planner, see docs/heads.md")
        if answer.tokens is None or self.fast is None:
            raise PolicyError("an answer in FAST tokens needs the tokenizer; an empty one says nothing")
        tokens = [row[row >= 0].tolist() for row in answer.tokens.cpu()]
        values = np.zeros((len(tokens), self.horizon, self.grid.size))
        for chunk, ids in zip(values, tokens, strict=True):
            chunk[:, self._varies] = self.fast.decode(ids, self.horizon, len(self._varies))
        actions = self.grid.restore(values)
        return Said(actions, self.grid.encode(actions), tokens)

    def _tokens(self, values: F64) -> torch.Tensor:
        if self.fast is None:
            return torch.empty(len(values), 0, dtype=torch.int64)
        rows = [torch.tensor(self.fast.encode(row)) for row in values[..., self._varies]]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def repeat_last(actions: F64, mask: NDArray[np.bool_]) -> F64:
    """(B, H, D) where what is no label repeats the last action that is one; a row without labels stays as it is."""
    last = np.maximum.accumulate(np.where(mask, np.arange(mask.shape[1]), 0), axis=1)
    return np.take_along_axis(actions, last[..., None], axis=1)
