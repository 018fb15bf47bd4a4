"""Distances between the segments inside capsules, and to boxes: compiled, exact up to what the docstrings say."""

from __future__ import annotations

import math

from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

# Halvings of the segment in the search for its point nearest to a box: 2^-24 of its length.
HALVINGS = 24


@compiled
def segment_to_segment(ends: F64, first: int, second: int) -> float:
    """Distance of two segments of ends (C, 2, 3), m.

    After C. Ericson, Real-Time Collision Detection (2005), section 5.1.9.
    """
    a = b = c = d = e = 0.0
    for i in range(3):
        p, q = ends[first, 0, i], ends[second, 0, i]
        u, v, w = ends[first, 1, i] - p, ends[second, 1, i] - q, p - q
        a += u * u
        b += u * v
        c += v * v
        d += u * w
        e += v * w
    # Nearest points p0 + s·u and q0 + t·v; each of s, t is clamped to [0, 1] and the other follows.
    det = a * c - b * b
    s = min(max((b * e - c * d) / det, 0.0), 1.0) if det > 1e-12 * a * c else 0.0
    t = (b * s + e) / c if c > 0 else 0.0
    if t < 0 or t > 1 or c == 0:
        t = min(max(t, 0.0), 1.0)
        s = min(max((b * t - d) / a, 0.0), 1.0) if a > 0 else 0.0
    total = 0.0
    for i in range(3):
        p, q = ends[first, 0, i], ends[second, 0, i]
        gap = p + s * (ends[first, 1, i] - p) - q - t * (ends[second, 1, i] - q)
        total += gap * gap
    return math.sqrt(total)


@compiled
def segment_to_box(ends: F64, part: int, boxes: F64, number: int, enough: float) -> float:
    """Distance of a segment of ends (C, 2, 3) to one of boxes (B, 2, 3), m; 0 if they touch. Never above the true one.

    Where it is beyond `enough`, a lower bound of it that is beyond `enough` too may be returned.
    """
    # The segment's bounding box bounds the distance from below.
    total = 0.0
    length = 0.0
    for i in range(3):
        p, q = ends[part, 0, i], ends[part, 1, i]
        gap = max(boxes[number, 0, i] - max(p, q), min(p, q) - boxes[number, 1, i], 0.0)
        total += gap * gap
        length += (q - p) ** 2
    if total > enough * enough:
        return math.sqrt(total)
    # The squared distance is convex along the segment: its slope has one change of sign, found by halving.
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        slope = 0.0
        for i in range(3):
            way = ends[part, 1, i] - ends[part, 0, i]
            x = ends[part, 0, i] + middle * way
            slope += way * (x - min(max(x, boxes[number, 0, i]), boxes[number, 1, i]))
        if slope > 0:
            high = middle
        else:
            low = middle
    total = 0.0
    middle = (low + high) / 2
    for i in range(3):
        x = ends[part, 0, i] + middle * (ends[part, 1, i] - ends[part, 0, i])
        gap = x - min(max(x, boxes[number, 0, i]), boxes[number, 1, i])
        total += gap * gap
    # The distance changes along the segment by no more than the length of what is left to search.
    return max(math.sqrt(total) - math.sqrt(length) * (high - low), 0.0)
