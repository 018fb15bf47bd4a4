"""The independent monitor: each thing it must see, and that a good run shows it nothing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from contracts.adversaries import ADVERSARIES
from contracts.filter_bench import LOST, FilterBench
from contracts.motion_checker import Checker
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.load import load_controller, load_robot, load_safety, presets
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import HeldTool, NamedBox, SafetyConfig
from reflexarc.configs.watch import MonitorConfig
from reflexarc.policies import open_policy
from reflexarc.robots.tcp import Tcp
from reflexarc.safety import SafetyFilter
from reflexarc.safety.monitor import BLANK, Monitor
from reflexarc.safety.watched import WatchedArm
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.world import World
from reflexarc.wire.messages import F64, Measured, Message, SafetyState, State

MS = 1_000_000
READINGS = MonitorConfig().readings


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
        self,
        position: F64 | None = None,
        velocity: F64 | None = None,
        force: float = 0.0,
        times: int = 1,
        gripper: float = 1.0,
    ) -> str:
        """The verdict after `times` such readings."""
        reason = ""
        for _ in range(times):
            self.now_ns += 10 * MS
            reading = Measured(
                t_ns=self.now_ns,
                joint_position=self.home if position is None else position,
                joint_velocity=np.zeros_like(self.home) if velocity is None else velocity,
                joint_effort=np.zeros_like(self.home),
                wrench_tcp=np.array([0, 0, force, 0, 0, 0]),
                gripper=gripper,
            )
            host = host_state(self.now_ns, self.state)
            self.sight, reason = self.monitor.see(self.sight, reading, host, self.now_ns)
        return reason

    def turn(self, angles: Iterable[float], velocity: float = 0.3) -> str:
        """The first verdict while the base turns through these angles from home."""
        speeds = np.where(np.arange(len(self.home)) == 0, velocity, 0.0)
        for angle in angles:
            if reason := self.show(np.concatenate([[self.home[0] + angle], self.home[1:]]), speeds):
                return reason
        return ""


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


def test_a_runaway_counts_whichever_joint_is_the_fastest(sight: Sight, robot: RobotConfig) -> None:
    limits = np.array([joint.velocity for joint in robot.joints])
    for reading in range(READINGS):
        twice = np.zeros(7)
        twice[:2] = (2.1, 2.0) if reading % 2 else (2.0, 2.1)
        reason = sight.show(velocity=twice * limits)
        assert bool(reason) == (reading == READINGS - 1)
    assert reason == f"joint joint{2 - reading % 2} is faster than its published limit"


def test_a_gripper_that_is_no_number_blinds_nobody(sight: Sight) -> None:
    assert "not finite" in sight.show(gripper=np.nan, times=READINGS)


def test_leaving_the_workspace_is_seen_and_coming_back_is_not(sight: Sight) -> None:
    assert "the TCP is outside its workspace" in sight.turn(np.arange(0.9, 1.7, 0.01))
    sight.sight = BLANK
    assert sight.turn(np.arange(1.7, 0.0, -0.01), -0.3) == "", "it was switched on there, and comes back"
    sight.sight = BLANK
    assert sight.turn(np.arange(1.7, 1.4, -0.01), -0.3) == ""
    assert "the TCP is outside its workspace" in sight.turn(np.arange(1.4, 1.5, 0.01)), "and goes out again"


def test_leaving_as_slowly_as_it_likes_is_seen_too(sight: Sight) -> None:
    assert "the TCP is outside its workspace" in sight.turn(np.arange(0.9, 1.6, 0.002), 0.01)


def test_where_it_stands_after_a_reset_is_where_it_starts_from(sight: Sight) -> None:
    assert sight.turn(np.arange(0.9, 1.7, 0.01))
    there = np.concatenate([[1.4], sight.home[1:]])
    sight.state = "protective_stop"
    assert "outside its workspace" in sight.show(there, times=READINGS)
    sight.state = "ready"
    assert sight.show(there) == ""
    assert sight.sight.count == 0
    sight.state = "recovery"
    assert sight.turn(np.arange(1.4, 1.0, -0.01), -0.3) == ""


SHELF = NamedBox(name="shelf", lower=(0.0, 0.12, 0.5), upper=(0.3, 0.5, 0.75), source="a box of this test")
LOW = NamedBox(name="low", lower=(0.3, 0.15, 0.1), upper=(0.5, 0.4, 0.2), source="a box of this test")
BLOCK = NamedBox(name="block", lower=(0.3, 0.25, 0.3), upper=(0.5, 0.5, 0.4), source="a box of this test")
ANGLES = np.arange(0.0, 0.6, 0.01)
"""The TCP stays inside its workspace, 0.25 m high; the elbow passes where the shelf is, the hand where the block is."""


def test_an_elbow_in_a_keep_out_is_seen(robot: RobotConfig, safety: SafetyConfig) -> None:
    assert Sight(robot, safety).turn(ANGLES) == ""
    watched = safety.model_copy(update={"keep_out": (*safety.keep_out, SHELF)})
    assert Sight(robot, watched).turn(ANGLES) == "forearm is in keep-out shelf"


def test_a_hand_at_an_obstacle_is_seen(robot: RobotConfig, safety: SafetyConfig) -> None:
    watched = safety.model_copy(update={"obstacles": (*safety.obstacles, BLOCK)})
    assert Sight(robot, watched).turn(ANGLES) == "hand is too near block"


def test_a_held_tool_in_a_keep_out_is_seen(robot: RobotConfig, safety: SafetyConfig) -> None:
    watched = safety.model_copy(update={"keep_out": (*safety.keep_out, LOW)})
    assert Sight(robot, watched).turn(ANGLES) == "", "the fingers pass above it"
    holding = watched.model_copy(update={"held_tool": HeldTool(radius=0.01, length=0.1)})
    assert Sight(robot, holding).turn(ANGLES) == "held tool is in keep-out low"


@pytest.mark.parametrize(
    ("position", "worst"),
    [
        ([1.57, 1.57, 0, -0.1, 0, 1.6, 0], "hand is outside the arm's box"),
        ([0, 1.7, 0, -1.5, 0, 1.6, 0], "hand is too near table"),
        ([0, 0.5, 0, -3.05, 0, 0, 0], "link1 is too near wrist"),
    ],
)
def test_box_table_and_the_arm_itself_are_seen(
    position: list[float], worst: str, robot: RobotConfig, safety: SafetyConfig
) -> None:
    arm = WatchedArm(robot, safety)
    arm.move(np.array(position), np.zeros(7), 0.0)
    beyond = arm.beyond()[1:]  # but the TCP
    assert arm.rules[1 + int(np.argmax(beyond))] == worst
    assert beyond.max() > 0.02


def test_an_elbow_that_is_too_fast_is_seen_though_the_tool_stands(
    robot: RobotConfig, safety: SafetyConfig
) -> None:
    _, jacobian = Tcp(robot).at(np.array(robot.home))
    turning = np.linalg.svd(jacobian)[2][-1]  # moves every joint, and not the TCP
    assert Sight(robot, safety).show(velocity=2 * turning, times=READINGS) == ""
    slow = safety.model_copy(update={"body_speed": 0.01})
    assert "is faster than any part may be" in Sight(robot, slow).show(velocity=2 * turning, times=READINGS)


@pytest.mark.parametrize("name", presets("robots"))
def test_it_sees_what_another_judge_sees_wherever_the_arm_is(name: str) -> None:
    """The checker of the tests has its own geometry; and what the filter lets through is never beyond a limit."""
    robot = load_robot(name)
    safety = load_safety(name, ["held_tool={radius: 0.02, length: 0.08}"])
    arm, checker, filter_ = WatchedArm(robot, safety), Checker(robot, safety), SafetyFilter(robot, safety)
    rng, home = np.random.default_rng(0), np.array(robot.home)
    rules = ("workspace", "arm_box", "keep_out", "distance", "self_distance")
    broken: set[str] = set()
    for _ in range(150):
        position = home + rng.normal(0, 0.6, len(home))
        arm.move(position, np.zeros_like(home), 0.0)
        worst = checker.worst(np.tile(position, (5, 1)), context=3)
        expected = max(worst[rule] for rule in rules)
        broken |= {rule for rule in rules if worst[rule] > 0}
        found = float(arm.beyond().max())
        if max(found, expected) > 0:
            assert found == pytest.approx(expected, abs=1e-6)
        if not filter_.outside(position):
            assert found <= 1e-9
    assert broken >= {"workspace", "arm_box", "distance"}


@pytest.mark.parametrize("sender", ["wall_seeking", "limit_seeking", "random_goals"])
def test_what_the_filter_commands_is_no_alarm(sender: str, robot: RobotConfig, safety: SafetyConfig) -> None:
    """An arm that follows perfectly, whatever is asked of the filter."""
    bench, sight, rng = FilterBench(robot, safety), Sight(robot, safety), np.random.default_rng(3)
    bench.request("enable")
    bench.tick(bench.setpoint())
    for tick in range(600):
        bench.tick(bench.setpoint(*ADVERSARIES[sender](rng, tick, bench.memory, robot)))
        if bench.state == LOST:
            bench.request("reset")
            bench.request("enable")
        if tick % 2:
            velocity = (bench.positions[-1] - bench.positions[-2]) * robot.tick_hz
            assert sight.show(bench.positions[-1], velocity) == ""
    assert np.abs(bench.stream - bench.stream[0]).max() > 0.1


def test_a_host_that_says_it_stopped_while_the_arm_moves(sight: Sight) -> None:
    moving = np.full(7, 0.1)
    sight.state = "protective_stop"
    assert sight.show(velocity=moving, times=80) == "", "a stop takes its time"
    assert "says that it stopped" in sight.show(velocity=moving, times=40)


@pytest.mark.parametrize("step_s", [0, 10, -10])
def test_a_silent_host_is_dead_one_that_was_never_heard_is_not(sight: Sight, step_s: int) -> None:
    """By the monitor's own clock: the host's stamps may be of any time, and step while it speaks."""
    reading = Measured(
        t_ns=0, joint_position=sight.home, joint_velocity=np.zeros(7), joint_effort=np.zeros(7),
        wrench_tcp=np.zeros(6), gripper=1.0,
    )  # fmt: skip
    seen, reason = sight.monitor.see(BLANK, reading, None, 10_000 * MS)
    assert reason == ""
    for now in (20_000 * MS, 20_200 * MS, 20_400 * MS):
        host = host_state(now + (step_s * 1000 * MS if now > 20_000 * MS else 0), "active")
        seen, reason = sight.monitor.see(seen, reading, host, now)
        assert reason == ""
    assert sight.monitor.see(seen, reading, host, 20_650 * MS)[1] == ""
    assert "silent for 251 ms (limit 250 ms)" in sight.monitor.see(seen, reading, host, 20_651 * MS)[1]


@pytest.mark.parametrize(
    ("task", "mode"), [("stack", "position"), ("button", "position"), ("push", "cartesian_impedance")]
)
def test_an_expert_at_work_is_no_alarm(task: str, mode: str, safety: SafetyConfig) -> None:
    """Nor with a soft servo, whose joints are several hundredths of a radian off."""
    robot = load_robot("panda", [f"servo.mode={mode}"])
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
    assert len(verdicts) > 200
    assert set(verdicts) == {""}
