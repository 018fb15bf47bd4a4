"""Expert for `push`: go down beside the named block, gripper closed, and push it past the line."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from reflexarc.sim.experts.base import CLOSED, Expert, Situation, Wish, approach
from reflexarc.sim.scenes import BLOCK_HALF
from reflexarc.sim.tasks.base import F64
from reflexarc.sim.tasks.push import Push

if TYPE_CHECKING:
    from reflexarc.sim.world import World

BESIDE = 0.055
"""Distance from the block's centre at which the fingers come down, m."""

HEIGHT = 0.018
LOW = 0.006
"""Height of the TCP when it pushes, and by how much it may be above that, m."""

PUSH_SPEED = 0.18
HOVER = 0.07


class PushExpert(Expert):
    """Knows `push`."""

    def __init__(self, world: World) -> None:
        """Look into a world whose task is `push`."""
        super().__init__(world)
        assert isinstance(world.task, Push)
        self.task = world.task

    def look(self, tcp: F64, hand: F64, opening: float) -> Situation:
        """The block and the place past the line."""
        block, place = self.task.focus(self.world.data, self.world.goal)
        return Situation(tcp, hand, opening, block, place)

    def wish(self, now: Situation) -> Wish:
        """Push from beside the block; else get there, from above."""
        sign = float(np.sign(now.place[1]))
        offset = now.tcp - now.thing
        behind = -sign * offset[1]
        if sign * (now.place[1] - now.thing[1]) < 0.003 and now.tcp[2] < 0.06:
            return Wish(now.tcp, CLOSED)
        low = now.tcp[2] < HEIGHT + LOW
        if low and abs(offset[0]) < 0.012 and BLOCK_HALF < behind < BESIDE + 0.03:
            way = now.place[1] - now.thing[1]
            # The height is left as it is: fingers that slide down a block's side while they push it jam.
            return Wish(np.array([now.thing[0], now.tcp[1] + way, now.tcp[2]]), CLOSED, PUSH_SPEED)
        beside = np.array([now.thing[0], now.thing[1] - sign * BESIDE, HEIGHT])
        return Wish(approach(now.tcp, beside, hover=HOVER), CLOSED)

    def advance(self, now: Situation, move: F64, gripper: float) -> Situation:
        """The block moves along once the fingers touch it."""
        later = super().advance(now, move, gripper)
        sign = float(np.sign(now.place[1]))
        contact = later.tcp[1] + sign * (BLOCK_HALF + self.world.hand.closed_half_width)
        thing = now.thing.copy()
        pushing = later.tcp[2] < 0.04 and abs(later.tcp[0] - thing[0]) < 0.025
        behind = sign * (later.tcp[1] - thing[1]) < 0
        if pushing and behind and sign * (contact - thing[1]) > 0:
            thing[1] = contact
        return dataclasses.replace(later, thing=thing)
