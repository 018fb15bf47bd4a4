"""From a target to a proposal for the next tick: the wish, kept on its path as far as speed, acceleration and jerk let.

Compiled. Whatever comes out is only proposed; `judge` decides. Speeds are limited by scaling the whole wish, so the
path keeps its direction and only takes longer; acceleration and jerk by going a part of the way from the present
motion, its acceleration fading, to the wish.
"""

from __future__ import annotations

import math

import numpy as np

from reflexarc.safety.clearance import Scratch
from reflexarc.safety.judge import (
    ACCELERATION,
    FINE,
    JERK,
    TCP_ACCELERATION,
    TCP_ANGULAR_ACCELERATION,
    TCP_ANGULAR_JERK,
    TCP_JERK,
    TCP_SPEED,
    VELOCITY,
    MotionState,
    Rates,
    velocity_bound,
)
from reflexarc.wire.chain import Chain, jacobian, place
from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

# The straight part of the TCP's motion may use so much of its limits; the rest is for how its path bends.
TCP_SPEED_SHARE = 0.995
TCP_SHARE = 0.9
# Where jerk binds, the approach is planned with so much of the acceleration: braking that began late can catch up.
BRAKING_SHARE = 0.7


@compiled
def wish(
    chain: Chain,
    rates: Rates,
    now: MotionState,
    target: F64,
    target_velocity: F64,
    scale: float,
    at: Scratch,
    asked: F64,
    notes: F64,
) -> F64:
    """Velocity (n,) rad/s towards a moving target, within the limits of speed times `scale`.

    target: (n,) rad, at this tick; target_velocity: (n,) rad/s. asked: (n,) is given the velocity before it was
    limited. notes: (2, 4) is given rule, index, asked and allowed of what limited it; rule FINE where nothing did.
    """
    n = target.size
    notes[:, 0] = FINE
    place(chain, now.position, at.origin, at.turn)
    jacobian(at.origin, at.turn, at.jacobian)
    # Where jerk binds, braking takes some ticks to begin: the approach is then planned in steps of so many ticks.
    period = 1.0
    for i in range(n):
        period = max(period, math.ceil(2 * rates.change[i] / rates.step[i]))
    braking = 1.0 if period == 1.0 else BRAKING_SHARE
    far = 0.0
    error = np.empty(n)
    for i in range(n):
        error[i] = target[i] - now.position[i] - target_velocity[i] * rates.dt
        far = max(far, abs(error[i]) / (braking * rates.change[i] * period * period * rates.dt))
    gain = approach_factor(far) / (period * rates.dt)
    over, worst = 1.0, 0
    for i in range(n):
        asked[i] = target_velocity[i] + error[i] * gain
        ratio = abs(asked[i]) / (rates.velocity[i] * scale)
        if ratio > over:
            over, worst = ratio, i
    wanted = asked / over
    if over > 1.0:
        _note(notes, 0, VELOCITY, worst, asked[worst], wanted[worst])
    for part in range(2):
        speed = _rate(at.jacobian, wanted, part)
        most = rates.tcp[part, 0] / rates.dt * scale * TCP_SPEED_SHARE
        if speed > most:
            _note(notes, 1, TCP_SPEED + part, 0, speed, most)
            wanted *= most / speed
    for i in range(n):
        # Where the bound shrinks faster than the joint can brake, the joint must be slower before that.
        ahead = now.position[i] + wanted[i] * rates.dt * (2 * period + 1)
        most = velocity_bound(rates, i, ahead, wanted[i] > 0)
        wanted[i] = min(max(wanted[i], -most), most)
    return wanted


