"""The monotonic clock, a loop with absolute deadlines, and histograms of how late it was.

A deadline is `start + k·period`, so an overrun does not shift the ones after it; deadlines that have passed already are
skipped, never made up for by a burst.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np


def monotonic_ns() -> int:
    """Nanoseconds of the host's monotonic clock, which never jumps."""
    return time.monotonic_ns()


class Rate:
    """Sleeps to absolute deadlines."""

    def __init__(self, period_ns: int) -> None:
        self.period_ns = period_ns
        self.overruns = 0
        self._next_ns = monotonic_ns() + period_ns

    def sleep(self) -> int:
        """Wait for the next deadline; returns how late it was woken, ns (0 or more)."""
        now = monotonic_ns()
        wait = self._next_ns - now
        if wait > 0:
            time.sleep(wait * 1e-9)
            now = monotonic_ns()
        late = max(0, now - self._next_ns)
        missed = late // self.period_ns
        self.overruns += missed
        self._next_ns += (missed + 1) * self.period_ns
        return late


class Histogram:
    """Durations in log-spaced bins from 1 µs to 100 s, 40 to a decade: constant memory, 6% resolution."""

    _PER_DECADE = 40
    _BINS = 8 * _PER_DECADE

    def __init__(self, late_ns: int = 0) -> None:
        """`late_ns`: durations above this are counted in `late` (0: none are)."""
        self.late_ns = late_ns
        self.counts = np.zeros(self._BINS + 1, dtype=np.int64)
        self.total = 0
        self.late = 0
        self.max_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration, ns."""
        micros = duration_ns * 1e-3
        index = 0 if micros <= 1.0 else min(self._BINS, int(np.log10(micros) * self._PER_DECADE) + 1)
        self.counts[index] += 1
        self.total += 1
        self.max_ns = max(self.max_ns, duration_ns)
        if self.late_ns and duration_ns > self.late_ns:
            self.late += 1

    def percentile_ns(self, percent: float) -> float:
        """Upper edge of the bin that holds this percentile, ns; 0 if nothing was counted."""
        if self.total == 0:
            return 0.0
        index = int(np.searchsorted(np.cumsum(self.counts), percent / 100 * self.total))
        return min(float(10 ** (index / self._PER_DECADE) * 1e3), float(self.max_ns))

    def summary(self) -> dict[str, Any]:
        """`{count, late, p50_us, p99_us, max_us}`."""
        return {
            "count": self.total,
            "late": self.late,
            "p50_us": self.percentile_ns(50) * 1e-3,
            "p99_us": self.percentile_ns(99) * 1e-3,
            "max_us": self.max_ns * 1e-3,
        }
