"""How hard the scripted experts touch things, by what safety feels: what its ceilings leave for the work.

For each task the largest force and torque at the wrist, and the largest torque of a joint that neither model nor wrist
explains, at any moment; once left alone, and once disturbed on purpose as in collecting (`reflexarc.collect`). In
virtual time: the same on every run.

Example: python benchmarks/expert_contact.py --episodes 5 --json runs/expert_contact.json
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
from rich.console import Console
from rich.table import Table

from reflexarc.collect import EXTRA_TIME, RollIn
from reflexarc.commands.options import write_json
from reflexarc.evaluate import SUITES
from reflexarc.policies import open_policy
from reflexarc.pool import run_jobs
from reflexarc.safety.contact import NOTHING_FELT, Contact
from reflexarc.setup import Setup, load_setup
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.perturb import Perturbation
from reflexarc.sim.tasks import get_task
from reflexarc.sim.world import World
from reflexarc.wire.messages import Measured, Message, State

SPELLS, LENGTH = (1, 3), (2, 5)
"""Disturbances of an episode, and policy steps of one."""


@dataclasses.dataclass(slots=True)
class Largest:
    """Of one task: N and N·m at the wrist, N·m of a joint and its name; successes of so many episodes."""

    task: str
    disturbed: bool
    force: float = 0.0
    torque: float = 0.0
    joint_torque: float = 0.0
    joint: str = ""
    successes: int = 0
    episodes: int = 0


class Feeling:
    """Feels what the host's filter feels, from the states that the host publishes."""

    def __init__(self, setup: Setup, largest: Largest) -> None:
        self._contact = Contact(setup.robot, setup.safety)
        self._names = setup.robot.joint_names
        self._touch = NOTHING_FELT
        self._largest = largest

    def take(self, topic: str, message: Message) -> None:
        """A message of the run."""
        if not isinstance(message, State):
            return
        reading = Measured(
            t_ns=message.t_state_ns,
            joint_position=message.joint_position,
            joint_velocity=message.joint_velocity,
            joint_effort=message.joint_effort,
            wrench_tcp=message.wrench_tcp,
            gripper=message.gripper,
        )
        # Where the contact pushes does not count here, so no Jacobian is needed.
        nowhere, level = np.zeros((3, len(self._names))), np.array([1.0, 0.0, 0.0, 0.0])
        self._touch = touch = self._contact.feel(self._touch, reading, nowhere, level)
        largest = self._largest
        largest.force = max(largest.force, touch.force)
        largest.torque = max(largest.torque, float(np.linalg.norm(message.wrench_tcp[3:])))
        residual = np.abs(np.zeros(len(self._names)) if touch.residual is None else touch.residual)
        if residual.max() > largest.joint_torque:
            worst = int(np.argmax(residual))
            largest.joint_torque, largest.joint = float(residual[worst]), self._names[worst]


def run_task(job: tuple[str, bool, int, int]) -> Largest:
    """All episodes of one task, disturbed or not, in a process of its own."""
    name, disturbed, episodes, seed = job
    setup, task = load_setup(), get_task(name)
    world = World(name, setup.robot)
    expert = open_policy("expert", world)
    other = Perturbation(expert.info)
    session = LockstepSession(world, setup.robot, setup.safety, setup.controller, expert)
    largest = Largest(name, disturbed)
    for index in range(seed, seed + episodes):
        spells = SPELLS if disturbed else (0, 0)
        session.policy = RollIn(expert, other, spells=spells, length=LENGTH)
        session.policy.begin(index, typical_steps=max(5, round(task.time_limit_s * 10 / 2.5)))
        other.reseed(index)
        session.subscribers[:] = [Feeling(setup, largest).take]
        result = session.run(index, time_limit_s=task.time_limit_s * EXTRA_TIME)
        largest.successes += result.success
        largest.episodes += 1
    session.close()
    return largest


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=5, help="of each task, and as many disturbed ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    jobs = [
        (task, disturbed, args.episodes, args.seed)
        for task in SUITES["tabletop"]
        for disturbed in (False, True)
    ]
    found = [done for _, done in run_jobs(run_task, jobs, workers=args.workers, title="touching")]
    found.sort(key=lambda item: (item.disturbed, SUITES["tabletop"].index(item.task)))
    table = Table(title="the largest that safety felt of the experts")
    for column in ("task", "disturbed", "success", "wrist N", "wrist N·m", "joint N·m", "joint"):
        table.add_column(column, justify="left" if column in ("task", "joint") else "right")
    for row in found:
        values = (f"{row.force:.1f}", f"{row.torque:.2f}", f"{row.joint_torque:.1f}", row.joint)
        disturbed = "yes" if row.disturbed else ""
        table.add_row(row.task, disturbed, f"{row.successes}/{row.episodes}", *values)
    safety = load_setup().safety
    ceilings = (safety.force_ceiling, safety.torque_ceiling, safety.contact.joint_torque)
    table.add_row("ceiling", "", "", *(f"{value:g}" for value in ceilings), "")
    Console().print(table)
    write_json(args.json, [dataclasses.asdict(row) for row in found])


if __name__ == "__main__":
    main()
