"""Reach: hold the tip of the gripper just above the named block."""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np

from reflexarc.sim.scenes import scatter
from reflexarc.sim.tasks.base import BASE_COLORS, F64, Goal
from reflexarc.sim.tasks.blocks import BlockTask

HOVER = 0.06
"""The point asked for is this far above the block's centre, m."""

TOLERANCE = 0.025


class Reach(BlockTask):
    """Five blocks; the TCP within 2.5 cm of the point 6 cm above the named one."""

    name = "reach"
    time_limit_s = 6.0
    templates_train = (
        "reach the {color} block",
        "move to the {color} block",
        "hover over the {color} block",
        "move the gripper above the {color} {shape}",
        "go to the {color} block and stop above it",
        "point at the {color} {shape}",
    )
    templates_held_out = ("move above the {color} block", "stop over the {color} {shape}")
    values: ClassVar[dict[str, tuple[str, ...]]] = {"color": BASE_COLORS, "shape": ("cube", "cylinder")}

    def arrange(self, data: mujoco.MjData, rng: np.random.Generator) -> Goal:
        """Scatter the blocks and ask for one."""
        self.stand(data, rng, scatter(rng, len(self.shapes), (0.34, -0.22), (0.66, 0.22), 0.10))
        return self.naming(int(rng.integers(len(self.shapes))))

    def point(self, data: mujoco.MjData, goal: Goal) -> F64:
        """(3,) m: where the TCP should be."""
        return self.position(data, goal.target) + (0.0, 0.0, HOVER)

    def satisfied(self, data: mujoco.MjData, goal: Goal) -> bool:
        """The TCP is near the point."""
        offset = self.hand.position(data) - self.point(data, goal)
        return bool(np.linalg.norm(offset) < TOLERANCE)

    def focus(self, data: mujoco.MjData, goal: Goal) -> F64:
        """The block, and the point above it."""
        return np.stack([self.position(data, goal.target), self.point(data, goal)])
