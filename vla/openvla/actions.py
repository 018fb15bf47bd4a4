"""OpenVLA's numbers: token ids to values in [-1, 1], and these to the units of the training data.

A token stands for one of 255 bins (`vla/tokenizers/openvla.py`); id v stands for bin 32000 - v - 1, where the one that
is left over, id 31744, takes the last bin too (action_tokenizer.py). Values are
brought back by the 1st and 99th percentile of the training data, or by its extremes; a dimension that its mask leaves
out (the gripper) is what it is (`_unnormalize_actions`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.errors import PolicyError
from reflexarc.vla.tokenizers import OpenVlaTokenizer
from reflexarc.wire.messages import F64, TokenRange

_BOUNDS = {"q01_q99": ("q01", "q99"), "min_max": ("min", "max")}
_GUARD = 1e-8
"""What OFT adds to a range so that nothing is divided by zero."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Of a group of numbers: lower, upper (D,) float64; mask (D,) false where a number is not scaled."""

    lower: F64
    upper: F64
    mask: NDArray[np.bool_]

    @classmethod
    def read(cls, statistics: dict[str, Any], group: str, kind: str, key: str) -> Bounds:
        """`action` or `proprio` of a data set's statistics. Raises PolicyError naming what is missing or wrong."""
        names = _BOUNDS[kind]
        rows = statistics.get(group)
        if not isinstance(rows, dict) or any(name not in rows for name in names):
            there = ", ".join(sorted(rows if isinstance(rows, dict) else statistics)) or "nothing"
            raise PolicyError(
                f"statistics {key!r}: {group} needs {names[0]} and {names[1]}; there is {there}"
            )
        lower, upper = (np.array(rows[name], dtype=np.float64) for name in names)
        mask = np.array(rows.get("mask", np.ones(lower.shape)), dtype=bool)
        if lower.ndim != 1 or not lower.shape == upper.shape == mask.shape:
            raise PolicyError(
                f"statistics {key!r}: {group} has {names[0]}, {names[1]} and mask of shapes "
                f"{lower.shape}, {upper.shape}, {mask.shape}; they must be lists of one length"
            )
        if not (np.isfinite(lower).all() and np.isfinite(upper).all() and (lower <= upper).all()):
            raise PolicyError(f"statistics {key!r}: {group} must have finite {names[0]} not above {names[1]}")
        return cls(lower, upper, mask)

    @property
    def size(self) -> int:
        """Number of dimensions D."""
        return len(self.lower)

    def restore(self, values: F64) -> F64:
        """(..., D) in [-1, 1] to the units of the training data."""
        return np.where(self.mask, 0.5 * (values + 1) * (self.upper - self.lower) + self.lower, values)

    def normalise(self, values: F64) -> F64:
        """(..., D) in the units of the training data to [-1, 1], clipped (normalize_proprio)."""
        scaled = 2 * (values - self.lower) / (self.upper - self.lower + _GUARD) - 1
        return np.where(self.mask, scaled, values).clip(-1, 1)


class ActionBins:
    """The bins of all dimensions. edges: as many as `n_action_bins`. vocabulary: 32000."""

    def __init__(self, edges: int, vocabulary: int) -> None:
        self._grid = OpenVlaTokenizer(["value"], np.array([-1.0]), np.array([1.0]), edges)
        self.centers = self._grid.middles
        self._vocabulary = vocabulary

    @property
    def id(self) -> str:
        """Names these tokens."""
        return f"openvla-{len(self.centers)}/{self._vocabulary}"

    def token_range(self, most: int) -> TokenRange:
        """Which ids a chunk of up to `most` tokens may hold."""
        return TokenRange(first=self._vocabulary - len(self.centers), end=self._vocabulary, most=most)

    def bins(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids to bins 0..254."""
        return np.clip(self._vocabulary - ids - 1, 0, len(self.centers) - 1)

    def values(self, bins: NDArray[np.int64]) -> F64:
        """Bins to values in [-1, 1]."""
        return np.asarray(self.centers[bins])

    def nearest(self, values: F64) -> NDArray[np.int64]:
        """The bin that a value in [-1, 1] lies in: what a regressed action is logged as."""
        nearest: NDArray[np.int64] = self._grid.encode(values[..., None])[..., 0]
        return nearest

    def ids(self, bins: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bins to ids."""
        return self._vocabulary - 1 - bins
