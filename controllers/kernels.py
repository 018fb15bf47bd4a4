"""What a tick computes of a path, compiled: a place on a cubic, and the same with what is left of a gap.

In NumPy these are dozens of calls on arrays of three numbers, some 40 µs a place, and a new chunk asks for ten places
in one tick (`benchmarks/controller_tick.py`). Formulas and conventions are those of `wire.geometry`.
"""

from __future__ import annotations

import math

import numpy as np

from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

NEARLY_ZERO = 1e-4
"""rad: below this angle the series of the Jacobians of SO(3) ends after two terms, as in `wire.geometry`."""


@compiled
def cubic_at(
    points: F64, quats: F64, turns: F64, rates: F64, k: int, u: float, h: float
) -> tuple[F64, F64, F64, F64]:
    """Point (m,), quat (4,), velocity (m,) and spin (3,) at share `u` of segment `k`, which lasts `h` s.

    points (H + 1, m), quats (H + 1, 4), turns (H, 3): of the knots. rates (H + 1, m + 3): velocity and spin at each.
    """
    size = points.shape[1]
    v = u - 1.0
    whole, first, last = u * u * (3.0 - 2.0 * u), h * u * v * v, h * u * u * v
    whole_rate, first_rate, last_rate = -6.0 * u * v / h, v * (3.0 * u - 1.0), u * (3.0 * u - 2.0)
    point, velocity = np.empty(size), np.empty(size)
    for i in range(size):
        step, begin, end = points[k + 1, i] - points[k, i], rates[k, i], rates[k + 1, i]
        point[i] = points[k, i] + whole * step + first * begin + last * end
        velocity[i] = whole_rate * step + first_rate * begin + last_rate * end
    turn, begin_spin = turns[k], rates[k, size:]
    end_rate = jacobian_inverse(turn, rates[k + 1, size:])
    rotvec, rate = np.empty(3), np.empty(3)
    for i in range(3):
        rotvec[i] = whole * turn[i] + first * begin_spin[i] + last * end_rate[i]
        rate[i] = whole_rate * turn[i] + first_rate * begin_spin[i] + last_rate * end_rate[i]
    return point, _turned(rotvec, quats[k]), velocity, _jacobian(rotvec, rate)


@compiled
def beside(
    point: F64, quat: F64, velocity: F64, spin: F64, axes: F64, fade: F64
) -> tuple[F64, F64, F64, F64]:
    """A place of a path, moved by a gap that changes: point and rotation vector.

    axes: (m + 3, m + 3), in rows, of the gap's motion. fade: (2, m + 3) or more rows, place and rate along them.
    """
    size = len(point)
    gap, gap_rate = np.zeros(size + 3), np.zeros(size + 3)
    for axis in range(size + 3):
        for i in range(size + 3):
            gap[i] += axes[axis, i] * fade[0, axis]
            gap_rate[i] += axes[axis, i] * fade[1, axis]
    turn = gap[size:]
    own = _jacobian(turn, gap_rate[size:])
    over = _turned(turn, np.array([1.0, 0.0, 0.0, 0.0]))
    carried = _rotated(over, spin)
    return point + gap[:size], _turned(turn, quat), velocity + gap_rate[:size], own + carried


@compiled
def gap_between(
    point: F64,
    quat: F64,
    velocity: F64,
    spin: F64,
    new_point: F64,
    new_quat: F64,
    new_velocity: F64,
    new_spin: F64,
    change: F64,
    acceleration: F64,
) -> tuple[F64, F64]:
    """The gap by which a motion is beside a new one, which `beside` adds to that: its axes, and its motion along them.

    change: (m + 3,) what the accelerations differ by. acceleration: (m + 3,) limits of the gap's. Returns axes (m + 3,
    m + 3) and place, velocity and acceleration (3, m + 3).
    """
    size = len(point)
    turn = turn_between(quat, new_quat)
    excess = spin - _rotated(_turned(turn, np.array([1.0, 0.0, 0.0, 0.0])), new_spin)
    rows = np.empty((3, size + 3))
    rows[0, :size], rows[0, size:] = point - new_point, turn
    rows[1, :size], rows[1, size:] = velocity - new_velocity, jacobian_inverse(turn, excess)
    rows[2] = change
    axes, along = _straight_axes(rows, size, acceleration), np.zeros_like(rows)
    for k in range(3):
        for axis in range(size + 3):
            for i in range(size + 3):
                along[k, axis] += axes[axis, i] * rows[k, i]
    return axes, along


