"""What Python calls of a tick, each one compiled call: the proposal, another look at a bent one, a shorter one.

The usual tick is the first alone: wish, projection, clearances, judgement. See there; here they are put together.
"""

from __future__ import annotations

import numpy as np

from reflexarc.safety.barrier import barrier_rows, slow_rows
from reflexarc.safety.block import Block, spread
from reflexarc.safety.clearance import Scratch, clearances
from reflexarc.safety.judge import VELOCITY, MotionState, Verdict, judge, shorten
from reflexarc.safety.project import project, wish
from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

# What is too fast is proposed again at so much of what would have been allowed.
BELOW = 0.98


@compiled
def propose(
    block: Block,
    now: MotionState,
    target: F64,
    target_velocity: F64,
    scale: float,
    slow: F64,
    singularity_slow: float,
    at: Scratch,
    here: F64,
    worst: F64,
    where: F64,
) -> tuple[F64, F64, F64, F64, F64, F64, F64, Verdict]:
    """What is asked for, the wish, the proposal, each (n,) rad/s; notes; rows and what was slowed; and the verdict.

    here: (K,) is given the clearances at the present position. worst, where: as for `judge`. slow: as for `slow_rows`.
    Notes: (3, 4), two rows of `wish` and one of `project`. Rows: of `slow_rows`, and what it tells.
    """
    chain, capsules, table, rates = spread(block)
    asked, notes = np.empty(target.size), np.empty((3, 4))
    wanted = wish(chain, rates, now, target, target_velocity, scale, at, asked, notes[:2])
    proposal = project(chain, rates, now, wanted, at, notes[2:])
    clearances(table, chain, capsules, now.position, at, here)
    normals, least, told = slow_rows(
        chain, capsules, table, now.position, wanted, here, slow, singularity_slow, at
    )
    verdict = judge(chain, capsules, table, rates, now, proposal, here, at, worst, where)
    return asked, wanted, proposal, notes, normals, least, told, verdict


@compiled
def examine(
    block: Block, now: MotionState, candidate: F64, at: Scratch, here: F64, worst: F64, where: F64
) -> Verdict:
    """The verdict on a velocity (n,); arrays as for `propose`."""
    chain, capsules, table, rates = spread(block)
    return judge(chain, capsules, table, rates, now, candidate, here, at, worst, where)


@compiled
def obstructions(
    block: Block,
    now: MotionState,
    candidate: F64,
    at: Scratch,
    worst: F64,
    where: F64,
    normals: F64,
    least: F64,
) -> tuple[F64, F64]:
    """Rows normals (k, n) and least (k,), and below them those of what a refused `candidate` (n,) would run into."""
    chain, capsules, table, rates = spread(block)
    more, more_least = barrier_rows(
        chain, capsules, table, now.position, candidate, worst, where, at, rates.dt
    )
    return np.concatenate((normals, more)), np.concatenate((least, more_least))


@compiled
def slow_down(
    block: Block,
    now: MotionState,
    wanted: F64,
    rule: int,
    which: int,
    asked: float,
    allowed: float,
    at: Scratch,
) -> tuple[F64, F64]:
    """The wish (n,), slower by what a refusal for speed says, and the proposal (n,) towards it.

    All of the wish is slower, or the one joint that is near its end. rule, which, asked, allowed: of the verdict.
    """
    chain, _, _, rates = spread(block)
    slower, share = wanted.copy(), BELOW * allowed / max(abs(asked), 1e-12)
    if rule == VELOCITY:
        slower[which] *= share
    else:
        slower *= share
    return slower, project(chain, rates, now, slower, at, np.empty((1, 4)))


@compiled
def shortened(
    block: Block, now: MotionState, base: F64, proposal: F64, at: Scratch, here: F64, halvings: int
) -> tuple[F64, Verdict]:
    """`shorten` for a block."""
    chain, capsules, table, rates = spread(block)
    return shorten(chain, capsules, table, rates, now, base, proposal, here, at, halvings)


@compiled
def reachable(block: Block, now: MotionState) -> tuple[F64, F64]:
    """Bounds (n,), (n,) rad/s of the next tick's velocity by each joint's velocity, acceleration and jerk."""
    _, _, _, rates = spread(block)
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
