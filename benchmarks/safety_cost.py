"""What safety costs good behaviour: scripted experts under the full limits against the named wide ones, paired.

Every episode is run twice on the same seed, once with each set of limits, on the virtual clock. Prints success and time
for each task, and the difference in success with its 95% interval (paired, normal approximation). The aim is that the
full limits are not worse by more than one point.

Example: python benchmarks/safety_cost.py --episodes 500 --json runs/safety_cost.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

from rich.console import Console
from rich.table import Table

from reflexarc.evaluate import SUITES, Evaluated, evaluate
from reflexarc.setup import load_setup

SUITE = "tabletop"
AIM = -0.01
"""The least difference in success that is accepted."""


def run(safety: str, policy: str, episodes: int, seed: int, workers: int) -> list[Evaluated]:
    """Episodes of every task of the suite under one set of limits."""
    tasks = SUITES[SUITE]
    each = math.ceil(episodes / len(tasks))
    found = evaluate(
        policy, tasks, episodes=each, seed=seed, setup=load_setup(safety=safety), workers=workers
    )
    return [item for item in found if item.index * len(tasks) + tasks.index(item.task) < episodes]


def compare(full: list[Evaluated], wide: list[Evaluated]) -> dict[str, Any]:
    """Figures of the pairs; both lists in the same order."""
    assert [(item.task, item.seed) for item in full] == [(item.task, item.seed) for item in wide]
    differences = [int(a.success) - int(b.success) for a, b in zip(full, wide, strict=True)]
    count = len(differences)
    mean = sum(differences) / count
    spread = math.sqrt(sum((each - mean) ** 2 for each in differences) / max(count - 1, 1) / count)
    times = [(a.time_s, b.time_s) for a, b in zip(full, wide, strict=True) if a.success and b.success]
    return {
        "pairs": count,
        "success_full": sum(item.success for item in full) / count,
        "success_wide": sum(item.success for item in wide) / count,
        "only_full": differences.count(1),
        "only_wide": differences.count(-1),
        "difference": mean,
        "difference_95": [mean - 1.96 * spread, mean + 1.96 * spread],
        "mean_time_full_s": sum(a for a, _ in times) / max(len(times), 1),
        "mean_time_wide_s": sum(b for _, b in times) / max(len(times), 1),
    }


def main() -> None:
    """Run, compare, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=500, help="pairs, over all tasks")
    parser.add_argument("--policy", default="expert")
    parser.add_argument("--full", default="panda", help="preset of the limits in question")
    parser.add_argument("--wide", default="panda-wide", help="preset of the limits to compare with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    runs = {
        name: run(name, given.policy, given.episodes, given.seed, given.workers)
        for name in (given.full, given.wide)
    }
    full, wide = runs[given.full], runs[given.wide]
    tasks = {
        task: compare([a for a in full if a.task == task], [b for b in wide if b.task == task])
        for task in SUITES[SUITE]
        if any(item.task == task for item in full)
    }
    tasks["all"] = compare(full, wide)
    table = Table(title=f"{given.policy}, limits {given.full} against {given.wide}, paired")
    for column in ("task", "pairs", given.full, given.wide, "difference", "time", "time, wide"):
        table.add_column(column)
    for task, row in tasks.items():
        table.add_row(
            task,
            str(row["pairs"]),
            f"{row['success_full']:.1%}",
            f"{row['success_wide']:.1%}",
            f"{row['difference']:+.1%} ({row['only_full']} : {row['only_wide']})",
            f"{row['mean_time_full_s']:.2f} s",
            f"{row['mean_time_wide_s']:.2f} s",
        )
    console = Console()
    console.print(table)
    whole = tasks["all"]
    low, high = whole["difference_95"]
    verdict = "met" if whole["difference"] >= AIM else "not met"
    console.print(
        f"difference {whole['difference']:+.2%}, 95% interval {low:+.2%} to {high:+.2%}; "
        f"aim: not below {AIM:+.0%}: {verdict}"
    )
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(
            json.dumps({"policy": given.policy, "seed": given.seed, "tasks": tasks}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
