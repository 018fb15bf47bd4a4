"""The one action space, spelled out: what each number of an action means.

Sources of the convention: 7 end-effector deltas as in RT-1/RT-2 and OpenVLA (Kim et al. 2024), with a rotation
vector in the base frame and the gripper as an absolute opening (0 closed, 1 open).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from reflexarc.configs.base import Config

Alignment = Literal["at_observation", "on_arrival"]


class ActionDim(Config):
    """One dimension: unit, frame, delta or absolute, and its hard bounds per policy step."""

    name: str
    unit: Literal["m", "rad", "opening"]
    frame: Literal["base", "joint", "gripper"]
    delta: bool
    lower: float
    upper: float

    @model_validator(mode="after")
    def _ordered(self) -> ActionDim:
        if not self.lower < self.upper:
            raise ValueError(f"dimension {self.name}: lower {self.lower} must be below upper {self.upper}")
        return self


class ActionSpec(Config):
    """A policy's action space.

    step_s: duration of one action, s. horizon: actions in a chunk (H). alignment: whether a chunk starts at the
    capture time of its observation, or on arrival (default where H = 1).
    """

    id: str
    dims: tuple[ActionDim, ...] = Field(min_length=2)
    step_s: float = Field(gt=0.0, le=2.0)
    horizon: int = Field(ge=1, le=128)
    alignment: Alignment = "at_observation"

    @property
    def size(self) -> int:
        """Number of dimensions D."""
        return len(self.dims)

    @property
    def step_ns(self) -> int:
        """Duration of one action in nanoseconds."""
        return round(self.step_s * 1e9)


def tcp_delta_spec(horizon: int, step_s: float, alignment: Alignment = "at_observation") -> ActionSpec:
    """The canonical `(H, 7)` space `[dx dy dz drx dry drz gripper]`, deltas in the base frame."""
    delta = [("dx", "m", 0.1), ("dy", "m", 0.1), ("dz", "m", 0.1)]
    rotation = [("drx", "rad", 0.5), ("dry", "rad", 0.5), ("drz", "rad", 0.5)]
    dims = [
        ActionDim.model_validate(
            {"name": n, "unit": u, "frame": "base", "delta": True, "lower": -b, "upper": b}
        )
        for n, u, b in delta + rotation
    ]
    dims.append(ActionDim(name="gripper", unit="opening", frame="gripper", delta=False, lower=0.0, upper=1.0))
    return ActionSpec(
        id=f"tcp-delta-7/h{horizon}/{round(step_s * 1000)}ms",
        dims=tuple(dims),
        step_s=step_s,
        horizon=horizon,
        alignment=alignment,
    )
