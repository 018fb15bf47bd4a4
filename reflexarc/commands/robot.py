"""`reflexarc robot`: the robot host with its arm, ready for a controller."""

from __future__ import annotations

import time
from pathlib import Path

from reflexarc.commands.options import Set, console, run_folder
from reflexarc.wire.endpoints import BASE_PORT


def robot(
    task: str = "lift",
    seed: int = 0,
    port: int = BASE_PORT,
    arm: str = "panda",
    safety: str = "panda",
    out: Path | None = None,
    overrides: Set = (),
) -> None:
    """Run the robot host and, behind it, the simulated arm with its cameras, until Ctrl-C.

    Example: reflexarc robot --task button --port 27100

    Args:
        task: scene on the simulated table.
        seed: of the layout.
        port: first port of the run.
        arm: preset or file of the robot.
        safety: preset or file of safety limits.
        out: folder for the processes' logs.
    """
    from reflexarc.processes import Processes
    from reflexarc.setup import load_setup
    from reflexarc.sim.tasks import get_task
    from reflexarc.stack import free_endpoints, start_simulated_robot

    get_task(task)
    setup = load_setup(robot=arm, safety=safety, overrides=overrides)
    endpoints = free_endpoints(port)
    folder = run_folder("robot", out)
    with Processes(folder) as processes:
        start_simulated_robot(processes, endpoints, setup, task, seed)
        console.print(f"robot host: console {endpoints.console}, state {endpoints.state}; Ctrl-C ends it")
        while True:
            time.sleep(0.2)
            processes.check()
