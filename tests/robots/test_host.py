"""The robot host: what it writes, when it does not, and what its states say."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from reflexarc.configs.errors import RobotError
from reflexarc.configs.load import load_robot
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.robots.fake import FakeRobot
from reflexarc.robots.host import HostTick, RobotHost, cause
from reflexarc.safety.kinematics import Kinematics
from reflexarc.safety.states import latched_by
from reflexarc.wire.codec import decode, encode
from reflexarc.wire.messages import (
    F64,
    SPEED_EVENT,
    HostAction,
    HostReply,
    HostRequest,
    JointCommand,
    Measured,
    SafetyState,
    Setpoint,
    State,
)


class Recorded(FakeRobot):
    """A fake that counts what is written to it, and fails as it is told."""

    written = 0
    refuses: Exception | None = None
    blind: Exception | None = None
    joints_read = slice(None)

    def read(self) -> Measured:
        """As many joints as it still sees."""
        if self.blind is not None:
            raise self.blind
        measured = super().read()
        return msgspec.structs.replace(measured, joint_position=measured.joint_position[self.joints_read])

    def write(self, command: JointCommand) -> None:
        """Count it, then go there."""
        if self.refuses is not None:
            raise self.refuses
        self.written += 1
        super().write(command)


class Bench:
    """A host with a recorded fake arm, on a virtual clock."""

    def __init__(self, config: RobotConfig, safety: SafetyConfig) -> None:
        self.config = config
        self.now_ns = 0
        self.robot = Recorded(config, lambda: self.now_ns)
        self.robot.connect()
        self.host = RobotHost(self.robot, config, safety, "virtual")
        self.seq = 0

    def ask(self, action: HostAction) -> HostReply:
        """A request from the console."""
        return self.host.request(HostRequest(t_ns=self.now_ns, clock="virtual", action=action, seq=3))

    def tick(self, offset: float | None = None) -> HostTick:
        """One tick, led to `offset` rad beside home, or by nobody."""
        setpoint = None if offset is None else self.setpoint(np.array(self.config.home) + offset)
        result = self.host.tick(self.now_ns, setpoint)
        self.now_ns += self.config.tick_ns
        return result

    def setpoint(self, position: F64) -> Setpoint:
        """A setpoint made now."""
        self.seq += 1
        return Setpoint(
            t_ns=self.now_ns,
            clock="virtual",
            seq=self.seq,
            t_due_ns=self.now_ns,
            joint_position=position,
            joint_velocity=np.zeros_like(position),
            gripper=0.2,
            source="expert",
            chunk_obs_seq=1,
            chunk_age_ns=40_000_000,
        )


@pytest.fixture
def bench(robot: RobotConfig, safety: SafetyConfig) -> Bench:
    made = Bench(robot, safety)
    made.host.restart(0)
    return made


def test_state_says_everything_and_passes_the_codec(bench: Bench) -> None:
    bench.robot.wrench[:] = 1, 2, 3, 0.1, 0.2, 0.3
    bench.ask("enable")
    for _ in range(60):
        state = bench.tick(0.02).state
    kinematics = Kinematics(bench.config)
    assert state.safety == "active"
    assert state.clock == "virtual"
    assert state.t_ns == state.t_state_ns == bench.now_ns - bench.config.tick_ns
    assert np.array_equal(state.wrench_tcp, bench.robot.wrench)
    assert np.allclose(state.pose_base_tcp_commanded, kinematics.pose(state.joint_position_commanded))
    assert np.allclose(state.pose_base_tcp, kinematics.pose(state.joint_position))
    assert np.allclose(state.joint_position_commanded, np.array(bench.config.home) + 0.02, atol=1e-9)
    assert state.chunk_age_ns == 40_000_000
    assert state.gripper_commanded < 1
    back = decode(encode(state))
    assert isinstance(back, State)
    assert np.array_equal(back.joint_position_commanded, state.joint_position_commanded)


def test_home_is_where_the_geometry_says(bench: Bench) -> None:
    """TCP at (0.45, 0, 0.25) m, pointing straight down, fingers opening along y."""
    pose = bench.tick().state.pose_base_tcp
    assert np.abs(pose[:3] - [0.45, 0.0, 0.25]).max() < 1e-3
    assert abs(np.linalg.norm(pose[3:]) - 1) < 1e-9


def test_does_not_move_before_enable_nor_before_a_setpoint(bench: Bench) -> None:
    for _ in range(20):
        assert bench.tick(0.05).state.safety == "ready"
    assert bench.ask("enable").ok
    for _ in range(20):
        state = bench.tick().state
    assert state.safety == "active"
    assert np.array_equal(state.joint_position, np.array(bench.config.home))


def test_restart_forgets_everything(bench: Bench) -> None:
    bench.ask("enable")
    for _ in range(30):
        bench.tick(0.05)
    bench.ask("e_stop")
    bench.tick()
    bench.now_ns = 0
    bench.host.restart(0)
    result = bench.tick()
    assert (result.state.safety, result.state.seq, result.state.t_ns) == ("ready", 1, 0)
    assert np.array_equal(result.state.joint_position_commanded, result.state.joint_position)
    assert result.report is None


def test_e_stop_brakes_in_a_controlled_way_and_then_halts(bench: Bench) -> None:
    bench.ask("enable")
    for _ in range(30):
        bench.tick(0.09)
    assert bench.ask("e_stop").ok
    first = bench.tick(0.09)
    assert first.report is not None
    assert (first.report.previous_state, first.report.state) == ("active", "e_stop")
    assert not bench.robot.halted
    kinds: list[str] = []
    for _ in range(100):
        kinds += [event.kind for event in bench.tick(0.09).events]
    assert bench.robot.halted
    assert kinds == ["halt"]
    written = bench.robot.written
    bench.tick(0.09)
    assert bench.robot.written == written


def test_disabled_arm_may_be_moved_by_others_and_is_taken_up_where_it_is(bench: Bench) -> None:
    bench.ask("enable")
    bench.tick(0.0)
    assert bench.ask("disable").ok
    for _ in range(5):
        bench.tick()
    assert bench.robot.halted
    moved = np.array(bench.config.home) + 0.03
    bench.robot._position[:] = moved
    bench.tick()
    assert bench.ask("enable").ok
    bench.tick()
    state = bench.tick().state
    assert np.allclose(state.joint_position, moved)
    assert np.allclose(state.joint_position_commanded, moved)


def test_an_unreadable_driver_is_named_once_and_stops(bench: Bench) -> None:
    bench.ask("enable")
    for _ in range(30):
        bench.tick(0.05)
    bench.robot.silent = True
    results = [bench.tick(0.05) for _ in range(40)]
    assert results[-1].state.safety == "protective_stop"
    faults = [event for result in results for event in result.events if event.kind == "driver_fault"]
    assert [event.text for event in faults] == [
        "driver cannot be read: fake panda does not answer",
        "driver cannot be written: fake panda does not answer",
    ]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RobotError("the device refuses"), "the device refuses"),
        (ConnectionResetError("its line is closed"), "ConnectionResetError: its line is closed"),
        (ValueError(), "ValueError: "),
    ],
)
def test_a_driver_that_refuses_to_be_written_stops(bench: Bench, error: Exception, text: str) -> None:
    bench.ask("enable")
    bench.tick(0.0)
    bench.robot.refuses = error
    bench.tick(0.0)
    result = bench.tick(0.0)
    assert result.state.safety == "protective_stop"
    assert result.report is not None
    assert result.report.reason == f"driver cannot be written: {text}"
    bench.robot.refuses = None
    assert bench.tick().state.safety == "protective_stop"


def test_an_arm_that_was_guided_while_it_refused_commands_does_not_leap_back(bench: Bench) -> None:
    bench.ask("enable")
    bench.tick(0.0)
    bench.robot.refuses = RobotError("in guiding mode")
    for _ in range(5):
        bench.tick(0.0)
    guided = np.array(bench.config.home) + 0.3
    bench.robot._position = guided.copy()
    for _ in range(5):
        bench.tick()
    bench.robot.refuses = None
    for _ in range(5):
        bench.tick()
    np.testing.assert_allclose(bench.robot._position, guided, atol=1e-9)
    for action in ("reset", "enable"):
        assert bench.ask(action).ok
        bench.tick()
    np.testing.assert_allclose(bench.robot._position, guided, atol=1e-9)


def test_a_driver_that_fails_to_be_read_in_any_way_is_silent(bench: Bench) -> None:
    bench.ask("enable")
    bench.tick(0.0)
    bench.robot.blind = OSError("no such device")
    bench.robot.joints_read = slice(6)
    results = [bench.tick(0.0)]
    bench.robot.blind = None
    results += [bench.tick(0.0) for _ in range(20)]
    assert results[-1].state.safety == "protective_stop"
    faults = [event.text for result in results for event in result.events if event.kind == "driver_fault"]
    assert faults == [
        "driver cannot be read: OSError: no such device",
        "driver cannot be read: joint_position has shape (6,); it must be (7,)",
    ]


@pytest.mark.parametrize(
    ("mode", "rule"), [("velocity", "servo_acceleration"), ("joint_impedance", "effort_rate")]
)
def test_what_the_servo_is_not_sent_is_on_record(mode: str, rule: str, safety: SafetyConfig) -> None:
    bench = Bench(load_robot("panda", [f"servo.mode={mode}"]), safety)
    bench.host.restart(0)
    bench.ask("enable")
    assert bench.tick(0.0).report is not None
    assert bench.tick(0.0).report is None
    bench.robot._position = bench.robot._position + np.array([0.0, 0.1, 0, 0, 0, 0, 0])
    report = bench.tick(0.0).report
    assert report is not None
    assert [(item.rule, item.field) for item in report.interventions] == [(rule, "joint2")]
    assert report.interventions[0].asked < report.interventions[0].allowed < 0


def test_a_chunk_s_age_can_be_published_whatever_it_is(bench: Bench) -> None:
    bench.ask("enable")
    bench.tick(0.0)
    assert bench.host._memory is not None
    last = msgspec.structs.replace(bench.setpoint(np.array(bench.config.home)), chunk_age_ns=2**63 - 1)
    bench.host._memory = msgspec.structs.replace(bench.host._memory, last=last)
    bench.now_ns += 1
    assert isinstance(decode(encode(bench.tick().state)), State)


def test_a_stop_from_outside_the_filter_is_on_record_by_its_rule(bench: Bench) -> None:
    def recorded() -> list[tuple[str, str]]:
        report = bench.tick(0.0).report
        return [] if report is None else [(item.rule, item.field) for item in report.interventions]

    bench.ask("enable")
    bench.tick(0.0)
    bench.host.trip("the monitor is silent", cause("monitor_silence", "monitor", 6e8, 5e8))
    assert recorded() == [("monitor_silence", "monitor")]
    bench.host.trip("and still is", cause("monitor_silence", "monitor", 7e8, 5e8))
    assert recorded() == [], "once for each stop"
    bench.ask("e_stop")
    assert recorded() == [("e_stop", "console")]
    bench.ask("e_stop")
    assert recorded() == []


def test_a_driver_that_refuses_is_on_record_by_its_rule(bench: Bench) -> None:
    bench.ask("enable")
    bench.tick(0.0)
    bench.robot.refuses = RobotError("the device refuses")
    bench.tick(0.0)
    report = bench.tick(0.0).report
    assert report is not None
    assert latched_by(report) == "driver_write"


def test_category_0_uses_the_arm_s_own_brakes_at_once(robot: RobotConfig, safety: SafetyConfig) -> None:
    bench = Bench(robot.model_copy(update={"stop_category": 0}), safety)
    bench.host.restart(0)
    bench.ask("enable")
    for _ in range(30):
        bench.tick(0.09)
    bench.host.trip("planted", cause("planted", "test"))
    bench.tick()
    assert bench.robot.halted


def test_a_measurement_that_is_not_finite_stops_and_keeps_the_last_pose(bench: Bench) -> None:
    bench.ask("enable")
    before = bench.tick(0.0).state
    bench.robot._position = np.full(7, np.nan)
    state = bench.tick(0.0).state
    assert state.safety == "protective_stop"
    assert np.array_equal(state.pose_base_tcp, before.pose_base_tcp)
    assert np.isfinite(state.joint_position_commanded).all()


def test_requests_are_answered_and_noted(bench: Bench) -> None:
    reply = bench.ask("reduce")
    assert (reply.seq, reply.ok, reply.safety) == (3, False, "ready")
    assert (
        reply.text
        == "reduce refused in state ready; allowed: disable, e_stop, enable, reset, shutdown, speed, status"
    )
    events = bench.tick().events
    assert [event.kind for event in events] == ["request"]
    assert bench.ask("status").ok
    assert bench.tick().events == ()


def test_before_it_started_requests_are_refused(robot: RobotConfig, safety: SafetyConfig) -> None:
    bench = Bench(robot, safety)
    assert not bench.ask("enable").ok
    assert bench.tick().state.safety == "ready"


def test_a_driver_with_other_joints_is_refused(robot: RobotConfig, safety: SafetyConfig) -> None:
    joints = (robot.joints[0].model_copy(update={"name": "elbow"}), *robot.joints[1:])
    other = robot.model_copy(update={"joints": joints})
    with pytest.raises(RobotError, match=r"driver has joints elbow, joint2.*robot 'panda' has joint1"):
        RobotHost(FakeRobot(other, lambda: 0), robot, safety, "virtual")


def test_a_speed_is_passed_on_to_the_controller_and_changes_nothing_here(bench: Bench) -> None:
    bench.ask("enable")
    before = bench.tick(0.05)
    reply = bench.host.request(
        HostRequest(t_ns=bench.now_ns, clock="virtual", action="speed", seq=4, speed_scale=0.5)
    )
    after = bench.tick(0.05)
    assert reply.ok
    assert [event.data for event in after.events if event.kind == SPEED_EVENT] == [{"scale": 0.5}]
    assert after.state.safety == before.state.safety == "active"


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, float("nan")])
def test_a_speed_that_is_none_is_refused(bench: Bench, scale: float) -> None:
    bench.tick()
    reply = bench.host.request(
        HostRequest(t_ns=bench.now_ns, clock="virtual", action="speed", seq=4, speed_scale=scale)
    )
    assert not reply.ok
    assert f"speed_scale is {scale:g}" in reply.text
    assert all(event.kind != SPEED_EVENT for event in bench.tick().events)


@pytest.mark.parametrize("last_seen", ["protective_stop", "hold"])
def test_a_reset_for_another_stop_than_the_one_that_is_latched_is_refused(
    bench: Bench, last_seen: SafetyState
) -> None:
    bench.tick()
    bench.ask("enable")
    bench.tick(0.05)
    pressed = HostRequest(t_ns=bench.now_ns, clock="virtual", action="e_stop", seq=4, from_state=last_seen)
    assert bench.host.request(pressed).ok  # an emergency stop asks for no state
    while bench.tick().state.joint_velocity.any():
        pass
    reset = msgspec.structs.replace(pressed, action="reset")
    refused = bench.host.request(reset)
    assert not refused.ok
    assert refused.text == f"reset was asked for in {last_seen}, and it is e_stop now"
    assert bench.tick().state.safety == "e_stop"
    assert bench.host.request(msgspec.structs.replace(reset, from_state="e_stop")).ok
