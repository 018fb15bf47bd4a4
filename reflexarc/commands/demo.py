"""`reflexarc demo`: the whole stack, once, with pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from reflexarc.commands.options import JsonPath, Set, console, run_folder, write_json


def demo(
    policy: str = "reflexarc-tiny",
    task: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK ...")] = (),
    seed: int = 0,
    port: int = 0,
    robot: str = "panda",
    safety: str = "panda",
    controller: str = "default",
    out: Path | None = None,
    overrides: Set = (),
    json: JsonPath = None,
) -> None:
    """Start policy server, controller, robot host and simulated arm as processes, and run an episode of each task.

    Example: reflexarc demo --task lift button --seed 3

    Args:
        policy: an embedded checkpoint or a checkpoint folder.
        task: tasks of the suite; all if none is named.
        seed: of the layouts.
        port: first port of the run; free ones are found if it is 0.
        robot: preset or file of the robot.
        safety: preset or file of safety limits.
        controller: preset or file of the controller.
        out: folder for everything that is made.
    """
    from reflexarc.demo import print_tables, run_demo
    from reflexarc.evaluate import suite_tasks
    from reflexarc.setup import load_setup
    from reflexarc.vla.checkpoint import find

    setup = load_setup(robot=robot, safety=safety, controller=controller, overrides=overrides)
    tasks = suite_tasks("tabletop", task)
    find(policy)  # a missing checkpoint is said before anything starts
    folder = run_folder("demo", out)
    result = run_demo(policy, tasks, seed=seed, out=folder, setup=setup, port=port, console=console)
    print_tables(console, result)
    files = result.files
    console.print(f"contact sheet: {files['contact_sheet']}")
    console.print(f"video:         {files['video']}")
    console.print(
        f"Rerun:         {files['recordings'][0]} (and one for each episode; open with `rerun FILE`)"
    )
    console.print(f"episode logs:  {folder / 'episodes'} (repeat one with `reflexarc replay FILE`)")
    figures = {
        "episodes": [dataclasses.asdict(item) for item in result.episodes],
        "loops": result.loops,
        "files": files,
    }
    write_json(json or folder / "demo.json", figures)
