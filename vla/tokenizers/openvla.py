"""OpenVLA's bins, for tokens that are to mean the same as its: a compatibility mode of the grid.

256 *edges* evenly over the range make 255 bins, and a token stands for the middle of its bin (OpenVLA's
action_tokenizer.py: `np.linspace`, `np.digitize`, the mean of neighbouring edges). So neither the bounds nor zero are
values, the outermost values come back half a bin inside, and the last of our 256 ids is never said. The arithmetic of
the middles and of their way back to the units (`_unnormalize_actions`) is theirs, step by step, to the last bit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.policy import ACTION_BINS
from reflexarc.vla.tokenizers.uniform import UniformTokenizer
from reflexarc.wire.messages import F64


class OpenVlaTokenizer(UniformTokenizer):
    """lower, upper: (D,) the range; a dimension whose bounds are equal is constant. edges: `n_action_bins`.

    middles: (255,) of the bins in -1..1.
    """

    kind = "openvla"
    count = ACTION_BINS - 1

    def __init__(self, names: Sequence[str], lower: F64, upper: F64, edges: int = ACTION_BINS) -> None:
        self.count = edges - 1
        lower, upper = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
        step = (upper - lower) / self.count
        super().__init__(names, lower, step, np.zeros(len(lower), dtype=np.int64))
        self._lower, self._upper = lower, upper
        self._edges = np.linspace(-1, 1, edges)
        self.middles: F64 = (self._edges[:-1] + self._edges[1:]) / 2

    @classmethod
    def from_bounds(cls, names: Sequence[str], lower: F64, upper: F64, resolution: F64) -> Self:
        """As of the grid: a range below `resolution` is constant at its middle."""
        lower, upper = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
        still, middle = upper - lower < resolution, (lower + upper) / 2
        return cls(names, np.where(still, middle, lower), np.where(still, middle, upper))

    @property
    def centers(self) -> F64:
        """(D, 256) the value of each bin; the last id stands for the last bin too."""
        middles = np.append(self.middles, self.middles[-1])[:, None]
        return (0.5 * (middles + 1) * (self._upper - self._lower) + self._lower).T

    def encode(self, values: F64) -> NDArray[np.int64]:
        """(..., D) values to bins 0..254."""
        super().encode(values)  # refuses wrong shapes and what is not finite
        bins = np.digitize(self.normalise(values), self._edges) - 1
        return np.where(self.varies, np.clip(bins, 0, self.count - 1), 0)

    def decode(self, bins: NDArray[np.integer]) -> F64:
        """(..., D) bins to the middle of each."""
        super().decode(bins)  # refuses wrong shapes and bins
        return np.asarray(self.centers[np.arange(self.size), bins])

    def to_json(self) -> str:
        """The tokenizer file."""
        dims = [
            {"name": name, "lower": lower, "upper": upper}
            for name, lower, upper in zip(self.names, self._lower.tolist(), self._upper.tolist(), strict=True)
        ]
        return json.dumps({"kind": self.kind, "bins": self.count, "dims": dims}, indent=1)

    @classmethod
    def _from_rows(cls, dims: list[dict[str, Any]]) -> Self:
        lower, upper = (
            np.array([dim[name] for dim in dims], dtype=np.float64) for name in ("lower", "upper")
        )
        return cls([str(dim["name"]) for dim in dims], lower, upper)
