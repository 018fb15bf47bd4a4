"""Everything about an arm that compiled code needs, in three arrays: what stays from tick to tick, and room to work in.

Entering compiled code costs a few hundredths of a microsecond for each plain array, but several microseconds for tuples
of arrays, in or out. So what stays is gathered once, and the kernels that Python calls are given the arrays of a
`Block`; they spread them into views and go on with those. Python's own tuples are made views of the same memory: there
is one set of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from reflexarc.safety.barrier import MOST_ROWS
from reflexarc.safety.clearance import SINGULAR, Clearances, Scratch
from reflexarc.safety.judge import Rates
from reflexarc.safety.shapes import Capsules
from reflexarc.wire.chain import Chain
from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

KINDS = SINGULAR + 1


class Block(NamedTuple):
    """numbers: float64. whole: int64, joints n, capsules C, clearances K and boxes B first, then their indices.

    room: float64, to work in.
    """

    numbers: F64
    whole: np.ndarray  # type: ignore[type-arg]
    room: F64


class Fixed(NamedTuple):
    """What stays. slow: (K,), singularity_slow: as in `Surroundings`."""

    chain: Chain
    capsules: Capsules
    table: Clearances
    rates: Rates
    slow: F64
    singularity_slow: float


class Room(NamedTuple):
    """at: where the arm is. here, worst: (K,), where: (K, n), as for `judge`. rows: (K + most, n + 1) of a program."""

    at: Scratch
    here: F64
    worst: F64
    where: F64
    rows: F64


def gather(fixed: Fixed) -> tuple[Block, Fixed, Room]:
    """A block of the numbers of `fixed`, and `fixed` again with all its arrays as views of that block."""
    n, c, k = fixed.chain.zero.size, fixed.capsules.radius.size, fixed.table.keep.size
    sizes = n, c, k, len(fixed.table.boxes)
    arrays = list(_arrays(fixed))
    count = sum(array.size for array in arrays if array.dtype.kind == "f")
    indices = sum(array.size for array in arrays if array.dtype.kind == "i")
    room = 12 * (n + 2) + 6 * n + 6 * c + k * (2 + n) + (k + 2 * MOST_ROWS) * (n + 1)
    block = Block(np.zeros(count + 3), np.zeros(len(sizes) + indices, dtype=np.int64), np.zeros(room))
    block.whole[: len(sizes)] = sizes
    views, _ = _views(*block)
    for view, array in zip(_arrays(views), arrays, strict=True):
        view[...] = array
    block.numbers[-3:] = fixed.rates.dt, fixed.rates.body, fixed.singularity_slow
    return block, *_views(*block)


def _arrays(fixed: Fixed) -> Iterator[F64]:
    """All of them, in the order of the fields."""
    for part in fixed:
        for values in part if isinstance(part, tuple) else (part,):
            if isinstance(values, np.ndarray):
                yield values


def _views(numbers: F64, whole: np.ndarray, room: F64) -> tuple[Fixed, Room]:  # type: ignore[type-arg]
    """What is in a block; the three numbers that are no arrays stand last."""
    n, c, k, b = whole[0], whole[1], whole[2], whole[3]
    i = 4
    link, i = whole[i : i + c], i + c
    kind, i = whole[i : i + k], i + k
    first, i = whole[i : i + k], i + k
    second, i = whole[i : i + k], i + k
    start = whole[i : i + KINDS + 1]
    i = 0
    offset, i = numbers[i : i + 3 * n].reshape(n, 3), i + 3 * n
    rotation, i = numbers[i : i + 9 * n].reshape(n, 3, 3), i + 9 * n
    zero, i = numbers[i : i + n], i + n
    tcp_offset, i = numbers[i : i + 3], i + 3
    tcp_rotation, i = numbers[i : i + 9].reshape(3, 3), i + 9
    chain = Chain(offset, rotation, zero, tcp_offset, tcp_rotation)
    a, i = numbers[i : i + 3 * c].reshape(c, 3), i + 3 * c
    other, i = numbers[i : i + 3 * c].reshape(c, 3), i + 3 * c
    radius, i = numbers[i : i + c], i + c
    capsules = Capsules(link, a, other, radius)
    keep, i = numbers[i : i + k], i + k
    pace, i = numbers[i : i + k], i + k
    bound, i = numbers[i : i + 2 * n].reshape(2, n), i + 2 * n
    tcp_box, i = numbers[i : i + 6].reshape(2, 3), i + 6
    arm_box, i = numbers[i : i + 6].reshape(2, 3), i + 6
    boxes, i = numbers[i : i + 6 * b].reshape(b, 2, 3), i + 6 * b
    table = Clearances(kind, first, second, keep, pace, start, bound, tcp_box, arm_box, boxes)
    velocity, i = numbers[i : i + n], i + n
    change, i = numbers[i : i + n], i + n
    step, i = numbers[i : i + n], i + n
    near, i = numbers[i : i + 4 * n].reshape(n, 4), i + 4 * n
    tcp, i = numbers[i : i + 6].reshape(2, 3), i + 6
    tcp_change, i = numbers[i : i + 2], i + 2
    tcp_step, i = numbers[i : i + 2], i + 2
    reach, i = numbers[i : i + n], i + n
    slow, i = numbers[i : i + k], i + k
    rates = Rates(numbers[i], velocity, change, step, near, tcp, tcp_change, tcp_step, numbers[i + 1], reach)
    fixed = Fixed(chain, capsules, table, rates, slow, numbers[i + 2])
    i = 0
    origin, i = room[i : i + 3 * (n + 2)].reshape(n + 2, 3), i + 3 * (n + 2)
    turn, i = room[i : i + 9 * (n + 2)].reshape(n + 2, 3, 3), i + 9 * (n + 2)
    jacobian, i = room[i : i + 6 * n].reshape(6, n), i + 6 * n
    ends, i = room[i : i + 6 * c].reshape(c, 2, 3), i + 6 * c
    here, i = room[i : i + k], i + k
    worst, i = room[i : i + k], i + k
    where, i = room[i : i + k * n].reshape(k, n), i + k * n
    rows = room[i:].reshape(k + 2 * MOST_ROWS, n + 1)
    return fixed, Room(Scratch(origin, turn, jacobian, ends), here, worst, where, rows)


spread = compiled(_views)
