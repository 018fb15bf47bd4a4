"""Drawer: pull open the drawer with the named handle."""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np

from reflexarc.sim.scenes import DRAWER_HANDLE_HEIGHT, add_cabinet, paint
from reflexarc.sim.tasks.base import BASE_COLORS, F64, Goal, Hand, Task, another, shuffled

DRAWERS = 5
OPEN = 0.08
"""A drawer pulled out by this much counts as open, m."""

FULL = 0.10
"""How far the expert pulls, m."""


class Drawer(Task):
    """A cabinet of five drawers; the one with the named handle pulled out by 8 cm."""

    name = "drawer"
    time_limit_s = 12.0
    templates_train = (
        "open the drawer with the {color} handle",
        "pull the {color} handle",
        "open the {color} drawer",
        "pull open the drawer with the {color} handle",
        "pull the {color} drawer open",
        "grab the {color} handle and pull",
    )
    templates_held_out = ("pull open the {color} drawer", "grab and pull the {color} handle")
    values: ClassVar[dict[str, tuple[str, ...]]] = {"color": BASE_COLORS}

    def build(self, spec: mujoco.MjSpec) -> None:
        """Add the cabinet."""
        add_cabinet(spec, "cabinet", DRAWERS)

    def bind(self, model: mujoco.MjModel, hand: Hand) -> None:
        """Resolve joints, handles and the cabinet."""
        super().bind(model, hand)
        names = [f"cabinet/{index}" for index in range(DRAWERS)]
        self.travel = [int(model.jnt_qposadr[model.joint(name).id]) for name in names]
        self.bodies = [model.body(name).id for name in names]
        self.handles = [model.geom(f"{name}/handle").id for name in names]
        self.cabinet = int(model.body_mocapid[model.body("cabinet").id])
        self.colors: list[str] = []

    def arrange(self, data: mujoco.MjData, rng: np.random.Generator) -> Goal:
        """Put the cabinet about where it belongs and ask for one drawer."""
        data.mocap_pos[self.cabinet] = (rng.uniform(0.55, 0.60), rng.uniform(-0.03, 0.03), 0.0)
        self.colors = shuffled(rng, BASE_COLORS, DRAWERS)
        for handle, color in zip(self.handles, self.colors, strict=True):
            paint(self.model, [handle], color)
        return self.naming(int(rng.integers(DRAWERS)))

    def naming(self, target: int) -> Goal:
        """The goal that names this drawer."""
        return Goal(target, -1, {"color": self.colors[target]})

    def opening(self, data: mujoco.MjData, index: int) -> float:
        """How far a drawer is pulled out, m."""
        return float(data.qpos[self.travel[index]])

    def gripped(self, data: mujoco.MjData, index: int) -> bool:
        """Whether the fingers touch a handle from two sides."""
        return self.hand.grips(data, self.handles[index])

    def handle(self, data: mujoco.MjData, index: int) -> F64:
        """(3,) m: where a handle is taken."""
        return np.array(data.xpos[self.bodies[index]]) + (0.0, 0.0, DRAWER_HANDLE_HEIGHT)

    def satisfied(self, data: mujoco.MjData, goal: Goal) -> bool:
        """The named drawer is open."""
        return self.opening(data, goal.target) > OPEN

    def focus(self, data: mujoco.MjData, goal: Goal) -> F64:
        """The handle, and where it is when the drawer is open."""
        handle = self.handle(data, goal.target)
        remaining = FULL - self.opening(data, goal.target)
        return np.stack([handle, handle - (remaining, 0.0, 0.0)])

    def other(self, goal: Goal, rng: np.random.Generator) -> Goal:
        """Another drawer."""
        return self.naming(another(rng, DRAWERS, goal.target))
