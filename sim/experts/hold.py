"""The base of experts that take hold of something and move it: the thing then moves with the hand."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from reflexarc.sim.experts.base import Expert, Situation, Wish
from reflexarc.sim.experts.grasp import Grasp
from reflexarc.sim.tasks.base import F64

if TYPE_CHECKING:
    from reflexarc.sim.world import World


class HoldingExpert(Expert):
    """Takes hold of a thing `width` m wide."""

    width: float

    def __init__(self, world: World) -> None:
        """Set up the grasp for the world's gripper."""
        super().__init__(world)
        self.grasp = Grasp(self.width / world.robot.gripper.max_width)

    def advance(self, now: Situation, move: F64, gripper: float) -> Situation:
        """A held thing moves along; the fingers stop at a thing between them."""
        held = self.grasp.holds(now)
        lowest = self.grasp.opening if self.grasp.around(now) else 0.0
        return dataclasses.replace(
            now,
            gripped=now.gripped and gripper < now.opening,
            tcp=now.tcp + move,
            hand=now.tcp + move,
            opening=self.next_opening(
                now.opening, gripper, now.opening if now.gripped else min(lowest, now.opening)
            ),
            thing=now.thing + move if held else now.thing,
        )

    def wish(self, now: Situation) -> Wish:
        """Take hold."""
        return self.grasp.pick(now)
