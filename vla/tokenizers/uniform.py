"""Actions as tokens: per dimension 256 bins over the 1st to 99th percentile of the training data (RT-2; OpenVLA).

Here 256 bins are 256 values. They lie evenly from the lower to the upper bound, both included; where the range
contains zero the grid is shifted and widened by less than a bin so that zero is one of them: standing still is
exact. A dimension that never changed in training has no bins and decodes to its constant. Values beyond the
bounds take the outermost bin. This file knows nothing of models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.policy import ACTION_BINS
from reflexarc.wire.messages import F64

RESOLUTION = {"m": 1e-4, "rad": 5e-3, "opening": 1e-2}
"""A range narrower than this, in the unit of the dimension, counts as constant: 0.1 mm and 0.3 degrees a step."""

PERCENTILES = (1.0, 99.0)


class UniformTokenizer:
    """Encodes values (..., D) into bins 0..255 and back. The other kind of it is OpenVLA's, see `openvla.py`.

    step: (D,) distance between neighbouring bins, 0 for a constant dimension. zero_bin: (D,) value = offset +
    (bin - zero_bin)·step, with offset 0 where zero is a bin.
    """

    kind = "uniform"
    count = ACTION_BINS

    def __init__(self, names: Sequence[str], offset: F64, step: F64, zero_bin: NDArray[np.int64]) -> None:
        self.names = tuple(names)
        self._offset = np.asarray(offset, dtype=np.float64)
        self._step = np.asarray(step, dtype=np.float64)
        self._zero = np.asarray(zero_bin, dtype=np.int64)
        size = (len(self.names),)
        if not self._offset.shape == self._step.shape == self._zero.shape == size:
            raise PolicyError(f"tokenizer of {size[0]} dimensions has {self._step.shape[0]} steps")
        finite = np.isfinite(self._offset).all() and np.isfinite(self._step).all()
        if not finite or (self._step < 0).any():
            raise PolicyError("tokenizer bounds must be finite and its steps not negative")

    @classmethod
    def from_bounds(cls, names: Sequence[str], lower: F64, upper: F64, resolution: F64) -> Self:
        """Bins over [lower, upper], each (D,); a range below `resolution` (D,) is constant at its middle, or at 0."""
        lower, upper = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
        if not (np.isfinite(lower).all() and np.isfinite(upper).all() and (lower <= upper).all()):
            raise PolicyError(f"tokenizer bounds must be finite and ordered; got {lower} to {upper}")
        rows = [_grid(*row) for row in zip(lower, upper, resolution, strict=True)]
        offset, step, zero = (np.array(column) for column in zip(*rows, strict=True))
        return cls(names, offset, step, zero)

    @classmethod
    def fit(cls, spec: ActionSpec, actions: F64) -> Self:
        """Bounds from data (N, D), within those of the spec. Raises PolicyError on no data or values not finite."""
        actions = np.asarray(actions, dtype=np.float64)
        if actions.ndim != 2 or actions.shape[1] != spec.size or not len(actions):
            raise PolicyError(f"tokenizer needs (N, {spec.size}) actions to fit; got {actions.shape}")
        _require_finite(actions, [dim.name for dim in spec.dims])
        lower, upper = np.percentile(actions, PERCENTILES, axis=0)
        spec_lower = np.array([dim.lower for dim in spec.dims])
        spec_upper = np.array([dim.upper for dim in spec.dims])
        return cls.from_bounds(
            [dim.name for dim in spec.dims],
            np.clip(lower, spec_lower, spec_upper),
            np.clip(upper, spec_lower, spec_upper),
            np.array([RESOLUTION[dim.unit] for dim in spec.dims]),
        )

    @property
    def size(self) -> int:
        """Number of dimensions D."""
        return len(self.names)

    @property
    def id(self) -> str:
        """Names this grid: equal ids mean equal tokens for equal values."""
        return f"{self.kind}-{self.count}/{hashlib.sha256(self.to_json().encode()).hexdigest()[:12]}"

    @property
    def varies(self) -> NDArray[np.bool_]:
        """(D,) false where a dimension is constant."""
        return self._step > 0

    @property
    def fixed_bins(self) -> NDArray[np.int64]:
        """(D,) the one bin of a constant dimension, -1 where it varies."""
        return np.where(self.varies, -1, self._zero)

    @property
    def step(self) -> F64:
        """(D,) distance between neighbouring bins; 0 where constant."""
        return self._step.copy()

    @property
    def centers(self) -> F64:
        """(D, 256) the value of each bin."""
        bins = np.arange(ACTION_BINS)[None, :] - self._zero[:, None]
        return self._offset[:, None] + bins * self._step[:, None]

    def encode(self, values: F64) -> NDArray[np.int64]:
        """(..., D) values to bins 0..255; the error is at most half a step within the bounds.

        Raises PolicyError naming the dimension of a value that is not finite.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.shape[-1:] != (self.size,):
            raise PolicyError(f"tokenizer has {self.size} dimensions; got values of shape {values.shape}")
        _require_finite(values, self.names)
        step = np.where(self.varies, self._step, 1.0)
        bins = np.rint((values - self._offset) / step) + self._zero
        return np.where(self.varies, np.clip(bins, 0, ACTION_BINS - 1), self._zero).astype(np.int64)

    def decode(self, bins: NDArray[np.integer]) -> F64:
        """(..., D) bins to values. Raises PolicyError on a bin outside 0..255."""
        bins = np.asarray(bins, dtype=np.int64)
        if bins.shape[-1:] != (self.size,):
            raise PolicyError(f"tokenizer has {self.size} dimensions; got bins of shape {bins.shape}")
        if bins.size and (bins.min() < 0 or bins.max() >= ACTION_BINS):
            raise PolicyError(f"bins must lie in 0..{ACTION_BINS - 1}; got {bins.min()}..{bins.max()}")
        return self._offset + (bins - self._zero) * self._step

    def normalise(self, values: F64) -> F64:
        """(..., D) values to -1..1 from the first bin's value to the last's, clipped; 0 where constant."""
        step = np.where(self.varies, self._step, 1.0)
        place = (np.asarray(values, dtype=np.float64) - self._offset) / step + self._zero
        inside = np.where(self.varies, 2.0 * place / (ACTION_BINS - 1) - 1.0, 0.0)
        clipped: F64 = np.clip(inside, -1.0, 1.0)
        return clipped

    def restore(self, normalised: F64) -> F64:
        """The inverse of `normalise`, for (..., D) of any size: what is beyond -1..1 takes the outermost value."""
        place = (np.clip(np.asarray(normalised, dtype=np.float64), -1.0, 1.0) + 1.0) * (ACTION_BINS - 1) / 2.0
        moved: F64 = np.where(self.varies, (place - self._zero) * self._step, 0.0)
        return self._offset + moved

    def to_json(self) -> str:
        """The tokenizer file."""
        dims = [
            {"name": name, "offset": offset, "step": step, "zero_bin": zero}
            for name, offset, step, zero in zip(
                self.names, self._offset.tolist(), self._step.tolist(), self._zero.tolist(), strict=True
            )
        ]
        return json.dumps({"kind": self.kind, "bins": self.count, "dims": dims}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a tokenizer file of this kind; raises PolicyError saying what is wrong with it."""
        try:
            data = json.loads(text)
            if data["kind"] != cls.kind or data["bins"] != cls.count:
                raise PolicyError(
                    f"tokenizer of kind {data['kind']!r} with {data['bins']} bins; known: {cls.kind} with {cls.count}"
                )
            return cls._from_rows(data["dims"])
        except (ValueError, KeyError, TypeError) as error:
            raise PolicyError(f"not an action tokenizer file: {error!r}") from error

    @classmethod
    def _from_rows(cls, dims: list[dict[str, Any]]) -> Self:
        return cls(
            [str(dim["name"]) for dim in dims],
            np.array([dim["offset"] for dim in dims], dtype=np.float64),
            np.array([dim["step"] for dim in dims], dtype=np.float64),
            np.array([dim["zero_bin"] for dim in dims], dtype=np.int64),
        )


def _grid(lower: float, upper: float, resolution: float) -> tuple[float, float, int]:
    """(offset, step, zero bin) of one dimension."""
    has_zero = lower <= 0.0 <= upper
    if upper - lower < resolution:
        return (0.0 if has_zero else (lower + upper) / 2.0), 0.0, 0
    last = ACTION_BINS - 1
    if not has_zero:
        return lower, (upper - lower) / last, 0
    zero = min(max(round(-lower / (upper - lower) * last), int(lower < 0)), last - int(upper > 0))
    steps = [-lower / zero] if zero else []
    steps += [upper / (last - zero)] if zero < last else []
    return 0.0, max(steps), zero


def _require_finite(values: F64, names: Sequence[str]) -> None:
    rows = values.reshape(-1, len(names))
    named = ", ".join(name for index, name in enumerate(names) if not np.isfinite(rows[:, index]).all())
    if named:
        raise PolicyError(f"values of {named} are not finite and cannot become tokens")
