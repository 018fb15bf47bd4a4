"""Expert for `lift`: take the named block from above and raise it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reflexarc.sim.experts.base import CLOSED, Situation, Wish
from reflexarc.sim.experts.grasp import CARRY_SPEED
from reflexarc.sim.experts.hold import HoldingExpert
from reflexarc.sim.scenes import BLOCK_HALF
from reflexarc.sim.tasks.base import F64
from reflexarc.sim.tasks.lift import RAISED, Lift

if TYPE_CHECKING:
    from reflexarc.sim.world import World

TOP = BLOCK_HALF + RAISED + 0.04
"""Height of the raised block, m."""


class LiftExpert(HoldingExpert):
    """Knows `lift`."""

    width = 2 * BLOCK_HALF

    def __init__(self, world: World) -> None:
        """Look into a world whose task is `lift`."""
        super().__init__(world)
        assert isinstance(world.task, Lift)
        self.task = world.task

    def look(self, tcp: F64, hand: F64, opening: float) -> Situation:
        """The block."""
        block = self.task.position(self.world.data, self.world.goal.target)
        gripped = self.task.gripped(self.world.data, self.world.goal.target)
        return Situation(tcp, hand, opening, block, block, gripped)

    def wish(self, now: Situation) -> Wish:
        """Raise it if it is held, else take it."""
        if self.grasp.holds(now):
            return Wish(now.tcp + (0.0, 0.0, TOP - now.thing[2]), CLOSED, CARRY_SPEED)
        return super().wish(now)
