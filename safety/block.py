"""Everything about an arm and its limits that stays from tick to tick, in two arrays.

numba looks at every array of every argument each time compiled code is entered, a fraction of a microsecond for each of
some thirty. So what stays is gathered once, and the kernels that Python calls are given a `Block`; they spread it into
views and go on with those. Python's own tuples are made views of the same memory: there is one set of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from reflexarc.safety.clearance import SINGULAR, Clearances
from reflexarc.safety.judge import Rates
from reflexarc.safety.shapes import Capsules
from reflexarc.wire.chain import Chain
from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

KINDS = SINGULAR + 1


class Block(NamedTuple):
    """numbers: float64. whole: int64, joints n, capsules C, clearances K and boxes B first, then their indices."""

    numbers: F64
    whole: np.ndarray  # type: ignore[type-arg]


class Fixed(NamedTuple):
    """What is in a block."""

    chain: Chain
    capsules: Capsules
    table: Clearances
    rates: Rates


def gather(fixed: Fixed) -> tuple[Block, Fixed]:
    """A block of the numbers of `fixed`, and `fixed` again with all its arrays as views of that block."""
    sizes = fixed.chain.zero.size, fixed.capsules.radius.size, fixed.table.keep.size, len(fixed.table.boxes)
    arrays = list(_arrays(fixed))
    count = sum(array.size for array in arrays if array.dtype.kind == "f")
    indices = sum(array.size for array in arrays if array.dtype.kind == "i")
    block = Block(np.zeros(count + 2), np.zeros(len(sizes) + indices, dtype=np.int64))
    block.whole[: len(sizes)] = sizes
    views = _views(block)
    for view, array in zip(_arrays(views), arrays, strict=True):
        view[...] = array
    block.numbers[-2:] = fixed.rates.dt, fixed.rates.body
    return block, _views(block)


def _arrays(fixed: Fixed) -> Iterator[F64]:
    """All of them, in the order of the fields."""
    for part in fixed:
        for values in part:
            if isinstance(values, np.ndarray):
                yield values


def _views(block: Block) -> Fixed:
    """What is in a block; the two numbers that are no arrays stand last."""
    numbers, whole = block.numbers, block.whole
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
    rates = Rates(numbers[i], velocity, change, step, near, tcp, tcp_change, tcp_step, numbers[i + 1], reach)
    return Fixed(chain, capsules, table, rates)


spread = compiled(_views)
