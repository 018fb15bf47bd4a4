"""Servo laws: what an arm is sent so that it does what safety let through, as position, velocity or torque.

They run in the host, after the filter: whichever the mode, what is followed is the filtered motion, and velocity and
torque pass limits of their own. Nothing of this comes over a network.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np

from reflexarc.configs.robot import ImpedanceConfig, RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.configs.watch import Payload
from reflexarc.robots.tcp import Tcp
from reflexarc.safety.dynamics import Dynamics
from reflexarc.safety.torque import InputLimits, limit_input
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64, Intervention, JointCommand

NULL_DAMPING = 1e-4
"""Added to J·Jᵀ when the null space is taken: no torque grows without bound near a singularity."""


class Servo(Protocol):
    """One servo law. cut: what its limits took away from the last input."""

    cut: tuple[Intervention, ...]

    def begin(self, position: F64) -> None:
        """Start at (n,) rad: nothing is remembered of before."""

    def input(self, command: JointCommand, position: F64, velocity: F64) -> F64:
        """(n,) what the arm is sent, at measured position rad and velocity rad/s. SafetyError if it is not finite."""


def open_servo(config: RobotConfig, safety: SafetyConfig | None = None) -> Servo:
    """The servo law that the robot's config names. safety: whose limits of velocity count; None for the published."""
    if config.servo.mode == "position":
        return PositionServo(config)
    if config.servo.mode == "velocity":
        return VelocityServo(config, safety)
    return ImpedanceServo(config)


def with_input(servo: Servo, command: JointCommand, position: F64, velocity: F64) -> JointCommand:
    """`command` with what the arm is sent for it."""
    return msgspec.structs.replace(command, servo_input=servo.input(command, position, velocity))


class PositionServo:
    """The arm's own position servo, whose torque is `kp (input - q) - kv qdot`.

    With `input = q_cmd + (kv / kp) v_cmd` that is `kp (q_cmd - q) + kv (v_cmd - qdot)`: damping acts on the error
    alone, and steady motion is followed without lag.
    """

    cut: tuple[Intervention, ...] = ()

    def __init__(self, config: RobotConfig) -> None:
        self._lead = np.array(config.servo.damping) / np.array(config.servo.stiffness)

    def begin(self, position: F64) -> None:
        """Nothing to remember."""

    def input(self, command: JointCommand, position: F64, velocity: F64) -> F64:
        """(n,) rad."""
        control: F64 = command.joint_position + self._lead * command.joint_velocity
        return control


class VelocityServo:
    """The arm's own velocity servo: the commanded velocity, and so much more as takes the error of place away.

    Of a large error, so much as half of the joint's acceleration can take back before the place is reached: the input
    changes no faster than that limit allows, and an arm that came too fast would pass the place it is sent to.
    """

    def __init__(self, config: RobotConfig, safety: SafetyConfig | None) -> None:
        self._gain = config.servo.velocity_gain
        self._limits = InputLimits.velocity(config, safety)
        self._braking = self._limits.step / (config.tick_ns * 1e-9)
        self._last: F64 | None = None
        self.cut: tuple[Intervention, ...] = ()

    def begin(self, position: F64) -> None:
        """The input goes on from how fast the arm is."""
        self._last = None

    def input(self, command: JointCommand, position: F64, velocity: F64) -> F64:
        """(n,) rad/s."""
        error = command.joint_position - position
        speed = np.minimum(self._gain * np.abs(error), np.sqrt(self._braking * np.abs(error)))
        asked = command.joint_velocity + np.sign(error) * speed
        previous = velocity if self._last is None else self._last
        self._last, self.cut = limit_input(previous, asked, self._limits)
        return self._last.copy()


class ImpedanceServo:
    """Torque: springs and dampers from the filtered command, and the arm's own weight and Coriolis forces.

    In joint space, or at the TCP with the posture held in its null space: Hogan, "Impedance Control" (1985); Khatib, "A
    Unified Approach for Motion and Force Control of Robot Manipulators" (1987). Within the published torque and torque
    rate.
    """

    def __init__(self, config: RobotConfig) -> None:
        assert config.servo.impedance is not None
        self._springs: ImpedanceConfig = config.servo.impedance
        self._stiffness = np.array(self._springs.joint_stiffness)
        self._damping = np.array(self._springs.joint_damping)
        self._dynamics = Dynamics(config, Payload())
        self._limits = InputLimits.torque(config)
        self._tcp = Tcp(config) if config.servo.mode == "cartesian_impedance" else None
        self._last: F64 | None = None
        self.cut: tuple[Intervention, ...] = ()

    def begin(self, position: F64) -> None:
        """The torque goes on from that of the arm's weight."""
        self._last = None

    def input(self, command: JointCommand, position: F64, velocity: F64) -> F64:
        """(n,) N·m."""
        previous = self._dynamics.weight_torque(position) if self._last is None else self._last
        spring = self._stiffness * (command.joint_position - position)
        spring += self._damping * (command.joint_velocity - velocity)
        if self._tcp is not None:
            spring = self._at_tcp(self._tcp, command, position, velocity, spring)
        still = np.zeros_like(position)
        asked = spring + self._dynamics.effort(position, velocity, still)
        self._last, self.cut = limit_input(previous, asked, self._limits)
        return self._last.copy()

    def _at_tcp(self, tcp: Tcp, command: JointCommand, position: F64, velocity: F64, posture: F64) -> F64:
        """(n,) N·m of the TCP's springs, and of the posture's where they do not move the TCP."""
        wanted, _ = tcp.at(command.joint_position)
        pose, jacobian = tcp.at(position)
        twist = jacobian @ (command.joint_velocity - velocity)
        linear, angular = self._springs.stiffness
        linear_damping, angular_damping = self._springs.damping
        force = linear * (wanted[:3] - pose[:3]) + linear_damping * twist[:3]
        torque = angular * geometry.difference(wanted[3:], pose[3:]) + angular_damping * twist[3:]
        square = jacobian @ jacobian.T + NULL_DAMPING * np.eye(6)
        null = posture - jacobian.T @ np.linalg.solve(square, jacobian @ posture)
        result: F64 = jacobian.T @ np.concatenate([force, torque]) + self._springs.posture_share * null
        return result
