"""Planning for several robots in one pass of a model of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reflexarc.configs.errors import PolicyError, ReflexarcError
from reflexarc.vla.inputs import Inputs
from reflexarc.vla.planners.planner import Plan
from reflexarc.vla.preprocess import Raw
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.wire.messages import Observation


def plan_together(
    policy: VlaPolicy, observations: Sequence[Observation], think: Callable[[Inputs], list[Plan]]
) -> list[Plan | ReflexarcError]:
    """A plan for each, of those that `policy`'s model can be given; the others get the error that says why."""
    plans: list[Plan | ReflexarcError | None] = []
    rows: list[Raw] = []
    for observation in observations:
        try:
            rows.append(policy.raw(observation))
            plans.append(None)
        except PolicyError as error:
            plans.append(error)
    made: list[Plan] = []
    if rows:
        with policy.computing():
            made = think(policy.inputs(rows))
    thought = iter(made)
    return [next(thought) if plan is None else plan for plan in plans]
