"""Inverse kinematics of one tick, compiled: Gauss-Newton steps from the last solution towards a pose of the TCP.

Each step is the minimum of a quadratic program: the TCP's error, Levenberg-Marquardt damping that grows with it, and a
weak pull towards a posture, within bounds on the joints. The weights, and so the step to first order, are those of
mink's frame and posture tasks; the error is taken as place and rotation vector in the base frame, not as a twist.
Where the minimum without bounds lies within them it is the solution; where it does not, `ik` asks daqp.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from reflexarc.controllers.kernels import jacobian_inverse, turn_between
from reflexarc.wire.chain import Chain, jacobian, place, quaternion
from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

CLOSE_M, CLOSE_RAD = 2e-5, 1e-4
"""A solution this near needs no further step."""
FARTHEST_M = 100.0
"""A target beyond this is no place, but a fault."""
POSTURE_PER_M = 5.0
"""Share of the posture error that is undone per metre of travel: the elbow moves only while the hand does."""
FAR_DAMPING = 5.0
"""Levenberg-Marquardt damping per squared error: a target out of reach is drawn near to, not chattered at."""
LEVER_M = 0.25
"""Metres of travel that one radian of turning counts for."""
NONSENSE = -1
"""In place of a number of steps: the target is no place."""
LEAST_PIVOT = 1e-14
"""A program whose matrix has a smaller one has no single minimum."""


class Work(NamedTuple):
    """Where the arm is, and the program of the next step: min ½ dqᵀ·hessian·dq + gradient·dq within [low, high].

    origin (n+2, 3), turn (n+2, 3, 3), jacobian (6, n): as in `wire.chain`. error: (6,) m and rad, what the TCP has yet
    to go. hessian (n, n). gradient, low, high, step: (n,) rad.
    """

    origin: F64
    turn: F64
    jacobian: F64
    error: F64
    hessian: F64
    gradient: F64
    low: F64
    high: F64
    step: F64


class Program(NamedTuple):
    """The parts of `Work` that outlast a call."""

    jacobian: F64
    hessian: F64
    gradient: F64
    low: F64
    high: F64


def empty_program(n: int) -> Program:
    """Room for an arm of n joints."""
    return Program(np.zeros((6, n)), np.zeros((n, n)), np.zeros(n), np.zeros(n), np.zeros(n))


@compiled
def descend(
    offset: F64,
    rotation: F64,
    zero: F64,
    tcp_offset: F64,
    tcp_rotation: F64,
    rows: F64,
    hessian: F64,
    gradient: F64,
    low: F64,
    high: F64,
    target: F64,
    home: F64,
    lowest: F64,
    highest: F64,
    reach: F64,
    posture: float,
    damping: float,
    steps: int,
    first: bool,
    position: F64,
) -> tuple[int, float, float]:
    """Up to `steps` steps from position (n,), which is moved on, towards target (7,), within [lowest, highest] (n,).

    offset .. tcp_rotation: of a `Chain`; rows (its Jacobian) .. high: of a `Program`. They are given one by one because
    compiled code is entered with plain arrays in a tenth of the time that tuples take. reach: (n,) rad, of one step.
    posture: cost per rad of the way to home (n,), which only the first step heeds. damping: of every step. Returns how
    many steps are left because a bound binds, of which the first's program stands in the `Program`; 0 if it is done;
    NONSENSE. And how far the TCP is from the target, m and rad.
    """
    for value in target:
        if not abs(value) < FARTHEST_M:
            return NONSENSE, math.inf, math.inf
    n = position.size
    chain = Chain(offset, rotation, zero, tcp_offset, tcp_rotation)
    frames = np.empty((n + 2, 3)), np.empty((n + 2, 3, 3))
    at = Work(frames[0], frames[1], rows, np.empty(6), hessian, gradient, low, high, np.empty(n))
    metres, radians = _aim(chain, target, position, at)
    pull = min(1.0, POSTURE_PER_M * (metres + LEVER_M * radians)) if first else 0.0
    while steps > 0 and (first or metres >= CLOSE_M or radians >= CLOSE_RAD):
        _write_program(home, lowest, highest, reach, posture, damping, pull, position, at)
        if not _free_minimum(at):
            return steps, metres, radians
        for i in range(n):
            position[i] += at.step[i]
        metres, radians = _aim(chain, target, position, at)
        pull, first, steps = 0.0, False, steps - 1
    return 0, metres, radians


@compiled
def joint_rates(
    offset: F64, rotation: F64, zero: F64, tcp_offset: F64, tcp_rotation: F64, position: F64, damping: float
) -> F64:
    """(n, 6): joint velocities per m/s and rad/s of the TCP, the least ones, damped; zero where there are none."""
    rows = _jacobian_at(Chain(offset, rotation, zero, tcp_offset, tcp_rotation), position)
    square, rates = _damped_square(rows, damping), np.zeros((position.size, 6))
    if not _factor(square):
        return rates
    for axis in range(6):
        unit = np.zeros(6)
        unit[axis] = 1.0
        _substitute(square, unit)
        for i in range(position.size):
            for row in range(6):
                rates[i, axis] += rows[row, i] * unit[row]
    return rates


@compiled
def with_twist(
    offset: F64,
    rotation: F64,
    zero: F64,
    tcp_offset: F64,
    tcp_rotation: F64,
    position: F64,
    guess: F64,
    twist: F64,
    damping: float,
) -> F64:
    """The joint velocity (n,) nearest to `guess` that moves the TCP by `twist` (6,), damped."""
    rows = _jacobian_at(Chain(offset, rotation, zero, tcp_offset, tcp_rotation), position)
    square, found, missing = _damped_square(rows, damping), guess.copy(), twist.copy()
    if not _factor(square):
        return found
    for row in range(6):
        for i in range(guess.size):
            missing[row] -= rows[row, i] * guess[i]
    _substitute(square, missing)
    for row in range(6):
        for i in range(guess.size):
            found[i] += rows[row, i] * missing[row]
    return found


@compiled
def _jacobian_at(chain: Chain, position: F64) -> F64:
    """(6, n): the TCP's Jacobian at position (n,)."""
    n = position.size
    origin, turn, rows = np.empty((n + 2, 3)), np.empty((n + 2, 3, 3)), np.empty((6, n))
    place(chain, position, origin, turn)
    jacobian(origin, turn, rows)
    return rows


