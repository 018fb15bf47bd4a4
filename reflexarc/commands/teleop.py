"""`reflexarc teleop`: episodes by hand, or beside a policy that a person may take the arm from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from reflexarc.commands.options import JsonPath, Set, console, run_folder, write_json

TIME_LIMIT_S = 600.0
"""Of an episode by hand; a person ends it sooner."""


def teleop(
    device: str = "keyboard",
    task: str = "lift",
    episodes: int = 10,
    seed: int = 0,
    policy: str = "",
    instruction: str = "",
    port: int = 0,
    time_limit: float = TIME_LIMIT_S,
    robot: str = "panda",
    safety: str = "panda",
    controller: str = "default",
    show: bool = True,
    out: Path | None = None,
    overrides: Set = (),
    json: JsonPath = None,
) -> None:
    """Record episodes by hand, in real time; with `--policy` a person takes over from it and gives back.

    Keys say when an episode starts, how it went, and whether to keep it: see docs/teleop.md.

    Example: reflexarc teleop --device keyboard --task lift --episodes 20 --out runs/by-hand

    Args:
        device: preset or file of the device: keyboard, gamepad, spacemouse, so101-leader, phone.
        task: in simulation, what to lay out and to judge; on any other arm a name for the episodes.
        episodes: how many to keep.
        seed: of the collection; the layouts follow from it.
        policy: a checkpoint that drives until the person does; nobody does without one.
        instruction: what is on record, and told to the policy, instead of the task's own words. An arm that is not
            simulated has none of its own.
        port: first port of a running robot host (and `serve`), `reflexarc robot` or one with another driver; 0 starts a
            simulated arm here.
        time_limit: seconds an episode may take.
        robot: preset or file of the robot.
        safety: preset or file of safety limits.
        controller: preset or file of the controller.
        show: draw the cameras in the terminal, where it is wide enough.
        out: folder for the logs, `episodes/` and `discarded/`; one that has some already is added to.
    """
    from reflexarc.attached import check_task, is_simulated
    from reflexarc.collect import EPISODE_SEEDS
    from reflexarc.configs.errors import ConfigError
    from reflexarc.configs.load import load_teleop
    from reflexarc.setup import load_setup, split_overrides
    from reflexarc.teleop import TeleopJob
    from reflexarc.teleop_stack import run_session
    from reflexarc.wire.endpoints import Endpoints

    if episodes < 1:
        raise ConfigError(f"episodes is {episodes}; must be at least 1")
    parts = split_overrides(overrides, ("robot", "safety", "controller", "recording", "teleop"))
    config = load_teleop(device, parts.pop("teleop"))
    rest = tuple(f"{section}.{each}" for section, found in parts.items() for each in found)
    setup = load_setup(robot=robot, safety=safety, controller=controller, overrides=rest)
    simulated = True
    if port:
        with console.status("looking for the robot host"):
            simulated = is_simulated(Endpoints(base_port=port))
    check_task(task, instruction, simulated=simulated)
    job = TeleopJob(
        task=task,
        episodes=episodes,
        first_seed=seed * EPISODE_SEEDS,
        instruction=instruction,
        time_limit_s=time_limit,
        policy=policy,
        config=config,
        setup=setup,
        own_arm=not port,
    )
    folder = run_folder("teleop", out)
    figures = run_session(job, folder, port=port, simulated=simulated, show=show, console=console)
    console.print(f"episodes: {folder / 'episodes'}")
    write_json(json, [dataclasses.asdict(each) for each in figures])
