"""The small quadratic program that bends a proposal away from what it would run into, instead of stopping it.

Each row is a control barrier condition on the velocity of the next tick. Where the *stop* after the proposal would
break a clearance h, the condition is its first-order change along that stop, h + ∇h·s·(v - proposal) ≥ 0, where s is
how far the stop carries a velocity: a backup control barrier function (T. Gurriet et al., "A Scalable Safety Critical
Control Framework for Nonlinear Systems", IEEE Access 2020). Near obstacles, itself and singularities the arm may
approach only at a share of what it asked for. The program proposes; `judge` decides.
"""

from __future__ import annotations

import ctypes
import dataclasses

import daqp
import numpy as np

from reflexarc.wire.messages import F64

# daqp: a soft constraint is kept if it can be; else the one that is broken least is found.
SOFT = 8
SOLVED = (1, 2)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """normal·v ≥ least. normal: (n,)."""

    normal: F64
    least: float


def bend_away(proposal: F64, lower: F64, upper: F64, rows: list[Row], otherwise: F64) -> F64:
    """The velocity (n,) nearest to `proposal` within [lower, upper] that keeps all rows; `otherwise` if none is found.

    Rows are scaled to unit normals and soft: where they cannot all be kept they are broken as little as possible.
    """
    n = proposal.size
    scales = [max(float(np.linalg.norm(row.normal)), 1e-9) for row in rows]
    matrix = np.array([row.normal / scale for row, scale in zip(rows, scales, strict=True)])
    above = np.concatenate([upper, np.full(len(rows), 1e30)])
    below = np.concatenate([lower, [row.least / scale for row, scale in zip(rows, scales, strict=True)]])
    sense = np.array([0] * n + [SOFT] * len(rows), dtype=ctypes.c_int)
    found, _, flag, _ = daqp.solve(np.eye(n), -proposal, matrix, above, below, sense)
    if flag not in SOLVED or not np.isfinite(found).all():
        return otherwise
    return np.asarray(np.minimum(np.maximum(found, lower), upper))
