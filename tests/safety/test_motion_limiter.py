"""How motion is limited: the path keeps its direction, time is scaled, walls are slid along, near things are approached
slowly and left freely, on every arm that ships."""

from __future__ import annotations

import daqp
import numpy as np
import pytest

from contracts.filter_bench import FilterBench
from contracts.motion_checker import Checker
from reflexarc.configs.errors import ReflexarcError, SafetyError
from reflexarc.configs.load import load_robot, load_safety
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import HeldTool, NamedBox, SafetyConfig
from reflexarc.safety import SafetyFilter, barrier
from reflexarc.safety.clearance import scratch
from reflexarc.safety.judge import FINE, judge, velocity_bound
from reflexarc.safety.kinematics import Kinematics
from reflexarc.safety.limits import Limits
from reflexarc.safety.singularity import extreme_singular_values
from reflexarc.safety.surroundings import Surroundings
from reflexarc.wire.messages import F64


def enabled(robot: RobotConfig, safety: SafetyConfig, start: F64 | None = None) -> FilterBench:
    """Enabled, and following a sender that asks it to stay."""
    bench = FilterBench(robot, safety, start)
    assert bench.request("enable")
    bench.tick(bench.setpoint())
    assert bench.state == "active"
    return bench


@pytest.mark.parametrize(("name", "rate"), [("panda", 200), ("fr3", 200), ("fr3", 1000), ("ur5e", 500)])
def test_a_jump_is_made_on_a_straight_line_at_any_rate(name: str, rate: int) -> None:
    """Joint space direction is kept while speed, acceleration and jerk are limited, and there is no overshoot."""
    robot, safety = load_robot(name, [f"tick_hz={rate}"]), load_safety(name)
    bench = enabled(robot, safety)
    start = bench.memory.position.copy()
    way = np.resize([0.06, -0.03, 0.05, 0.04, 0.08, -0.05, 0.09], len(start))
    for _ in range(round(1.5 * rate)):
        bench.tick(bench.setpoint(start + way))
    share = (bench.stream - start) @ way / (way @ way)
    aside = bench.stream - start - share[:, None] * way
    assert np.abs(aside).max() < 1e-6
    assert np.abs(bench.memory.position - start - way).max() < 1e-6
    assert share.max() < 1 + 1e-3
    assert Checker(robot, safety).violations(bench.stream) == {}


@pytest.mark.parametrize("joints", [[3], range(7)])
def test_a_proposal_that_is_no_number_is_refused(
    joints: list[int], robot: RobotConfig, safety: SafetyConfig
) -> None:
    """Whatever bug made it: NaN compares with no limit."""
    kinematics = Kinematics(robot, safety.held_tool)
    limits = Limits.of(robot, safety, kinematics.reach)
    table = Surroundings.of(robot, safety, kinematics, limits.lower, limits.upper).table
    state, at = kinematics.rest(np.array(robot.home)), scratch(7, len(kinematics.body.capsules.radius))
    here, nothing = np.ones(len(table.kind)), np.empty((0, 7))
    proposal = np.zeros(7)
    arguments = kinematics.chain, kinematics.body.capsules, table, limits.rates, state
    assert judge(*arguments, proposal, here, at, np.empty(0), nothing).rule == FINE
    proposal[list(joints)] = np.nan
    assert judge(*arguments, proposal, here, at, np.empty(0), nothing).rule != FINE


def test_the_report_says_how_much_of_the_motion_was_allowed(active: FilterBench) -> None:
    near = active.tick(active.setpoint())
    assert near.speed_scale == 1.0
    far = active.setpoint(active.memory.position + 0.5)
    scales = [
        active.tick(active.stamped(far, seq=active.setpoint().seq, t_ns=active.now_ns)).speed_scale
        for _ in range(40)
    ]
    assert 0 < scales[0] < 0.1, "from rest, acceleration lets little through"
    assert all(0 <= scale <= 1 for scale in scales)
    assert scales[30] > 3 * scales[0]


