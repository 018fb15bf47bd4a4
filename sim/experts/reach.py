"""Expert for `reach`: go to the point above the named block and stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reflexarc.sim.experts.base import OPEN, Expert, Situation, Wish, approach
from reflexarc.sim.tasks.base import F64
from reflexarc.sim.tasks.reach import Reach

if TYPE_CHECKING:
    from reflexarc.sim.world import World


class ReachExpert(Expert):
    """Knows `reach`."""

    def __init__(self, world: World) -> None:
        """Look into a world whose task is `reach`."""
        super().__init__(world)
        assert isinstance(world.task, Reach)
        self.task = world.task

    def look(self, tcp: F64, hand: F64, opening: float) -> Situation:
        """The block and the point above it."""
        block, point = self.task.focus(self.world.data, self.world.goal)
        return Situation(tcp, hand, opening, block, point)

    def wish(self, now: Situation) -> Wish:
        """Go there, gripper open."""
        return Wish(approach(now.tcp, now.place, hover=0.03, radius=0.02), OPEN)
