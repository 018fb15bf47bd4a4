"""What a model must know of its training data besides the action grid: how to normalise, and where things were."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from reflexarc.configs.errors import PolicyError
from reflexarc.configs.policy import ProprioFeature
from reflexarc.vla.tokenizers.uniform import UniformTokenizer
from reflexarc.wire.messages import F64

FEATURE_NAMES: dict[ProprioFeature, tuple[str, ...]] = {
    "position": ("x", "y", "z"),
    "position_commanded": ("x_commanded", "y_commanded", "z_commanded"),
    "rotation": ("r00", "r10", "r20", "r01", "r11", "r21"),
    "gripper": ("gripper",),
    "gripper_commanded": ("gripper_commanded",),
    "wrench": ("fx", "fy", "fz", "tx", "ty", "tz"),
}
"""The numbers of each feature, in order."""

FOCUS_NAMES = tuple(f"{point}_{axis}" for point in ("thing", "destination") for axis in "xyz")
FOCUS_MARGIN = 0.01
"""m beyond the places seen in training that can still be said."""

_LEAST_SPREAD = {"f": 0.2, "t": 0.02, "r": 0.02}
_LEAST_SPREAD_OTHERS = 0.005
"""A feature that hardly varied is divided by this instead (N, N·m, 1; m, opening): noise must not become large."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Stats:
    """names, mean, std: (P,) of the proprioceptive features. focus: the bins of the six focus coordinates, or None."""

    names: tuple[str, ...]
    mean: F64
    std: F64
    focus: UniformTokenizer | None

    @classmethod
    def fit(cls, features: tuple[ProprioFeature, ...], proprio: F64, focus: F64 | None) -> Stats:
        """From raw features (N, P) and focus points (N, 2, 3) m with NaN where unknown; None to go without."""
        names = feature_names(features)
        least = [_LEAST_SPREAD.get(name[0], _LEAST_SPREAD_OTHERS) for name in names]
        mean = proprio.mean(axis=0, dtype=np.float64)
        std = np.maximum(proprio.std(axis=0, dtype=np.float64), least)
        return cls(names, mean, std, _focus_bins(focus) if focus is not None else None)

    def normalise(self, proprio: F64) -> F64:
        """Raw (B, P) to zero mean and unit spread, clipped to ±8."""
        return np.clip((proprio - self.mean) / self.std, -8.0, 8.0)

    def to_json(self) -> str:
        """The statistics file."""
        proprio = [
            {"name": name, "mean": mean, "std": std}
            for name, mean, std in zip(self.names, self.mean.tolist(), self.std.tolist(), strict=True)
        ]
        focus = None if self.focus is None else json.loads(self.focus.to_json())
        return json.dumps({"proprio": proprio, "focus": focus}, indent=1)

    @classmethod
    def from_json(cls, text: str, features: tuple[ProprioFeature, ...]) -> Stats:
        """Read a statistics file; raises PolicyError if it is not one, or not of these features."""
        try:
            data = json.loads(text)
            rows = data["proprio"]
            names = tuple(str(row["name"]) for row in rows)
            mean = np.array([row["mean"] for row in rows], dtype=np.float64)
            std = np.array([row["std"] for row in rows], dtype=np.float64)
            grid = data["focus"]
            focus = None if grid is None else UniformTokenizer.from_json(json.dumps(grid))
        except (ValueError, KeyError, TypeError) as error:
            raise PolicyError(f"not a statistics file: {error!r}") from error
        if names != feature_names(features):
            raise PolicyError(
                f"statistics of {', '.join(names)}; the model feels {', '.join(feature_names(features))}"
            )
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise PolicyError("statistics must be finite, with a positive std")
        return cls(names, mean, std, focus)


def feature_names(features: tuple[ProprioFeature, ...]) -> tuple[str, ...]:
    """The names of all numbers of these features, in order."""
    return tuple(name for feature in features for name in FEATURE_NAMES[feature])


def _focus_bins(focus: F64) -> UniformTokenizer | None:
    flat = focus.reshape(len(focus), -1)
    known = flat[np.isfinite(flat).all(axis=1)]
    if not len(known):
        return None
    lower, upper = known.min(axis=0) - FOCUS_MARGIN, known.max(axis=0) + FOCUS_MARGIN
    return UniformTokenizer.from_bounds(FOCUS_NAMES, lower, upper, np.zeros(len(FOCUS_NAMES)))
