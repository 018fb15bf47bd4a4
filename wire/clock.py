"""The monotonic clock, a loop with absolute deadlines, and histograms of how late it was.

A deadline is `start + k·period`, so an overrun does not shift the ones after it; deadlines that have passed already are
skipped, never made up for by a burst.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from reflexarc.configs.errors import ConfigError, WireError


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
        if wait > self.period_ns:  # the clock was set back: nobody waits until the old time comes round again
            wait, self._next_ns = self.period_ns, now + self.period_ns
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

    PER_DECADE = 40
    BINS = 8 * PER_DECADE + 1
    """The first bin holds all up to 1 µs, the last all above 94 s."""

    def __init__(self, late_ns: int = 0) -> None:
        """`late_ns`: durations above this are counted in `late` (0: none are)."""
        self.late_ns = late_ns
        self.counts = np.zeros(self.BINS, dtype=np.int64)
        self.total = 0
        self.late = 0
        self.max_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration, ns; a negative one counts as the shortest."""
        index = 0
        if duration_ns > 1000:
            index = min(self.BINS - 1, int(math.log10(duration_ns * 1e-3) * self.PER_DECADE) + 1)
        self.counts[index] += 1
        self.total += 1
        self.max_ns = max(self.max_ns, duration_ns)
        if self.late_ns and duration_ns > self.late_ns:
            self.late += 1

    def merge(self, other: Histogram) -> None:
        """Count all that `other` counted too, its late ones by its own limit."""
        self.counts += other.counts
        self.total += other.total
        self.late += other.late
        self.max_ns = max(self.max_ns, other.max_ns)

    def percentile_ns(self, percent: float) -> float:
        """Upper edge of the bin that holds this percentile, at most the longest seen, ns; 0 if none was counted."""
        if self.total == 0:
            return 0.0
        index = int(np.searchsorted(np.cumsum(self.counts), percent / 100 * self.total))
        if index >= self.BINS - 1:
            return float(self.max_ns)
        return min(float(10 ** (index / self.PER_DECADE) * 1e3), float(self.max_ns))

    def summary(self) -> dict[str, Any]:
        """`{count, late, p50_us, p99_us, max_us}`."""
        return {
            "count": self.total,
            "late": self.late,
            "p50_us": self.percentile_ns(50) * 1e-3,
            "p99_us": self.percentile_ns(99) * 1e-3,
            "max_us": self.max_ns * 1e-3,
        }

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON: the counts by bin index (empty bins left out) and the four totals."""
        filled = {str(index): int(self.counts[index]) for index in np.flatnonzero(self.counts)}
        return {"late_ns": self.late_ns, "late": self.late, "max_ns": self.max_ns, "counts": filled}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Histogram:
        """What `to_dict` wrote. Raises WireError if `data` is something else."""
        try:
            result = cls(int(data["late_ns"]))
            result.late, result.max_ns = int(data["late"]), int(data["max_ns"])
            for index, count in data["counts"].items():
                if not 0 <= int(index) < cls.BINS or int(count) < 0:
                    raise ValueError(f"bin {index} with count {count} is not one of {cls.BINS}")
                result.counts[int(index)] = int(count)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WireError(f"not a histogram: {type(error).__name__} {error}") from error
        result.total = int(result.counts.sum())
        return result


HOST_PRIORITY = 30
CONTROLLER_PRIORITY = 20
ARM_PRIORITY = 10
"""Of SCHED_FIFO: safety before control, and control before the simulator, which takes tens of milliseconds for a new
scene (a real arm would have its own computer)."""


def prefer_this_process(priority: int, niceness: int = -10) -> str:
    """Ask that this thread, a loop with deadlines, runs before others. What was granted: `fifo`, `nice` or `none`.

    SCHED_FIFO (sched(7)) runs it at once when it wakes; the kernel still leaves 5% to everything else, so a loop that
    never sleeps cannot lock the machine. ZMQ's own threads, which carry what the loop sends and hears, get the same:
    on a busy machine they would be the ones to wait; so call it when the sockets are there. Threads and processes
    started later do not inherit it. Where that is not allowed, a raised share by `nice`. Both need root, or a raised
    limit (`ulimit -r`, `ulimit -e`); the loop runs either way.
    """
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    with contextlib.suppress(PermissionError):
        for thread in (0, *_socket_threads()):
            os.sched_setscheduler(thread, policy, os.sched_param(priority))
        return "fifo"
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
        return "nice"
    return "none"


def tie_to_cpus(cpus: tuple[int, ...]) -> None:
    """Let this thread run on these processors only, on all that it may if none are named.

    Raises ConfigError, naming those that there are, if one of them may not be used.
    """
    allowed = os.sched_getaffinity(0)
    if not allowed.issuperset(cpus):
        missing = sorted(set(cpus) - allowed)
        raise ConfigError(f"cpus {list(cpus)}: {missing} may not be used here; there are {sorted(allowed)}")
    if cpus:
        os.sched_setaffinity(0, cpus)


def _socket_threads() -> list[int]:
    """ZMQ's threads of this process, by the names that it gives them."""
    threads = []
    for thread in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):  # it has just ended
            if (thread / "comm").read_text().startswith("ZMQbg/IO"):
                threads.append(int(thread.name))
    return threads


_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def keep_in_memory() -> bool:
    """Keep all pages of this process in memory (mlockall(2)); whether that was allowed.

    A kernel that is short of memory, or saves it ahead of time, drops code that has not run for a while, and a tick
    that needs it then waits for the disk. Needs root or `ulimit -l unlimited`, and half a gigabyte for a loop and its
    libraries.
    """
    return bool(ctypes.CDLL(None).mlockall(_MCL_CURRENT | _MCL_FUTURE) == 0)


def may_keep_in_memory() -> bool:
    """Whether `keep_in_memory` would be allowed; nothing is kept, and no page is touched."""
    library = ctypes.CDLL(None)
    allowed = bool(library.mlockall(_MCL_CURRENT | _MCL_ONFAULT) == 0)
    library.munlockall()
    return allowed


def give_way_to_loops(niceness: int = 5) -> None:
    """Take less of the processor than others: for a process that may wait, beside loops that may not."""
    os.setpriority(os.PRIO_PROCESS, 0, max(niceness, os.getpriority(os.PRIO_PROCESS, 0)))


def loop_stats(lateness: Histogram, work: Histogram, overruns: int) -> dict[str, Any]:
    """Flat figures of a loop: `count`, `late`, `p50_us`, `p99_us`, `max_us` of its lateness, the same of its work after
    `work_`, and `overruns`, the deadlines skipped."""
    figures = lateness.summary() | {f"work_{key}": value for key, value in work.summary().items()}
    return figures | {"overruns": overruns}
