"""How near the TCP's Jacobian is to losing rank: its largest and smallest singular values, compiled."""

from __future__ import annotations

import math

import numpy as np

from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64

# Cyclic Jacobi converges quadratically; a 6×6 matrix needs five sweeps or six.
SWEEPS = 12


@compiled
def extreme_singular_values(jacobian: F64) -> tuple[float, float]:
    """Largest and smallest singular value of a (6, n) Jacobian, n ≥ 6 (0 is the smallest below that).

    By Jacobi's eigenvalue method on J·Jᵀ (Golub and Van Loan, Matrix Computations, section 8.5): accurate to about
    1e-8 of the largest, far finer than any condition number of interest.
    """
    m = jacobian.shape[0]
    gram = np.zeros((m, m))
    for i in range(m):
        for j in range(i, m):
            for k in range(jacobian.shape[1]):
                gram[i, j] += jacobian[i, k] * jacobian[j, k]
            gram[j, i] = gram[i, j]
    for _ in range(SWEEPS):
        off, trace = 0.0, 0.0
        for p in range(m):
            trace += gram[p, p]
            for q in range(p + 1, m):
                off += gram[p, q] * gram[p, q]
        if off <= 1e-32 * trace * trace:
            break
        for p in range(m - 1):
            for q in range(p + 1, m):
                _rotate(gram, p, q)
    largest, smallest = gram[0, 0], gram[0, 0]
    for p in range(1, m):
        largest, smallest = max(largest, gram[p, p]), min(smallest, gram[p, p])
    return math.sqrt(max(largest, 0.0)), math.sqrt(max(smallest, 0.0))


@compiled
def _rotate(gram: F64, p: int, q: int) -> None:
    """Make the symmetric `gram`'s element (p, q) zero by a rotation of those two axes."""
    if gram[p, q] == 0.0:
        return
    theta = (gram[q, q] - gram[p, p]) / (2 * gram[p, q])
    tangent = math.copysign(1.0, theta) / (abs(theta) + math.sqrt(theta * theta + 1))
    cosine = 1 / math.sqrt(tangent * tangent + 1)
    sine = tangent * cosine
    for k in range(gram.shape[0]):
        x, y = gram[k, p], gram[k, q]
        gram[k, p], gram[k, q] = cosine * x - sine * y, sine * x + cosine * y
    for k in range(gram.shape[0]):
        x, y = gram[p, k], gram[q, k]
        gram[p, k], gram[q, k] = cosine * x - sine * y, sine * x + cosine * y
