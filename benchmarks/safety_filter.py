"""What one tick of the safety filter takes, against plain clamping and against the limits in mink's own program.

All are given the same streams in turns, tick by tick: a smooth legal motion, and a hostile one that jumps between
random goals. Ours is measured in parts: with joint, box and stop checks only; with all geometry; and as the whole
filter, with intake, watchdogs, contact and report. The clamp is what ros2_control's joint limiter does: velocity,
acceleration and position, joint by joint, with no regard to stopping. Prints a table, writes JSON. For a machine that
does something else as well: `--cpu-time` counts the thread's own time, and `--repeats` goes through the same streams
so often and takes of each tick the least, which is what it takes by itself.

Example: python benchmarks/safety_filter.py --ticks 20000 --json runs/safety_filter.json
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mink
import mujoco
import numpy as np
from rich.console import Console
from rich.table import Table

from reflexarc.configs.load import load_robot, load_safety, resolve_asset
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety import SafetyFilter
from reflexarc.safety.clearance import JOINT, TCP_WALL
from reflexarc.safety.kinematics import Kinematics
from reflexarc.safety.limits import Limits
from reflexarc.safety.motion import MotionLimiter, Target
from reflexarc.safety.surroundings import Surroundings
from reflexarc.wire.messages import F64, Measured, Setpoint

Tick = Callable[[int, F64, F64], None]
"""Called with the number of the tick, and the position (n,) and velocity (n,) asked for."""

WARM_UP = 200
AIMS_US = {"joint, box, stop": 100.0, "with geometry": 1000.0, "whole filter": 1000.0}


class Limiter:
    """The motion limiter alone."""

    def __init__(self, robot: RobotConfig, safety: SafetyConfig, geometry: bool) -> None:
        self._kinematics = Kinematics(robot, safety.held_tool)
        self._limits = Limits.of(robot, safety, self._kinematics.reach)
        around = Surroundings.of(robot, safety, self._kinematics, self._limits.lower, self._limits.upper)
        if not geometry:
            around = only(around, (JOINT, TCP_WALL))
        self._motion = MotionLimiter(self._kinematics, self._limits, around)
        self._state = self._kinematics.rest(np.array(robot.home))
        self._stop: F64 = np.zeros((0, len(robot.home)))

    def tick(self, tick: int, position: F64, velocity: F64) -> None:
        step = self._motion.step(self._state, self._stop, Target(position, velocity), 1.0)
        self._stop = step.stop
        self._state, _ = self._kinematics.advance(self._state, step.velocity, self._limits.dt)


class Whole:
    """The whole filter, with an arm that follows perfectly."""

    def __init__(self, robot: RobotConfig, safety: SafetyConfig) -> None:
        self._filter = SafetyFilter(robot, safety, "virtual")
        self._tick_ns = robot.tick_ns
        self._zero = np.zeros(len(robot.home))
        self._memory = self._filter.start(self._reading(0, np.array(robot.home)), 0)
        self._memory, _, _ = self._filter.request(self._memory, "enable", 0)

    def tick(self, tick: int, position: F64, velocity: F64) -> None:
        now = (tick + 1) * self._tick_ns
        setpoint = Setpoint(
            t_ns=now,
            clock="virtual",
            seq=tick,
            t_due_ns=now,
            joint_position=position,
            joint_velocity=velocity,
            gripper=0.5,
            source="expert",
        )
        measured = self._reading(now, self._memory.position)
        _, self._memory, _ = self._filter.filter(self._memory, measured, setpoint, now)

    def _reading(self, now: int, position: F64) -> Measured:
        return Measured(
            t_ns=now,
            joint_position=position,
            joint_velocity=self._zero,
            joint_effort=self._zero,
            wrench_tcp=np.zeros(6),
            gripper=0.5,
        )


class Clamp:
    """Position, velocity and acceleration limited joint by joint."""

    def __init__(self, robot: RobotConfig, safety: SafetyConfig) -> None:
        limits = Limits.of(robot, safety, Kinematics(robot).reach)
        self._lower, self._upper, self._dt = limits.lower, limits.upper, limits.dt
        self._velocity_limit, self._change = limits.velocity, limits.rates.change
        self._position, self._velocity = np.array(robot.home), np.zeros(len(robot.home))

    def tick(self, tick: int, position: F64, velocity: F64) -> None:
        wanted = (np.minimum(np.maximum(position, self._lower), self._upper) - self._position) / self._dt
        wanted = np.minimum(np.maximum(wanted, -self._velocity_limit), self._velocity_limit)
        low, high = self._velocity - self._change, self._velocity + self._change
        self._velocity = np.minimum(np.maximum(wanted, low), high)
        self._position = self._position + self._velocity * self._dt


class MinkProgram:
    """mink's program: a posture task under its position and velocity limits, solved by daqp as ours."""

    def __init__(self, robot: RobotConfig, safety: SafetyConfig) -> None:
        model = mujoco.MjModel.from_xml_path(str(resolve_asset(robot.mjcf)))
        self._configuration = mink.Configuration(model)
        self._qpos = [int(model.joint(name).qposadr[0]) for name in robot.joint_names]
        self._dt = robot.tick_ns * 1e-9
        q = np.zeros(model.nq)
        q[self._qpos] = robot.home
        self._configuration.update(q)
        self._task = mink.PostureTask(model, cost=1.0)
        tops = {joint.name: joint.velocity * safety.velocity_scale for joint in robot.joints}
        self._limits = [mink.ConfigurationLimit(model), mink.VelocityLimit(model, tops)]

    def tick(self, tick: int, position: F64, velocity: F64) -> None:
        q = self._configuration.q.copy()
        q[self._qpos] = position
        self._task.set_target(q)
        found = mink.solve_ik(
            self._configuration, [self._task], self._dt, solver="daqp", damping=1e-6, limits=self._limits
        )
        self._configuration.integrate_inplace(found, self._dt)


