"""What the arm goes on with while a policy thinks, as the policy takes it into its next chunk (real-time chunking).

The first actions of the answer will be over when it arrives, and what is executed until then are the old chunk's: so
they are the old chunk's, to the bit. Heads go further and make what follows continue them: tokens are decoded behind
the committed ones, a flow is guided towards them (`engine/guidance.py`). Where a head cannot, what it says is joined to
them by `continued`.
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
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64, Observation


@dataclasses.dataclass(frozen=True, slots=True)
class Commitment:
    """Of a batch, in the forms that heads speak; anything where the weight is 0.

    bins: (B, H, D) int64. values: (B, H, D) float32 in [-1, 1] over the bounds of the bins. weights: (B, H) float32, 1
    where an action will be over on arrival, from there on falling to 0 where nothing is committed (`soft_mask`).
    frozen: how many of the first actions are decided in every row.
    """

    bins: Tensor
    values: Tensor
    weights: Tensor
    frozen: int

    def to(self, device: torch.device) -> Commitment:
        """The same on another device."""
        bins, values, weights = (each.to(device) for each in (self.bins, self.values, self.weights))
        return Commitment(bins, values, weights, self.frozen)

    def decided(self, fixed: Tensor) -> Tensor:
        """(B, H, D) int64: the bin of a token that is decided, -1 for the others. fixed: (D,) that of a dimension that
        never varies, else -1.
        """
        return torch.where(self.weights[..., None] >= 1.0, self.bins, fixed)


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
        frozen=int((weights >= 1.0).all(dim=0).long().cumprod(dim=0).sum()),
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


def continued(actions: F64, observation: Observation, spec: ActionSpec) -> F64:
    """`actions` (H, D), as they go on from what is committed; the same array where nothing is.

    Those that will be over on arrival are the committed ones to the bit. Displacements say how far, and a policy's own
    first ones were not done: so what is kept of its chunk is where it leads. Its waypoints and the committed ones are
    mixed by `soft_mask`, which returns from these to those within the overlap. The gripper is its own from there on.
    """
    given = committed(observation, spec)
    if not len(given):
        return actions
    frozen = observation.frozen_steps
    weights = np.array(soft_mask(frozen, len(given), spec.horizon))[: len(given), None]
    result = actions.copy()
    motion, going = actions[:, :-1], given[:, :-1]
    if not spec.dims[0].delta:
        result[: len(given), :-1] = weights * going + (1 - weights) * motion[: len(given)]
    elif spec.dims[0].unit == "m":
        result[:, :3] = _mixed_steps(motion[:, :3], going[:, :3], weights)
        result[:, 3:6] = _mixed_turns(motion[:, 3:], going[:, 3:], weights[:, 0])
    else:
        result[:, :-1] = _mixed_steps(motion, going, weights)
    result[:frozen] = given[:frozen]
    return result


def _mixed_steps(own: F64, going: F64, weights: F64) -> F64:
    """Displacements (H, m) through the mixed places; weights (K, 1) of `going` (K, m)."""
    places = np.cumsum(own, axis=0)
    places[: len(going)] += weights * (np.cumsum(going, axis=0) - places[: len(going)])
    return np.diff(places, axis=0, prepend=0.0)


def _mixed_turns(own: F64, going: F64, weights: F64) -> F64:
    """Rotation vectors (H, 3) of each step through the mixed orientations; R_{k+1} = exp(r)·R_k."""
    own_quat = going_quat = last = geometry.identity_pose()[3:]
    steps = []
    for index, turn in enumerate(own):
        own_quat = geometry.multiply(geometry.exp(turn), own_quat)
        mixed = own_quat
        if index < len(going):
            going_quat = geometry.multiply(geometry.exp(going[index]), going_quat)
            mixed = geometry.slerp(own_quat, going_quat, float(weights[index]))
        steps.append(geometry.difference(mixed, last))
        last = mixed
    return np.array(steps)