def test_a_followed_stream_has_scale_one(active: FilterBench) -> None:
    home = active.memory.position.copy()
    for tick in range(400):
        seconds = tick / active.robot.tick_hz
        offset = 0.1 * (1 - np.cos(seconds)), 0.1 * np.sin(seconds)
        report = active.tick(active.setpoint(home + offset[0], np.full(7, offset[1])))
        assert report.speed_scale > 0.999
        assert not report.interventions


def test_the_hand_approaches_the_table_slowly_and_leaves_it_freely(
    robot: RobotConfig, safety: SafetyConfig
) -> None:
    """With a table as high as to be in the hand's way; fingers may go on to touch it, the hand may not."""
    table = NamedBox(name="table", lower=(0.25, -2, -1), upper=(2, 2, 0.10), source="as high as a book")
    config = safety.model_copy(update={"obstacles": (table,), "arm_box": safety.arm_box})
    bench = enabled(robot, config)
    heights = push(bench, np.array([0.0, 0.0, -0.3]), 500)
    assert "distance" in bench.rules
    assert np.abs(np.diff(heights[-50:])).max() < 1e-4, "it stands"
    assert bench.memory.view.point[2] < 0.10, "the finger tips are below the table's top, where the work is"
    speed = -np.diff(heights) * robot.tick_hz
    assert speed.max() > 0.2
    assert (np.diff(speed[int(speed.argmax()) :]) < 0.02).all(), "slower and slower"
    up = push(bench, np.array([0.0, 0.0, 0.3]), 60)
    assert up[-1] - up[0] > 0.05
    assert Checker(robot, config).violations(bench.stream) == {}


def test_a_singularity_is_not_entered_and_can_be_left(robot: RobotConfig, safety: SafetyConfig) -> None:
    """Stretching the elbow out makes the arm singular."""
    wide = safety.workspace.model_copy(update={"lower": (-1.0, -1.0, -0.2), "upper": (1.0, 1.0, 1.5)})
    config = safety.model_copy(update={"workspace": wide, "obstacles": (), "keep_out": ()})
    bench = enabled(robot, config)
    stretched = np.array([0.0, 0.3, 0.0, -0.15, 0.0, 1.8, 0.785])
    for _ in range(900):
        bench.tick(bench.setpoint(stretched))
    worst = condition(bench)
    assert "singularity" in bench.rules
    assert 17 < worst <= 30
    home = np.array(robot.home)
    for _ in range(900):
        bench.tick(bench.setpoint(home))
    assert np.abs(bench.memory.position - home).max() < 1e-6
    assert Checker(robot, config).violations(bench.stream) == {}


def test_what_is_held_counts_as_a_part_of_the_hand(robot: RobotConfig, safety: SafetyConfig) -> None:
    zone = NamedBox(name="glass", lower=(0.2, -0.6, -0.5), upper=(0.9, 0.6, 0.05), source="chosen for a test")
    config = safety.model_copy(update={"keep_out": (zone,)})
    long = config.model_copy(update={"held_tool": HeldTool(radius=0.01, length=0.08)})
    lowest = []
    for each in (config, long):
        bench = enabled(robot, each)
        lowest.append(push(bench, np.array([0.0, 0.0, -0.2]), 500)[-1])
        assert "keep_out" in bench.rules
        assert Checker(robot, each).violations(bench.stream) == {}
    assert lowest[1] - lowest[0] == pytest.approx(0.08, abs=0.02)


def test_speed_shrinks_near_a_joint_limit_as_the_maker_publishes() -> None:
    """FR3, joint 1: sqrt(12·(2.7501 - q)) - 0.3 rad/s upwards, at most 2.62, here times the scale of 0.7."""
    robot, safety = load_robot("fr3"), load_safety("fr3")
    rates = Limits.of(robot, safety, Kinematics(robot).reach).rates
    for position in (0.0, 2.0, 2.5, 2.7, 2.74, 2.76):
        published = min(2.62, max(0.0, np.sqrt(max(0.0, 12.0 * (2.7501 - position))) - 0.3))
        assert velocity_bound(rates, 0, position, True) == pytest.approx(0.7 * published, rel=1e-6)
        assert velocity_bound(rates, 0, -position, False) == pytest.approx(0.7 * published, rel=1e-6)
    assert velocity_bound(rates, 0, -2.7, True) == pytest.approx(0.7 * 2.62, rel=1e-6)