def only(around: Surroundings, kinds: tuple[int, ...]) -> Surroundings:
    """The surroundings with some kinds of clearances alone."""
    table = around.table
    chosen = np.isin(table.kind, kinds)
    kept = {name: getattr(table, name)[chosen] for name in ("kind", "a", "b", "keep", "pace")}
    start = np.searchsorted(kept["kind"], np.arange(len(table.start)))
    rows = np.flatnonzero(chosen)
    return dataclasses.replace(
        around,
        table=table._replace(**kept, start=start),
        rules=tuple(around.rules[row] for row in rows),
        fields=tuple(around.fields[row] for row in rows),
        slow=around.slow[chosen],
    )


def smooth(robot: RobotConfig, ticks: int) -> tuple[F64, F64]:
    """Positions and velocities (T, n) of a legal motion about home that begins at rest."""
    seconds = np.arange(ticks)[:, None] * robot.tick_ns * 1e-9
    n = len(robot.home)
    size, pace = np.resize([0.2, 0.08, -0.15, 0.1, 0.1, 0.1, 0.3], n), np.resize([1.7, 1.3, 2.1, 1.1], n)
    ease, ease_rate = 1 - np.exp(-seconds), np.exp(-seconds)
    position = np.array(robot.home) + size * ease**2 * np.sin(pace * seconds)
    rate = 2 * ease * ease_rate * np.sin(pace * seconds) + ease**2 * pace * np.cos(pace * seconds)
    return position, size * rate


def hostile(robot: RobotConfig, ticks: int, seed: int) -> tuple[F64, F64]:
    """Random goals within the joint limits, another one every half second, at any speed."""
    rng = np.random.default_rng(seed)
    lower = np.array([joint.lower for joint in robot.joints])
    upper = np.array([joint.upper for joint in robot.joints])
    each = max(round(0.5 * robot.tick_hz), 1)
    count = ticks // each + 1
    position = np.repeat(rng.uniform(lower, upper, (count, len(lower))), each, axis=0)[:ticks]
    velocity = np.repeat(rng.normal(0, 1, (count, len(lower))), each, axis=0)[:ticks]
    # It begins where the arm is: else the whole filter would refuse it.
    position[:WARM_UP], velocity[:WARM_UP] = robot.home, 0.0
    return position, velocity


def measure(candidates: dict[str, Tick], stream: tuple[F64, F64], clock: Callable[[], int]) -> dict[str, F64]:
    """Microseconds (T,) of each candidate's ticks, in turns over one stream."""
    taken: dict[str, list[int]] = {name: [] for name in candidates}
    gc.collect()
    gc.disable()
    try:
        for tick, (position, velocity) in enumerate(zip(*stream, strict=True)):
            for name, run in candidates.items():
                begun = clock()
                run(tick, position, velocity)
                taken[name].append(clock() - begun)
    finally:
        gc.enable()
    return {name: np.array(values[WARM_UP:]) / 1000 for name, values in taken.items()}


def summary(repeats: list[dict[str, F64]]) -> dict[str, dict[str, float]]:
    """Of the least that each tick took in any of the repeats."""
    found = {}
    for name in repeats[0]:
        micro = np.min([taken[name] for taken in repeats], axis=0)
        p50, p99 = np.percentile(micro, [50, 99])
        found[name] = {"p50": float(p50), "p99": float(p99), "max": float(micro.max())}
    return found


def candidates_for(robot: RobotConfig, safety: SafetyConfig) -> dict[str, Tick]:
    """What is measured, each fresh, at home and at rest."""
    return {
        "joint, box, stop": Limiter(robot, safety, geometry=False).tick,
        "with geometry": Limiter(robot, safety, geometry=True).tick,
        "whole filter": Whole(robot, safety).tick,
        "plain clamp": Clamp(robot, safety).tick,
        "mink's program": MinkProgram(robot, safety).tick,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--robot", default="panda")
    parser.add_argument("--ticks", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    robot, safety = load_robot(given.robot), load_safety(given.robot)
    clock = time.thread_time_ns if given.cpu_time else time.perf_counter_ns
    streams = {"smooth": smooth(robot, given.ticks), "hostile": hostile(robot, given.ticks, given.seed)}
    found: dict[str, Any] = {
        name: summary([measure(candidates_for(robot, safety), stream, clock) for _ in range(given.repeats)])
        for name, stream in streams.items()
    }
    of = "CPU time" if given.cpu_time else "time"
    of += f", least of {given.repeats}" if given.repeats > 1 else ""
    table = Table(
        title=f"{given.robot}, {len(robot.joints)} joints, {given.ticks} ticks: µs of {of} per tick"
    )
    for column in ("stream", "what", "p50", "p99", "max", "aim for p99"):
        table.add_column(column)
    for stream, rows in found.items():
        for name, row in rows.items():
            aim = f"{AIMS_US[name]:.0f}" if name in AIMS_US else ""
            table.add_row(stream, name, f"{row['p50']:.0f}", f"{row['p99']:.0f}", f"{row['max']:.0f}", aim)
    Console().print(table)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(
            json.dumps({"robot": given.robot, "clock": of, "microseconds": found}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
