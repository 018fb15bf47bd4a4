"""The contract of a planner: slow, and asked now and then what should be done next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from reflexarc.configs.errors import ReflexarcError
from reflexarc.wire.messages import F64, Observation

type Plan = str | F64
"""The next subtask in words that a fast policy knows (π0.5), or a latent (Z,) that it was trained with (Helix)."""


class Planner(Protocol):
    """Turns a task and what is seen into what a fast policy is told."""

    cameras: tuple[str, ...]
    """Those that it looks at."""
    period_s: float
    """How often it is asked, unless told otherwise."""

    def plan(self, observation: Observation) -> Plan:
        """What comes next of `observation.instruction`. Raises PolicyError as a policy's `act` does."""


@runtime_checkable
class BatchPlanner(Protocol):
    """A planner that plans for several robots in one pass of its model."""

    def plan_batch(self, observations: Sequence[Observation]) -> Sequence[Plan | ReflexarcError]:
        """A plan for each; one that cannot be planned for gets its error and disturbs no other."""


def plans_for(planner: Planner, observations: Sequence[Observation]) -> Sequence[Plan | ReflexarcError]:
    """A plan for each, in one pass of the planner's model if it can do that."""
    if isinstance(planner, BatchPlanner):
        return planner.plan_batch(observations)
    plans: list[Plan | ReflexarcError] = []
    for observation in observations:
        try:
            plans.append(planner.plan(observation))
        except ReflexarcError as error:
            plans.append(error)
    return plans
