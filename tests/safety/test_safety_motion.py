"""Good behaviour costs nothing: legal streams pass unchanged; at a wall the arm slides, and can leave it again."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.filter_bench import FilterBench
from contracts.motion_checker import Checker
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety.project import approach_factor
from reflexarc.wire.messages import F64

AMPLITUDE = np.array([0.2, 0.08, -0.15, 0.1, 0.1, 0.1, 0.3])


def swing(home: F64, seconds: float, pace: float = 2.0) -> tuple[F64, F64]:
    """A smooth legal motion that begins at rest: position and velocity, `seconds` after its start."""
    phase = pace * max(seconds, 0.0)
    ease = 1 - np.exp(-phase)
    ease_rate = pace * np.exp(-phase) if seconds > 0 else 0.0
    position = home + AMPLITUDE * ease**2 * np.sin(phase)
    velocity = AMPLITUDE * (2 * ease * ease_rate * np.sin(phase) + ease**2 * pace * np.cos(phase))
    return position, velocity


@pytest.mark.parametrize("every", [1, 2, 4])
def test_a_legal_stream_is_tracked_exactly_and_not_reported(bench: FilterBench, every: int) -> None:
    """Setpoints at 200, 100 and 50 Hz, each due one period after it is made."""
    home = np.array(bench.robot.home)
    period = every * bench.robot.tick_ns
    bench.request("enable")
    newest, errors = None, []
    for tick in range(1200):
        now = bench.now_ns
        report = bench.tick(newest)
        assert not report.interventions, report
        reference = swing(home, (now - 2 * period) * 1e-9)[0]
        errors.append(float(np.abs(bench.memory.position - reference).max()))
        if tick % every == 0:
            position, velocity = swing(home, (now - period) * 1e-9)
            newest = bench.setpoint(position, velocity, due_ns=now + period)
    assert bench.state == "active"
    assert max(errors) < 1e-4
    assert np.abs(bench.stream - home).max() > 0.15


def test_steady_velocity_is_tracked_to_rounding(bench: FilterBench) -> None:
    home = np.array(bench.robot.home)
    speed = np.array([0.2, 0.02, 0.1, -0.05, 0.1, 0.05, 0.3])
    bench.request("enable")
    for tick in range(400):
        seconds = bench.now_ns * 1e-9
        bench.tick(bench.setpoint(home + speed * seconds, speed))
        if tick > 100:
            assert np.abs(bench.memory.position - home - speed * seconds).max() < 1e-9
            assert np.abs(bench.memory.velocity - speed).max() < 1e-6


def test_a_jump_is_caught_up_with_on_a_straight_line_without_overshoot(active: FilterBench) -> None:
    start = active.memory.position.copy()
    goal = start + np.array([0.3, -0.05, 0.1, 0.1, 0.2, -0.1, 0.4])
    setpoint = active.setpoint(goal)
    for _ in range(150):
        active.tick(active.stamped(setpoint, seq=active.setpoint().seq, t_ns=active.now_ns))
    way = goal - start
    share = (active.stream[2:] - start) @ way / (way @ way)
    aside = active.stream[2:] - start - share[:, None] * way
    assert np.abs(active.memory.position - goal).max() < 1e-9
    assert share.max() < 1 + 1e-9
    assert np.abs(aside).max() < 1e-6
    assert (np.diff(share) > -1e-9).all()


def pushed(bench: FilterBench, twist: F64, ticks: int) -> F64:
    """Push the TCP by (3,) m/s with a sender that ignores where it gets; the path (T, 3) of the TCP."""
    points = []
    for _ in range(ticks):
        jacobian = bench.memory.view.jacobian
        rates = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T, twist)
        ahead = bench.memory.position + rates * 0.05
        bench.tick(bench.setpoint(ahead, rates))
        points.append(bench.memory.view.point.copy())
    return np.array(points)


def test_slides_along_a_wall_and_leaves_it(active: FilterBench, safety: SafetyConfig) -> None:
    wall = safety.workspace.lower[2]
    down = pushed(active, np.array([0.0, 0.0, -0.2]), 500)
    assert wall <= down[-1, 2] < wall + 0.002
    assert "workspace" in active.rules
    along = pushed(active, np.array([0.0, 0.15, -0.1]), 200)
    assert along[-1, 1] - along[0, 1] > 0.08
    assert along[:, 2].min() >= wall
    up = pushed(active, np.array([0.0, 0.0, 0.2]), 100)
    assert up[-1, 2] > wall + 0.05
    assert active.state == "active"


def test_reduced_is_slower_and_stays_legal(
    active: FilterBench, robot: RobotConfig, safety: SafetyConfig
) -> None:
    fast = pushed(active, np.array([0.0, 0.6, 0.0]), 40)
    assert active.request("reduce")
    slow = pushed(active, np.array([0.0, -0.6, 0.0]), 120)
    assert active.state == "reduced"
    top = safety.tcp_speed * safety.reduced_speed_scale
    late = np.linalg.norm(np.diff(slow[60:], axis=0), axis=1) * robot.tick_hz
    assert np.linalg.norm(np.diff(fast, axis=0), axis=1).max() * robot.tick_hz > top
    assert late.max() <= top * (1 + 1e-6)
    assert late.max() > 0.8 * top
    assert Checker(robot, safety).violations(active.stream) == {}


def test_recovery_leads_back_inside_slowly_and_never_further_out(
    robot: RobotConfig, safety: SafetyConfig
) -> None:
    """An arm that was switched on outside the box may come back, at reduced speed, and go no further out."""
    low = safety.workspace.model_copy(update={"lower": (0.2, -0.45, 0.3)})
    bench = FilterBench(robot, safety.model_copy(update={"workspace": low}))
    assert bench.memory.view.point[2] < 0.3
    assert bench.request("enable")
    assert bench.state == "recovery"
    bench.tick(bench.setpoint())
    down = pushed(bench, np.array([0.1, 0.0, -0.3]), 60)
    assert np.diff(down[:, 2], prepend=bench.filter.kinematics.view(bench.stream[0]).point[2]).min() > -1e-9
    up = pushed(bench, np.array([0.0, 0.0, 0.5]), 600)
    speeds = np.linalg.norm(np.diff(up, axis=0), axis=1) * robot.tick_hz
    assert speeds.max() <= safety.tcp_speed * safety.reduced_speed_scale * (1 + 1e-6)
    assert up[-1, 2] > 0.3
    assert bench.state == "reduced"


def test_moving_sender_that_pauses_is_extrapolated_for_a_short_time_only(active: FilterBench) -> None:
    velocity = np.full(7, 0.2)
    position = active.memory.position.copy()
    for _ in range(60):
        position = position + velocity / active.robot.tick_hz
        active.tick(active.setpoint(position, velocity))
    at_pause = active.memory.position.copy()
    active.idle(0.3)
    assert active.memory.at_rest
    travelled = np.abs(active.memory.position - at_pause).max()
    assert 0.2 * 0.04 < travelled < 0.2 * 0.1


def test_the_gripper_moves_at_its_own_speed_and_stays_in_range(
    active: FilterBench, robot: RobotConfig
) -> None:
    for goal in (0.0, 1.0, -3.0, 0.4, 9.0):
        for _ in range(300):
            active.tick(active.setpoint(gripper=goal))
        assert active.memory.gripper == min(max(goal, 0.0), 1.0)
    opening = np.array(active.grippers)
    assert np.abs(np.diff(opening)).max() * robot.tick_hz == pytest.approx(robot.gripper.speed)
    assert "gripper" in active.rules


def test_a_hold_keeps_the_gripper_where_it_is(active: FilterBench) -> None:
    active.tick(active.setpoint(gripper=0.0))
    active.request("hold")
    held = active.memory.gripper
    active.idle(0.5)
    assert active.memory.gripper == held > 0


@pytest.mark.parametrize("distance", [0.3, 1.0, 1.7, 3.0, 6.0, 77.7])
def test_an_approach_ends_at_the_goal_without_overshoot_within_the_acceleration(distance: float) -> None:
    """In units of ticks and a·dt². The first step may be as fast as it likes; braking may not."""
    rest, speeds = distance, []
    while rest > 1e-12:
        speeds.append(rest * approach_factor(rest))
        rest -= speeds[-1]
        assert rest > -1e-9
    drops = -np.diff([*speeds, 0.0])
    assert drops.max() <= 1 + 1e-9
    assert len(speeds) <= np.sqrt(2 * distance) + 2
