"""What the arm goes on with while a policy thinks, as the policy takes it into its next chunk (real-time chunking).

The first actions of the answer will be over when it arrives, and what is executed until then are the old chunk's: so
they are the old chunk's, to the bit. Heads go further and make what follows continue them: tokens are decoded behind
the committed ones, a flow is guided towards them (`engine/guidance.py`).
"""

from __future__ import annotations

import numpy as np

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import PolicyError
from reflexarc.wire.messages import F64, Observation


def committed(observation: Observation, spec: ActionSpec) -> F64:
    """(K, D) actions that the arm goes on with, K at most the horizon; (0, D) where it said nothing.

    Raises PolicyError if they are no actions of `spec`, or more are frozen than there are.
    """
    given = observation.committed
    if given is None:
        return np.empty((0, spec.size))
    if given.ndim != 2 or given.shape[1] != spec.size:
        raise PolicyError(
            f"committed actions have shape {given.shape}, {spec.id} has {spec.size} numbers an action"
        )
    if not np.isfinite(given).all():
        raise PolicyError("the committed actions hold values that are not finite")
    if not 0 <= observation.frozen_steps <= len(given):
        raise PolicyError(
            f"frozen_steps is {observation.frozen_steps}, {len(given)} actions are committed; "
            f"it must be within 0..{len(given)}"
        )
    return given[: spec.horizon]


def begun(actions: F64, observation: Observation, spec: ActionSpec) -> F64:
    """`actions` (H, D) with those that will be over on arrival as they are committed."""
    before = committed(observation, spec)[: observation.frozen_steps]
    return np.concatenate([before, actions[len(before) :]])
