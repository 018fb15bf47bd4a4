"""Judges every arriving setpoint before anything else looks at its numbers.

A setpoint that is not finite, has the wrong shape or comes from another clock is refused whole, never repaired: a
NaN is not a small error. One that is merely out of range is clipped to the limits, and that is reported.
"""

from __future__ import annotations

import math

import numpy as np
from msgspec.structs import replace

from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety.limits import REPORT_FRACTION, Limits
from reflexarc.safety.memory import Memory
from reflexarc.wire.messages import F64, Intervention, Measured, Setpoint

# A day: an older chunk is none. Numbers that no message can carry must not come out of a sum with it.
LONGEST_CHUNK_AGE_NS = 86_400_000_000_000


def is_new(memory: Memory, setpoint: Setpoint) -> bool:
    """Whether `setpoint` was made after the enable and has a sequence number that was not seen yet."""
    return setpoint.t_ns >= memory.enabled_ns and setpoint.seq > memory.last_seq


def malformed(setpoint: Setpoint, n: int, clock: str, newest_ns: int) -> Intervention | None:
    """Why the setpoint must be refused unread: rule `clock`, `shape` or `finite`; None if it is well formed.

    newest_ns: what is stamped later was not made by this clock: it would be fresh for as long as it is ahead.
    """
    if setpoint.clock != clock:
        return _refused("clock", setpoint.clock)
    if setpoint.t_ns > newest_ns:
        return _refused("clock", "t_ns", setpoint.t_ns, newest_ns)
    if not -1 <= setpoint.chunk_age_ns <= LONGEST_CHUNK_AGE_NS:
        return _refused("clock", "chunk_age_ns", setpoint.chunk_age_ns, LONGEST_CHUNK_AGE_NS)
    for name in ("joint_position", "joint_velocity"):
        values = getattr(setpoint, name)
        if not isinstance(values, np.ndarray) or values.shape != (n,) or values.dtype.kind not in "fiu":
            return _refused("shape", name)
        finite = np.isfinite(values)
        if not finite.all():
            bad = np.flatnonzero(~finite)
            return _refused("finite", f"{name}[{bad[0]}]", float(values[bad[0]]))
    if not math.isfinite(setpoint.gripper):
        return _refused("finite", "gripper", setpoint.gripper)
    return None


def mismatch(
    setpoint: Setpoint, measured: Measured, safety: SafetyConfig, limits: Limits
) -> Intervention | None:
    """Why a first setpoint is too far from where the arm is (rule `start_mismatch`); None if it is near."""
    distance = np.abs(setpoint.joint_position - measured.joint_position)
    worst = int(np.argmax(distance))
    if distance[worst] <= safety.start_mismatch_rad:
        return None
    asked = float(setpoint.joint_position[worst])
    allowed = float(measured.joint_position[worst])
    margin = safety.start_mismatch_rad - float(distance[worst])
    return Intervention(
        rule="start_mismatch", field=limits.names[worst], asked=asked, allowed=allowed, margin=margin
    )


def within_limits(setpoint: Setpoint, limits: Limits, found: list[Intervention]) -> Setpoint:
    """The setpoint with positions and gripper clipped and velocity scaled to the limits, in arrays of its own."""
    position = _clip_position(setpoint, limits, found)
    velocity = np.array(setpoint.joint_velocity, dtype=np.float64)
    ratios = np.abs(velocity) / limits.velocity
    worst = int(ratios.argmax())
    if ratios[worst] > 1:
        asked = float(velocity[worst])
        velocity = velocity / ratios[worst]
        if ratios[worst] > 1 + REPORT_FRACTION:
            field = limits.names[worst]
            found.append(_limited("joint_velocity", field, asked, float(velocity[worst])))
    gripper = min(max(float(setpoint.gripper), 0.0), 1.0)
    if abs(gripper - setpoint.gripper) > REPORT_FRACTION:
        found.append(_limited("gripper", "opening", setpoint.gripper, gripper))
    return replace(setpoint, joint_position=position, joint_velocity=velocity, gripper=gripper)


def chunk_age_ns(setpoint: Setpoint, now_ns: int) -> int:
    """How old the observation is that the setpoint answers, now; -1 if it answers none."""
    if setpoint.chunk_age_ns < 0:
        return -1
    return setpoint.chunk_age_ns + max(0, now_ns - setpoint.t_ns)


def take(memory: Memory, setpoint: Setpoint) -> Memory:
    """Memory with an accepted setpoint as its newest."""
    return replace(
        memory,
        last=setpoint,
        before=memory.last,
        received_ns=memory.now_ns,
        last_seq=setpoint.seq,
        refused="",
        anew=False,
        bad_count=0,
    )


def _clip_position(setpoint: Setpoint, limits: Limits, found: list[Intervention]) -> F64:
    asked = np.asarray(setpoint.joint_position, dtype=np.float64)
    position = np.clip(asked, limits.lower, limits.upper)
    excess = np.abs(asked - position)
    worst = int(excess.argmax())
    if excess[worst] > REPORT_FRACTION:
        field = limits.names[worst]
        found.append(_limited("joint_position", field, float(asked[worst]), float(position[worst])))
    return position


def _limited(rule: str, field: str, asked: float, allowed: float) -> Intervention:
    return Intervention(rule=rule, field=field, asked=asked, allowed=allowed, margin=0.0)


def _refused(rule: str, field: str, asked: float = 0.0, allowed: float = 0.0) -> Intervention:
    return Intervention(rule=rule, field=field, asked=float(asked), allowed=float(allowed), margin=0.0)