@compiled
def _aim(chain: Chain, target: F64, position: F64, at: Work) -> tuple[float, float]:
    """Write frames, Jacobian and error at position (n,). Returns how far the TCP is from the target, m and rad."""
    place(chain, position, at.origin, at.turn)
    jacobian(at.origin, at.turn, at.jacobian)
    tcp = position.size + 1
    turn = turn_between(target[3:], quaternion(at.turn[tcp]))
    metres = radians = 0.0
    for i in range(3):
        at.error[i], at.error[3 + i] = target[i] - at.origin[tcp, i], turn[i]
        metres += at.error[i] ** 2
        radians += turn[i] ** 2
    return math.sqrt(metres), math.sqrt(radians)


@compiled
def _write_program(
    home: F64,
    lowest: F64,
    highest: F64,
    reach: F64,
    posture: float,
    damping: float,
    pull: float,
    position: F64,
    at: Work,
) -> None:
    """The program of the next step from where `_aim` looked."""
    n = position.size
    rows = at.jacobian.copy()
    square = 0.0
    for row in range(6):
        square += at.error[row] ** 2
    # The rotation vector r that is left changes at -J⁻¹(-r) times the TCP's spin, J the left Jacobian of SO(3).
    for i in range(n):
        rows[3:, i] = jacobian_inverse(-at.error[3:], at.jacobian[3:, i])
    weight = posture * posture
    for i in range(n):
        for j in range(i + 1):
            entry = weight + damping + FAR_DAMPING * square if i == j else 0.0
            for row in range(6):
                entry += rows[row, i] * rows[row, j]
            at.hessian[i, j] = at.hessian[j, i] = entry
        at.gradient[i] = weight * pull * (position[i] - home[i])
        for row in range(6):
            at.gradient[i] -= rows[row, i] * at.error[row]
        at.low[i] = max(lowest[i] - position[i], -reach[i])
        at.high[i] = min(highest[i] - position[i], reach[i])


@compiled
def _free_minimum(at: Work) -> bool:
    """Write the step to the minimum without bounds; returns whether it lies within them."""
    factor = at.hessian.copy()
    if not _factor(factor):
        return False
    for i in range(at.step.size):
        at.step[i] = -at.gradient[i]
    _substitute(factor, at.step)
    within = True
    for i in range(at.step.size):
        within = within and at.low[i] <= at.step[i] <= at.high[i]
    return within


@compiled
def _damped_square(rows: F64, damping: float) -> F64:
    """(6, 6): J·Jᵀ + damping of a Jacobian (6, n)."""
    square = np.empty((6, 6))
    for row in range(6):
        for column in range(6):
            entry = damping if row == column else 0.0
            for i in range(rows.shape[1]):
                entry += rows[row, i] * rows[column, i]
            square[row, column] = entry
    return square


@compiled
def _factor(matrix: F64) -> bool:
    """Replace a symmetric matrix (k, k) by its Cholesky factor, in the lower half; False if it is not definite."""
    for i in range(matrix.shape[0]):
        for j in range(i + 1):
            entry = matrix[i, j]
            for k in range(j):
                entry -= matrix[i, k] * matrix[j, k]
            if i == j:
                if not entry > LEAST_PIVOT:
                    return False
                matrix[i, i] = math.sqrt(entry)
            else:
                matrix[i, j] = entry / matrix[j, j]
    return True


@compiled
def _substitute(factor: F64, vector: F64) -> None:
    """Replace vector (k,) by the solution of matrix·x = vector, `factor` being that matrix's."""
    size = vector.size
    for i in range(size):
        for k in range(i):
            vector[i] -= factor[i, k] * vector[k]
        vector[i] /= factor[i, i]
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            vector[i] -= factor[k, i] * vector[k]
        vector[i] /= factor[i, i]
