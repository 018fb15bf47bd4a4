"""The contract of a planner: slow, and asked now and then what should be done next."""

from __future__ import annotations

from typing import Protocol

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
