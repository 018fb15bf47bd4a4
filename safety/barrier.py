"""The small quadratic program that bends a proposal away from what it would run into, instead of stopping it.

Each row is a control barrier condition on the velocity of the next tick. Where the *stop* after the proposal would
break a clearance h, the condition is its first-order change along that stop, h + ∇h·s·(v - proposal) ≥ 0, where s is
how far the stop carries a velocity: a backup control barrier function (T. Gurriet et al., "A Scalable Safety Critical
Control Framework for Nonlinear Systems", IEEE Access 2020). Near obstacles, itself and singularities the arm may
approach only at a share of what it asked for. The program proposes; `judge` decides.
"""

from __future__ import annotations

import ctypes

import daqp
import numpy as np

from reflexarc.safety.chain import Chain
from reflexarc.safety.clearance import JOINT, Clearances, Scratch, gradient
from reflexarc.safety.shapes import Capsules
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
        if table.kind[row] == JOINT:
            normals[k, table.a[row]] = -1.0 if table.b[row] else 1.0
        else:
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
    n, rows = proposal.size, least.size
    scales = np.maximum(np.sqrt(np.einsum("ij,ij->i", normals, normals)), 1e-9)
    above = np.concatenate([upper, np.full(rows, 1e30)])
    below = np.concatenate([lower, least / scales])
    sense = np.zeros(n + rows, dtype=ctypes.c_int)
    sense[n:] = SOFT
    found, _, flag, _ = daqp.solve(np.eye(n), -proposal, normals / scales[:, None], above, below, sense)
    if flag not in SOLVED or not np.isfinite(found).all():
        return otherwise
    return np.asarray(np.minimum(np.maximum(found, lower), upper))
