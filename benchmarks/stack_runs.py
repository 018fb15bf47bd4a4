"""What the benchmarks in real time share: episodes for so many seconds, and what counts as late."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reflexarc.collect import EVALUATION_SEED_BASE
from reflexarc.runner import EpisodeFigures, Runner

LOOPS = ("host", "controller")


def run_episodes(
    runner: Runner, task: str, seconds: float, longest_s: float, check: Callable[[], None]
) -> list[EpisodeFigures]:
    """Episodes of a task, one after another, for `seconds`; none lasts beyond `longest_s`."""
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


def late_share(rows: list[dict[str, Any]]) -> float:
    """Late ticks over all ticks of several runs."""
    late = sum(int(row["late"]) for row in rows)
    return late / max(1, sum(int(row["count"]) for row in rows))
