"""`reflexarc collect`: demonstrations by the scripted expert, in simulation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import tyro

from reflexarc.commands.options import JsonPath, Set, console, fresh_folder, write_json


def collect(
    task: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK ...")] = (),
    episodes: int = 10,
    seed: int = 0,
    out: Path | None = None,
    roll_in: str = "perturb",
    share: float = 0.6,
    glances: int = 0,
    horizon: int = 8,
    workers: int = os.cpu_count() or 1,
    robot: str = "panda",
    safety: str = "panda",
    overrides: Set = (),
    json: JsonPath = None,
) -> None:
    """Collect demonstrations by the scripted expert, through controller and safety; resumes where it stopped.

    Example: reflexarc collect --task place --episodes 100 --seed 0 --out runs/place-100

    Args:
        task: tasks to collect; all of the suite if none is named.
        episodes: of each task.
        seed: of the collection; evaluation seeds are refused.
        out: folder for `<task>/<seed>.mcap`.
        roll_in: what disturbs the expert, `perturb` or a policy's name.
        share: of the episodes that are disturbed.
        glances: also take this many single pictures of fresh scenes of each task, into `glances/`.
        horizon: actions in the chunk of a glance; the policy's own.
        workers: processes.
        robot: preset or file of the robot.
        safety: preset or file of safety limits.
    """
    from reflexarc.collect import collect as run_collect
    from reflexarc.evaluate import suite_tasks
    from reflexarc.setup import load_setup

    # The expert looks at every step: its answers are labels, and it takes over at once after a disturbance.
    setup = load_setup(robot=robot, safety=safety, overrides=("controller.execute_steps=1", *overrides))
    tasks = suite_tasks("tabletop", task)
    with fresh_folder("collect", out) as folder:
        results = run_collect(
            tasks,
            episodes=episodes,
            seed=seed,
            out=folder,
            setup=setup,
            roll_in=roll_in,
            share=share,
            workers=workers,
        )
        if glances:
            from reflexarc.glance import glance

            taken = glance(
                tasks,
                count=glances,
                seed=seed,
                horizon=horizon,
                out=folder / "glances",
                setup=setup,
                workers=workers,
            )
            console.print(f"{taken} glances")
    figures = {
        name: {
            status: sum(item.task == name and item.status == status for item in results)
            for status in ("kept", "failed", "present")
        }
        for name in tasks
    }
    for name, row in figures.items():
        console.print(
            f"{name:8s} {row['kept']} kept, {row['failed']} failed and dropped, {row['present']} were there already"
        )
    console.print(f"episodes: {folder}")
    write_json(json, figures)