@compiled
def _straight_axes(rows: F64, size: int, acceleration: F64) -> F64:
    """Orthonormal axes (D, D), in rows, of a motion that begins with `rows` (3, D): place, velocity, acceleration.

    The first of each part, the `size` numbers of the point and the others, runs along its largest row, by a reflection
    (Householder 1958). Where limits `acceleration` (D,) differ within a part, each of its numbers stays an axis.
    """
    axes = np.eye(rows.shape[1])
    for begin, end in ((0, size), (size, rows.shape[1])):
        limits = acceleration[begin:end]
        lengths = np.sqrt((rows[:, begin:end] ** 2).sum(axis=1))
        longest = int(lengths.argmax())
        if lengths[longest] == 0.0 or limits.min() != limits.max():
            continue
        mirror = rows[longest, begin:end] / lengths[longest]
        mirror[0] += math.copysign(1.0, mirror[0])
        twice = 2.0 / (mirror**2).sum()
        for i in range(end - begin):
            for j in range(end - begin):
                axes[begin + i, begin + j] -= twice * mirror[i] * mirror[j]
    return axes


@compiled
def moved_on(point: F64, quat: F64, deltas: F64, turning: bool) -> tuple[F64, F64, F64]:
    """Points (H + 1, m), turns (H, 3) and quats (H + 1, 4) from point (m,) and quat (4,) on by deltas (H, m + ..).

    turning: whether the three numbers behind those of the point are rotation vectors; else there are no turns.
    """
    steps, size = deltas.shape[0], point.size
    points, turns = np.empty((steps + 1, size)), np.zeros((steps, 3))
    points[0] = point
    for k in range(steps):
        points[k + 1] = points[k] + deltas[k, :size]
        if turning:
            turns[k] = deltas[k, size : size + 3]
    return points, turns, turned_on(quat, turns)


@compiled
def turned_on(start: F64, turns: F64) -> F64:
    """Orientations (H + 1, 4) from `start` (4,) on: R_{k+1} = exp(turns[k])·R_k."""
    quats = np.empty((len(turns) + 1, 4))
    quats[0] = start
    for k in range(len(turns)):
        quats[k + 1] = _turned(turns[k], quats[k])
    return quats


@compiled
def rates_through(points: F64, turns: F64, velocity: F64, spin: F64, h: float, rest: bool) -> F64:
    """Velocity and spin (H + 1, m + 3) at each of the knots, `h` s apart: points (H + 1, m), turns (H, 3).

    velocity (m,), spin (3,): at the first knot. At the last they are zero if it is to `rest`; else as if the next
    segment went on as the last two do, but no faster: a steady motion keeps its velocity, one that halves at each step
    is already slower there (the harmonic mean of the last slope and the next).
    """
    count, size = len(turns), points.shape[1]
    slopes, first, last = np.empty((count, size + 3)), np.empty(size + 3), np.zeros(size + 3)
    first[:size], first[size:] = velocity, spin
    for k in range(count):
        slopes[k, :size], slopes[k, size:] = (points[k + 1] - points[k]) / h, turns[k] / h
    for i in range(size + 3):
        slope, before = slopes[count - 1, i], slopes[count - 2, i] if count > 1 else first[i]
        slows = before * slope > 0.0 and abs(slope) < abs(before)
        following = slope * slope / before if slows else slope
        if not rest and slope * following > 0.0:
            last[i] = 2.0 * slope * following / (slope + following)
    return _spline_rates(slopes, first, last)


