"""Expert for `stack`: take the named cube, set it on the other one, let go, withdraw upwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reflexarc.sim.experts.base import CLOSED, Situation, Wish
from reflexarc.sim.experts.grasp import CARRY_SPEED, carry
from reflexarc.sim.experts.hold import HoldingExpert
from reflexarc.sim.experts.place import release
from reflexarc.sim.scenes import BLOCK_HALF
from reflexarc.sim.tasks.base import F64
from reflexarc.sim.tasks.stack import Stack

if TYPE_CHECKING:
    from reflexarc.sim.world import World

GAP = 0.003
"""Between the cubes when the upper one is let go, m."""


class StackExpert(HoldingExpert):
    """Knows `stack`."""

    width = 2 * BLOCK_HALF

    def __init__(self, world: World) -> None:
        """Look into a world whose task is `stack`."""
        super().__init__(world)
        assert isinstance(world.task, Stack)
        self.task = world.task

    def look(self, tcp: F64, hand: F64, opening: float) -> Situation:
        """The cube and where its centre should be when it is let go."""
        cube, top = self.task.focus(self.world.data, self.world.goal)
        gripped = self.task.gripped(self.world.data, self.world.goal.target)
        return Situation(tcp, hand, opening, cube, top + (0.0, 0.0, GAP), gripped)

    def wish(self, now: Situation) -> Wish:
        """Take it, carry it, let go, withdraw: whichever is next."""
        offset = now.thing - now.place
        lateral = float(np.linalg.norm(offset[:2]))
        if self.grasp.holds(now):
            if lateral < 0.006 and abs(offset[2]) < 0.005:
                return release(now, True)
            return Wish(carry(now, now.place, hover=0.06), CLOSED, CARRY_SPEED)
        if lateral < 0.018 and abs(offset[2]) < 0.008:
            return release(now, self.grasp.around(now))
        return super().wish(now)
