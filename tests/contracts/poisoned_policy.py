"""A policy whose answers are no numbers where the instruction says so, for a server in a process of its own."""

from __future__ import annotations

import msgspec
import numpy as np

from reflexarc.circling import Circling
from reflexarc.vla.serving.server import run_server
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import ActionChunk, Observation

POISON = "drink this"


class Poisoned(Circling):
    """Goes round, unless it is told `POISON`: then one number of each chunk is NaN."""

    def act(self, observation: Observation) -> ActionChunk:
        """The next piece of the circle."""
        chunk = super().act(observation)
        if observation.instruction != POISON:
            return chunk
        actions = chunk.actions.copy()
        actions[3, 1] = np.nan
        return msgspec.structs.replace(chunk, actions=actions)


def serve_poisoned(endpoints: Endpoints) -> None:
    """The body of a policy server's process."""
    run_server(Poisoned(), endpoints)
