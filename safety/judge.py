"""Judges a proposed tick by rolling out the whole stop that would follow it, tick by tick. Compiled.

Every tick of the stop is held against every limit, by the same numbers that would be commanded: no bound is
estimated. Two things keep that fast: a clearance is looked at again only when the arm has moved so far since that it
could be used up, and a proposal that fails is given up at once unless all its failures are asked for.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from reflexarc.safety.clearance import Clearances, Scratch, arrange, arrange_ends, clearance
from reflexarc.safety.shapes import Capsules
from reflexarc.safety.stop import MOST_TICKS, stop_plan
from reflexarc.wire.chain import Chain, jacobian, place, twist_step
from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

# What a proposal may fail by, beside a clearance; the order of `RATES` in reports.
FINE = -1
VELOCITY, ACCELERATION, JERK, TCP_SPEED, TCP_ANGULAR_SPEED, TCP_ACCELERATION = range(6)
TCP_ANGULAR_ACCELERATION, TCP_JERK, TCP_ANGULAR_JERK, BODY_SPEED, CLEARANCE = range(6, 11)
# Rounding of comparisons, relative: a thousandth of the margin that `limits` keeps.
SLACK = 1e-12


class Rates(NamedTuple):
    """Limits of how fast. dt: s. velocity (n,) rad/s; change (n,) rad/s per tick; step (n,) of that change.

    near: (n, 4) offset, slope, lower, upper of `VelocityNearLimits`, already scaled; slope 0 where there is none.
    tcp: (2, 3) of the TCP, linear m and angular rad: displacement per tick, its change, the change of that.
    tcp_change, tcp_step: (2,) m/s and rad/s, what a stop plans to use of the last two. body: m per tick.
    reach: (n,) m, how far a part of the arm is from a joint's axis at most.
    """

    dt: float
    velocity: F64
    change: F64
    step: F64
    near: F64
    tcp: F64
    tcp_change: F64
    tcp_step: F64
    body: float
    reach: F64


class MotionState(NamedTuple):
    """The commanded motion at one tick. position, velocity, change: (n,) rad, rad/s, rad/s.

    twist: (6,) m and rad, how the TCP moved in the last tick; twist_change: (6,) what that changed by.
    """

    position: F64
    velocity: F64
    change: F64
    twist: F64
    twist_change: F64

    def still(self) -> bool:
        """Whether another tick at velocity zero would change nothing."""
        return not (self.velocity.any() or self.change.any() or self.twist.any() or self.twist_change.any())


class Verdict(NamedTuple):
    """rule: FINE or what failed first; which: joint, capsule or clearance; asked, allowed: in its unit.

    stop: (m, n) velocities of the stop after the tick.
    """

    rule: int
    which: int
    asked: float
    allowed: float
    stop: F64


@compiled
def velocity_bound(rates: Rates, joint: int, position: float, up: bool) -> float:
    """The largest speed, rad/s ≥ 0, of a joint at a position, upwards or downwards."""
    slope = rates.near[joint, 1]
    if slope == 0.0:
        return float(rates.velocity[joint])
    room = rates.near[joint, 3] - position if up else position - rates.near[joint, 2]
    shrunk = math.sqrt(slope * room) - rates.near[joint, 0] if room > 0 else 0.0
    return float(min(rates.velocity[joint], max(shrunk, 0.0)))


@compiled
def judge(
    chain: Chain,
    capsules: Capsules,
    table: Clearances,
    rates: Rates,
    now: MotionState,
    proposal: F64,
    here: F64,
    at: Scratch,
    worst: F64,
    where: F64,
) -> Verdict:
    """Whether one tick at velocity `proposal` (n,) and the stop after it stay within every limit.

    here: (K,) the clearances at the present position. worst: (K,) or empty: if not empty, no clearance ends the
    rollout; the lowest of each that is violated is written there (0 elsewhere), and to where (K, n) the joint
    position at which it is.
    """
    n = proposal.size
    for i in range(n):
        if not math.isfinite(proposal[i]):  # compares with nothing, so no limit below would refuse it
            return Verdict(VELOCITY, i, proposal[i], rates.velocity[i], np.empty((0, n)))
    arrange(chain, capsules, now.position, at)
    jacobian(at.origin, at.turn, at.jacobian)
    first = proposal - now.velocity
    stop = stop_plan(proposal, first, rates.change, rates.step, at.jacobian, rates.tcp_change, rates.tcp_step)
    if stop.shape[0] > MOST_TICKS:
        return Verdict(ACCELERATION, 0, 0.0, 0.0, stop)
    collect = worst.size > 0
    worst[:] = 0.0
    failed = -1
    # How far the arm must have travelled, in m, before a clearance can be used up.
    due, pace, soonest = np.empty(here.size), table.pace, math.inf
    for row in range(here.size):
        due[row] = max(here[row], 0.0) * pace[row]
        soonest = min(soonest, due[row])
    position, velocity, change = now.position.copy(), now.velocity.copy(), now.change.copy()
    twist, twist_change, moved = now.twist.copy(), now.twist_change.copy(), np.empty(6)
    before, before_turn = at.origin[n + 1].copy(), at.turn[n + 1].copy()
    ends = at.ends.copy()
    travel, by = 0.0, _travel(rates, proposal)
    for tick in range(stop.shape[0] + 1):
        following = proposal if tick == 0 else stop[tick - 1]
        # No part of the arm moves by more than the arm travels: where that is little, nobody asks where they are.
        past, by = by, _travel(rates, stop[tick]) if tick < stop.shape[0] else 0.0
        travel += past
        for i in range(n):
            delta = following[i] - velocity[i]
            step = delta - change[i]
            position[i] += following[i] * rates.dt
            bound = velocity_bound(rates, i, position[i], following[i] > 0)
            if not abs(following[i]) <= bound * (1 + SLACK) + SLACK:
                return Verdict(VELOCITY, i, following[i], bound, stop)
            if not abs(delta) <= rates.change[i] * (1 + SLACK):
                return Verdict(ACCELERATION, i, delta / rates.dt, rates.change[i] / rates.dt, stop)
            if not abs(step) <= rates.step[i] * (1 + SLACK):
                dt2 = rates.dt * rates.dt
                return Verdict(JERK, i, step / dt2, rates.step[i] / dt2, stop)
            velocity[i], change[i] = following[i], delta
        place(chain, position, at.origin, at.turn)
        twist_step(before, before_turn, at.origin[n + 1], at.turn[n + 1], moved)
        before[:] = at.origin[n + 1]
        before_turn[:] = at.turn[n + 1]
        rule, asked = _tcp_rule(moved, twist, twist_change, rates.tcp)
        if rule != FINE:
            order = (rule - TCP_SPEED) // 2
            unit = rates.dt ** (order + 1)
            allowed = rates.tcp[(rule - TCP_SPEED) % 2, order]
            return Verdict(rule, 0, asked / unit, allowed / unit, stop)
        for i in range(6):
            twist_change[i] = moved[i] - twist[i]
            twist[i] = moved[i]
        if past > rates.body or by > rates.body or travel > soonest:
            arrange_ends(capsules, at)
        if past > rates.body:
            part, square = _fastest(ends, at.ends)
            if square > rates.body * rates.body:
                asked = math.sqrt(square) / rates.dt
                return Verdict(BODY_SPEED, part, asked, rates.body / rates.dt, stop)
        if by > rates.body:
            ends[:] = at.ends
        if travel <= soonest:
            continue
        soonest = math.inf
        for row in range(here.size):
            if travel > due[row]:
                left = clearance(row, table, capsules, position, at)
                over = left - min(here[row], 0.0)
                due[row] = travel + max(over, 0.0) * pace[row]
                if over < 0.0:
                    if not collect:
                        return Verdict(CLEARANCE, row, left, 0.0, stop)
                    failed = row
                    if over < worst[row]:
                        worst[row] = over
                        where[row] = position
            soonest = min(soonest, due[row])
    if failed >= 0:
        return Verdict(CLEARANCE, int(np.argmin(worst)), worst.min(), 0.0, stop)
    return Verdict(FINE, 0, 0.0, 0.0, stop)


@compiled
def shorten(
    chain: Chain,
    capsules: Capsules,
    table: Clearances,
    rates: Rates,
    now: MotionState,
    base: F64,
    proposal: F64,
    here: F64,
    at: Scratch,
    halvings: int,
) -> tuple[F64, Verdict]:
    """As much of the way from `base` (n,) to a refused `proposal` (n,) as is accepted, by halving, and the verdict.

    The verdict is FINE only if something was accepted. here: as for `judge`.
    """
    none, nowhere = np.empty(0), np.empty((0, proposal.size))
    best, low, high = proposal.copy(), 0.0, 1.0
    verdict = Verdict(VELOCITY, 0, 0.0, 0.0, np.empty((0, proposal.size)))
    for _ in range(halvings):
        middle = (low + high) / 2
        candidate = base + middle * (proposal - base)
        judged = judge(chain, capsules, table, rates, now, candidate, here, at, none, nowhere)
        if judged.rule == FINE:
            best, verdict, low = candidate, judged, middle
        else:
            high = middle
    return best, verdict


@compiled
def _travel(rates: Rates, velocity: F64) -> float:
    """How far any point of the arm moves in a tick at velocity (n,), at most, m."""
    travel = 0.0
    for i in range(velocity.size):
        travel += rates.reach[i] * abs(velocity[i])
    return travel * rates.dt


@compiled
def _fastest(before: F64, after: F64) -> tuple[int, float]:
    """Which capsule has the end that moved furthest between (C, 2, 3) and (C, 2, 3), and the square of that, m²."""
    fastest, most = 0, 0.0
    for c in range(before.shape[0]):
        for end in range(2):
            square = 0.0
            for i in range(3):
                gap = after[c, end, i] - before[c, end, i]
                square += gap * gap
            if square > most:
                fastest, most = c, square
    return fastest, most


@compiled
def _tcp_rule(moved: F64, twist: F64, twist_change: F64, limits: F64) -> tuple[int, float]:
    """Which limit of the TCP a tick breaks, and what it asks for, in m or rad per tick; FINE if none."""
    for order in range(3):
        for part in range(2):
            square = 0.0
            for i in range(3 * part, 3 * part + 3):
                value = moved[i]
                if order > 0:
                    value -= twist[i]
                if order > 1:
                    value -= twist_change[i]
                square += value * value
            if not square <= limits[part, order] * limits[part, order]:
                return TCP_SPEED + 2 * order + part, math.sqrt(square)
    return FINE, 0.0
