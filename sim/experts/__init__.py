"""Scripted experts: one for each task, each a `Policy` that looks at the simulator's privileged state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reflexarc.configs.errors import SimulationError, unknown
from reflexarc.sim.experts.base import Expert
from reflexarc.sim.experts.button import ButtonExpert
from reflexarc.sim.experts.drawer import DrawerExpert
from reflexarc.sim.experts.lift import LiftExpert
from reflexarc.sim.experts.place import PlaceExpert
from reflexarc.sim.experts.push import PushExpert
from reflexarc.sim.experts.reach import ReachExpert
from reflexarc.sim.experts.stack import StackExpert

if TYPE_CHECKING:
    from reflexarc.sim.world import World

EXPERTS: dict[str, type[Expert]] = {
    "reach": ReachExpert,
    "push": PushExpert,
    "lift": LiftExpert,
    "place": PlaceExpert,
    "stack": StackExpert,
    "drawer": DrawerExpert,
    "button": ButtonExpert,
}


def make_expert(world: World) -> Expert:
    """The expert for the world's task; raises SimulationError if there is none."""
    name = world.task.name
    if name not in EXPERTS:
        raise SimulationError(unknown("expert", name, EXPERTS))
    return EXPERTS[name](world)


__all__ = ["EXPERTS", "Expert", "make_expert"]
