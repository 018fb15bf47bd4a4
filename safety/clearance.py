"""Everything that limits *where* the arm may be, as one list of clearances, each of which must stay at or above zero.

Joint positions, the TCP's box, the box of the whole arm, keep-out boxes, obstacles, the arm itself, singularities: a
row of `Clearances` says which kind it is and of what. A clearance is in rad, m, or for a singularity in singular
values; what is already below zero may only grow.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reflexarc.safety.distance import segment_to_box, segment_to_segment
from reflexarc.safety.shapes import Capsules
from reflexarc.safety.singularity import extreme_singular_values
from reflexarc.wire.chain import Chain, jacobian, place
from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

JOINT, TCP_WALL, PART_WALL, BOX, SELF, SINGULAR = range(6)
# Beyond this a distance to a box need not be exact, m.
FAR = 0.15


class Clearances(NamedTuple):
    """kind, a, b: (K,) int64, sorted by kind. keep: (K,) m, distance that must remain (SINGULAR: the condition number).

    start: (7,) the first row of each kind, and K. pace: (K,) how far the arm may travel, in units of what is left of
    a row, before it can be used up; see `judge`.

    JOINT: joint a, side b (0 lower, 1 upper). TCP_WALL: axis a, side b. PART_WALL: capsule a, wall b = 2·axis + side.
    BOX: capsule a, box b. SELF: capsules a and b. bound: (2, n) rad, tcp_box, arm_box: (2, 3) m, lower and upper.
    boxes: (B, 2, 3) m.
    """

    kind: np.ndarray  # type: ignore[type-arg]
    a: np.ndarray  # type: ignore[type-arg]
    b: np.ndarray  # type: ignore[type-arg]
    keep: F64
    pace: F64
    start: np.ndarray  # type: ignore[type-arg]
    bound: F64
    tcp_box: F64
    arm_box: F64
    boxes: F64


class Scratch(NamedTuple):
    """Where the arm is at one joint position: frames as `chain.place` writes them, jacobian (6, n), ends (C, 2, 3)."""

    origin: F64
    turn: F64
    jacobian: F64
    ends: F64


def scratch(n: int, capsules: int) -> Scratch:
    """Room for an arm of n joints and so many capsules."""
    return Scratch(
        origin=np.zeros((n + 2, 3)),
        turn=np.zeros((n + 2, 3, 3)),
        jacobian=np.zeros((6, n)),
        ends=np.zeros((capsules, 2, 3)),
    )


@compiled
def arrange(chain: Chain, capsules: Capsules, position: F64, at: Scratch) -> None:
    """Write frames and ends of the capsules at joint position (n,) into `at`; the Jacobian is left as it was."""
    place(chain, position, at.origin, at.turn)
    arrange_ends(capsules, at)


@compiled
def arrange_ends(capsules: Capsules, at: Scratch) -> None:
    """Write the ends of the capsules where the frames in `at` are."""
    for c in range(capsules.radius.size):
        link = capsules.link[c]
        for i in range(3):
            a = b = at.origin[link, i]
            for k in range(3):
                a += at.turn[link, i, k] * capsules.a[c, k]
                b += at.turn[link, i, k] * capsules.b[c, k]
            at.ends[c, 0, i], at.ends[c, 1, i] = a, b


@compiled
def _joint(bound: F64, position: F64, a: int, b: int) -> float:
    return float(bound[1, a] - position[a] if b else position[a] - bound[0, a])


@compiled
def _tcp_wall(box: F64, origin: F64, a: int, b: int) -> float:
    x = origin[origin.shape[0] - 1, a]
    return float(box[1, a] - x if b else x - box[0, a])


@compiled
def _part_wall(box: F64, ends: F64, radius: F64, a: int, b: int) -> float:
    axis = b // 2
    p, q = ends[a, 0, axis], ends[a, 1, axis]
    return float((box[1, axis] - max(p, q) if b % 2 else min(p, q) - box[0, axis]) - radius[a])


@compiled
def _box(ends: F64, radius: F64, boxes: F64, a: int, b: int, keep: float) -> float:
    around = radius[a] + keep
    return float(segment_to_box(ends, a, boxes, b, around + FAR) - around)


@compiled
def _self(ends: F64, radius: F64, a: int, b: int, keep: float) -> float:
    return float(segment_to_segment(ends, a, b) - radius[a] - radius[b] - keep)


@compiled
def _singular(origin: F64, turn: F64, jac: F64, keep: float) -> float:
    jacobian(origin, turn, jac)
    largest, smallest = extreme_singular_values(jac)
    return smallest - largest / keep


@compiled
def clearance(row: int, table: Clearances, capsules: Capsules, position: F64, at: Scratch) -> float:
    """What is left of one row at joint position (n,), for which `at` was arranged."""
    kind, a, b, keep = table.kind[row], table.a[row], table.b[row], table.keep[row]
    if kind == JOINT:
        return _joint(table.bound, position, a, b)
    if kind == TCP_WALL:
        return _tcp_wall(table.tcp_box, at.origin, a, b)
    if kind == PART_WALL:
        return _part_wall(table.arm_box, at.ends, capsules.radius, a, b)
    if kind == BOX:
        return _box(at.ends, capsules.radius, table.boxes, a, b, keep)
    if kind == SELF:
        return _self(at.ends, capsules.radius, a, b, keep)
    return _singular(at.origin, at.turn, at.jacobian, keep)


@compiled
def clearances(
    table: Clearances, chain: Chain, capsules: Capsules, position: F64, at: Scratch, out: F64
) -> None:
    """Write all of them at joint position (n,) into out (K,). One plain loop a kind: that is what compiles well."""
    arrange(chain, capsules, position, at)
    start, first, second, keep = table.start, table.a, table.b, table.keep
    ends, radius, origin = at.ends, capsules.radius, at.origin
    bound, tcp_box, arm_box, boxes = table.bound, table.tcp_box, table.arm_box, table.boxes
    for row in range(start[JOINT], start[JOINT + 1]):
        out[row] = _joint(bound, position, first[row], second[row])
    for row in range(start[TCP_WALL], start[TCP_WALL + 1]):
        out[row] = _tcp_wall(tcp_box, origin, first[row], second[row])
    for row in range(start[PART_WALL], start[PART_WALL + 1]):
        out[row] = _part_wall(arm_box, ends, radius, first[row], second[row])
    for row in range(start[BOX], start[BOX + 1]):
        out[row] = _box(ends, radius, boxes, first[row], second[row], keep[row])
    for row in range(start[SELF], start[SELF + 1]):
        out[row] = _self(ends, radius, first[row], second[row], keep[row])
    for row in range(start[SINGULAR], start[SINGULAR + 1]):
        out[row] = _singular(at.origin, at.turn, at.jacobian, keep[row])


@compiled
def gradient(
    row: int, table: Clearances, chain: Chain, capsules: Capsules, position: F64, at: Scratch, out: F64
) -> None:
    """Write the derivative of one clearance by the joint positions into out (n,).

    Exact for joints and walls; else by central differences of 1e-6 rad. It only shapes proposals: nothing that is
    guaranteed rests on it.
    """
    kind, a, b = table.kind[row], table.a[row], table.b[row]
    if kind == JOINT:
        out[:] = 0.0
        out[a] = -1.0 if b else 1.0
        return
    if kind in (TCP_WALL, PART_WALL):
        arrange(chain, capsules, position, at)
        if kind == TCP_WALL:
            _point_rate(at, position.size, at.origin[position.size + 1], a, b == 1, out)
        else:
            axis, upper = b // 2, b % 2 == 1
            end = 1 if (at.ends[a, 1, axis] > at.ends[a, 0, axis]) == upper else 0
            _point_rate(at, capsules.link[a], at.ends[a, end], axis, upper, out)
        return
    moved = position.copy()
    for i in range(position.size):
        moved[i] = position[i] + 1e-6
        arrange(chain, capsules, moved, at)
        above = clearance(row, table, capsules, moved, at)
        moved[i] = position[i] - 1e-6
        arrange(chain, capsules, moved, at)
        out[i] = (above - clearance(row, table, capsules, moved, at)) / 2e-6
        moved[i] = position[i]


@compiled
def _point_rate(at: Scratch, link: int, point: F64, axis: int, upper: bool, out: F64) -> None:
    """Write how the room of a point (3,) fixed to a link, up to a wall across an axis, changes by each joint, m/rad."""
    following, last = (axis + 1) % 3, (axis + 2) % 3
    out[:] = 0.0
    for j in range(1, link + 1):
        rate = at.turn[j, following, 2] * (point[last] - at.origin[j, last])
        rate -= at.turn[j, last, 2] * (point[following] - at.origin[j, following])
        out[j - 1] = -rate if upper else rate
