"""From an action chunk to waypoints: what a chunk must be, and where its deltas lead.

Deltas are composed onto what was *commanded* when the pictures were taken, so how long the model thought changes
nothing of where the waypoints are, nor of when they are due. This file knows no robot and no clock.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Literal

import numpy as np

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import ControlError, unknown
from reflexarc.controllers.kernels import moved_on, turned_on
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64, ActionChunk, TokenRange

Space = Literal["tcp", "joint"]

_POSE_DIMS = (("m", 3), ("rad", 3))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Anchor:
    """What was commanded at `t_obs_ns`, and how it moved.

    point: TCP position (3,) m in the base frame, or joint position (n,) rad. quat: (4,) TCP orientation (identity in
    joint space). velocity: like point, per second. spin: (3,) rad/s, base frame.
    """

    t_obs_ns: int
    point: F64
    quat: F64
    velocity: F64
    spin: F64


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Knots:
    """Where a chunk leads: knot 0 is where it starts, knot k + 1 is the waypoint of action k.

    Knot k is due at `start_ns + k · step_ns`. points: (H + 1, m). quats: (H + 1, 4). turns: (H, 3) rotation vectors
    from knot to knot, base frame. velocity (m,), spin (3,): of the motion at knot 0. gripper: (H,) opening in step k.
    """

    start_ns: int
    step_ns: int
    points: F64
    quats: F64
    turns: F64
    velocity: F64
    spin: F64
    gripper: F64

    @property
    def steps(self) -> int:
        """Number of actions H."""
        return len(self.turns)

    @property
    def end_ns(self) -> int:
        """When the last waypoint is due."""
        return self.due_ns(self.steps)

    def due_ns(self, knot: int) -> int:
        """When a knot is due."""
        return self.start_ns + knot * self.step_ns

    def first_after(self, t_ns: int) -> int:
        """The first waypoint (1..H) due later than `t_ns`; H + 1 if there is none."""
        return min(max((t_ns - self.start_ns) // self.step_ns + 1, 1), self.steps + 1)

    def gripper_at(self, t_ns: int) -> float:
        """The opening asked for at `t_ns`: action k's holds during step k, the last one's for ever."""
        return float(self.gripper[min(max((t_ns - self.start_ns) // self.step_ns, 0), self.steps - 1)])


NO_BIN, LAST_BIN = -1, 255
"""Bins of an action: -1 where a head has none, else one of 256."""


def action_space(spec: ActionSpec, joints: int) -> Space:
    """Whether `spec` is `[dx dy dz drx dry drz gripper]` in the base frame or `[n joints, gripper]`.

    Raises ControlError naming what is supported: motion dimensions all delta or all absolute, gripper last, absolute.
    """
    motion, gripper = spec.dims[:-1], spec.dims[-1]
    units = tuple((dim.frame, dim.unit) for dim in motion)
    fits = gripper.unit == "opening" and not gripper.delta and len({dim.delta for dim in motion}) == 1
    if fits and units == tuple(("base", unit) for unit, count in _POSE_DIMS for _ in range(count)):
        return "tcp"
    if fits and units == (("joint", "rad"),) * joints:
        return "joint"
    shape = f"{spec.id} = [{', '.join(dim.name for dim in spec.dims)}]"
    known = ["3 m + 3 rad in the base frame + opening", f"{joints} joints in rad + opening"]
    raise ControlError(
        unknown("action space", shape, known)
        + "; all motion delta or all absolute, gripper last and absolute"
    )


def refusal(chunk: ActionChunk, spec: ActionSpec, tokens: TokenRange) -> str:
    """Why `chunk` cannot be executed under `spec`, naming the field and the value; empty if it can.

    tokens: what its policy can say.
    """
    if chunk.spec_id != spec.id:
        return f"spec_id is {chunk.spec_id!r}, this controller executes {spec.id!r}"
    if chunk.step_ns != spec.step_ns:
        return f"step_ns is {chunk.step_ns}, {spec.id} has {spec.step_ns}"
    expected = (spec.horizon, spec.size)
    if chunk.actions.shape != expected:
        return f"actions have shape {chunk.actions.shape}, {spec.id} has {expected}"
    # Sums and extremes first: what is wrong is looked for only where something is.
    finite = math.isfinite(chunk.actions.sum()) or np.isfinite(chunk.actions).all()
    if not finite:
        k, d = (int(i) for i in np.argwhere(~np.isfinite(chunk.actions))[0])
        return f"actions[{k}].{spec.dims[d].name} is {chunk.actions[k, d]}, it must be finite"
    # A model that answers with tokens of another kind has not answered: its actions are not trusted either.
    if chunk.bins.size and not NO_BIN <= chunk.bins.min() <= chunk.bins.max() <= LAST_BIN:
        strange = chunk.bins[(chunk.bins < NO_BIN) | (chunk.bins > LAST_BIN)]
        return f"bins hold {int(strange[0])}, a bin is within {NO_BIN}..{LAST_BIN}"
    said = chunk.policy_tokens
    if len(said) > tokens.most:
        return f"policy_tokens are {len(said)}, this policy says {tokens.most} in a chunk at most"
    if said and not tokens.first <= min(said) <= max(said) < tokens.end:
        wrong = next(token for token in said if not tokens.first <= token < tokens.end)
        return f"policy_tokens hold {wrong}, those of this policy are {tokens.first}..{tokens.end - 1}"
    return ""


def bounds(spec: ActionSpec) -> F64:
    """(2, D): lower and upper bound of each dimension of an action."""
    return np.array([[dim.lower for dim in spec.dims], [dim.upper for dim in spec.dims]])


def clip_to_bounds(actions: F64, spec: ActionSpec, within: F64) -> tuple[F64, str]:
    """`actions` (H, D) within the bounds (2, D) of `spec`, and one line on the first value that was not (or "")."""
    lower, upper = within
    clipped = np.minimum(np.maximum(actions, lower), upper)
    if (clipped == actions).all():
        return clipped, ""
    beyond = np.argwhere(np.abs(clipped - actions) > 1e-6 * (upper - lower))
    if not len(beyond):
        return clipped, ""
    k, d = (int(i) for i in beyond[0])
    name, value = spec.dims[d].name, actions[k, d]
    text = f"actions[{k}].{name} is {value:.6g}, outside [{lower[d]:.6g}, {upper[d]:.6g}]; clipped"
    return clipped, text if len(beyond) == 1 else f"{text} (and {len(beyond) - 1} more)"


def compose(actions: F64, spec: ActionSpec, space: Space, anchor: Anchor, start_ns: int) -> Knots:
    """The waypoints of `actions` (H, D) from `anchor`, knot 0 being due at `start_ns`."""
    size, turning = len(anchor.point), space == "tcp"
    if spec.dims[0].delta:
        points, turns, quats = moved_on(anchor.point, anchor.quat, actions, turning)
    else:
        points = np.vstack([anchor.point, actions[:, :size]])
        turns = _turns_to(actions[:, 3:-1], anchor.quat) if turning else np.zeros((len(actions), 3))
        quats = turned_on(anchor.quat, turns)
    return Knots(
        start_ns=start_ns,
        step_ns=spec.step_ns,
        points=points,
        quats=quats,
        turns=turns,
        velocity=anchor.velocity,
        spin=anchor.spin,
        gripper=actions[:, -1],
    )


def decompose(points: F64, quats: F64, gripper: F64, spec: ActionSpec, space: Space) -> F64:
    """The actions (K, D) that lead through `points` (K + 1, m) and `quats` (K + 1, 4), as `compose` would go there.

    gripper: (K,) the opening asked for in each step.
    """
    delta = spec.dims[0].delta
    motion = np.diff(points, axis=0) if delta else points[1:]
    if space == "tcp":
        turns = [
            geometry.difference(after, before) if delta else geometry.log(after)
            for before, after in itertools.pairwise(quats)
        ]
        motion = np.hstack([motion, np.reshape(turns, (-1, 3))])
    return np.hstack([motion, gripper[:, None]])


def _turns_to(rotvecs: F64, start: F64) -> F64:
    """Turns (H, 3) from orientation to orientation, `start` (4,) first, then exp(r) of each of `rotvecs` (H, 3)."""
    asked = [start, *(geometry.exp(rotvec) for rotvec in rotvecs)]
    return np.array([geometry.difference(after, before) for before, after in itertools.pairwise(asked)])
