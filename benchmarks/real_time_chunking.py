"""How far a new chunk is from the old one where it takes over, with real-time chunking and without, and what succeeds.

    .venv/bin/python benchmarks/real_time_chunking.py --policy reflexarc-tiny --latency 0.1 0.2 0.3

Episodes run on the virtual clock with the latency of a model injected; the same seeds with and without. Where a chunk
takes over, the path that the controller was on and the one it is given say where the tool should be and how fast: told
is by how much they differ, median and 95th percentile over all seams, before the controller fades it out.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from reflexarc.collect import EVALUATION_SEED_BASE
from reflexarc.configs.load import load_controller, load_robot, load_safety
from reflexarc.controllers.chunk import Knots
from reflexarc.controllers.controller import Controller
from reflexarc.controllers.interpolate import CubicPath
from reflexarc.policies import open_policy
from reflexarc.sim.latency import Latency
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.tasks import get_task
from reflexarc.sim.world import World

Seam = tuple[float, float]
"""Of one seam the difference of place, m, and of velocity, m/s."""


def watched(controller: Controller) -> list[Seam]:
    """The seams of a controller, as it comes to them; those from rest are left out, they hide nothing."""
    found: list[Seam] = []
    join = controller._joined

    def joined(knots: Knots, join_ns: int) -> Any:
        old = controller._present_path(join_ns).sample(join_ns)
        new = CubicPath(knots, controller._braking).sample(join_ns)
        if np.any(old.velocity):
            place, speed = new.point - old.point, new.velocity - old.velocity
            found.append((float(np.linalg.norm(place)), float(np.linalg.norm(speed))))
        return join(knots, join_ns)

    controller._joined = joined  # type: ignore[method-assign]
    return found


def run(policy: str, task: str, latency_s: float, count: int, *, told: bool) -> dict[str, Any]:
    """Figures over `count` episodes."""
    robot = load_robot("panda")
    world = World(task, robot)
    config = load_controller("default").model_copy(update={"real_time_chunking": told})
    opened, latency = open_policy(policy, world), Latency([latency_s])
    session = LockstepSession(world, robot, load_safety("panda"), config, opened, latency=latency)
    seams = watched(session._controller)
    limit_s = get_task(task).time_limit_s
    results = [session.run(EVALUATION_SEED_BASE + index, time_limit_s=limit_s) for index in range(count)]
    session.close()
    median, high = np.percentile(np.array(seams), [50, 95], axis=0)
    return {
        "policy": policy,
        "task": task,
        "latency_s": latency_s,
        "real_time_chunking": told,
        "seams": len(seams),
        "jump_mm": {"p50": median[0] * 1e3, "p95": high[0] * 1e3},
        "velocity_jump_mm_per_s": {"p50": median[1] * 1e3, "p95": high[1] * 1e3},
        "succeeded": sum(result.success for result in results),
        "episodes": count,
        "mean_s": float(np.mean([result.time_s for result in results])),
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--policy", default="reflexarc-tiny")
    parser.add_argument("--task", nargs="+", default=["lift", "push"])
    parser.add_argument("--latency", nargs="+", type=float, default=[0.1, 0.2, 0.3], help="s")
    parser.add_argument("--episodes", type=int, default=10, help="of each task and latency")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    cases = [
        (task, latency, told) for task in given.task for latency in given.latency for told in (False, True)
    ]
    rows = [
        run(given.policy, task, latency, given.episodes, told=told)
        for task, latency, told in track(cases, description="episodes", transient=True)
    ]
    table = Table(title=f"{given.policy}: where a chunk takes over from another")
    for column in ("task", "latency s", "chunking", "jump mm p50", "p95", "mm/s p50", "p95", "success", "s"):
        table.add_column(column, justify="left" if column in ("task", "chunking") else "right")
    for row in rows:
        jump, speed = row["jump_mm"], row["velocity_jump_mm_per_s"]
        table.add_row(
            row["task"],
            f"{row['latency_s']:g}",
            "real-time" if row["real_time_chunking"] else "as it comes",
            *(f"{each[key]:.1f}" for each in (jump, speed) for key in ("p50", "p95")),
            f"{row['succeeded']}/{row['episodes']}",
            f"{row['mean_s']:.1f}",
        )
    Console(width=110).print(table)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
