"""The contract that every `Robot` driver passes: subclass `RobotContract` and say how to make one.

    class TestFake(RobotContract):
        def make(self) -> RobotBench: ...

Time passes only by `RobotBench.advance`, so that the same suite serves a fake, a simulation and a real arm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from reflexarc.configs.errors import RobotError
from reflexarc.configs.robot import RobotConfig
from reflexarc.robots.servo import Servo, open_servo, with_input
from reflexarc.wire.contracts import Robot
from reflexarc.wire.messages import JointCommand


@dataclasses.dataclass(frozen=True)
class RobotBench:
    """A driver that is not yet connected, and how to let one host tick of time pass for it.

    settle_s: the longest time that the arm may take to come within `tolerance` rad of a position 0.05 rad away.
    """

    robot: Robot
    config: RobotConfig
    advance: Callable[[], None]
    tolerance: float = 0.01
    settle_s: float = 1.0
    servo: Servo = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "servo", open_servo(self.config))

    def write(self, command: JointCommand) -> None:
        """Send a command as the host does: with what the servo law of the robot's mode makes of it."""
        measured = self.robot.read()
        given = with_input(self.servo, command, measured.joint_position, measured.joint_velocity)
        self.robot.write(given)


class RobotContract:
    """What a robot host relies on."""

    def make(self) -> RobotBench:
        """A fresh bench."""
        raise NotImplementedError

    @pytest.fixture
    def bench(self) -> Iterator[RobotBench]:
        bench = self.make()
        yield bench
        bench.robot.close()

    def test_is_a_robot(self, bench: RobotBench) -> None:
        assert isinstance(bench.robot, Robot)
        assert tuple(bench.robot.joint_names) == bench.config.joint_names

    def test_refuses_to_read_or_write_before_connect(self, bench: RobotBench) -> None:
        with pytest.raises(RobotError):
            bench.robot.read()
        with pytest.raises(RobotError):
            bench.robot.write(still(bench.config))

    def test_reading_has_shapes_and_is_finite(self, bench: RobotBench) -> None:
        bench.robot.connect()
        bench.advance()
        measured = bench.robot.read()
        n = len(bench.config.joints)
        for name, size in (
            ("joint_position", n),
            ("joint_velocity", n),
            ("joint_effort", n),
            ("wrench_tcp", 6),
        ):
            values = getattr(measured, name)
            assert values.shape == (size,), name
            assert values.dtype == np.float64, name
            assert np.isfinite(values).all(), name
        assert 0 <= measured.gripper <= 1
        assert isinstance(measured.t_ns, int)

    def test_time_of_readings_goes_forward(self, bench: RobotBench) -> None:
        bench.robot.connect()
        times = []
        for _ in range(5):
            bench.advance()
            times.append(bench.robot.read().t_ns)
        assert times == sorted(times)
        assert times[-1] > times[0]

    def test_readings_are_not_shared(self, bench: RobotBench) -> None:
        bench.robot.connect()
        bench.advance()
        first = bench.robot.read()
        kept = first.joint_position.copy()
        first.joint_position.flags.writeable = True
        first.joint_position[:] = 99.0
        assert np.allclose(bench.robot.read().joint_position, kept, atol=1e-3)

    def test_connecting_causes_no_motion(self, bench: RobotBench) -> None:
        bench.robot.connect()
        before = bench.robot.read().joint_position
        for _ in range(20):
            bench.advance()
        assert np.abs(bench.robot.read().joint_position - before).max() < bench.tolerance

    def test_goes_where_it_is_told(self, bench: RobotBench) -> None:
        bench.robot.connect()
        start = bench.robot.read()
        goal = start.joint_position + 0.05
        ticks = round(bench.settle_s * bench.config.tick_hz)
        for tick in range(ticks):
            share = min(1.0, 2 * (tick + 1) / ticks)
            velocity = np.full(goal.shape, 0.1 / bench.settle_s if share < 1 else 0.0)
            position = start.joint_position + share * 0.05
            bench.write(JointCommand(joint_position=position, joint_velocity=velocity, gripper=start.gripper))
            bench.advance()
        assert np.abs(bench.robot.read().joint_position - goal).max() < bench.tolerance

    @pytest.mark.parametrize("bad", ["nan", "infinite velocity", "shape", "gripper", "servo input"])
    def test_refuses_a_bad_command_and_stays(self, bench: RobotBench, bad: str) -> None:
        bench.robot.connect()
        bench.advance()
        before = bench.robot.read().joint_position
        position, velocity, gripper = before.copy(), np.zeros_like(before), 0.5
        given = np.zeros_like(before)
        if bad == "nan":
            position[0] = np.nan
        elif bad == "infinite velocity":
            velocity[-1] = np.inf
        elif bad == "shape":
            position = position[:-1]
        elif bad == "gripper":
            gripper = np.nan
        elif bench.config.servo.mode == "position":
            pytest.skip("an arm that is sent positions takes no other input")
        else:
            given = np.full_like(before, np.nan)
        with pytest.raises(RobotError):
            bench.robot.write(
                JointCommand(
                    joint_position=position, joint_velocity=velocity, gripper=gripper, servo_input=given
                )
            )
        bench.advance()
        assert np.abs(bench.robot.read().joint_position - before).max() < bench.tolerance

    def test_halt_stops_and_needs_no_further_command(self, bench: RobotBench) -> None:
        bench.robot.connect()
        start = bench.robot.read().joint_position
        for tick in range(40):
            position = start + 0.001 * (tick + 1)
            velocity = np.full(start.shape, 0.001 * bench.config.tick_hz)
            bench.write(JointCommand(joint_position=position, joint_velocity=velocity, gripper=1.0))
            bench.advance()
        bench.robot.halt()
        for _ in range(round(0.3 * bench.config.tick_hz)):
            bench.advance()
        stopped = bench.robot.read()
        for _ in range(40):
            bench.advance()
        assert np.abs(bench.robot.read().joint_position - stopped.joint_position).max() < bench.tolerance

    def test_moves_again_after_halt(self, bench: RobotBench) -> None:
        bench.robot.connect()
        bench.robot.halt()
        bench.advance()
        self.test_goes_where_it_is_told(bench)

    def test_close_is_safe_twice_and_ends_reading(self, bench: RobotBench) -> None:
        bench.robot.connect()
        bench.robot.close()
        bench.robot.close()
        with pytest.raises(RobotError):
            bench.robot.read()

    def test_can_be_opened_again(self, bench: RobotBench) -> None:
        bench.robot.connect()
        bench.robot.close()
        bench.robot.connect()
        bench.advance()
        assert np.isfinite(bench.robot.read().joint_position).all()


def still(config: RobotConfig) -> JointCommand:
    """A command to stand at home."""
    home = np.array(config.home)
    return JointCommand(joint_position=home, joint_velocity=np.zeros_like(home), gripper=1.0)
