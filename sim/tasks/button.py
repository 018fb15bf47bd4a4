"""Button: press the named button and keep it pressed."""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np

from reflexarc.sim.scenes import BUTTON_THRESHOLD, add_button, paint, scatter
from reflexarc.sim.scenes.buttons import CAP_TOP
from reflexarc.sim.tasks.base import BASE_COLORS, F64, Goal, Hand, Task, another, shuffled

BUTTONS = 5


class Button(Task):
    """Five springy buttons; the named one pushed in past its threshold."""

    name = "button"
    time_limit_s = 8.0
    templates_train = (
        "press the {color} button",
        "push the {color} button",
        "push down the {color} button",
        "press down on the {color} button",
        "hold the {color} button down",
        "hit the {color} button",
    )
    templates_held_out = ("press the {color} button down", "push down on the {color} button")
    values: ClassVar[dict[str, tuple[str, ...]]] = {"color": BASE_COLORS}

    def build(self, spec: mujoco.MjSpec) -> None:
        """Add the buttons."""
        for index in range(BUTTONS):
            add_button(spec, f"button{index}")

    def bind(self, model: mujoco.MjModel, hand: Hand) -> None:
        """Resolve joints, caps and housings."""
        super().bind(model, hand)
        names = [f"button{index}" for index in range(BUTTONS)]
        self.travel = [int(model.jnt_qposadr[model.joint(name).id]) for name in names]
        self.caps = [model.geom(f"{name}/cap").id for name in names]
        self.housings = [int(model.body_mocapid[model.body(name).id]) for name in names]
        self.colors: list[str] = []

    def arrange(self, data: mujoco.MjData, rng: np.random.Generator) -> Goal:
        """Scatter the buttons and ask for one."""
        points = scatter(rng, BUTTONS, (0.36, -0.21), (0.64, 0.21), 0.115)
        for housing, (x, y) in zip(self.housings, points, strict=True):
            data.mocap_pos[housing] = (x, y, 0.0)
        self.colors = shuffled(rng, BASE_COLORS, BUTTONS)
        for cap, color in zip(self.caps, self.colors, strict=True):
            paint(self.model, [cap], color)
        return self.naming(int(rng.integers(BUTTONS)))

    def naming(self, target: int) -> Goal:
        """The goal that names this button."""
        return Goal(target, -1, {"color": self.colors[target]})

    def depth(self, data: mujoco.MjData, index: int) -> float:
        """How far a cap is pushed in, m."""
        return float(data.qpos[self.travel[index]])

    def top(self, data: mujoco.MjData, index: int) -> F64:
        """(3,) m: the middle of a cap's top at rest."""
        return np.array(data.mocap_pos[self.housings[index]]) + (0.0, 0.0, CAP_TOP)

    def satisfied(self, data: mujoco.MjData, goal: Goal) -> bool:
        """The named button, and no other, is pressed."""
        pressed = [self.depth(data, index) > BUTTON_THRESHOLD for index in range(BUTTONS)]
        return pressed[goal.target] and sum(pressed) == 1

    def focus(self, data: mujoco.MjData, goal: Goal) -> F64:
        """The cap, twice."""
        return np.stack([self.top(data, goal.target)] * 2)

    def other(self, goal: Goal, rng: np.random.Generator) -> Goal:
        """Another button."""
        return self.naming(another(rng, BUTTONS, goal.target))
