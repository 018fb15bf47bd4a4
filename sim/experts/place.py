"""Expert for `place`: take the named block, let it go low over the middle of the named bin, withdraw upwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reflexarc.sim.experts.base import CLOSED, OPEN, Situation, Wish
from reflexarc.sim.experts.grasp import CARRY_SPEED, LET_GO, carry
from reflexarc.sim.experts.hold import HoldingExpert
from reflexarc.sim.scenes import BIN_HALF_WIDTH, BLOCK_HALF
from reflexarc.sim.tasks.base import F64
from reflexarc.sim.tasks.place import Place

if TYPE_CHECKING:
    from reflexarc.sim.world import World

DROP_HEIGHT = 0.045
"""Of the block's centre when it is let go, m."""

NEAR = 0.015
WITHDRAW_HEIGHT = 0.16


class PlaceExpert(HoldingExpert):
    """Knows `place`."""

    width = 2 * BLOCK_HALF

    def __init__(self, world: World) -> None:
        """Look into a world whose task is `place`."""
        super().__init__(world)
        assert isinstance(world.task, Place)
        self.task = world.task

    def look(self, tcp: F64, hand: F64, opening: float) -> Situation:
        """The block and where to let it go."""
        block, place = self.task.focus(self.world.data, self.world.goal)
        gripped = self.task.gripped(self.world.data, self.world.goal.target)
        return Situation(tcp, hand, opening, block, place + (0.0, 0.0, DROP_HEIGHT), gripped)

    def wish(self, now: Situation) -> Wish:
        """Take it, carry it, let go, withdraw: whichever is next."""
        offset = np.abs(now.thing - now.place)
        over = bool(np.linalg.norm(offset[:2]) < NEAR and now.thing[2] < now.place[2] + 0.008)
        rests = bool(offset[:2].max() < BIN_HALF_WIDTH - 0.8 * BLOCK_HALF and now.thing[2] < 0.035)
        if over or rests:
            return release(now, self.grasp.around(now))
        if self.grasp.holds(now):
            return Wish(carry(now, now.place, hover=0.06), CLOSED, CARRY_SPEED)
        return super().wish(now)


def release(now: Situation, around: bool) -> Wish:
    """Open the fingers where they are; once they are open, withdraw straight up."""
    if around and now.opening < LET_GO:
        return Wish(now.tcp, OPEN)
    return Wish(np.array([now.tcp[0], now.tcp[1], WITHDRAW_HEIGHT]), OPEN)
