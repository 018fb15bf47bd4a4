"""What several rules measure: lags, drifts, speeds and runs, of arrays alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reflexarc.datasets.lint.signals import F64

EPSILON_S = 1e-6
MOST_LAG_S = 0.4
"""How far lags are searched: four policy steps."""
LAG_STEP_S = 0.01


def drift(t: F64, age: F64) -> tuple[float, float]:
    """(slope of the age, s/s; how far that leads over the episode, s): Theil's median slope over halves."""
    half = len(t) // 2
    if half < 2:
        return 0.0, 0.0
    spans = t[half : 2 * half] - t[:half]
    slope = float(np.median((age[half : 2 * half] - age[:half]) / np.maximum(spans, EPSILON_S)))
    return slope, abs(slope) * float(t[-1] - t[0])


AS_ALIKE = 1e-5
"""Correlations that differ by less than this say nothing about which lag is right."""


def motion_lag(
    t: F64, joints: F64, later_t: F64, later: F64, spells: tuple[tuple[float, float], ...] = ()
) -> tuple[float, float]:
    """(lag in s at which `later` follows `joints` best, its correlation), of their velocities on a common grid.

    spells: what happens in them does not count.
    """
    begin, end = max(t[0], later_t[0]), min(t[-1], later_t[-1])
    grid = np.arange(begin, end, LAG_STEP_S)
    most = round(MOST_LAG_S / LAG_STEP_S)
    if len(grid) < 2 * most:
        return 0.0, 0.0
    one, two = (_velocities(grid, times, values) for times, values in ((t, joints), (later_t, later)))
    counts = ~in_spells(grid[:-1], spells)[:, None]
    one, two = one * counts, two * counts
    lags = np.arange(-most, most + 1)
    alike = np.array([_shifted(one, two, int(lag)) for lag in lags])
    # Steady motion fits at any lag: of those that fit as well, the smallest is told.
    best = int(np.where(alike >= alike.max() - AS_ALIKE, np.abs(lags), most + 1).argmin())
    return float(lags[best] * LAG_STEP_S), float(alike[best])


def _velocities(grid: F64, t: F64, joints: F64) -> F64:
    """Change from grid point to grid point, (G-1, joints); the fastest hundredth is cut off: one jump is no motion."""
    steps = np.diff(np.stack([np.interp(grid, t, column) for column in joints.T], axis=1), axis=0)
    most = np.quantile(np.abs(steps), 0.99, axis=0)
    return np.asarray(np.clip(steps, -most, most))


def _shifted(one: F64, two: F64, lag: int) -> float:
    """Correlation (about zero) of `one` with `two` taken `lag` rows later; (rows, joints)."""
    a = one[max(0, -lag) : len(one) - max(0, lag)]
    b = two[max(0, lag) : len(two) - max(0, -lag)]
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size > 1e-9 else 0.0


def speed(t: F64, values: F64) -> F64:
    """(N-1, …) change a second; a stamp that jitters by a tick does not make it more than it is."""
    steps = np.diff(t)
    usual = float(np.median(steps)) if steps.size else 1.0
    return np.asarray(np.abs(np.diff(values, axis=0)) / np.maximum(steps, usual)[:, None], dtype=np.float64)


def in_spells(t: F64, spells: tuple[tuple[float, float], ...]) -> NDArray[np.bool_]:
    """Which times lie in one of the spells, or in the half second in which the arm comes back from it."""
    inside = np.zeros(len(t), dtype=bool)
    for begin, end in spells:
        inside |= (t >= begin) & (t < end + 0.5)
    return inside


def runs(true: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, last) index of every unbroken run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], true, [False]]).astype(np.int8)))
    return [(int(first), int(last) - 1) for first, last in edges.reshape(-1, 2)]


def times(count: int | np.int64) -> str:
    """How often, in words: `once`, `3 times`."""
    return "once" if count == 1 else f"{count} times"
