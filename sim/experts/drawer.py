"""Expert for `drawer`: take the named handle between the fingers and pull it towards the arm."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from reflexarc.sim.experts.base import CLOSED, Situation, Wish
from reflexarc.sim.experts.hold import HoldingExpert
from reflexarc.sim.scenes.drawers import HANDLE_HALF
from reflexarc.sim.tasks.base import F64
from reflexarc.sim.tasks.drawer import FULL, OPEN, Drawer

if TYPE_CHECKING:
    from reflexarc.sim.world import World

PULL_SPEED = 0.16


class DrawerExpert(HoldingExpert):
    """Knows `drawer`."""

    width = 2 * HANDLE_HALF[1]

    def __init__(self, world: World) -> None:
        """Look into a world whose task is `drawer`."""
        super().__init__(world)
        assert isinstance(world.task, Drawer)
        self.task = world.task

    def look(self, tcp: F64, hand: F64, opening: float) -> Situation:
        """The handle, where it should go, and how far the drawer is out."""
        handle, place = self.task.focus(self.world.data, self.world.goal)
        progress = self.task.opening(self.world.data, self.world.goal.target)
        gripped = self.task.gripped(self.world.data, self.world.goal.target)
        return Situation(tcp, hand, opening, handle, place, gripped, progress)

    def advance(self, now: Situation, move: F64, gripper: float) -> Situation:
        """A held drawer comes along."""
        later = super().advance(now, move, gripper)
        return dataclasses.replace(later, progress=now.progress - float(later.thing[0] - now.thing[0]))

    def wish(self, now: Situation) -> Wish:
        """Pull if the handle is held, stay if the drawer is open, else take the handle."""
        if self.grasp.holds(now):
            return Wish(now.tcp + (now.place - now.thing), CLOSED, PULL_SPEED)
        if now.progress > (OPEN + FULL) / 2:
            return Wish(now.tcp, CLOSED)
        return super().wish(now)
