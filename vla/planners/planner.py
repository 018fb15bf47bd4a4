"""The contract of a planner: slow, and asked now and then what should be done next."""

from __future__ import annotations

from typing import Protocol

from reflexarc.wire.messages import Observation


class Planner(Protocol):
    """Turns a task into the next subtask, in words that a fast policy was trained on (π0.5)."""

    cameras: tuple[str, ...]
    """Those that it looks at."""

    def plan(self, observation: Observation) -> str:
        """The next subtask of `observation.instruction`. Raises PolicyError as a policy's `act` does."""
