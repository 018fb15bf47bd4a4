"""Whatever is asked, the commanded motion stays within every limit. The judge shares no code with the filter."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.adversaries import ADVERSARIES
from contracts.filter_bench import LOST, FilterBench
from contracts.motion_checker import Checker
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety import motion
from reflexarc.safety.kinematics import Kinematics
from reflexarc.wire.messages import F64

TICKS = 1300
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))]
"""Two in the suite (more than 20,000 ticks with all adversaries); the slow ones make it more than 200,000."""


def legal_start(rng: np.random.Generator, bench: FilterBench) -> F64:
    """(n,) a joint position within all limits: home, or something random about it."""
    home = np.array(bench.robot.home)
    for _ in range(100):
        position = home + rng.normal(0, 0.4, len(home))
        if not bench.filter.limits.outside(position, bench.filter.kinematics.view(position).point):
            return position
    return home


def attack(bench: FilterBench, name: str, seed: int, ticks: int) -> None:
    """Let an adversary send at every tick; whenever the filter latches, reset and enable it for more."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
    bench.request("enable")
    bench.tick(bench.setpoint())
    for tick in range(ticks):
        position, velocity = ADVERSARIES[name](rng, tick, bench.memory, bench.robot)
        due = bench.now_ns + int(rng.integers(-60, 60)) * 1_000_000
        gripper = float(rng.choice([np.nan, -5.0, 0.0, 1.0, 7.0], p=[0.02, 0.2, 0.3, 0.28, 0.2]))
        setpoint = bench.setpoint(position, velocity, due_ns=due, gripper=gripper)
        silent = rng.random() < 0.05
        bench.tick(None if silent else setpoint)
        if bench.state == LOST:
            bench.request("reset")
            if bench.request("enable"):
                bench.tick(bench.setpoint())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", sorted(ADVERSARIES))
def test_no_adversary_breaks_a_limit(name: str, seed: int, robot: RobotConfig, safety: SafetyConfig) -> None:
    bench = FilterBench(robot, safety)
    if seed:
        start = legal_start(np.random.default_rng([7, seed]), bench)
        bench = FilterBench(robot, safety, start)
    attack(bench, name, seed, TICKS)
    stream = bench.stream
    assert Checker(robot, safety).violations(stream, np.array(bench.grippers)) == {}
    assert np.abs(stream - stream[0]).max() > 0.01, "an arm that never moves proves nothing"


@given(
    st.lists(
        st.tuples(st.floats(width=64), st.floats(width=64), st.integers(-(2**62), 2**62)),
        min_size=1,
        max_size=25,
    )
)
def test_no_sequence_of_numbers_breaks_a_limit(
    robot: RobotConfig, safety: SafetyConfig, sent: list[tuple[float, float, int]]
) -> None:
    bench = FilterBench(robot, safety)
    bench.request("enable")
    bench.tick(bench.setpoint())
    n = len(robot.joints)
    for position, velocity, due in sent:
        here = bench.memory.position
        bench.tick(
            bench.setpoint(np.where(np.arange(n) % 2, position, here), np.full(n, velocity), due_ns=due)
        )
        bench.tick(bench.setpoint(here + 0.2, np.full(n, 1.0)))
    assert Checker(robot, safety).violations(bench.stream) == {}


@pytest.mark.parametrize("name", ["wall_seeking", "limit_seeking", "extremes"])
def test_every_stop_from_a_reached_state_is_legal(
    name: str, robot: RobotConfig, safety: SafetyConfig
) -> None:
    """The sender dies at a random moment, again and again; the stops that follow stay within the limits."""
    checker = Checker(robot, safety)
    rng = np.random.default_rng(5)
    for _ in range(8):
        bench = FilterBench(robot, safety)
        attack(bench, name, int(rng.integers(1000)), int(rng.integers(50, 250)))
        bench.idle(1.0)
        assert bench.memory.at_rest
        assert checker.violations(bench.stream) == {}


def _planted_bugs() -> dict[str, Callable[[pytest.MonkeyPatch, FilterBench], None]]:
    def accepts_all(patch: pytest.MonkeyPatch, bench: FilterBench) -> None:
        patch.setattr(motion.Motion, "_refusal", lambda *_: None)
        patch.setattr(motion.Motion, "_keep_in_box", lambda _self, wanted, *_: wanted)
        patch.setattr(motion.Motion, "_limit_tcp_speed", lambda _self, wanted, *_: wanted)

    def forgets_the_way_to_stop(patch: pytest.MonkeyPatch, bench: FilterBench) -> None:
        patch.setattr(motion, "stop_time", lambda ticks, dt: dt)

    def brakes_too_hard(patch: pytest.MonkeyPatch, bench: FilterBench) -> None:
        bench.filter.limits.acceleration_step[:] *= 1.001

    def lets_one_joint_be_faster(patch: pytest.MonkeyPatch, bench: FilterBench) -> None:
        bench.filter.limits.velocity[-1] *= 1.05

    def has_a_wall_one_millimetre_out(patch: pytest.MonkeyPatch, bench: FilterBench) -> None:
        bench.filter.limits.box_upper[0] += 0.001

    def has_a_joint_limit_too_far(patch: pytest.MonkeyPatch, bench: FilterBench) -> None:
        bench.filter.limits.upper[:] += 0.001

    def ignores_the_speed_of_the_tcp(patch: pytest.MonkeyPatch, bench: FilterBench) -> None:
        patch.setattr(motion, "peak_speed", lambda *_: 0.0)

    return {name: plant for name, plant in locals().items() if callable(plant)}


@pytest.mark.parametrize("bug", sorted(_planted_bugs()))
def test_the_judge_sees_a_bug_planted_in_the_filter(
    bug: str, robot: RobotConfig, safety: SafetyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    checker = Checker(robot, safety)
    for name in ("one_joint", "wall_seeking", "limit_seeking"):
        bench = FilterBench(robot, safety)
        with monkeypatch.context() as patch:
            _planted_bugs()[bug](patch, bench)
            attack(bench, name, 0, 1000)
        if checker.violations(bench.stream):
            return
    pytest.fail(f"no adversary made {bug} show")


def test_kinematics_agree_with_the_chain_multiplied_out(robot: RobotConfig, safety: SafetyConfig) -> None:
    kinematics, checker = Kinematics(robot), Checker(robot, safety)
    rng = np.random.default_rng(0)
    low = np.array([joint.lower for joint in robot.joints])
    high = np.array([joint.upper for joint in robot.joints])
    positions = rng.uniform(low, high, (50, len(low)))
    points = np.array([kinematics.view(position).point for position in positions])
    assert np.abs(points - checker.tcp(positions)).max() < 1e-12


def test_bend_bounds_the_curvature_of_the_path(robot: RobotConfig, safety: SafetyConfig) -> None:
    """The TCP stays within `bend·s²/2` of the tangent of its path along any straight joint-space line."""
    kinematics, checker = Kinematics(robot), Checker(robot, safety)
    rng = np.random.default_rng(1)
    steps = np.linspace(0, 1, 21)
    for _ in range(50):
        start = rng.uniform(-2, 2, len(robot.joints))
        way = rng.normal(0, 1, len(robot.joints))
        view = kinematics.view(start)
        path = checker.tcp(start + steps[:, None] * way)
        line = view.point + steps[:, None] * (view.jacobian @ way)
        bend = np.abs(way) @ kinematics.bend @ np.abs(way)
        assert (np.linalg.norm(path - line, axis=1) <= bend * steps**2 / 2 + 1e-12).all()