@pytest.mark.parametrize("field", ["tcp_speed", "tcp_acceleration", "tcp_jerk", "tcp_angular_speed"])
def test_a_cartesian_limit_beyond_the_published_one_is_refused_unless_named(
    field: str, robot: RobotConfig
) -> None:
    beyond = load_safety("panda", [f"{field}=99999"])
    with pytest.raises(SafetyError, match=f"{field} is 99999.*published limit of panda"):
        SafetyFilter(robot, beyond)
    SafetyFilter(robot, load_safety("panda", [f"{field}=99999", f"beyond_published=[{field}]"]))


def test_a_home_where_the_arm_is_too_near_to_itself_is_refused(
    robot: RobotConfig, safety: SafetyConfig
) -> None:
    wary = safety.model_copy(update={"distance_stop": 0.3, "distance_slow": 0.4})
    with pytest.raises(SafetyError, match=r"at home: .* are .* m apart, nearer than distance_stop 0.3 m"):
        SafetyFilter(robot, wary)


@pytest.mark.parametrize("override", ["distance_stop=0.06", "singularity_slow=31"])
def test_slow_comes_before_stop(override: str) -> None:
    with pytest.raises(ReflexarcError, match="must be below"):
        load_safety("panda", [override])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_row_is_kept_as_daqp_would_and_several_at_no_more_than_twice_the_cost(count: int) -> None:
    """The same bounds and soft rows in daqp, with a variable for what each row is broken by; most cannot be kept."""
    rng = np.random.default_rng(count)
    soft, n = barrier.SOFT, 7
    for _ in range(50):
        lower = rng.normal(0, 0.5, n)
        upper = lower + rng.uniform(0.01, 0.06, n)
        proposal = rng.uniform(lower, upper)
        normals = rng.normal(0, 1, (count, n))
        normals /= np.linalg.norm(normals, axis=1)[:, None]
        least = normals @ proposal + rng.uniform(-0.01, 0.03, count)
        found = barrier.bend_away(proposal, lower, upper, np.hstack([normals, least[:, None]]))
        rows = np.hstack([normals, np.eye(count)])
        weights = np.diag(np.concatenate([np.ones(n), np.full(count, 1 / soft)]))
        above = np.concatenate([upper, np.full(2 * count, 1e30)])
        below = np.concatenate([lower, np.zeros(count), least])
        sense = np.zeros(n + 2 * count, dtype=np.int32)
        best, _, flag, _ = daqp.solve(
            weights, np.concatenate([-proposal, np.zeros(count)]), rows, above, below, sense
        )
        assert flag == 1
        assert (lower <= found).all()
        assert (found <= upper).all()
        if count == 1:
            np.testing.assert_allclose(found, best[:n], atol=1e-6)
        costs = []
        for velocity in (found, best[:n]):
            broken = np.maximum(least - normals @ velocity, 0.0)
            costs.append(float(((velocity - proposal) ** 2).sum() + (broken**2).sum() / soft))
        assert costs[0] <= 2 * costs[1] + 1e-9


def push(bench: FilterBench, twist: F64, ticks: int) -> F64:
    """Push the TCP by (3,) m/s without turning it, with a sender that ignores where it gets; its heights (T,), m."""
    heights = []
    for _ in range(ticks):
        jacobian = bench.memory.view.jacobian
        rates = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T, twist)
        bench.tick(bench.setpoint(bench.memory.position + rates * 0.05, rates))
        heights.append(bench.memory.view.point[2])
    return np.array(heights)


def condition(bench: FilterBench) -> float:
    """Condition number of the TCP's Jacobian where the arm is, by finite differences of the pose."""
    kinematics, position = bench.filter.kinematics, bench.memory.position
    columns = []
    for joint in range(len(position)):
        step = np.zeros(len(position))
        step[joint] = 1e-6
        after, _ = kinematics.advance(kinematics.rest(position), step, 1.0)
        columns.append(after.twist / 1e-6)
    largest, smallest = extreme_singular_values(np.ascontiguousarray(np.array(columns).T))
    return largest / smallest
