"""Bugs planted in the filter, one at a time: the judge of motion, which shares no code with it, sees every one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from contracts.adversaries import ADVERSARIES
from contracts.campaign import HELD
from contracts.filter_bench import LOST, FilterBench
from contracts.motion_checker import Checker
from reflexarc.configs.load import load_robot, load_safety
from reflexarc.safety import filter as filter_module
from reflexarc.safety import motion
from reflexarc.safety.clearance import BOX, SELF, SINGULAR
from reflexarc.safety.filter import SafetyFilter
from reflexarc.safety.judge import FINE, MotionState
from reflexarc.safety.kinematics import TcpView
from reflexarc.wire.messages import F64

TICKS = 900
Plant = Callable[[SafetyFilter, pytest.MonkeyPatch], None]


@dataclasses.dataclass(frozen=True)
class Bug:
    """senders: who make it show, one of them at least. shows: the limit that is then broken. held: with a tool."""

    plant: Plant
    shows: str
    senders: tuple[str, ...]
    robot: str = "panda"
    rate: int = 200
    held: bool = False


def scaled(array: str, factor: float, index: object = slice(None)) -> Plant:
    """A limit of how fast that is too high by a factor."""

    def plant(filter_: SafetyFilter, patch: pytest.MonkeyPatch) -> None:
        getattr(filter_.limits.rates, array)[index] *= factor

    return plant


def moved(array: str, index: object, by: float) -> Plant:
    """A limit of where that is off by something."""

    def plant(filter_: SafetyFilter, patch: pytest.MonkeyPatch) -> None:
        getattr(filter_._motion._around.table, array)[index] += by

    return plant


def kept(kind: int, by: float, rule: str) -> Plant:
    """A distance, or condition number, to keep that is off by something."""

    def plant(filter_: SafetyFilter, patch: pytest.MonkeyPatch) -> None:
        around = filter_._motion._around
        rows = (around.table.kind == kind) & (np.array(around.rules) == rule)
        around.table.keep[rows] += by
        around.slow[rows] = 1e-12

    return plant


def accepts_all(filter_: SafetyFilter, patch: pytest.MonkeyPatch) -> None:
    judged = motion.propose

    def blind(*args: object) -> object:
        rows, told, _, *others = judged(*args)  # type: ignore[arg-type]
        return rows, told, FINE, *others

    patch.setattr(motion, "propose", blind)


def stops_dead(filter_: SafetyFilter, patch: pytest.MonkeyPatch) -> None:
    def dead(velocity: F64, stop: F64) -> tuple[F64, F64]:
        return np.zeros_like(velocity), stop[:0]

    patch.setattr(filter_module, "halt", dead)


def goes_on_instead_of_stopping(filter_: SafetyFilter, patch: pytest.MonkeyPatch) -> None:
    def on(velocity: F64, stop: F64) -> tuple[F64, F64]:
        return velocity, stop

    patch.setattr(filter_module, "halt", on)
    patch.setattr(motion, "halt", on)


def forgets_the_acceleration(filter_: SafetyFilter, patch: pytest.MonkeyPatch) -> None:
    advance = filter_.kinematics.advance

    def forgetful(state: MotionState, velocity: F64, dt: float) -> tuple[MotionState, TcpView]:
        after, view = advance(state, velocity, dt)
        return after._replace(change=np.zeros_like(velocity)), view

    patch.setattr(filter_.kinematics, "advance", forgetful)


def looks_again_too_late(filter_: SafetyFilter, patch: pytest.MonkeyPatch) -> None:
    filter_._motion._around.table.pace[:] *= 50


def has_a_short_tool(filter_: SafetyFilter, patch: pytest.MonkeyPatch) -> None:
    filter_.kinematics.chain.tcp_offset[2] -= 0.01


def forgets_the_held_tool(filter_: SafetyFilter, patch: pytest.MonkeyPatch) -> None:
    body = filter_.kinematics.body
    tool = body.names.index("held tool")
    body.capsules.b[tool], body.capsules.radius[tool] = body.capsules.a[tool], 0.0


def has_thin_links(filter_: SafetyFilter, patch: pytest.MonkeyPatch) -> None:
    filter_.kinematics.body.capsules.radius[:] -= 0.02


BUGS = {
    "accepts_all": Bug(accepts_all, "workspace", ("wall_seeking",)),
    "stops_dead": Bug(stops_dead, "joint_acceleration", ("random_goals",)),
    "goes_on_instead_of_stopping": Bug(
        goes_on_instead_of_stopping, "workspace", ("wall_seeking", "extremes")
    ),
    "forgets_the_acceleration": Bug(
        forgets_the_acceleration, "joint_jerk", ("bang_bang", "resonance"), "fr3", 1000
    ),
    "looks_again_too_late": Bug(looks_again_too_late, "workspace", ("wall_seeking", "extremes")),
    "brakes_too_hard": Bug(scaled("change", 1.001), "joint_acceleration", ("bang_bang", "one_joint")),
    "jerks": Bug(scaled("step", 1.001), "joint_jerk", ("bang_bang", "resonance"), "fr3", 1000),
    "lets_one_joint_be_faster": Bug(scaled("velocity", 1.01, -1), "joint_velocity", ("one_joint",)),
    "does_not_slow_near_a_joint_limit": Bug(
        scaled("near", 0.0), "joint_velocity", ("one_joint", "limit_seeking"), "fr3"
    ),
    "lets_the_tcp_be_faster": Bug(
        scaled("tcp", 1.02, (0, 0)), "tcp_speed", ("extremes", "wall_seeking", "uniform")
    ),
    "lets_the_tcp_turn_too_hard": Bug(
        scaled("tcp", 1.2, (1, 1)), "tcp_angular_acceleration", ("bang_bang", "random_goals", "resonance")
    ),
    "has_a_wall_one_millimetre_out": Bug(
        moved("tcp_box", (1, slice(None)), 0.001), "workspace", ("wall_seeking", "extremes")
    ),
    "has_a_joint_limit_too_far": Bug(
        moved("bound", 1, 0.001), "joint_position", ("limit_seeking", "one_joint")
    ),
    "lets_the_elbow_into_a_keep_out": Bug(
        moved("boxes", (0, 1, 0), -0.02), "keep_out", ("limit_seeking", "random_goals")
    ),
    "comes_too_near_the_table": Bug(
        kept(BOX, -0.009, "distance"), "distance", ("downwards", "limit_seeking", "random_goals")
    ),
    "comes_too_near_itself": Bug(
        kept(SELF, -0.03, "self_distance"), "self_distance", ("limit_seeking", "downwards")
    ),
    "goes_into_a_singularity": Bug(
        kept(SINGULAR, 30.0, "singularity"), "singularity", ("limit_seeking", "random_goals")
    ),
    "has_a_short_tool": Bug(has_a_short_tool, "workspace", ("wall_seeking", "extremes")),
    "forgets_the_held_tool": Bug(forgets_the_held_tool, "arm_box", ("wall_seeking", "downwards"), held=True),
    "has_thin_links": Bug(has_thin_links, "distance", ("downwards", "limit_seeking", "random_goals")),
}


@pytest.mark.parametrize("name", BUGS)
def test_the_judge_sees_a_planted_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BUGS[name]
    robot = load_robot(bug.robot, [f"tick_hz={bug.rate}"])
    safety = load_safety(bug.robot, [HELD] if bug.held else [])
    checker = Checker(robot, safety)
    seen: set[str] = set()
    for seed in range(4):
        for sender in bug.senders:
            bench = FilterBench(robot, safety)
            with monkeypatch.context() as patch:
                bug.plant(bench.filter, patch)
                send(bench, sender, seed)
            seen |= checker.violations(bench.stream).keys()
            if bug.shows in seen:
                return
    pytest.fail(f"no sender made {name} show in {bug.shows}; seen: {', '.join(sorted(seen)) or 'nothing'}")


def send(bench: FilterBench, sender: str, seed: int) -> None:
    """Let one sender attack; it falls silent for a while now and then."""
    rng = np.random.default_rng(seed)
    offset = 1000 * seed
    bench.request("enable")
    bench.tick(bench.setpoint())
    for tick in range(TICKS):
        numbers = ADVERSARIES[sender](rng, tick + offset, bench.memory, bench.robot)
        silent = tick % 300 > 270
        bench.tick(None if silent else bench.setpoint(*numbers))
        if bench.state == LOST:
            bench.request("reset")
            bench.request("enable")
