"""Push: slide the named block along the table, past the line on its left or on its right.

Left is the arm's own left (+y). The lines are painted on the table, so that where to stop can be seen at any moment.
"""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np

from reflexarc.sim.scenes import BLOCK_HALF, add_zone
from reflexarc.sim.tasks.base import BASE_COLORS, F64, Goal, another
from reflexarc.sim.tasks.blocks import BlockTask

LINE = 0.15
"""The lines are at y = ±LINE, m; a block's centre must be past one."""

START = 0.06
"""Blocks begin within |y| of this, m: at least 9 cm from either line."""

BEYOND = 0.025
"""The expert pushes a block this far past the line, m."""

STRIP_RGBA = (0.60, 0.66, 0.72, 1.0)
SIDES = ("left", "right")


class Push(BlockTask):
    """Five blocks in five rows; the named one pushed to the asked-for side, flat on the table."""

    name = "push"
    time_limit_s = 12.0
    templates_train = (
        "push the {color} block to the {side}",
        "slide the {color} block to the {side}",
        "move the {color} {shape} to the {side}",
        "push the {color} block {side}",
        "shove the {color} {shape} to the {side} side",
        "push the {color} block over the {side} line",
    )
    templates_held_out = ("slide the {color} {shape} {side}", "move the {color} block over the {side} line")
    values: ClassVar[dict[str, tuple[str, ...]]] = {
        "color": BASE_COLORS,
        "shape": ("cube", "cylinder"),
        "side": SIDES,
    }

    def build(self, spec: mujoco.MjSpec) -> None:
        """Add the blocks and the painted strips."""
        super().build(spec)
        half = 0.08
        for side, sign in zip(SIDES, (1.0, -1.0), strict=True):
            add_zone(spec, f"zone_{side}", (0.5, sign * (LINE + half)), (0.22, half), STRIP_RGBA)

    def arrange(self, data: mujoco.MjData, rng: np.random.Generator) -> Goal:
        """One block in each of five rows along x, so that every way to the sides is free."""
        rows = np.linspace(0.33, 0.67, len(self.shapes))[rng.permutation(len(self.shapes))]
        x = rows + rng.uniform(-0.004, 0.004, len(rows))
        y = rng.uniform(-START, START, len(rows))
        self.stand(data, rng, np.column_stack([x, y]))
        return self.toward(int(rng.integers(len(self.shapes))), int(rng.integers(2)))

    def toward(self, target: int, side: int) -> Goal:
        """The goal that names this block and this side (0 left, 1 right)."""
        goal = self.naming(target)
        return Goal(target, side, {**goal.words, "side": SIDES[side]})

    @staticmethod
    def sign(goal: Goal) -> float:
        """+1 to the left, -1 to the right."""
        return 1.0 if goal.destination == 0 else -1.0

    def satisfied(self, data: mujoco.MjData, goal: Goal) -> bool:
        """The block is past the line and on the table."""
        _, y, z = data.xpos[self.bodies[goal.target]]
        return bool(self.sign(goal) * y > LINE and z < 1.5 * BLOCK_HALF)

    def focus(self, data: mujoco.MjData, goal: Goal) -> F64:
        """The block, and the place past the line straight beside it."""
        block = self.position(data, goal.target)
        return np.stack([block, [block[0], self.sign(goal) * (LINE + BEYOND), block[2]]])

    def other(self, goal: Goal, rng: np.random.Generator) -> Goal:
        """Another block, the same side."""
        return self.toward(another(rng, len(self.shapes), goal.target), goal.destination)
