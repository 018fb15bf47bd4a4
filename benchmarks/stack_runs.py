"""What the benchmarks in real time share: episodes for so many seconds, and what counts as late."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reflexarc.collect import EVALUATION_SEED_BASE
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.runner import EpisodeFigures, Runner
from reflexarc.safety.states import ENABLED
from reflexarc.wire.messages import State

LOOPS = ("host", "controller")
AGES_MS = (10, 20, 50)
"""Of a driver's reading: what `driver_silence_s` may be."""


def run_episodes(
    runner: Runner, task: str, seconds: float, longest_s: float, check: Callable[[], None]
) -> list[EpisodeFigures]:
    """Episodes of a task, one after another, for `seconds`; none lasts beyond `longest_s`.

    A protective stop ends one episode and not the run; an emergency stop ends it with LatchedError.
    """
    begun, episodes = time.monotonic(), []
    for index in itertools.count():
        left = seconds - (time.monotonic() - begun)
        if left <= 0:
            break
        episodes.append(
            runner.episode(
                f"{index}",
                task=task,
                seed=EVALUATION_SEED_BASE + index,
                time_limit_s=max(0.5, min(left, longest_s)),
                metadata="{}",
                check=check,
                reset_protective_stop=True,
            )
        )
    return episodes


def stolen_s() -> float:
    """Seconds of processor time that the machine below this one has taken for others since boot (proc(5))."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def process_cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used, of all its threads (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def reading_ages(folder: Path) -> dict[str, float]:
    """How old the driver's readings were at the host's ticks while the arm was enabled, from the logs in a folder.

    `ticks`, how many of them; `p50_ms`, `p99_ms`, `max_ms`; `above_<N>_ms`, how many were older than that.
    """
    states = (
        message
        for path in sorted(folder.glob("*.mcap"))
        for _, message in EpisodeReader(path).messages(["/state"])
    )
    ages = [
        (state.t_ns - state.t_state_ns) * 1e-6
        for state in states
        if isinstance(state, State) and state.safety in ENABLED
    ]
    found = {"ticks": float(len(ages)), "max_ms": max(ages, default=0.0)}
    if ages:
        found |= {"p50_ms": float(np.percentile(ages, 50)), "p99_ms": float(np.percentile(ages, 99))}
    return found | {f"above_{limit}_ms": float(sum(age > limit for age in ages)) for limit in AGES_MS}


def late_share(rows: list[dict[str, Any]]) -> float:
    """Late ticks over all ticks of several runs."""
    late = sum(int(row["late"]) for row in rows)
    return late / max(1, sum(int(row["count"]) for row in rows))
