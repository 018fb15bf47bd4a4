"""`reflexarc run`: episodes in real time, against a running robot and a running policy server."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from reflexarc.commands.options import JsonPath, Set, console, run_folder, write_json
from reflexarc.configs.errors import LogError
from reflexarc.wire.endpoints import BASE_PORT, Endpoints

UNJUDGED_S = 60.0
"""Limit of an episode that no task of the suite limits, and nobody ends."""


def run(
    task: str = "lift",
    episodes: int = 1,
    seed: int = 0,
    instruction: str = "",
    port: int = BASE_PORT,
    time_limit: float | None = None,
    intervene: str = "",
    robot: str = "panda",
    safety: str = "panda",
    controller: str = "default",
    out: Path | None = None,
    overrides: Set = (),
    json: JsonPath = None,
) -> None:
    """Run controller, recorder and runner against `reflexarc robot` and `reflexarc serve`.

    The robot host may have any driver. An arm that is not simulated needs `--instruction`, and whether an episode was a
    success stays open unless a person judges it (`--intervene`).

    Example: reflexarc run --task button --episodes 3

    Args:
        task: in simulation, what to lay out and to judge; on any other arm a name for the episodes.
        episodes: how many; none begins while the robot host is latched in a stop.
        seed: of the first layout; the others follow.
        instruction: what to tell the policy instead of the task's own words.
        port: first port of the run, as given to `robot` and `serve`.
        time_limit: seconds an episode may take; if not named the task's own, 60 on an arm that is not simulated.
        intervene: teleoperation device of a person who may take the arm from the policy and give it back; the
            person starts and judges the episodes, as in `reflexarc teleop`.
        robot: preset or file of the robot that the host runs.
        safety: preset or file of the safety limits that it keeps.
        controller: preset or file of the controller.
        out: folder for logs.
    """
    from reflexarc.attached import check_task, is_simulated
    from reflexarc.collect import EVALUATION_SEED_BASE
    from reflexarc.processes import Processes
    from reflexarc.runner import Runner
    from reflexarc.setup import load_setup
    from reflexarc.sim.tasks import get_task
    from reflexarc.stack import READY_S, start_controller, start_recorder

    if intervene:
        from reflexarc.commands.teleop import TIME_LIMIT_S, teleop

        teleop(
            device=intervene,
            task=task,
            episodes=episodes,
            seed=seed,
            policy="served",
            instruction=instruction,
            port=port,
            time_limit=TIME_LIMIT_S if time_limit is None else time_limit,
            robot=robot,
            safety=safety,
            controller=controller,
            out=out,
            overrides=overrides,
            json=json,
        )
        return
    setup = load_setup(robot=robot, safety=safety, controller=controller, overrides=overrides)
    endpoints = Endpoints(base_port=port)
    with console.status("looking for the robot host"):
        simulated = is_simulated(endpoints)
    check_task(task, instruction, simulated=simulated)
    if time_limit is None:
        time_limit = get_task(task).time_limit_s if simulated else UNJUDGED_S
    folder = run_folder("run", out)
    figures = []
    with Processes(folder / "processes") as processes:
        start_controller(processes, endpoints, setup)
        start_recorder(processes, endpoints, folder / "episodes", setup.recording)
        runner = Runner(endpoints, ("host", "controller", "recorder"), simulated=simulated)
        try:
            runner.wait_ready(READY_S, processes.check)
            for index in range(episodes):
                number = EVALUATION_SEED_BASE + seed + index if simulated else -1
                result = runner.episode(
                    f"{task}-{seed + index:04d}",
                    task=task,
                    seed=number,
                    instruction=instruction,
                    time_limit_s=time_limit,
                    metadata=setup.metadata(task=task, seed=number, policy="served", clock="monotonic"),
                    check=processes.check,
                )
                console.print(
                    f"{result.episode}: {result.instruction!r}: {result.end} after {result.time_s:.1f} s"
                )
                if result.unrecorded:
                    console.print(f"  {result.unrecorded}", style="red", markup=False)
                figures.append(dataclasses.asdict(result))
        finally:
            runner.close()
            console.print(f"episodes: {folder / 'episodes'}")
            write_json(json, figures)
    if torn := [each["episode"] for each in figures if each["unrecorded"]]:
        raise LogError(f"{', '.join(torn)}: not recorded whole; the reasons stand above")