@compiled
def project(chain: Chain, rates: Rates, now: MotionState, wanted: F64, at: Scratch, notes: F64) -> F64:
    """Velocity (n,) rad/s of the next tick: as near to `wanted` as acceleration and jerk allow, all joints alike.

    notes: (1, 4) as for `wish`.
    """
    n = wanted.size
    notes[:, 0] = FINE
    place(chain, now.position, at.origin, at.turn)
    jacobian(at.origin, at.turn, at.jacobian)
    fade = 1.0
    for i in range(n):
        fade = max(fade, math.ceil(abs(now.change[i]) / rates.step[i]))
    base_change = now.change * (1 - 1 / fade)
    base = now.velocity + base_change
    way = wanted - base
    share, rule, worst = 1.0, FINE, 0
    for i in range(n):
        if way[i] == 0.0:
            continue
        side = math.copysign(1.0, way[i])
        room = (rates.change[i] - side * base_change[i]) / abs(way[i])
        if room < share:
            share, rule, worst = max(room, 0.0), ACCELERATION, i
        room = (rates.step[i] - side * (base_change[i] - now.change[i])) / abs(way[i])
        if room < share:
            share, rule, worst = max(room, 0.0), JERK, i
    for part in range(2):
        most = TCP_SHARE * rates.tcp[part, 1] / rates.dt
        room = _share_within(at.jacobian, base_change, way, most, part)
        if room < share:
            share, rule, worst = room, TCP_ACCELERATION + part, 0
        most = TCP_SHARE * rates.tcp[part, 2] / rates.dt
        room = _share_within(at.jacobian, base_change - now.change, way, most, part)
        if room < share:
            share, rule, worst = room, TCP_JERK + part, 0
    if rule != FINE:
        dt = rates.dt
        if rule in (ACCELERATION, JERK):
            unit = dt if rule == ACCELERATION else dt * dt
            before = base_change[worst] if rule == ACCELERATION else base_change[worst] - now.change[worst]
            asked, allowed = (before + way[worst]) / unit, (before + share * way[worst]) / unit
        else:
            angular = rule in (TCP_ANGULAR_ACCELERATION, TCP_ANGULAR_JERK)
            unit = dt if rule <= TCP_ANGULAR_ACCELERATION else dt * dt
            before_all = base_change if rule <= TCP_ANGULAR_ACCELERATION else base_change - now.change
            asked = _rate(at.jacobian, before_all + way, 1 if angular else 0) / unit
            allowed = _rate(at.jacobian, before_all + share * way, 1 if angular else 0) / unit
        _note(notes, 0, rule, worst, asked, allowed)
    return base + share * way


@compiled
def approach_factor(distance: float) -> float:
    """How much of a distance may be covered in the next step so that the rest suffices to brake.

    distance: in units of what one step of the largest acceleration covers, a·dt². 1 (go there at once) up to 1;
    beyond it the exact discrete profile: from speed k·a·dt, k steps of braking cover a·dt²·k(k-1)/2.
    """
    if distance <= 1:
        return 1.0
    whole = math.floor((math.sqrt(1 + 8 * distance) - 1) / 2)
    covered = whole * (whole + 1) / 2
    return (whole + (distance - covered) / (whole + 1)) / distance


@compiled
def _rate(jac: F64, velocity: F64, part: int) -> float:
    """Speed of the TCP, linear (part 0) or angular (1), at joint velocity (n,)."""
    square = 0.0
    for row in range(3 * part, 3 * part + 3):
        rate = 0.0
        for i in range(velocity.size):
            rate += jac[row, i] * velocity[i]
        square += rate * rate
    return math.sqrt(square)


@compiled
def _share_within(jac: F64, base: F64, way: F64, most: float, part: int) -> float:
    """The largest s in [0, 1] for which the TCP's part of `base + s·way` is at most `most`; 0 if none."""
    a = b = c = 0.0
    for row in range(3 * part, 3 * part + 3):
        x = y = 0.0
        for i in range(way.size):
            x += jac[row, i] * base[i]
            y += jac[row, i] * way[i]
        a += y * y
        b += x * y
        c += x * x
    c -= most * most
    if a + 2 * b + c <= 0:
        return 1.0
    root = b * b - a * c
    if a == 0 or root <= 0:
        return 0.0
    return min(max((-b + math.sqrt(root)) / a, 0.0), 1.0)


@compiled
def _note(notes: F64, row: int, rule: int, index: int, asked: float, allowed: float) -> None:
    notes[row, 0], notes[row, 1], notes[row, 2], notes[row, 3] = rule, index, asked, allowed
