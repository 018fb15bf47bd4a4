"""The small quadratic program that bends a proposal away from what it would run into, instead of stopping it.

Each row is a control barrier condition on the velocity of the next tick. Where the *stop* after the proposal would
break a clearance h, the condition is its first-order change along that stop, h + ∇h·s·(v - proposal) ≥ 0, where s is
how far the stop carries a velocity: a backup control barrier function (T. Gurriet et al., "A Scalable Safety Critical
Control Framework for Nonlinear Systems", IEEE Access 2020). Near obstacles, itself and singularities the arm may
approach only at a share of what it asked for. The program proposes; `judge` decides.
"""

from __future__ import annotations

import ctypes
import functools
import math

import daqp
import numpy as np

from reflexarc.safety.clearance import SINGULAR, Clearances, Scratch, gradient
from reflexarc.safety.limits import REPORT_FRACTION
from reflexarc.safety.shapes import Capsules
from reflexarc.safety.singularity import extreme_singular_values
from reflexarc.wire.chain import Chain, jacobian, place
from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

# daqp: a soft constraint is kept if it can be; else the one that is broken least is found.
SOFT = 8
SOLVED = (1, 2)
# Clearances that one program heeds, those broken most first.
MOST_ROWS = 8
# m, rad: how much of a clearance a bent proposal leaves, so that linearising it does not make it fail again.
LEAVE = 1e-6


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
) -> tuple[F64, F64, F64]:
    """Rows normal·v ≥ least, (k, n) and (k,), where the arm is near something and `wanted` (n,) approaches it.

    Only a share of that rate is left, none at the distance to keep. here, slow: (K,) clearances, and below which the
    arm is near. Third: (j, 3) row of the table, rate and what is allowed of it, of what was slowed, for a report.
    """
    near = np.flatnonzero(here < slow)
    normals, least, told = np.empty((near.size, wanted.size)), np.empty(near.size), np.empty((near.size, 3))
    count = reports = 0
    for row in near:
        share = here[row] / slow[row]
        if table.kind[row] == SINGULAR:
            share = _singular_share(chain, position, singularity_slow, table.keep[row], at)
            if share >= 1:
                continue
        normal = normals[count]
        gradient(row, table, chain, capsules, position, at, normal)
        rate = 0.0
        for i in range(wanted.size):
            rate += normal[i] * wanted[i]
        if rate < 0:
            least[count] = max(share, 0.0) * rate
            if rate < least[count] - REPORT_FRACTION:
                told[reports, 0], told[reports, 1], told[reports, 2] = row, rate, least[count]
                reports += 1
            count += 1
    return normals[:count], least[:count], told[:reports]


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
) -> tuple[F64, F64]:
    """Rows normal·v ≥ least, (k, n) and (k,), for what the stop after `proposal` (n,), just judged, would break.

    position: (n,) now. worst (K,), where (K, n): as `judge` leaves them. dt: s.
    """
    n, square = proposal.size, 0.0
    for i in range(n):
        square += proposal[i] * proposal[i]
    order = np.argsort(worst)[:MOST_ROWS]
    count = 0
    while count < order.size and worst[order[count]] < 0:
        count += 1
    normals, least = np.zeros((count, n)), np.empty(count)
    for k in range(count):
        row = order[k]
        gradient(row, table, chain, capsules, where[row], at, normals[k])
        along = carried = 0.0
        for i in range(n):
            along += normals[k, i] * proposal[i]
            carried += (where[row, i] - position[i]) * proposal[i]
        # How far the stop carries a velocity, seconds, by then.
        carried = max(carried / max(square, 1e-12), dt)
        least[k] = along + (LEAVE - worst[row]) / carried
    return normals, least


def bend_away(proposal: F64, lower: F64, upper: F64, normals: F64, least: F64, otherwise: F64) -> F64:
    """The velocity (n,) nearest to `proposal` within [lower, upper] that keeps all rows; `otherwise` if none is found.

    Rows normal·v ≥ least, (k, n) and (k,), are scaled to unit normals and soft: where they cannot all be kept they are
    broken as little as possible.
    """
    rows, above, below = program(lower, upper, normals, least)
    identity, sense = _unchanging(proposal.size, least.size)
    found, _, flag, _ = daqp.solve(identity, -proposal, rows, above, below, sense)
    if flag not in SOLVED or not math.isfinite(found.sum()):
        return otherwise
    within: F64 = np.minimum(np.maximum(found, lower), upper)
    return within


@functools.cache
def _unchanging(n: int, rows: int) -> tuple[F64, np.ndarray]:  # type: ignore[type-arg]
    """The matrix of the objective, and the kind of each constraint: n bounds, then the rows, which are soft."""
    sense = np.zeros(n + rows, dtype=ctypes.c_int)
    sense[n:] = SOFT
    return np.eye(n), sense


@compiled
def program(lower: F64, upper: F64, normals: F64, least: F64) -> tuple[F64, F64, F64]:
    """Rows with unit normals (k, n), and upper and lower bounds (n + k,) of the joints and then of the rows."""
    n, count = lower.size, least.size
    rows, above, below = np.empty((count, n)), np.full(n + count, 1e30), np.empty(n + count)
    above[:n], below[:n] = upper, lower
    for k in range(count):
        square = 0.0
        for i in range(n):
            square += normals[k, i] * normals[k, i]
        scale = max(math.sqrt(square), 1e-9)
        rows[k] = normals[k] / scale
        below[n + k] = least[k] / scale
    return rows, above, below
