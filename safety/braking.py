"""Closed forms of braking in discrete time, at the rate of the host.

The state is a joint position and the velocity of the last tick (a finite difference of positions). The stop is
synchronised: every joint's velocity shrinks by the same factor, so the stop's path is a straight line in joint
space along the velocity, and the joint that needs longest brakes at its limit. With
`m = max_i |v_i| / (a_i·dt)` the velocities of the following ticks are `v·(1 - j/m)` for j = 1, 2, ... while
positive: each change of velocity is `|v|/m ≤ a·dt`. Repeating "one tick of the stop" gives that same sequence, so
a stop needs no storage beside the velocity: the stop stored for the last accepted state is this function of it.
"""

from __future__ import annotations

import math

import numpy as np

from reflexarc.wire.messages import F64


def stop_ticks(velocity: F64, acceleration_step: F64) -> float:
    """m: how many ticks (a real number) the synchronised stop from velocity (n,) rad/s takes."""
    return float((np.abs(velocity) / acceleration_step).max())


def stop_velocity(velocity: F64, acceleration_step: F64) -> F64:
    """Velocity (n,) of the next tick of the stop."""
    ticks = stop_ticks(velocity, acceleration_step)
    return velocity * (1 - 1 / ticks) if ticks > 1 else np.zeros_like(velocity)


def stop_time(ticks: float, dt: float) -> float:
    """Seconds that the *first* velocity would need to cover one tick at it and the whole stop that follows.

    The path is then `v·stop_time` long: one tick at v, and `sum_j v·(1 - j/m)`.
    """
    whole = math.floor(ticks)
    return dt * (1 + whole - whole * (whole + 1) / (2 * ticks)) if whole else dt


def approach_factor(ticks_squared: float) -> float:
    """How much of a distance may be covered in the next tick so that the rest suffices to brake.

    ticks_squared: distance / (a·dt²). 1 (go there at once) up to distance a·dt²; beyond it the exact discrete
    profile: from speed k·a·dt, k ticks of braking cover a·dt²·k(k-1)/2.
    """
    if ticks_squared <= 1:
        return 1.0
    whole = math.floor((math.sqrt(1 + 8 * ticks_squared) - 1) / 2)
    covered = whole * (whole + 1) / 2
    return (whole + (ticks_squared - covered) / (whole + 1)) / ticks_squared


def peak_speed(speed: float, bend: float, ticks: float, dt: float) -> float:
    """Bound of the TCP's speed, m/s, over one tick at a joint velocity and the whole stop that follows.

    speed: |J·v| at the start, m/s. bend: bound of the second derivative of the TCP's path along v, m/s². At the
    fraction x of the stop the joints move at (1-x)·v, so the TCP moves at most at
    (1-x)·(s + b·(x - x²/2)), s = speed + bend·dt, b = bend·m·dt; its maximum is at 0 if b ≤ s.
    """
    first = speed + bend * dt
    gain = bend * ticks * dt
    if gain <= first:
        return first
    x = 1 - math.sqrt((1 + 2 * first / gain) / 3)
    return (1 - x) * (first + gain * (x - x * x / 2))
