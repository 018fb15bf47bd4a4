"""The independent monitor: each thing it must see, and that a good run shows it nothing."""

from __future__ import annotations

import numpy as np
import pytest

from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.load import load_controller
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.policies import open_policy
from reflexarc.safety.monitor import BLANK, READINGS, Monitor
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.world import World
from reflexarc.wire.messages import F64, Measured, Message, SafetyState, State

MS = 1_000_000


def host_state(t_ns: int, safety: SafetyState) -> State:
    """What the host says: only its time and its state count."""
    zeros, pose = np.zeros(7), np.array([0.5, 0, 0.3, 1, 0, 0, 0.0])
    return State(
        t_ns=t_ns, seq=0, t_state_ns=t_ns, joint_position=zeros, joint_velocity=zeros, joint_effort=zeros,
        joint_position_commanded=zeros, joint_velocity_commanded=zeros, pose_base_tcp=pose,
        pose_base_tcp_commanded=pose, wrench_tcp=np.zeros(6), gripper=1.0, gripper_commanded=1.0, safety=safety,
    )  # fmt: skip


class Sight:
    """A monitor that is shown readings, 10 ms apart, beside a living host."""

    def __init__(self, robot: RobotConfig, safety: SafetyConfig, state: SafetyState = "active") -> None:
        self.monitor = Monitor(robot, safety)
        self.home = np.array(robot.home)
        self.state = state
        self.sight = BLANK
        self.now_ns = 0

    def show(
        self, position: F64 | None = None, velocity: F64 | None = None, force: float = 0.0, times: int = 1
    ) -> str:
        """The verdict after `times` such readings."""
        reason = ""
        for _ in range(times):
            self.now_ns += 10 * MS
            reading = Measured(
                t_ns=self.now_ns,
                joint_position=self.home if position is None else position,
                joint_velocity=np.zeros(7) if velocity is None else velocity,
                joint_effort=np.zeros(7),
                wrench_tcp=np.array([0, 0, force, 0, 0, 0]),
                gripper=1.0,
            )
            host = host_state(self.now_ns, self.state)
            self.sight, reason = self.monitor.see(self.sight, reading, host, self.now_ns)
        return reason


@pytest.fixture
def sight(robot: RobotConfig, safety: SafetyConfig) -> Sight:
    return Sight(robot, safety)


def test_a_resting_arm_is_no_alarm(sight: Sight) -> None:
    assert sight.show(times=50) == ""


def test_a_joint_outside_or_too_fast(sight: Sight, robot: RobotConfig) -> None:
    outside = sight.home.copy()
    outside[6] = robot.joints[6].upper + 0.05
    assert sight.show(outside, times=READINGS - 1) == ""
    assert "joint7 is outside its published range" in sight.show(outside)
    sight.show()
    fast = np.zeros(7)
    fast[4] = 1.2 * robot.joints[4].velocity
    assert "joint5 is faster" in sight.show(velocity=fast, times=READINGS)


def test_one_bad_reading_is_a_spike(sight: Sight) -> None:
    for _ in range(5):
        assert sight.show(np.full(7, np.nan)) == ""
        assert sight.show(force=1e4) == ""
        assert sight.show() == ""
    assert "not finite" in sight.show(np.full(7, np.nan), times=READINGS)
    assert "pressed" in sight.show(force=np.nan, times=READINGS)


def test_leaving_the_workspace_is_seen_and_coming_back_is_not(sight: Sight) -> None:
    velocity = np.zeros(7)
    velocity[0] = 0.3
    turns = [np.concatenate([[0.9 + 0.01 * k], sight.home[1:]]) for k in range(80)]
    assert any("leaves its workspace" in sight.show(turn, velocity) for turn in turns)
    sight.sight = BLANK
    assert all(sight.show(turn, -velocity) == "" for turn in reversed(turns[1:]))


def test_a_host_that_says_it_stopped_while_the_arm_moves(sight: Sight) -> None:
    moving = np.full(7, 0.1)
    sight.state = "protective_stop"
    assert sight.show(velocity=moving, times=80) == "", "a stop takes its time"
    assert "says that it stopped" in sight.show(velocity=moving, times=40)


def test_a_silent_host_is_dead_one_that_was_never_heard_is_not(
    sight: Sight, robot: RobotConfig, safety: SafetyConfig
) -> None:
    reading = Measured(
        t_ns=0, joint_position=sight.home, joint_velocity=np.zeros(7), joint_effort=np.zeros(7),
        wrench_tcp=np.zeros(6), gripper=1.0,
    )  # fmt: skip
    monitor = Monitor(robot, safety, host_silence_s=0.25)
    assert monitor.see(BLANK, reading, None, 10_000 * MS)[1] == ""
    host = host_state(0, "active")
    assert monitor.see(BLANK, reading, host, 250 * MS)[1] == ""
    assert "silent for 251 ms (limit 250 ms)" in monitor.see(BLANK, reading, host, 251 * MS)[1]


@pytest.mark.parametrize("task", ["stack", "button"])
def test_an_expert_at_work_is_no_alarm(task: str, robot: RobotConfig, safety: SafetyConfig) -> None:
    monitor, verdicts = Monitor(robot, safety), []
    sight = BLANK

    def watch(topic: str, message: Message) -> None:
        nonlocal sight
        if isinstance(message, State):
            reading = Measured(
                t_ns=message.t_state_ns,
                joint_position=message.joint_position,
                joint_velocity=message.joint_velocity,
                joint_effort=message.joint_effort,
                wrench_tcp=message.wrench_tcp,
                gripper=message.gripper,
            )
            sight, reason = monitor.see(sight, reading, message, message.t_ns)
            verdicts.append(reason)

    world = World(task, robot)
    controller: ControllerConfig = load_controller("default")
    session = LockstepSession(
        world, robot, safety, controller, open_policy("expert", world), subscribers=[watch]
    )
    session.run(10_000_000, time_limit_s=4.0)
    assert len(verdicts) > 300
    assert set(verdicts) == {""}
