"""Readings and clocks that cannot be true, in the filter; and how hard the fingers may squeeze."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.filter_bench import FilterBench
from reflexarc.configs.errors import SafetyError
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety import SafetyFilter
from reflexarc.safety.gripper import least_opening
from reflexarc.wire.messages import F64


def lead(bench: FilterBench, frozen: F64 | None, speed: float, ticks: int) -> None:
    """Turn the last joint at `speed` rad/s; the encoders in `frozen` (n,) bool show where it began."""
    start = bench.memory.position.copy()
    for tick in range(ticks):
        shown = bench.memory.position.copy()
        if frozen is not None:
            shown[frozen] = start[frozen]
        asked = start.copy()
        asked[6] += speed * tick / bench.robot.tick_hz
        measured, setpoint = bench.reading(shown, 1.0), bench.setpoint(asked)
        _, bench.memory, report = bench.filter.filter(bench.memory, measured, setpoint, bench.now_ns)
        bench.reports.append(report)
        bench.now_ns += bench.robot.tick_ns


def test_an_encoder_that_stands_while_its_joint_was_commanded_away(
    active: FilterBench, safety: SafetyConfig
) -> None:
    lead(active, np.arange(7) == 6, 0.3, 60)
    assert active.state == "protective_stop"
    assert "joint joint7: its encoder does not move" in active.memory.reason
    went = float(np.abs(active.memory.position - active.positions[0]).max())
    assert went < safety.integrity.encoder_motion_rad + 0.03, "and the stop that follows"


def test_encoders_of_joints_that_rest_may_stand(active: FilterBench) -> None:
    lead(active, np.arange(7) != 6, 0.3, 200)
    assert active.state == "active"


def test_an_arm_that_is_not_commanded_shows_nothing(active: FilterBench) -> None:
    lead(active, np.full(7, True), 0.0, 400)
    assert active.state == "active"


def test_creeping_is_motion_too(active: FilterBench) -> None:
    """Slower than the noise of the encoder in one tick, but not in many."""
    lead(active, None, 0.0005, 2000)
    assert active.state == "active"


def stand(bench: FilterBench, position: F64, ticks: int) -> None:
    """The arm stands at (n,) rad whatever it is told; its sender asks for where it was told to be."""
    for _ in range(ticks):
        measured, setpoint = bench.reading(position, 1.0), bench.setpoint()
        _, bench.memory, report = bench.filter.filter(bench.memory, measured, setpoint, bench.now_ns)
        bench.reports.append(report)
        bench.now_ns += bench.robot.tick_ns


def test_an_arm_that_is_not_where_it_is_told_to_be_stops_and_goes_on_from_where_it_is(
    active: FilterBench, safety: SafetyConfig
) -> None:
    told = active.memory.position.copy()
    astray = told + np.eye(7)[2] * safety.integrity.tracking_rad
    stand(active, astray - 1e-3 * np.eye(7)[2], 5)
    assert active.state == "active"
    stand(active, astray + 1e-3 * np.eye(7)[2], 5)
    assert active.state == "protective_stop"
    assert active.memory.reason.startswith("joint joint3 is 0.201 rad from where it was commanded to be")
    assert "tracking" in active.rules
    np.testing.assert_array_equal(active.memory.position, told)
    assert active.request("reset")
    np.testing.assert_allclose(active.memory.position, astray, atol=2e-3)
    assert active.request("enable")
    stand(active, active.memory.position, 5)
    assert active.state == "active"


def test_an_arm_that_is_far_from_its_command_is_not_enabled(bench: FilterBench, safety: SafetyConfig) -> None:
    astray = bench.memory.position + np.eye(7)[1] * 2 * safety.start_mismatch_rad
    stand(bench, astray, 3)
    bench.memory, granted, text = bench.filter.request(bench.memory, "enable", bench.now_ns)
    assert not granted
    assert "joint2 is 0.20 rad from where it is commanded to be (limit 0.1 rad); reset first" in text
    assert bench.request("reset")
    assert bench.request("enable")


def test_what_the_arm_does_not_take_does_not_wait_for_it(bench: FilterBench) -> None:
    """It refuses commands, in a mode of its own, and is guided away meanwhile."""
    guided = bench.memory.position + 0.3
    now_ns, too_old_ns = bench.memory.now_ns, bench.memory.now_ns - 10**9
    assert bench.filter.placed(bench.memory, np.full(7, np.nan), now_ns) is bench.memory
    assert bench.filter.placed(bench.memory, guided, too_old_ns) is bench.memory, "where the arm was, not is"
    moved = bench.filter.placed(bench.memory, guided, now_ns)
    np.testing.assert_array_equal(moved.position, guided)
    assert moved.gripper == bench.memory.gripper, "the grip is as it was"
    bench.request("enable")
    assert bench.filter.placed(bench.memory, guided, now_ns) is bench.memory


def test_late_ticks_in_a_row_stop_but_not_now_and_then(active: FilterBench, safety: SafetyConfig) -> None:
    limit = safety.integrity.overrun_ticks
    for count in (limit - 1, limit - 1, limit):
        active.move(1)
        assert active.state == "active"
        for _ in range(count):
            active.now_ns += active.robot.tick_ns
            active.tick(active.setpoint())
    assert active.state == "protective_stop"
    assert f"{limit} ticks in a row were late" in active.memory.reason


@pytest.mark.parametrize(
    ("step_s", "state"), [(0.05, "active"), (0.6, "protective_stop"), (-0.02, "protective_stop")]
)
def test_a_clock_that_is_set_stops(step_s: float, state: str, active: FilterBench) -> None:
    active.move(5)
    active.now_ns += round(step_s * 1e9)
    active.move(1)
    assert active.state == state
    if step_s > 0.5:
        assert "no tick for" in active.memory.reason


def test_a_clock_may_jump_while_nothing_is_enabled(bench: FilterBench) -> None:
    bench.tick()
    bench.now_ns += 10_000_000_000
    bench.tick()
    assert bench.state == "ready"


def test_a_hold_by_hand_does_not_excuse_a_controller_that_was_silent(active: FilterBench) -> None:
    active.move(20)
    active.idle(0.2)
    assert active.state == "hold"
    assert active.request("hold")
    active.idle(0.5)
    assert active.state == "protective_stop"
    assert "controller silent" in active.memory.reason


def test_a_controller_that_returns_during_a_hold_is_not_silent(active: FilterBench) -> None:
    active.move(20)
    active.idle(0.2)
    assert active.request("hold")
    active.tick(active.setpoint())
    active.idle(2.0)
    assert active.state == "hold"


def test_the_fingers_squeeze_no_harder_than_they_may(
    active: FilterBench, robot: RobotConfig, safety: SafetyConfig
) -> None:
    contact = safety.contact
    assert contact.gripper_force is not None
    assert contact.gripper_stiffness is not None
    least = least_opening(robot.gripper, safety, 0.9)
    assert contact.gripper_stiffness * (0.9 - least) == pytest.approx(contact.gripper_force)
    for _ in range(400):  # something wide keeps them at 0.9
        measured = active.reading(active.memory.position, 0.9)
        setpoint = active.setpoint(gripper=0.0)
        _, active.memory, report = active.filter.filter(active.memory, measured, setpoint, active.now_ns)
        active.reports.append(report)
        active.now_ns += active.robot.tick_ns
    assert active.memory.gripper == pytest.approx(least)
    assert "gripper_force" in active.rules


def test_without_a_limit_the_gripper_does_what_it_can(robot: RobotConfig, safety: SafetyConfig) -> None:
    free = safety.model_copy(update={"contact": safety.contact.model_copy(update={"gripper_force": None})})
    assert least_opening(robot.gripper, free, 1.0) == 0.0


def test_a_driver_that_would_always_be_silent_is_refused(robot: RobotConfig, safety: SafetyConfig) -> None:
    fast = robot.model_copy(update={"tick_hz": 1000.0})
    strict = safety.model_copy(update={"driver_silence_s": 0.004})
    SafetyFilter(fast, strict)
    with pytest.raises(
        SafetyError, match=r"driver_silence_s is 0.004 s: below 0.01 s, two ticks at 200 Hz of panda"
    ):
        SafetyFilter(robot, strict)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_how_many_malformed_setpoints_stop_is_configured(
    count: int, robot: RobotConfig, safety: SafetyConfig
) -> None:
    watched = safety.integrity.model_copy(update={"malformed_setpoints": count})
    bench = FilterBench(robot, safety.model_copy(update={"integrity": watched}))
    assert bench.request("enable")
    bench.tick(bench.setpoint())
    poison = np.full(7, np.nan)
    for _ in range(count - 1):
        bench.tick(bench.setpoint(poison))
        assert bench.state == "hold"
    bench.tick(bench.setpoint(poison))
    assert bench.state == "protective_stop"
    assert f"{count} malformed setpoints in a row" in bench.memory.reason