@compiled
def _spline_rates(slopes: F64, first: F64, last: F64) -> F64:
    """Rates (H + 1, D) at equally spaced knots that make acceleration continuous, with those at the ends given.

    slopes: (H, D) of the segments. de Boor, "A Practical Guide to Splines" (1978), chapter IV: r[k-1] + 4 r[k] + r[k+1]
    = 3 (s[k-1] + s[k]), solved by elimination (Thomas). The inner ones are then limited as by Fritsch and Carlson
    (1980): zero where the slopes differ in sign, at most three times the smaller one.
    """
    count, size = slopes.shape
    rates, pivot = np.empty((count + 1, size)), np.empty(count + 1)
    for i in range(size):
        rates[0, i], rates[count, i] = first[i], last[i]
        before = 0.0
        for k in range(1, count):
            right = 3.0 * (slopes[k - 1, i] + slopes[k, i]) - (first[i] if k == 1 else rates[k - 1, i])
            right -= last[i] if k == count - 1 else 0.0
            before = 1.0 / (4.0 - before) if k > 1 else 0.25
            pivot[k], rates[k, i] = before, right * before
        for k in range(count - 2, 0, -1):
            rates[k, i] -= pivot[k] * rates[k + 1, i]
        for k in range(1, count):
            a, b = slopes[k - 1, i], slopes[k, i]
            bound = 3.0 * min(abs(a), abs(b)) if a * b > 0.0 else 0.0
            rates[k, i] = min(max(rates[k, i], -bound), bound) if (a > 0.0) == (rates[k, i] > 0.0) else 0.0
    return rates


@compiled
def turn_between(a: F64, b: F64) -> F64:
    """The shortest rotation vector (3,) that turns the quat b (4,) into a, base frame."""
    w = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]
    x = a[1] * b[0] - a[0] * b[1] - a[2] * b[3] + a[3] * b[2]
    y = a[2] * b[0] - a[0] * b[2] + a[1] * b[3] - a[3] * b[1]
    z = a[3] * b[0] - a[0] * b[3] - a[1] * b[2] + a[2] * b[1]
    sine = math.sqrt(x * x + y * y + z * z)
    scale = math.copysign(2.0 * math.atan2(sine, abs(w)) / sine if sine >= 1e-9 else 2.0, w)
    return np.array([x * scale, y * scale, z * scale])


@compiled
def _turned(rotvec: F64, quat: F64) -> F64:
    """exp(rotvec)·quat, normalised."""
    angle = math.sqrt(rotvec[0] ** 2 + rotvec[1] ** 2 + rotvec[2] ** 2)
    scale = 0.5 if angle < 1e-9 else math.sin(0.5 * angle) / angle
    aw, ax, ay, az = math.cos(0.5 * angle), scale * rotvec[0], scale * rotvec[1], scale * rotvec[2]
    bw, bx, by, bz = quat[0], quat[1], quat[2], quat[3]
    result = np.array(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ]
    )
    return result / math.sqrt(result[0] ** 2 + result[1] ** 2 + result[2] ** 2 + result[3] ** 2)


@compiled
def _rotated(quat: F64, vector: F64) -> F64:
    """`vector` (3,) turned by `quat` (4,)."""
    inner = _cross(quat[1:], vector) + quat[0] * vector
    return vector + 2.0 * _cross(quat[1:], inner)


@compiled
def _jacobian(rotvec: F64, rate: F64) -> F64:
    """The left Jacobian of SO(3) at `rotvec` (3,), times `rate` (3,)."""
    square = rotvec[0] ** 2 + rotvec[1] ** 2 + rotvec[2] ** 2
    angle = math.sqrt(square)
    first, second = 0.5, 1.0 / 6.0
    if angle >= NEARLY_ZERO:
        first, second = (1.0 - math.cos(angle)) / square, (angle - math.sin(angle)) / (square * angle)
    turned = _cross(rotvec, rate)
    return rate + first * turned + second * _cross(rotvec, turned)


@compiled
def jacobian_inverse(rotvec: F64, spin: F64) -> F64:
    """The inverse of the left Jacobian of SO(3) at `rotvec` (3,), times `spin` (3,)."""
    square = rotvec[0] ** 2 + rotvec[1] ** 2 + rotvec[2] ** 2
    angle = math.sqrt(square)
    factor = 1.0 / 12.0
    if angle >= NEARLY_ZERO:
        factor = 1.0 / square - 0.5 / (angle * math.tan(0.5 * angle))
    turned = _cross(rotvec, spin)
    return spin - 0.5 * turned + factor * _cross(rotvec, turned)


@compiled
def _cross(a: F64, b: F64) -> F64:
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
