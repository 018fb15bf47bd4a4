"""From the last two setpoints to where the arm should be at this very tick.

Between the due times of two setpoints the cubic through both positions and velocities is followed, so a smooth
stream stays smooth at any ratio of the two rates. Past the last due time the motion goes straight on, for a bounded
time only.
"""

from __future__ import annotations

import numpy as np

from reflexarc.safety.limits import Limits
from reflexarc.safety.motion import Target
from reflexarc.wire.messages import F64, Setpoint

# Longest time over which a setpoint's velocity is believed past (or before) its due time.
EXTRAPOLATE_S = 0.05
# Two setpoints due further apart than this are not one motion.
SPAN_S = 0.1


def target_at(before: Setpoint | None, last: Setpoint, now_ns: int, limits: Limits) -> Target | None:
    """The target at `now_ns`; None if `last` is due too long ago while it was moving."""
    late = _seconds(now_ns - last.t_due_ns)
    if late > EXTRAPOLATE_S and last.joint_velocity.any():
        return None
    if late < 0 and before is not None:
        span = _seconds(last.t_due_ns - before.t_due_ns)
        if 0 < span <= SPAN_S and late >= -span:
            return _clip(*_hermite(before, last, span, 1 + late / span), limits)
    shift = max(late, -EXTRAPOLATE_S)
    return _clip(last.joint_position + last.joint_velocity * shift, last.joint_velocity, limits)


def _hermite(before: Setpoint, last: Setpoint, span: float, x: float) -> tuple[F64, F64]:
    """Position and velocity at fraction x of the cubic from `before` to `last`, `span` seconds apart."""
    move = last.joint_position - before.joint_position
    start = before.joint_velocity * span
    end = last.joint_velocity * span
    square = 3 * move - 2 * start - end
    cube = start + end - 2 * move
    position = before.joint_position + x * (start + x * (square + x * cube))
    velocity = (start + x * (2 * square + 3 * x * cube)) / span
    return position, velocity


def _clip(position: F64, velocity: F64, limits: Limits) -> Target:
    clipped = np.minimum(np.maximum(position, limits.lower), limits.upper)
    velocity = np.where(clipped == position, velocity, 0.0)
    velocity = np.minimum(np.maximum(velocity, -limits.velocity), limits.velocity)
    return Target(position=clipped, velocity=velocity)


def _seconds(difference_ns: int) -> float:
    """Nanoseconds as seconds, within a day: a hostile due time must not overflow."""
    day = 86_400_000_000_000
    return min(max(difference_ns, -day), day) * 1e-9
