"""What it costs to write chunks as tokens: how many, and how far from the truth they come back."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from reflexarc.wire.messages import F64

if TYPE_CHECKING:
    from reflexarc.vla.actions import ActionCodec


@dataclasses.dataclass(frozen=True, slots=True)
class RoundTrip:
    """tokens: mean and most of a chunk. mean_error, worst_error: absolute, by dimension, in its unit.

    clipped: share of the numbers that lie beyond the bounds; their distance to the bounds is in no error.
    """

    tokenizer: str
    chunks: int
    mean_tokens: float
    most_tokens: int
    mean_error: dict[str, float]
    worst_error: dict[str, float]
    clipped: float


def round_trip(codec: ActionCodec, chunks: F64) -> RoundTrip:
    """Write whole chunks (N, H, D) and read them back. The truth is clipped to the bounds first."""
    grid = codec.grid
    inside = grid.restore(grid.normalise(chunks))
    labels = codec.labels(chunks, np.ones(chunks.shape[:2], dtype=bool))
    said = codec.read(labels.answer())
    wrong = np.abs(said.actions - inside)
    counts = [len(row) for row in said.tokens]
    beyond = np.abs(chunks - inside)[..., grid.varies] > grid.step[grid.varies] / 2
    return RoundTrip(
        tokenizer=codec.id,
        chunks=len(chunks),
        mean_tokens=float(np.mean(counts)),
        most_tokens=max(counts),
        mean_error=dict(zip(grid.names, wrong.mean(axis=(0, 1)).tolist(), strict=True)),
        worst_error=dict(zip(grid.names, wrong.max(axis=(0, 1)).tolist(), strict=True)),
        clipped=float(beyond.mean()) if beyond.size else 0.0,
    )
