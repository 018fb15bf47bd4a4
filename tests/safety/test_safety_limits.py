"""Whatever is asked, the commanded motion stays within every limit. The judge shares no code with the filter."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.adversaries import ADVERSARIES
from contracts.filter_bench import LOST, FilterBench
from contracts.motion_checker import Checker
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety.kinematics import Kinematics
from reflexarc.wire.messages import F64

TICKS = 1300
SEEDS = (0, 1)
"""Each sender by itself, so that a failure says which; see the campaign for the great number."""


def legal_start(rng: np.random.Generator, bench: FilterBench) -> F64:
    """(n,) a joint position within all limits: home, or something random about it."""
    home = np.array(bench.robot.home)
    for _ in range(100):
        position = home + rng.normal(0, 0.4, len(home))
        if not bench.filter.outside(position):
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


def test_kinematics_agree_with_the_chain_multiplied_out(robot: RobotConfig, safety: SafetyConfig) -> None:
    kinematics, checker = Kinematics(robot), Checker(robot, safety)
    rng = np.random.default_rng(0)
    low = np.array([joint.lower for joint in robot.joints])
    high = np.array([joint.upper for joint in robot.joints])
    positions = rng.uniform(low, high, (50, len(low)))
    points = np.array([kinematics.view(position).point for position in positions])
    assert np.abs(points - checker.tcp(positions)).max() < 1e-12
