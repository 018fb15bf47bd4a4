"""What Python calls of a tick: a proposal with its verdict, and a better one where that was refused.

The usual tick is the first alone: wish, projection, clearances, judgement. See there; here they are put together.
Arguments are plain arrays, and results are written into some of them: see `block`.
"""

from __future__ import annotations

import numpy as np

from reflexarc.safety.barrier import barrier_rows, bend_away, slow_rows
from reflexarc.safety.block import spread
from reflexarc.safety.clearance import clearances
from reflexarc.safety.judge import (
    BODY_SPEED,
    CLEARANCE,
    FINE,
    TCP_ANGULAR_SPEED,
    TCP_SPEED,
    VELOCITY,
    MotionState,
    Rates,
    judge,
    shorten,
)
from reflexarc.safety.project import project, wish
from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

# What is too fast is proposed again at so much of what would have been allowed.
BELOW = 0.98
# Quadratic programs for one proposal: what the first one bends it into may be in the way of something else.
ROUNDS = 2
# Halvings between the stop and a refused proposal. 2^-2 of the step in velocity is lost at worst.
BISECTIONS = 2
# Of the rows that tell what was limited, those of `wish` and `project`; those of `slow_rows` follow.
NOTES = 3
# Rows of the three velocities of a tick.
ASKED, WANTED, PROPOSED = range(3)


@compiled
def propose(
    numbers: F64,
    whole: np.ndarray,  # type: ignore[type-arg]
    room: F64,
    position: F64,
    velocity: F64,
    change: F64,
    twist: F64,
    twist_change: F64,
    target: F64,
    target_velocity: F64,
    scale: float,
    velocities: F64,
    notes: F64,
) -> tuple[int, int, int, int, float, float, F64]:
    """Write velocities (3, n) rad/s, what is asked for, the wish, the proposal, and notes (3 + j, 4): what was limited.

    numbers, whole, room: of a `Block`. position .. twist_change: of a `MotionState`. Returns the number of rows of
    `slow_rows`, which stand in the room, that of the notes, and the verdict on the proposal.
    """
    fixed, inside = spread(numbers, whole, room)
    chain, capsules, table, rates, slow, singularity_slow = fixed
    now = MotionState(position, velocity, change, twist, twist_change)
    wanted = wish(
        chain, rates, now, target, target_velocity, scale, inside.at, velocities[ASKED], notes[: NOTES - 1]
    )
    velocities[WANTED] = wanted
    velocities[PROPOSED] = project(chain, rates, now, wanted, inside.at, notes[NOTES - 1 : NOTES])
    clearances(table, chain, capsules, position, inside.at, inside.here)
    rows, told = slow_rows(
        chain,
        capsules,
        table,
        position,
        wanted,
        inside.here,
        slow,
        singularity_slow,
        inside.at,
        inside.rows,
        notes[NOTES:],
    )
    verdict = judge(
        chain,
        capsules,
        table,
        rates,
        now,
        velocities[PROPOSED],
        inside.here,
        inside.at,
        inside.worst,
        inside.where,
    )
    return rows, NOTES + told, verdict.rule, verdict.which, verdict.asked, verdict.allowed, verdict.stop


@compiled
def improve(
    numbers: F64,
    whole: np.ndarray,  # type: ignore[type-arg]
    room: F64,
    position: F64,
    velocity: F64,
    change: F64,
    twist: F64,
    twist_change: F64,
    base: F64,
    velocities: F64,
    rows: int,
    rule: int,
    which: int,
    asked: float,
    allowed: float,
    refused: F64,
) -> tuple[int, F64]:
    """A proposal slower where it is too fast, bent where it runs into something, at last shortened towards `base` (n,).

    Arguments as `propose` leaves them, and the four numbers of its verdict. Replaces the proposal. refused: (4,) is
    given the numbers of the first refusal that slowing near things did not prevent. Returns rule and stop of the
    verdict on the last proposal, which is FINE or not to be used.
    """
    fixed, inside = spread(numbers, whole, room)
    chain, capsules, table, rates, _, _ = fixed
    at, here, worst, where = inside.at, inside.here, inside.worst, inside.where
    now = MotionState(position, velocity, change, twist, twist_change)
    lower, upper = _reachable(now, rates)
    wanted, proposal = velocities[WANTED].copy(), velocities[PROPOSED].copy()
    candidate, stop = proposal, np.empty((0, proposal.size))
    if rows:
        candidate = bend_away(proposal, lower, upper, inside.rows[:rows])
        verdict = judge(chain, capsules, table, rates, now, candidate, here, at, worst, where)
        rule, which, asked, allowed = verdict.rule, verdict.which, verdict.asked, verdict.allowed
        stop = verdict.stop
    refused[0], refused[1], refused[2], refused[3] = rule, which, asked, allowed
    for _ in range(ROUNDS):
        if rule == CLEARANCE:
            rows += barrier_rows(
                chain,
                capsules,
                table,
                position,
                candidate,
                worst,
                where,
                at,
                rates.dt,
                inside.rows[rows:],
            )
        elif rule in (VELOCITY, TCP_SPEED, TCP_ANGULAR_SPEED, BODY_SPEED):
            share = BELOW * allowed / max(abs(asked), 1e-12)
            if rule == VELOCITY:  # near the end of its range one joint alone must be slower
                wanted[which] *= share
            else:
                wanted *= share
            proposal = project(chain, rates, now, wanted, at, np.empty((1, 4)))
        else:
            break
        candidate = bend_away(proposal, lower, upper, inside.rows[:rows]) if rows else proposal
        verdict = judge(chain, capsules, table, rates, now, candidate, here, at, worst, where)
        rule, which, asked, allowed = verdict.rule, verdict.which, verdict.asked, verdict.allowed
        stop = verdict.stop
    if rule != FINE:
        candidate, verdict = shorten(
            chain, capsules, table, rates, now, base, candidate, here, at, BISECTIONS
        )
        rule, stop = verdict.rule, verdict.stop
    velocities[PROPOSED] = candidate
    return rule, stop


@compiled
def _reachable(now: MotionState, rates: Rates) -> tuple[F64, F64]:
    """Bounds (n,), (n,) rad/s of the next tick's velocity by each joint's velocity, acceleration and jerk."""
    low, high = np.empty(now.velocity.size), np.empty(now.velocity.size)
    for i in range(now.velocity.size):
        most, change, step = rates.velocity[i], rates.change[i], rates.step[i]
        lowest = now.velocity[i] + max(-change, now.change[i] - step)
        highest = now.velocity[i] + min(change, now.change[i] + step)
        low[i] = min(max(lowest, -most), most)
        high[i] = max(min(highest, most), low[i])
    return low, high


@compiled
def let_through(asked: F64, velocity: F64, most: F64) -> float:
    """How much of the velocity (n,) asked for is there, along its direction, joints weighed by their limits (n,)."""
    part = whole = 0.0
    for i in range(asked.size):
        weighed = asked[i] / (most[i] * most[i])
        part += weighed * velocity[i]
        whole += weighed * asked[i]
    return min(max(part / whole, 0.0), 1.0) if whole > 1e-12 else 1.0
