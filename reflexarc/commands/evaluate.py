"""`reflexarc eval`: success rates of a policy on a suite, repeatable to the episode."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import tyro

from reflexarc.commands.options import AS_SET, JsonPath, Placed, Set, console, write_json


def evaluate(
    policy: str = "reflexarc-tiny",
    suite: str = "tabletop",
    task: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK ...")] = (),
    episodes: int = 50,
    seed: int = 0,
    seen: bool = False,
    clock: Literal["virtual"] = "virtual",
    wording: Literal["given", "held_out", "blank", "other"] = "given",
    latency: str = "0.05",
    workers: int = os.cpu_count() or 1,
    robot: str = "panda",
    safety: str = "panda",
    controller: str = "default",
    log: Path | None = None,
    placement: Placed = AS_SET,
    overrides: Set = (),
    json: JsonPath = None,
) -> None:
    """Evaluate a policy in simulation, on seeds that collection refuses.

    Example: reflexarc eval --policy reflexarc-tiny --suite tabletop --episodes 50 --seed 0 --json eval.json

    Args:
        policy: `expert`, an embedded checkpoint or a checkpoint folder.
        suite: of tasks.
        task: only these tasks of the suite.
        episodes: of each task.
        seed: of the evaluation.
        seen: the scenes of `reflexarc collect` with this seed instead: what was learned by heart, not what is known.
        clock: simulated time; the real-time path is `reflexarc run`.
        wording: what the policy is told: as trained, phrases never trained on, nothing, or another object.
        latency: of the policy in simulated seconds, or a file of latencies to draw from; the expert answers at once.
        workers: processes; the result does not depend on it.
        robot: preset or file of the robot.
        safety: preset or file of safety limits.
        controller: preset or file of the controller.
        log: folder for the episode logs.
        placement: where the policy's model runs and in what numbers.
    """
    from reflexarc import evaluate as evaluation
    from reflexarc.setup import load_setup
    from reflexarc.sim.latency import Latency

    setup = load_setup(robot=robot, safety=safety, controller=controller, overrides=overrides)
    tasks = evaluation.suite_tasks(suite, task)
    Latency.parse(latency)  # like a missing checkpoint below, said before the workers start
    if policy != "expert":
        from reflexarc.policies import open_policy

        open_policy(policy, placement=placement)
    results = evaluation.evaluate(
        policy,
        tasks,
        episodes=episodes,
        seed=seed,
        setup=setup,
        wording=wording,
        latency=latency,
        workers=workers,
        log_dir=log,
        seen=seen,
        placement=placement,
    )
    figures = evaluation.report(
        results,
        policy=policy,
        seed=seed,
        wording=wording,
        latency=latency,
        setup=setup,
        seen=seen,
        placement=placement,
    )
    evaluation.print_table(console, figures["tasks"], f"{policy} on {suite}, instruction: {wording}")
    write_json(json, figures)
