"""Evaluate a policy on a suite of tasks in virtual time: success rates that another machine can repeat.

Every episode is a seed that collection refuses to use, unless the question is what a policy learned by heart. The
latency of the policy is injected as simulated time. The result is independent of the number of workers and of the
machine's speed.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from reflexarc.collect import EPISODE_SEEDS, EVALUATION_SEED_BASE
from reflexarc.configs.errors import ConfigError, unknown
from reflexarc.configs.placement import Placement
from reflexarc.policies import open_policy
from reflexarc.pool import run_jobs
from reflexarc.record import git_revision, versions
from reflexarc.setup import Setup
from reflexarc.wire.messages import Message

Wording = Literal["given", "held_out", "blank", "other"]
"""What the policy is told: a training phrase, a phrase never trained on, nothing, or another object's name."""

SUITES = {"tabletop": ("reach", "push", "lift", "place", "stack", "drawer", "button")}


def suite_tasks(suite: str, tasks: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The tasks of a suite, or those of it that are asked for; raises ConfigError naming the alternatives."""
    if suite not in SUITES:
        raise ConfigError(unknown("suite", suite, SUITES))
    for task in tasks:
        if task not in SUITES[suite]:
            raise ConfigError(unknown("task", task, SUITES[suite]))
    return tasks or SUITES[suite]


@dataclasses.dataclass(frozen=True, slots=True)
class EvalJob:
    """Episodes `first` .. `first + count - 1` of one task. seen: of the scenes that demonstrations are collected in."""

    task: str
    policy: str
    seed: int
    first: int
    count: int
    wording: Wording
    latency: str
    setup: Setup
    log_dir: Path | None
    seen: bool = False
    placement: Placement | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluated:
    """One evaluated episode; times in simulated seconds. stop_rule, stop_reason: of a latched stop that ended it."""

    task: str
    index: int
    seed: int
    told: str
    success: bool
    time_s: float
    chunks: int
    interventions: int
    rules: tuple[str, ...]
    final_safety: str
    stop_rule: str = ""
    stop_reason: str = ""


def evaluate(
    policy: str,
    tasks: tuple[str, ...],
    *,
    episodes: int,
    seed: int,
    setup: Setup,
    wording: Wording = "given",
    latency: str = "0.05",
    workers: int = 2,
    log_dir: Path | None = None,
    seen: bool = False,
    placement: Placement | None = None,
) -> list[Evaluated]:
    """Run `episodes` of each task; returns the results sorted by task and index."""
    batch = max(1, min(10, math.ceil(episodes / max(1, workers))))
    jobs = [
        EvalJob(
            task,
            policy,
            seed,
            first,
            min(batch, episodes - first),
            wording,
            latency,
            setup,
            log_dir,
            seen,
            placement,
        )
        for task in tasks
        for first in range(0, episodes, batch)
    ]
    results: list[Evaluated] = []
    for _, done in run_jobs(evaluate_batch, jobs, workers=workers, title=f"evaluating {policy}"):
        results.extend(done)
    return sorted(results, key=lambda item: (tasks.index(item.task), item.index))


def evaluate_batch(job: EvalJob) -> list[Evaluated]:
    """Run one job in this process."""
    return list(_episodes(job))


def _episodes(job: EvalJob) -> Iterator[Evaluated]:
    from reflexarc.sim.latency import Latency
    from reflexarc.sim.lockstep import LockstepSession
    from reflexarc.sim.tasks import get_task
    from reflexarc.sim.world import World

    task = get_task(job.task)
    world = World(job.task, job.setup.robot)
    policy = open_policy(job.policy, world, placement=job.placement)
    world.image_size = (
        policy.info.image_height,
        policy.info.image_width,
    )  # before the first picture is drawn
    session = LockstepSession(
        world,
        job.setup.robot,
        job.setup.safety,
        job.setup.controller,
        policy,
        latency=Latency.parse("0" if job.policy == "expert" else job.latency),
    )
    for index in range(job.first, job.first + job.count):
        seed = job.seed * EPISODE_SEEDS + index + (0 if job.seen else EVALUATION_SEED_BASE)
        told = _told(world, job.wording, seed)
        metadata = job.setup.metadata(task=job.task, seed=seed, policy=job.policy, clock="virtual")
        session.subscribers.clear()
        writer = None
        if job.log_dir is not None:
            writer = _logger(session, job.log_dir / job.task / f"{seed:010d}.mcap", metadata, job.setup)
        result = session.run(seed, instruction=told, time_limit_s=task.time_limit_s, metadata=metadata)
        if writer is not None:
            writer.close({"success": result.success, "time_s": result.time_s})
        yield Evaluated(
            task=job.task,
            index=index,
            seed=seed,
            told=told,
            **{field.name: getattr(result, field.name) for field in dataclasses.fields(result)},
        )
    session.close()


def _told(world: Any, wording: Wording, seed: int) -> str:
    """What the policy is told in the episode of that seed."""
    world.reset(seed, held_out=wording == "held_out")
    if wording == "blank":
        return ""
    if wording == "other":
        return str(world.other_instruction())
    return str(world.instruction)


def _logger(session: Any, path: Path, metadata: str, setup: Setup) -> Any:
    from reflexarc.datasets.writer import EpisodeWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = EpisodeWriter(path, json.loads(metadata), fsync=False, recording=setup.recording)

    def record(topic: str, message: Message) -> None:
        writer.write(topic, message)

    session.subscribers.append(record)
    return writer


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """95% interval of a success rate (Wilson 1927), which stays inside [0, 1] for few trials."""
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def summarise(results: list[Evaluated]) -> dict[str, Any]:
    """`{task: {success_rate, episodes, interval_95, mean_time_s, interventions, stops, results}}`.

    stops: episodes that a latched stop ended, by its rule.
    """
    tasks: dict[str, Any] = {}
    for name in dict.fromkeys(item.task for item in results):
        mine = [item for item in results if item.task == name]
        won = [item for item in mine if item.success]
        tasks[name] = {
            "success_rate": len(won) / len(mine),
            "episodes": len(mine),
            "interval_95": wilson_interval(len(won), len(mine)),
            "mean_time_s": sum(item.time_s for item in won) / len(won) if won else None,
            "interventions": sum(item.interventions for item in mine),
            "stops": collections.Counter(item.stop_rule for item in mine if item.stop_rule),
            "results": [dataclasses.asdict(item) for item in mine],
        }
    return tasks


def report(
    results: list[Evaluated],
    *,
    policy: str,
    seed: int,
    wording: Wording,
    latency: str,
    setup: Setup,
    seen: bool = False,
    placement: Placement | None = None,
) -> dict[str, Any]:
    """Everything about an evaluation, as JSON."""
    return {
        "policy": policy,
        "seed": seed,
        "seen": seen,
        "clock": "virtual",
        "wording": wording,
        "latency": latency,
        "placement": (placement or Placement()).model_dump(),
        "versions": versions(),
        "git_revision": git_revision(),
        "configs": {
            "robot": setup.robot.model_dump(mode="json"),
            "safety": setup.safety.model_dump(mode="json"),
            "controller": setup.controller.model_dump(mode="json"),
        },
        "tasks": summarise(results),
    }


def print_table(console: Console, summary: dict[str, Any], title: str) -> None:
    """Success by task, with its interval, and what safety did."""
    table = Table(title=title, caption="limited: ticks in which safety let only a part of the motion through")
    for column in (
        "task",
        "success",
        "95% interval",
        "episodes",
        "mean time",
        "limited",
        "stopped by",
    ):
        table.add_column(column, justify="left" if column == "task" else "right")
    for name, row in summary.items():
        low, high = row["interval_95"]
        mean = row["mean_time_s"]
        table.add_row(
            name,
            f"{row['success_rate']:.0%}",
            f"{100 * low:.0f}-{high:.0%}",
            str(row["episodes"]),
            "-" if mean is None else f"{mean:.1f} s",
            str(row["interventions"]),
            ", ".join(f"{count} × {rule}" for rule, count in row["stops"].items()) or "-",
        )
    console.print(table)
