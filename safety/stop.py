"""The stop: how every joint comes to rest from a velocity and an acceleration, within acceleration and jerk. Compiled.

In discrete time, at the rate of the host; `change` is what the velocity changed by in the last tick (acceleration
times dt). First the acceleration fades to zero in equal steps; then all joints brake together along the velocity
that is left, with one trapezoid of deceleration for all: up in `ramp` equal steps, level, down in `ramp` steps. So the
second part is a straight line in joint space, and the joint or the TCP that needs longest brakes at its limit.
"""

from __future__ import annotations

import math

import numpy as np

from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

# A stop that takes longer than this is refused: no limits of a real arm come near it.
MOST_TICKS = 8000


@compiled
def stop_plan(
    velocity: F64,
    change: F64,
    most_change: F64,
    most_step: F64,
    jacobian: F64,
    tcp_change: F64,
    tcp_step: F64,
) -> F64:
    """Velocities (m, n) rad/s of the ticks of the stop; the last row is zero. No rows if the arm stands already.

    velocity, change: (n,) rad/s. most_change, most_step: (n,) rad/s, the largest change of velocity in a tick, and
    of that change. jacobian: (6, n) of the TCP; tcp_change, tcp_step: (2,) the same for the TCP's linear, m/s, and
    angular, rad/s, velocity. A stop of more than MOST_TICKS has MOST_TICKS + 1 rows, none of them zero.
    """
    n = velocity.size
    fade = 0
    if change.any():
        fade = max(1, math.ceil(_largest_share(change, most_step, jacobian, tcp_step)))
    rest = velocity + change * ((fade - 1) / 2 if fade else 0.0)
    ramp, level = 0, 0
    if rest.any():
        ramp, level = _trapezoid(
            _largest_share(rest, most_change, jacobian, tcp_change),
            _largest_share(rest, most_step, jacobian, tcp_step),
        )
    ticks = fade + max(2 * ramp + level - 1, 0)
    if ticks > MOST_TICKS:
        return np.ones((MOST_TICKS + 1, n))
    plan = np.empty((ticks, n))
    for k in range(fade):
        for i in range(n):
            # The sum of the first k+1 of the steps change·(1 - j/fade), j = 1 ..
            plan[k, i] = velocity[i] + change[i] * ((k + 1) - (k + 1) * (k + 2) / (2 * fade))
    done = 0.0
    for k in range(fade, ticks):
        j = k - fade + 1
        done += min(j, ramp, 2 * ramp + level - j) / (ramp * (ramp + level))
        for i in range(n):
            plan[k, i] = rest[i] * (1 - done)
    if ticks:
        plan[ticks - 1] = 0.0  # exactly: the sums above leave rounding
    return plan


@compiled
def _largest_share(vector: F64, most: F64, jacobian: F64, tcp_most: F64) -> float:
    """The largest ratio of a joint's, or the TCP's, part of `vector` to its limit."""
    worst = 0.0
    for i in range(vector.size):
        worst = max(worst, abs(vector[i]) / most[i])
    for part in range(2):
        square = 0.0
        for row in range(3 * part, 3 * part + 3):
            rate = 0.0
            for i in range(vector.size):
                rate += jacobian[row, i] * vector[i]
            square += rate * rate
        worst = max(worst, math.sqrt(square) / tcp_most[part])
    return worst


@compiled
def _trapezoid(ticks: float, square: float) -> tuple[int, int]:
    """(ramp, level): changes in units of the whole velocity add up to 1; none exceeds 1/ticks, no step 1/square.

    The changes are 1, 2 .. ramp, then `level` times ramp, then ramp-1 .. 1, each times 1/(ramp·(ramp + level)).
    """
    ramp = max(1, math.ceil(math.sqrt(square)))
    if ramp >= ticks:
        return ramp, 0
    ramp = max(1, math.ceil(square / ticks))
    return ramp, max(math.ceil(ticks) - ramp, 0)
