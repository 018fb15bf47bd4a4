"""Lift: pick up the named block and hold it in the air."""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np

from reflexarc.sim.scenes import BLOCK_HALF, scatter
from reflexarc.sim.tasks.base import BASE_COLORS, F64, Goal
from reflexarc.sim.tasks.blocks import BlockTask

RAISED = 0.08
"""The block's centre must be this far above where it rests on the table, m."""


class Lift(BlockTask):
    """Five blocks; the named one raised by more than 8 cm."""

    name = "lift"
    time_limit_s = 10.0
    templates_train = (
        "lift the {color} block",
        "pick up the {color} block",
        "raise the {color} block",
        "grab the {color} {shape} and lift it",
        "take the {color} block off the table",
        "pick the {color} {shape} up",
    )
    templates_held_out = ("grab the {color} block", "lift up the {color} {shape}")
    values: ClassVar[dict[str, tuple[str, ...]]] = {"color": BASE_COLORS, "shape": ("cube", "cylinder")}

    def arrange(self, data: mujoco.MjData, rng: np.random.Generator) -> Goal:
        """Scatter the blocks and ask for one."""
        self.stand(data, rng, scatter(rng, len(self.shapes), (0.35, -0.21), (0.65, 0.21), 0.10))
        return self.naming(int(rng.integers(len(self.shapes))))

    def satisfied(self, data: mujoco.MjData, goal: Goal) -> bool:
        """The block is high enough."""
        return bool(data.xpos[self.bodies[goal.target], 2] > BLOCK_HALF + RAISED)

    def focus(self, data: mujoco.MjData, goal: Goal) -> F64:
        """The block, twice."""
        return np.stack([self.position(data, goal.target)] * 2)
