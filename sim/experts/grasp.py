"""Grasping from above, shared by all experts that hold something: approach, close, notice a miss, try again."""

from __future__ import annotations

import dataclasses

import numpy as np

from reflexarc.sim.experts.base import CLOSED, OPEN, Situation, Wish, approach
from reflexarc.sim.tasks.base import F64

WIDE = 0.85
"""An opening from which to go down over a thing."""

LET_GO = 0.9
"""An opening at which a thing is surely free."""

CARRY_SPEED = 0.2
"""Of the TCP with a thing in the hand, m/s."""

CLEAR = 0.08
"""How far above a thing the fingers travel, m."""


@dataclasses.dataclass(frozen=True, slots=True)
class Grasp:
    """How to hold a thing of a given width. opening: the gripper's when it holds the thing.

    tighter, wider: openings this much off it still count as a hold; where both fingers touch the thing all do.
    """

    opening: float
    tighter: float = 0.07
    wider: float = 0.03

    def around(self, now: Situation) -> bool:
        """The thing is between the fingers, held or not."""
        offset = now.hand - now.thing
        return bool(np.linalg.norm(offset[:2]) < 0.015 and abs(offset[2]) < 0.016)

    def holds(self, now: Situation) -> bool:
        """The fingers are closed on the thing."""
        expected = -self.tighter < now.opening - self.opening < self.wider
        return self.around(now) and (now.gripped or expected)

    def pick(self, now: Situation) -> Wish:
        """The way to a hold, from anywhere."""
        offset = now.hand - now.thing
        arrived = bool(np.linalg.norm(offset[:2]) < 0.006 and abs(offset[2]) < 0.006)
        missed = now.opening < self.opening - self.tighter
        closing = now.opening < WIDE and self.around(now)
        if (arrived or closing) and not missed:
            return Wish(now.tcp, CLOSED)
        if now.opening < WIDE:
            above = now.thing + (0.0, 0.0, CLEAR)
            return Wish(approach(now.tcp, above, hover=0.02), OPEN)
        return Wish(approach(now.tcp, now.thing, hover=CLEAR), OPEN)


def carry(now: Situation, goal: F64, *, hover: float) -> F64:
    """The TCP target that brings the held thing to `goal` from above, (3,) m."""
    return approach(now.tcp, goal + (now.tcp - now.thing), hover=hover)
