"""The small quadratic program that bends a proposal away from what it would run into, instead of stopping it.

Each row is a control barrier condition on the velocity of the next tick. Where the *stop* after the proposal would
break a clearance h, the condition is its first-order change along that stop, h + ∇h·s·(v - proposal) ≥ 0, where s is
how far the stop carries a velocity: a backup control barrier function (T. Gurriet et al., "A Scalable Safety Critical
Control Framework for Nonlinear Systems", IEEE Access 2020). Near obstacles, itself and singularities the arm may
approach only at a share of what it asked for. The program proposes; `judge` decides.
"""

from __future__ import annotations

import math

import numpy as np

from reflexarc.safety.clearance import SINGULAR, Clearances, Scratch, gradient
from reflexarc.safety.judge import CLEARANCE
from reflexarc.safety.limits import REPORT_FRACTION
from reflexarc.safety.shapes import Capsules
from reflexarc.safety.singularity import extreme_singular_values
from reflexarc.wire.chain import Chain, jacobian, place
from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

# Of a broken row: a hundredth of what was missing is then still missing, which `OVER` makes up for.
SOFT = 0.01
# Of the ascent: rounds over all rows, steps for one, and the change of a multiplier that is none.
SWEEPS, STEPS, CONVERGED = 15, 12, 1e-7
# Clearances that one program heeds, those broken most first.
MOST_ROWS = 8
# m, rad: how much of a clearance a bent proposal leaves, so that linearising it does not make it fail again.
LEAVE = 1e-6
# What would be broken is corrected by so much more than to first order: most are then kept at the first attempt.
OVER = 1.5


@compiled
def slow_rows(
    chain: Chain,
    capsules: Capsules,
    table: Clearances,
    position: F64,
    wanted: F64,
    here: F64,
    slow: F64,
    singularity_slow: float,
    at: Scratch,
    rows: F64,
    told: F64,
) -> tuple[int, int]:
    """Write rows normal·v ≥ least, (k, n + 1), where the arm is near something and `wanted` (n,) approaches it.

    Only a share of that rate is left, none at the distance to keep. here, slow: (K,) clearances, and below which the
    arm is near. told: (j, 4) is given CLEARANCE, row of the table, rate and what is allowed of it, of what was slowed.
    Returns k and j.
    """
    n, count, reports = wanted.size, 0, 0
    for row in range(here.size):
        if here[row] >= slow[row]:
            continue
        share = here[row] / slow[row]
        if table.kind[row] == SINGULAR:
            share = _singular_share(chain, position, singularity_slow, table.keep[row], at)
            if share >= 1:
                continue
        gradient(row, table, chain, capsules, position, at, rows[count, :n])
        rate = 0.0
        for i in range(n):
            rate += rows[count, i] * wanted[i]
        if rate < 0:
            allowed = max(share, 0.0) * rate
            rows[count, n] = allowed
            if rate < allowed - REPORT_FRACTION:
                told[reports, 0], told[reports, 1], told[reports, 2] = CLEARANCE, row, rate
                told[reports, 3] = allowed
                reports += 1
            count += 1
    return count, reports


@compiled
def _singular_share(chain: Chain, position: F64, slow: float, stop: float, at: Scratch) -> float:
    """1 where the condition number is `slow`, 0 where it is `stop`."""
    place(chain, position, at.origin, at.turn)
    jacobian(at.origin, at.turn, at.jacobian)
    largest, smallest = extreme_singular_values(at.jacobian)
    return (stop - largest / max(smallest, 1e-9)) / (stop - slow)


@compiled
def barrier_rows(
    chain: Chain,
    capsules: Capsules,
    table: Clearances,
    position: F64,
    proposal: F64,
    worst: F64,
    where: F64,
    at: Scratch,
    dt: float,
    rows: F64,
) -> int:
    """Write rows normal·v ≥ least, (k, n + 1), for what the stop after `proposal` (n,), just judged, would break.

    position: (n,) now. worst (K,), where (K, n): as `judge` leaves them; worst is used up. dt: s. Returns k.
    """
    n, square = proposal.size, 0.0
    for i in range(n):
        square += proposal[i] * proposal[i]
    count = 0
    while count < MOST_ROWS:
        row = int(np.argmin(worst))
        by, worst[row] = worst[row], 0.0
        if by >= 0.0:
            break
        gradient(row, table, chain, capsules, where[row], at, rows[count, :n])
        along = carried = 0.0
        for i in range(n):
            along += rows[count, i] * proposal[i]
            carried += (where[row, i] - position[i]) * proposal[i]
        # How far the stop carries a velocity, seconds, by then.
        carried = max(carried / max(square, 1e-12), dt)
        rows[count, n] = along + (LEAVE - OVER * by) / carried
        count += 1
    return count


@compiled
def bend_away(proposal: F64, lower: F64, upper: F64, rows: F64) -> F64:
    """The velocity (n,) nearest to `proposal` within [lower, upper] (n,) that keeps rows normal·v ≥ least, (k, n + 1).

    Rows are scaled to unit normals and soft, s at a cost of s²/2·SOFT: where they cannot all be kept they are broken as
    little as possible. By ascent of the dual, one row's multiplier after another (C. Hildreth, "A quadratic programming
    procedure", Naval Research Logistics Quarterly 1957), bounds by clipping; what has not converged is a proposal too.
    """
    count, n = rows.shape[0], proposal.size
    weight, free, found = np.zeros(count), proposal.copy(), np.empty(n)
    for k in range(count):
        square = 0.0
        for i in range(n):
            square += rows[k, i] * rows[k, i]
        rows[k] /= max(math.sqrt(square), 1e-9)
    for _ in range(SWEEPS):
        moved = 0.0
        for k in range(count):
            moved = max(moved, _ascend(k, rows, lower, upper, weight, free))
        if moved <= CONVERGED:
            break
    for i in range(n):
        found[i] = min(max(free[i], lower[i]), upper[i])
    return found


@compiled
def _ascend(k: int, rows: F64, lower: F64, upper: F64, weight: F64, free: F64) -> float:
    """Give row k the multiplier that keeps it, others staying as they are: Newton's steps, halved where they overshoot.

    weight: (K,) multipliers; free: (n,) the minimum for them without bounds; both are changed. Returns by how much.
    """
    n, begun, least, most = free.size, weight[k], 0.0, math.inf
    for _ in range(STEPS):
        missing, slope = rows[k, n] - SOFT * weight[k], SOFT
        for i in range(n):
            if lower[i] < free[i] < upper[i]:
                slope += rows[k, i] * rows[k, i]
            missing -= rows[k, i] * min(max(free[i], lower[i]), upper[i])
        if missing > 0.0:
            least = weight[k]
        else:
            most = weight[k]
        to = max(weight[k] + missing / slope, 0.0)
        if to >= most or (to <= least and missing < 0.0 and least > 0.0):
            to = 0.5 * (least + most)
        by = to - weight[k]
        if abs(by) <= CONVERGED:
            break
        weight[k] = to
        for i in range(n):
            free[i] += by * rows[k, i]
    return float(abs(weight[k] - begun))
