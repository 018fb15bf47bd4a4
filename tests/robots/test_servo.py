"""Every servo mode follows what safety let through, on the same simulated arm; torque keeps its limits."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from reflexarc.configs.errors import ConfigError, RobotError, SafetyError
from reflexarc.configs.load import load_robot, load_safety
from reflexarc.configs.robot import RobotConfig, ServoMode
from reflexarc.robots.host import RobotHost
from reflexarc.robots.servo import ImpedanceServo, open_servo
from reflexarc.safety.torque import InputLimits
from reflexarc.sim.driver import MujocoRobot
from reflexarc.sim.world import World
from reflexarc.wire.messages import F64, HostRequest, JointCommand, Setpoint, State

MODES: tuple[ServoMode, ...] = ("position", "velocity", "joint_impedance", "cartesian_impedance")
ARMS_AT_RATES = (("panda", 200), ("panda", 1000), ("fr3", 200), ("fr3", 1000), ("ur5e", 200), ("ur5e", 500))


@functools.cache
def world(mode: ServoMode, rate: int, name: str) -> World:
    """Compiled once for each mode."""
    return World("reach", robot(mode, rate, name))


def robot(mode: ServoMode, rate: int = 200, name: str = "panda") -> RobotConfig:
    """The arm with that servo."""
    return load_robot(name, [f"servo.mode={mode}", f"tick_hz={rate}"])


def command(position: F64, velocity: F64 | None = None) -> JointCommand:
    """To be at `position` (n,), with the gripper open."""
    return JointCommand(
        joint_position=position,
        joint_velocity=np.zeros_like(position) if velocity is None else velocity,
        gripper=1.0,
    )


class Drive:
    """A host that drives the simulated arm through its servo and its safety filter."""

    def __init__(self, mode: ServoMode, rate: int = 200, name: str = "panda") -> None:
        self.config = robot(mode, rate, name)
        self.world = world(mode, rate, name)
        self.world.reset(0)
        self.arm = MujocoRobot(self.world, self.config)
        self.arm.connect()
        self.host = RobotHost(self.arm, self.config, load_safety(name), "virtual")
        self.host.restart(0)
        self.steps = round(1e-9 * self.config.tick_ns / self.world.model.opt.timestep)
        self.controls: list[F64] = []
        self.seq = 0

    def enable(self) -> None:
        """Let setpoints count."""
        assert self.host.request(
            HostRequest(t_ns=self.arm.now_ns, clock="virtual", action="enable", seq=0)
        ).ok

    def tick(self, goal: F64 | None = None) -> State:
        """One tick of the host, with a setpoint at `goal` (n,) if there is one."""
        now = self.arm.now_ns
        setpoint = None
        if goal is not None:
            self.seq += 1
            setpoint = Setpoint(
                t_ns=now,
                clock="virtual",
                seq=self.seq,
                t_due_ns=now,
                joint_position=goal,
                joint_velocity=np.zeros_like(goal),
                gripper=1.0,
                source="teleop",
            )
        state = self.host.tick(now, setpoint).state
        self.controls.extend(self.arm.advance(self.steps).control)
        return state


@pytest.mark.parametrize(("name", "rate"), ARMS_AT_RATES)
@pytest.mark.parametrize("mode", MODES)
def test_the_arm_goes_where_it_is_told_and_stands_there(mode: ServoMode, name: str, rate: int) -> None:
    drive = Drive(mode, rate, name)
    for _ in range(rate // 4):
        state = drive.tick()
    start = state.joint_position
    assert np.abs(start - state.joint_position_commanded).max() < 5e-3  # no driver lets it fall
    drive.enable()
    way = np.resize([0.08, -0.08, 0.08, 0.08, 0.08, 0.08, 0.08], len(drive.config.joints))
    goal = drive.tick().joint_position_commanded + way
    for _ in range(5 * rate // 4):
        state = drive.tick(goal)
    assert state.safety == "active"
    np.testing.assert_allclose(state.joint_position_commanded, goal, atol=1e-3)
    # The springs of the null space are soft: 10 % of a joint's, against the friction and the bend of the others.
    np.testing.assert_allclose(
        state.joint_position, goal, atol=0.03 if mode == "cartesian_impedance" else 0.01
    )
    np.testing.assert_allclose(state.pose_base_tcp[:3], state.pose_base_tcp_commanded[:3], atol=4e-3)
    assert np.abs(state.joint_velocity).max() < 0.02


@pytest.mark.parametrize("mode", MODES)
def test_a_stop_holds_the_arm_in_every_mode(mode: ServoMode) -> None:
    drive = Drive(mode)
    drive.enable()
    start = drive.tick().joint_position_commanded
    for k in range(60):
        drive.tick(start + 0.002 * k)
    request = HostRequest(t_ns=drive.arm.now_ns, clock="virtual", action="e_stop", seq=1)
    drive.host.request(request)
    for _ in range(200):
        drive.tick()
    stood = drive.tick().joint_position
    for _ in range(200):
        state = drive.tick()
    assert state.safety == "e_stop"
    assert np.abs(state.joint_position - stood).max() < 4e-3


@pytest.mark.parametrize("mode", MODES[2:])
def test_torque_and_its_rate_keep_their_limits_whatever_is_measured(mode: ServoMode) -> None:
    config = robot(mode)
    servo = open_servo(config)
    rng = np.random.default_rng(0)
    home = np.array(config.home)
    servo.begin(home)
    effort = np.array([joint.effort for joint in config.joints])
    step = np.array([joint.effort_rate for joint in config.joints]) * config.tick_ns * 1e-9
    before = servo.input(command(home), home, np.zeros(7))
    for _ in range(300):
        position, velocity = home + rng.normal(0, 0.3, 7), rng.normal(0, 2, 7)
        torque = servo.input(command(home + rng.normal(0, 0.3, 7)), position, velocity)
        assert np.all(np.abs(torque) <= effort + 1e-9)
        assert np.all(np.abs(torque - before) <= step + 1e-9)
        before = torque


def test_a_velocity_servo_far_from_its_place_keeps_its_limits_and_passes_nothing() -> None:
    config, safety = robot("velocity"), load_safety("panda")
    servo, limits = open_servo(config, safety), InputLimits.velocity(config, safety)
    position, sent = np.array(config.home), np.zeros(7)
    goal = position + 0.2
    rules: set[str] = set()
    for _ in range(200):
        before, sent = sent, servo.input(command(goal), position, sent)
        assert np.all(np.abs(sent) <= limits.most)
        assert np.all(np.abs(sent - before) <= limits.step + 1e-9)
        rules |= {item.rule for item in servo.cut}
        position = position + sent * config.tick_ns * 1e-9
        assert np.all(position <= goal + 1e-3)
    np.testing.assert_allclose(position, goal, atol=1e-3)
    assert rules == {"servo_velocity", "servo_acceleration"}


def test_a_reading_that_is_no_number_is_not_remembered() -> None:
    home = np.array(robot("velocity").home)
    for mode in MODES[1:3]:
        servo = open_servo(robot(mode))
        servo.begin(np.full(7, np.nan))
        with pytest.raises(SafetyError, match="must be finite"):
            servo.input(command(home), np.full(7, np.nan), np.full(7, np.nan))
        assert np.isfinite(servo.input(command(home), home, np.zeros(7))).all()


def test_the_null_space_holds_the_posture_and_leaves_the_tcp_alone() -> None:
    config = robot("cartesian_impedance")
    servo = open_servo(config)
    assert isinstance(servo, ImpedanceServo)
    assert servo._tcp is not None
    home = np.array(config.home)
    _, jacobian = servo._tcp.at(home)
    # A direction in which the joints move and the TCP does not.
    null = np.linalg.svd(jacobian)[2][-1]
    spring = servo._at_tcp(servo._tcp, command(home), home, np.zeros(7), 100.0 * null)
    np.testing.assert_allclose(spring, 10.0 * null, atol=0.05)
    moving = servo._at_tcp(servo._tcp, command(home), home, np.zeros(7), 100.0 * jacobian[0])
    assert np.abs(moving).max() < 0.5


@pytest.mark.parametrize("mode", MODES[1:])
def test_an_arm_that_needs_an_input_refuses_a_command_without_a_good_one(mode: ServoMode) -> None:
    drive = Drive(mode)
    home = np.array(drive.config.home)
    with pytest.raises(RobotError, match="servo_input is None"):
        drive.arm.write(command(home))
    bad = JointCommand(
        joint_position=home, joint_velocity=np.zeros(7), gripper=1.0, servo_input=np.full(7, np.nan)
    )
    with pytest.raises(RobotError, match="needs 7 finite values"):
        drive.arm.write(bad)


@pytest.mark.parametrize("mode", MODES)
def test_the_same_run_gives_the_same_controls_to_the_bit(mode: ServoMode) -> None:
    runs = []
    for _ in range(2):
        drive = Drive(mode)
        drive.enable()
        start = drive.tick().joint_position_commanded
        for k in range(40):
            drive.tick(start + 0.001 * k)
        runs.append(np.array(drive.controls))
    np.testing.assert_array_equal(*runs)


def test_torque_without_springs_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs servo\.impedance"):
        load_robot("fr3", ["servo.mode=joint_impedance", "servo.impedance=null"])
