"""Dead, late, lying and malformed senders; silent drivers; high forces: what safety does and what it says."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from contracts.filter_bench import FilterBench
from reflexarc.configs.errors import ReflexarcError, SafetyError
from reflexarc.configs.load import load_safety
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety import SafetyFilter
from reflexarc.safety.filter import HOLD_REASONS
from reflexarc.wire.messages import Intervention


def ticks_until(bench: FilterBench, state: str, limit: int = 400) -> int:
    """How many ticks without a setpoint until `state`."""
    for tick in range(limit):
        if bench.state == state:
            return tick
        bench.tick()
    raise AssertionError(f"still {bench.state} after {limit} ticks")


def last_intervention(bench: FilterBench) -> Intervention:
    """The newest thing that was limited."""
    return [item for report in bench.reports for item in report.interventions][-1]


def test_a_dead_controller_is_a_hold_and_then_a_latched_stop(
    active: FilterBench, safety: SafetyConfig
) -> None:
    active.move(30)
    holding = ticks_until(active, "hold") / active.robot.tick_hz
    assert safety.hold_after_s <= holding <= safety.hold_after_s + 0.02
    stopped = holding + ticks_until(active, "protective_stop") / active.robot.tick_hz
    assert safety.stop_after_s <= stopped <= safety.stop_after_s + 0.02
    assert active.memory.at_rest
    assert "controller silent" in active.memory.reason
    assert active.memory.reason.endswith("(limit 500 ms)")


def test_the_same_setpoint_again_and_again_is_a_dead_controller(active: FilterBench) -> None:
    active.move(10)
    setpoint = active.setpoint()
    active.idle(0.7, setpoint)
    assert active.state == "protective_stop"


def test_a_controller_that_comes_back_in_time_goes_on(active: FilterBench) -> None:
    active.move(10)
    ticks_until(active, "hold")
    active.move(10)
    assert active.state == "active"


def test_old_setpoints_replayed_as_new_are_still_old(active: FilterBench) -> None:
    """Fresh sequence numbers do not make it fresh: the time that it was made counts too."""
    active.idle(0.05, None)
    for _ in range(150):
        old = active.stamped(active.setpoint(), t_ns=active.memory.enabled_ns)
        active.tick(old)
    assert active.state == "protective_stop"


def test_a_dead_policy_is_a_hold_that_ends_when_it_returns(active: FilterBench) -> None:
    """The controller is alive and keeps sending; the age of its chunk gives the policy away."""
    age = 0
    for _ in range(600):
        active.tick(active.setpoint(source="policy", chunk_age_ns=age))
        age += active.robot.tick_ns
    assert active.state == "hold"
    assert active.memory.reason == HOLD_REASONS["chunk_age"]
    assert "chunk_age" in active.rules
    active.tick(active.setpoint(source="policy", chunk_age_ns=100_000_000))
    assert active.state == "active"


def test_a_policy_setpoint_without_a_chunk_is_not_followed(active: FilterBench) -> None:
    still = active.memory.position.copy()
    for _ in range(10):
        active.tick(active.setpoint(still + 0.05, source="policy", chunk_age_ns=-1))
    assert active.state == "hold"
    assert np.array_equal(active.memory.position, still)


@pytest.mark.parametrize("field", ["joint_position", "joint_velocity", "gripper"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_setpoint_that_is_not_finite_is_refused_whole(
    field: str, value: float, active: FilterBench
) -> None:
    active.move(30)
    setpoint = active.setpoint()
    bad = value if field == "gripper" else np.where(np.arange(7) == 3, value, 0.0)
    active.tick(msgspec.structs.replace(setpoint, **{field: bad}))
    assert active.state == "hold"
    assert last_intervention(active).rule == "finite"
    assert last_intervention(active).field in ("gripper", f"{field}[3]")
    active.tick(active.setpoint())
    assert active.state == "active", "one bad setpoint is forgiven"


@pytest.mark.parametrize(
    "bad", [np.zeros(6), np.zeros((7, 1)), np.zeros(7, dtype=bool), np.zeros(0), "text", None]
)
def test_a_malformed_setpoint_is_refused(bad: object, active: FilterBench) -> None:
    active.tick(active.stamped(active.setpoint(), joint_position=bad))
    assert active.state == "hold"
    assert last_intervention(active).rule == "shape"


def test_malformed_setpoints_in_a_row_latch(active: FilterBench) -> None:
    for _ in range(3):
        active.tick(active.setpoint(np.full(7, np.nan)))
    assert active.state == "protective_stop"
    assert "3 malformed setpoints in a row" in active.memory.reason


def test_a_setpoint_of_another_clock_is_refused(active: FilterBench) -> None:
    active.tick(active.stamped(active.setpoint(), clock="monotonic"))
    assert active.state == "hold"
    assert last_intervention(active).rule == "clock"


def test_a_setpoint_from_the_future_is_refused(active: FilterBench, safety: SafetyConfig) -> None:
    """It would stay fresh for as long as it is ahead: past a stop, a reset and an enable."""
    ahead_ns = round(safety.integrity.ahead_s * 1e9)
    active.tick(active.stamped(active.setpoint(), t_ns=active.now_ns + ahead_ns))
    assert active.state == "active"
    active.tick(active.stamped(active.setpoint(), t_ns=active.now_ns + ahead_ns + 1))
    assert active.state == "hold"
    assert (last_intervention(active).rule, last_intervention(active).field) == ("clock", "t_ns")


@pytest.mark.parametrize("age", [-2, 2**64 - 1, -(2**63)])
def test_a_chunk_of_an_impossible_age_is_refused(age: int, active: FilterBench) -> None:
    active.tick(active.setpoint(chunk_age_ns=age))
    assert active.state == "hold"
    assert last_intervention(active).field == "chunk_age_ns"


def test_a_setpoint_with_an_earlier_number_is_ignored_and_reported(active: FilterBench) -> None:
    first, second = active.setpoint(), active.setpoint()
    active.tick(second)
    active.tick(active.stamped(first, joint_position=active.memory.position + 0.1))
    assert last_intervention(active).rule == "sequence"
    assert active.memory.last is not None
    assert active.memory.last.seq == second.seq


def test_a_first_setpoint_far_from_the_arm_is_refused(bench: FilterBench, safety: SafetyConfig) -> None:
    bench.request("enable")
    start = bench.memory.position.copy()
    far = start + np.array([0, 0, 0, 0, 0, 0, safety.start_mismatch_rad + 0.01])
    for _ in range(20):
        bench.tick(bench.setpoint(far))
    assert bench.state == "hold"
    assert np.array_equal(bench.memory.position, start)
    item = last_intervention(bench)
    assert (item.rule, item.field) == ("start_mismatch", "joint7")
    assert item.margin == pytest.approx(-0.01)
    bench.tick(bench.setpoint())
    assert bench.state == "active"


def test_the_same_reading_twice_counts_once(active: FilterBench) -> None:
    active.wrench[0] = 100.0
    reading = active.reading(active.memory.position, 1.0)
    for _ in range(8):
        _, active.memory, _ = active.filter.filter(active.memory, reading, active.setpoint(), active.now_ns)
    assert active.state == "active"


def test_a_silent_driver_stops(active: FilterBench, safety: SafetyConfig) -> None:
    active.reading_age_ns = round(safety.driver_silence_s * 1e9) - 1
    active.move(3)
    assert active.state == "active"
    active.reading_age_ns += 2
    active.move(1)
    assert active.state == "protective_stop"
    assert "driver silent for 50 ms (limit 50 ms)" in active.memory.reason


def test_reports_are_empty_when_nothing_was_limited(active: FilterBench) -> None:
    active.move(200)
    assert [item for report in active.reports for item in report.interventions] == []


def test_a_report_says_rule_field_asked_allowed(active: FilterBench) -> None:
    ahead = active.memory.position + np.array([0, 0, 0, 0, 0, 0, 9.0])
    report = active.tick(active.setpoint(ahead))
    item = next(i for i in report.interventions if i.rule == "joint_position")
    assert item.field == "joint7"
    assert item.asked == pytest.approx(ahead[6])
    assert item.allowed == pytest.approx(2.8973 - 0.02)


def test_the_filter_is_pure(active: FilterBench) -> None:
    active.move(20)
    setpoint, measured = active.setpoint(active.memory.position + 0.3), active.measured
    first = active.filter.filter(active.memory, measured, setpoint, active.now_ns)
    active.filter.filter(first[1], measured, None, active.now_ns + 5_000_000)
    again = active.filter.filter(active.memory, measured, setpoint, active.now_ns)
    assert np.array_equal(first[0].joint_position, again[0].joint_position)
    assert msgspec.to_builtins(first[2]) == msgspec.to_builtins(again[2])


def test_memory_is_not_shared_with_the_sender_or_the_driver(active: FilterBench) -> None:
    setpoint = active.setpoint(active.memory.position + 0.01)
    active.tick(setpoint)
    setpoint.joint_position[:] = np.nan
    active.tick(active.setpoint())
    assert np.isfinite(active.memory.position).all()
    command, memory, _ = active.filter.filter(active.memory, active.measured, None, active.now_ns)
    command.joint_position[:] = np.nan
    active.measured.joint_position[:] = np.nan
    assert np.isfinite(memory.position).all()
    assert memory.touch.position is not None
    assert np.isfinite(memory.touch.position).all()


@pytest.mark.parametrize("name", ["velocity_scale", "acceleration_scale", "jerk_scale"])
def test_a_limit_beyond_the_published_one_is_refused_unless_named(name: str) -> None:
    with pytest.raises(ReflexarcError, match=f"{name} is 1.1: beyond the robot's published limit"):
        load_safety("panda", [f"{name}=1.1"])
    assert getattr(load_safety("panda", [f"{name}=1.1", f"beyond_published=[{name}]"]), name) == 1.1


def test_a_margin_that_leaves_a_joint_no_room_is_refused(robot: RobotConfig, safety: SafetyConfig) -> None:
    with pytest.raises(SafetyError, match=r"position_margin_rad 1.6 rad leaves joint joint4 no room"):
        SafetyFilter(robot, safety.model_copy(update={"position_margin_rad": 1.6}))


def test_a_start_that_is_not_finite_is_refused(bench: FilterBench) -> None:
    with pytest.raises(SafetyError, match="cannot start"):
        bench.filter.start(bench.reading(np.full(7, np.nan), 1.0), 0)
