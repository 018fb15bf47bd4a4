"""Names of policies: the scripted `expert`, an embedded checkpoint such as `reflexarc-tiny`, or a folder."""

from __future__ import annotations

from reflexarc.configs.errors import PolicyError
from reflexarc.configs.placement import Placement
from reflexarc.sim.world import World
from reflexarc.wire.contracts import Policy

EXPERT = "expert"


def open_policy(name: str, world: World | None = None, *, placement: Placement | None = None) -> Policy:
    """The policy of that name. The expert needs the world it looks into. placement: see `load_policy`.

    Raises PolicyError naming the embedded checkpoints if `name` is neither one of them nor a folder.
    """
    if name == EXPERT:
        if placement not in (None, Placement()):
            raise PolicyError("the scripted expert has no model: leave out --device and --precision")
        if world is None:
            raise PolicyError("the scripted expert needs the simulator; on a robot name a checkpoint")
        from reflexarc.sim.experts import make_expert

        return make_expert(world)
    from reflexarc.vla.checkpoint import load_policy

    return load_policy(name, placement=placement)
