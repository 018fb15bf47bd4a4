"""Stack: put the named cube on another named cube and let go."""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np

from reflexarc.sim.scenes import BLOCK_HALF, Shape, scatter
from reflexarc.sim.tasks.base import BASE_COLORS, F64, Goal, another
from reflexarc.sim.tasks.blocks import BlockTask

MAX_OFFSET = 0.025
"""Between the centres of the two cubes, on the table's plane, m."""


class Stack(BlockTask):
    """Four cubes; the named one resting on the named other one, the hand off it."""

    name = "stack"
    time_limit_s = 15.0
    shapes: tuple[Shape, ...] = ("cube", "cube", "cube", "cube")
    templates_train = (
        "stack the {color} cube on the {base} cube",
        "put the {color} cube on the {base} cube",
        "place the {color} block on top of the {base} block",
        "stack the {color} block on the {base} block",
        "pick up the {color} cube and put it on the {base} cube",
        "set the {color} cube on top of the {base} cube",
    )
    templates_held_out = (
        "put the {color} block on top of the {base} block",
        "place the {color} cube on the {base} cube",
    )
    values: ClassVar[dict[str, tuple[str, ...]]] = {"color": BASE_COLORS, "base": BASE_COLORS}

    def arrange(self, data: mujoco.MjData, rng: np.random.Generator) -> Goal:
        """Scatter the cubes and ask for two."""
        self.stand(data, rng, scatter(rng, len(self.shapes), (0.37, -0.18), (0.63, 0.18), 0.12))
        target = int(rng.integers(len(self.shapes)))
        return self.onto(target, another(rng, len(self.shapes), target))

    def onto(self, target: int, destination: int) -> Goal:
        """The goal that names this cube and the one below it."""
        return Goal(target, destination, {"color": self.colors[target], "base": self.colors[destination]})

    def stacked(self, data: mujoco.MjData, target: int, destination: int) -> bool:
        """Whether one cube lies on the other."""
        offset = self.position(data, target) - self.position(data, destination)
        level = abs(offset[2] - 2 * BLOCK_HALF) < 0.4 * BLOCK_HALF
        return bool(level and np.linalg.norm(offset[:2]) < MAX_OFFSET)

    def satisfied(self, data: mujoco.MjData, goal: Goal) -> bool:
        """The cubes are stacked and the arm does not touch the upper one."""
        return self.stacked(data, goal.target, goal.destination) and self.free(data, goal.target)

    def focus(self, data: mujoco.MjData, goal: Goal) -> F64:
        """The cube, and the place on top of the other one."""
        top = self.position(data, goal.destination) + (0.0, 0.0, 2 * BLOCK_HALF)
        return np.stack([self.position(data, goal.target), top])

    def other(self, goal: Goal, rng: np.random.Generator) -> Goal:
        """Another cube, on one that is not the asked-for base if it was that one."""
        target = another(rng, len(self.shapes), goal.target)
        base = goal.destination if goal.destination != target else goal.target
        return self.onto(target, base)
