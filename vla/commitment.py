"""What the arm goes on with while a policy thinks, as the policy takes it into its next chunk (real-time chunking).

The first actions of the answer will be over when it arrives, and what is executed until then are the old chunk's: so
they are the old chunk's, to the bit. Heads go further and make what follows continue them: tokens are decoded behind
the committed ones, a flow is guided towards them (`engine/guidance.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import PolicyError
from reflexarc.vla.engine.guidance import soft_mask
from reflexarc.vla.tokenizers import UniformTokenizer
from reflexarc.wire.messages import F64, Observation


@dataclasses.dataclass(frozen=True, slots=True)
class Commitment:
    """Of a batch, in the forms that heads speak; anything where the weight is 0.

    bins: (B, H, D) int64. values: (B, H, D) float32 in [-1, 1] over the bounds of the bins. weights: (B, H) float32, 1
    where an action will be over on arrival, from there on falling to 0 where nothing is committed (`soft_mask`).
    """

    bins: Tensor
    values: Tensor
    weights: Tensor

    def decided(self, fixed: Tensor) -> Tensor:
        """(B, H, D) int64: the bin of a token that is decided, -1 for the others. fixed: (D,) that of a dimension that
        never varies, else -1.
        """
        return torch.where(self.weights[..., None] >= 1.0, self.bins, fixed)

    @property
    def frozen(self) -> int:
        """How many of the first actions are decided in every row."""
        return int((self.weights >= 1.0).all(dim=0).long().cumprod(dim=0).sum())


def commitment(
    observations: Sequence[Observation], spec: ActionSpec, grid: UniformTokenizer
) -> Commitment | None:
    """What is committed of each; None if nothing is of any. Raises PolicyError as `committed`."""
    if all(each.committed is None for each in observations):
        return None
    actions = np.zeros((len(observations), spec.horizon, spec.size))
    weights = torch.zeros(actions.shape[:2])
    for row, observation in enumerate(observations):
        given = committed(observation, spec)
        actions[row, : len(given)] = given
        weights[row] = torch.tensor(soft_mask(observation.frozen_steps, len(given), spec.horizon))
    return Commitment(
        bins=torch.from_numpy(grid.encode(actions)),
        values=torch.from_numpy(grid.normalise(actions).astype(np.float32)),
        weights=weights,
    )


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
