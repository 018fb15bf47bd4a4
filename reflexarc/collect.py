"""Collect demonstrations in simulation: the scripted expert, disturbed now and then, through controller and safety.

A clone of an expert that never errs cannot recover from its own errors. So a share of the episodes is *rolled in*: for
short spells something else moves the arm (random displacements, or a policy that is being trained, as in
DAgger, Ross et al. 2011), then the expert takes over and shows the way back. Who was in control is on record, and
the label function leaves the disturbed spells out.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np

from reflexarc.configs.errors import ConfigError
from reflexarc.policies import open_policy
from reflexarc.pool import run_jobs
from reflexarc.setup import Setup
from reflexarc.wire.contracts import Policy
from reflexarc.wire.messages import ActionChunk, Message, Observation, PolicyInfo

EVALUATION_SEED_BASE = 1_000_000_000
"""Seeds from here on are for evaluation only; collection refuses them."""

EPISODE_SEEDS = 1_000_000
"""Seeds of one collection or evaluation: `seed * EPISODE_SEEDS + index`."""

EXTRA_TIME = 1.6
"""A disturbed demonstration may take this much longer than the task's limit."""


class RollIn:
    """The expert, with spells in which another source moves the arm."""

    def __init__(
        self, expert: Policy, other: Policy, *, spells: tuple[int, int], length: tuple[int, int]
    ) -> None:
        """`spells`, `length`: lowest and highest number of spells, and of policy steps in one."""
        self._expert = expert
        self._other = other
        self._spells = spells
        self._length = length
        self._plan: set[int] = set()
        self._step = 0

    @property
    def info(self) -> PolicyInfo:
        """The expert's."""
        return self._expert.info

    def begin(self, seed: int, typical_steps: int) -> None:
        """Draw when the spells of this episode are."""
        generator = np.random.default_rng([0xD15, seed])
        self._plan = set()
        for _ in range(int(generator.integers(self._spells[0], self._spells[1] + 1))):
            start = int(generator.integers(0, typical_steps))
            length = int(generator.integers(self._length[0], self._length[1] + 1))
            self._plan.update(range(start, start + length))
        self._step = 0

    def reset(self, session: str) -> None:
        """Start both sources afresh."""
        self._expert.reset(session)
        self._other.reset(session)
        self._step = 0

    def act(self, observation: Observation) -> ActionChunk:
        """The chunk of whoever is in control at this step."""
        disturbed = self._step in self._plan
        self._step += 1
        return (self._other if disturbed else self._expert).act(observation)


@dataclasses.dataclass(frozen=True, slots=True)
class CollectJob:
    """Episodes `first` .. `first + count - 1` of one task."""

    task: str
    seed: int
    first: int
    count: int
    out: Path
    setup: Setup
    roll_in: str
    share: float


@dataclasses.dataclass(frozen=True, slots=True)
class Collected:
    """One collected episode."""

    task: str
    seed: int
    success: bool
    time_s: float
    status: Literal["kept", "failed", "present"]


def collect(
    tasks: tuple[str, ...],
    *,
    episodes: int,
    seed: int,
    out: Path,
    setup: Setup,
    roll_in: str = "perturb",
    share: float = 0.6,
    workers: int = 2,
    batch: int = 10,
) -> list[Collected]:
    """Collect `episodes` of each task into `out/<task>/<seed>.mcap`; episodes that are there already are kept.

    roll_in: `perturb` or the name of a policy. share: of the episodes that are rolled in. Failed demonstrations are
    not kept. Raises ConfigError for an unknown task, or a number that makes no sense, before anything is written.
    """
    from reflexarc.sim.tasks import get_task

    for task in tasks:
        get_task(task)
    if episodes < 1:
        raise ConfigError(f"episodes is {episodes}; must be at least 1")
    if not 0 <= share <= 1:
        raise ConfigError(f"share is {share:g}; must be within 0..1")
    if not 0 <= seed * EPISODE_SEEDS + episodes <= EVALUATION_SEED_BASE:
        raise ConfigError(
            f"seed {seed} with {episodes} episodes reaches into the evaluation seeds; "
            f"seed must be in [0, {EVALUATION_SEED_BASE // EPISODE_SEEDS})"
        )
    jobs = [
        CollectJob(task, seed, first, min(batch, episodes - first), out, setup, roll_in, share)
        for first in range(0, episodes, batch)
        for task in tasks
    ]
    results: list[Collected] = []
    for _, done in run_jobs(collect_batch, jobs, workers=workers, title="collecting"):
        results.extend(done)
    return results


def collect_batch(job: CollectJob) -> list[Collected]:
    """Run one job in this process."""
    from reflexarc.sim.lockstep import LockstepSession
    from reflexarc.sim.perturb import Perturbation
    from reflexarc.sim.tasks import get_task
    from reflexarc.sim.world import World

    task = get_task(job.task)
    world = World(job.task, job.setup.robot)
    expert = open_policy("expert", world)
    other = Perturbation(expert.info) if job.roll_in == "perturb" else open_policy(job.roll_in, world)
    length = (2, 5) if job.roll_in == "perturb" else (4, 24)
    rolled = RollIn(expert, other, spells=(1, 3), length=length)
    clean = RollIn(expert, expert, spells=(0, 0), length=(1, 1))
    session = LockstepSession(world, job.setup.robot, job.setup.safety, job.setup.controller, expert)
    results = []
    for index in range(job.first, job.first + job.count):
        seed = job.seed * EPISODE_SEEDS + index
        path = job.out / job.task / f"{seed:09d}.mcap"
        if path.exists():
            results.append(Collected(job.task, seed, True, 0.0, "present"))
            continue
        disturbed = np.random.default_rng([0x5A, seed]).random() < job.share
        session.policy = rolled if disturbed else clean
        session.policy.begin(seed, typical_steps=max(5, round(task.time_limit_s * 10 / 2.5)))
        if isinstance(other, Perturbation):
            other.reseed(seed)
        results.append(_one(job, session, seed, path, task.time_limit_s * EXTRA_TIME))
    session.close()
    return results


def _one(job: CollectJob, session: object, seed: int, path: Path, limit_s: float) -> Collected:
    """Run and record one episode; only a success gets its final name."""
    import json

    from reflexarc.datasets.writer import EpisodeWriter
    from reflexarc.sim.lockstep import LockstepSession

    assert isinstance(session, LockstepSession)
    metadata = job.setup.metadata(task=job.task, seed=seed, policy="expert", clock="virtual")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    writer = EpisodeWriter(unfinished, json.loads(metadata), fsync=False, recording=job.setup.recording)

    def record(topic: str, message: Message) -> None:
        writer.write(topic, message)

    session.subscribers[:] = [record]
    try:
        result = session.run(seed, time_limit_s=limit_s, metadata=metadata)
        writer.close({"success": result.success, "time_s": result.time_s})
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    if result.success:
        unfinished.rename(path)
    else:
        unfinished.unlink()
    status: Literal["kept", "failed"] = "kept" if result.success else "failed"
    return Collected(job.task, seed, result.success, result.time_s, status)
