"""Expert for `button`: close the gripper on the way, press the named cap from above, keep it pressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reflexarc.sim.experts.base import CLOSED, TRAVEL_SPEED, Expert, Situation, Wish, approach
from reflexarc.sim.scenes import BUTTON_THRESHOLD
from reflexarc.sim.tasks.base import F64
from reflexarc.sim.tasks.button import Button

if TYPE_CHECKING:
    from reflexarc.sim.world import World

PRESS = BUTTON_THRESHOLD + 0.003
"""How deep to press, m."""

HOVER = 0.03
"""Height over the cap at which to wait for the gripper to close, m."""

PRESS_SPEED = 0.12


class ButtonExpert(Expert):
    """Knows `button`."""

    def __init__(self, world: World) -> None:
        """Look into a world whose task is `button`."""
        super().__init__(world)
        assert isinstance(world.task, Button)
        self.task = world.task

    def look(self, tcp: F64, hand: F64, opening: float) -> Situation:
        """The cap's top, and where the TCP is when it is pressed."""
        top = self.task.focus(self.world.data, self.world.goal)[0]
        tip = np.array([0.0, 0.0, self.world.hand.tip_below_tcp])
        return Situation(tcp, hand, opening, top + tip, top + tip - (0.0, 0.0, PRESS))

    def wish(self, now: Situation) -> Wish:
        """Go over it; press once the gripper is closed."""
        lateral = float(np.linalg.norm(now.tcp[:2] - now.thing[:2]))
        if now.opening > 0.3:
            above = now.thing + (0.0, 0.0, HOVER)
            return Wish(approach(now.tcp, above, hover=0.05), CLOSED)
        speed = PRESS_SPEED if lateral < 0.01 and now.tcp[2] < now.thing[2] + 0.02 else TRAVEL_SPEED
        return Wish(approach(now.tcp, now.place, hover=0.08, radius=0.01), CLOSED, speed)
