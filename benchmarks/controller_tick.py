"""How long one tick of the controller takes: align and compose, interpolate, foresee, solve the IK, track.

    .venv/bin/python benchmarks/controller_tick.py --json runs/controller_tick.json

Ticks of whole expert episodes under the virtual clock. Beside them, on the same targets and in the same run, what the
IK alone takes: `mink` with daqp, one step, as its own examples call it. Aim: 99 % of the ticks within 500 µs.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

import mink
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from reflexarc.configs.load import load_controller, load_robot, load_safety
from reflexarc.controllers.controller import Controller, Tick
from reflexarc.controllers.ik import ArmKinematics, arm_model
from reflexarc.policies import open_policy
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.tasks import get_task
from reflexarc.sim.world import World
from reflexarc.wire.messages import F64, ActionChunk

Clock = Callable[[], int]
"""Nanoseconds."""
AIM_US = 500.0
TASKS = ("reach", "lift", "stack")


class Timed:
    """A controller whose ticks are timed from outside; a chunk that arrives counts to the next tick."""

    def __init__(self, controller: Controller, clock: Clock) -> None:
        self.controller = controller
        self._clock = clock
        self.work_us: list[float] = []
        self.joints: list[F64] = []
        self._chunk_ns = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.controller, name)

    def on_chunk(self, chunk: ActionChunk, now_ns: int) -> Any:
        """Compose and join."""
        begun = self._clock()
        status = self.controller.on_chunk(chunk, now_ns)
        self._chunk_ns += self._clock() - begun
        return status

    def tick(self, now_ns: int) -> Tick:
        """One tick."""
        begun = self._clock()
        tick = self.controller.tick(now_ns)
        self.work_us.append((self._clock() - begun + self._chunk_ns) * 1e-3)
        self._chunk_ns = 0
        if tick.setpoint is not None:
            self.joints.append(tick.setpoint.joint_position)
        return tick


def episodes(count: int, clock: Clock) -> Timed:
    """Drive the expert through `count` episodes of each task."""
    robot, timed = load_robot("panda"), None
    for task in TASKS:
        world = World(task, robot)
        session = LockstepSession(
            world, robot, load_safety("panda"), load_controller("default"), open_policy("expert", world)
        )
        timed = timed or Timed(session._controller, clock)
        timed.controller = session._controller
        session._controller = timed  # type: ignore[assignment]
        for seed in track(range(count), description=f"episodes of {task}"):
            session.run(seed, time_limit_s=get_task(task).time_limit_s)
            gc.collect()  # the loops rest the collector; so does this, between episodes
        session.close()
    assert timed is not None
    return timed


def mink_alone(joints: list[F64], clock: Clock) -> list[float]:
    """µs of one IK step of mink (daqp, frame and posture task, position and velocity limits) along the same motion."""
    robot, config = load_robot("panda"), load_controller("default")
    kinematics, model = ArmKinematics(robot, config), arm_model(robot)
    configuration = mink.Configuration(model)
    frame = mink.FrameTask(robot.tcp_site, "site", position_cost=1.0, orientation_cost=1.0)
    posture = mink.PostureTask(model, cost=config.ik_posture_cost)
    posture.set_target(np.array(robot.home))
    limits = [
        mink.ConfigurationLimit(model),
        mink.VelocityLimit(model, {j.name: j.velocity for j in robot.joints}),
    ]
    work = []
    for here, there in itertools.pairwise(joints):
        pose = kinematics.forward(there)
        begun = clock()
        configuration.update(here)
        frame.set_target(mink.SE3(np.concatenate([pose[3:], pose[:3]])))
        velocity = mink.solve_ik(configuration, [frame, posture], 0.01, "daqp", damping=1e-6, limits=limits)
        configuration.integrate_inplace(velocity, 0.01)
        work.append((clock() - begun) * 1e-3)
    return work


def least(runs: list[list[float]]) -> list[float]:
    """Of the same ticks in each of the runs."""
    return [min(each) for each in zip(*runs, strict=True)]


def summary(work: list[float]) -> dict[str, float]:
    """Of times in µs."""
    p50, p99 = np.percentile(work, [50, 99])
    return {"ticks": len(work), "p50_us": float(p50), "p99_us": float(p99), "max_us": float(max(work))}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--episodes", type=int, default=3, help="of each task")
    parser.add_argument("--repeats", type=int, default=1, help="the same again, of each tick the least")
    parser.add_argument("--cpu-time", action="store_true", help="the thread's own time, on a busy machine")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    clock = time.thread_time_ns if given.cpu_time else time.perf_counter_ns
    gc.disable()
    runs = [episodes(given.episodes, clock) for _ in range(given.repeats)]
    joints = runs[0].joints
    found = {
        "controller tick": summary(least([run.work_us for run in runs])),
        "mink alone, one step": summary(least([mink_alone(joints, clock) for _ in runs])),
    }
    of = "CPU time" if given.cpu_time else "time"
    of += f", least of {given.repeats}" if given.repeats > 1 else ""
    ratio = found["controller tick"]["p50_us"] / found["mink alone, one step"]["p50_us"]
    table = Table(title=f"One tick of the controller, {of}")
    for column in ("", "ticks", "p50", "p99", "max"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in found.items():
        times = (f"{row[key]:.0f} µs" for key in ("p50_us", "p99_us", "max_us"))
        table.add_row(name, str(int(row["ticks"])), *times)
    console = Console()
    console.print(table)
    within = found["controller tick"]["p99_us"] <= AIM_US
    console.print(
        f"p50 is {ratio:.2f} times that of mink alone; p99 is {'within' if within else 'beyond'} {AIM_US:.0f} µs"
    )
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"aim_us": AIM_US, "ratio_p50": ratio, "found": found}, indent=1))


if __name__ == "__main__":
    main()
