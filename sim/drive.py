"""The electronics of a simulated arm: turns commands into a model's controls, and brakes. Shared by both clocks."""

from __future__ import annotations

from typing import Protocol

import mujoco
import numpy as np

from reflexarc.configs.errors import RobotError
from reflexarc.configs.robot import RobotConfig
from reflexarc.robots.servo import open_servo
from reflexarc.sim.arm import ArmIndex
from reflexarc.sim.brake import Brake
from reflexarc.sim.sensors import ArmSensors
from reflexarc.wire.messages import F64, JointCommand


class Steppable(Protocol):
    """What driving an arm needs of a world."""

    model: mujoco.MjModel
    data: mujoco.MjData

    def step(self, control: F64) -> None:
        """One physics step with `control` (nu,)."""


def check_command(command: JointCommand, robot: RobotConfig) -> None:
    """Raises RobotError naming the field if a command has a wrong shape, is not finite or out of range."""
    n = len(robot.joints)
    for name in ("joint_position", "joint_velocity"):
        value = getattr(command, name)
        if value.shape != (n,):
            raise RobotError(f"{name} has shape {value.shape}; {robot.name} has {n} joints")
        if not np.isfinite(value).all():
            raise RobotError(f"{name} {value.tolist()} is not finite")
    given = command.servo_input
    if robot.servo.mode != "position" and (
        given is None or given.shape != (n,) or not np.isfinite(given).all()
    ):
        raise RobotError(
            f"servo_input is {None if given is None else given.tolist()}; {robot.name} in mode "
            f"{robot.servo.mode!r} needs {n} finite values"
        )
    if not 0.0 <= command.gripper <= 1.0:
        raise RobotError(f"gripper {command.gripper} is outside [0, 1]")


def _at_the_joints(robot: RobotConfig) -> RobotConfig:
    """The robot with the servo that its own electronics hold and brake with: torque holds joints, not the TCP."""
    if not robot.servo.torque:
        return robot
    return robot.model_copy(update={"servo": robot.servo.model_copy(update={"mode": "joint_impedance"})})


class ArmDrive:
    """Holds the last command, or brakes; `next_control` gives what to write to `mjData.ctrl` for the next step.

    An arm that is sent velocity or torque holds and brakes by the same servo law, closed by its own electronics.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, robot: RobotConfig, index: ArmIndex
    ) -> None:
        self._data = data
        self._robot = robot
        self._index = index
        self._step_s = float(model.opt.timestep)
        self._servo = open_servo(_at_the_joints(robot))
        self._own = robot.servo.mode != "position"
        self.reset()

    def reset(self) -> None:
        """Hold where the model's servos hold now; no brake."""
        self._control: F64 = np.array(self._data.ctrl)
        self.position: F64 = np.array(self._data.qpos[self._index.qpos])
        """(n,) rad, commanded now."""
        self.velocity: F64 = np.zeros_like(self.position)
        """(n,) rad/s, commanded now."""
        self._brake: Brake | None = None
        self._braking_s = 0.0
        self._servo.begin(self.position)
        self._holding = self._own

    @property
    def braked(self) -> bool:
        """Whether the brake has been pulled and no command has released it."""
        return self._brake is not None

    def command(self, command: JointCommand) -> None:
        """Follow a command, which releases the brake. Raises RobotError for one that cannot be followed."""
        check_command(command, self._robot)
        self._brake, self._holding = None, False
        self.position = np.array(command.joint_position)
        self.velocity = np.array(command.joint_velocity)
        if self._own:
            self._control[self._index.actuator] = command.servo_input
        else:
            self._control[self._index.actuator] = self._servo.input(command, self.position, self.velocity)
        self._index.set_gripper(self._control, command.gripper)

    def halt(self) -> None:
        """Pull the brake: come to rest within the joints' acceleration limits and hold."""
        if self._brake is None:
            self._brake = Brake.plan(self._robot, self.position, self.velocity)
            self._braking_s = 0.0
            if self._own:
                self._holding = True
                self._servo.begin(np.array(self._data.qpos[self._index.qpos]))

    def next_control(self) -> F64:
        """The control (nu,) of the next physics step; valid until the next call."""
        braking = self._brake is not None and self._braking_s <= self._brake.duration_s + self._step_s
        if braking:
            assert self._brake is not None
            self._braking_s += self._step_s
            self.position, self.velocity = self._brake.at(self._braking_s)
        if braking or self._holding:
            held = JointCommand(joint_position=self.position, joint_velocity=self.velocity, gripper=0.0)
            position, velocity = self._data.qpos[self._index.qpos], self._data.qvel[self._index.dof]
            self._control[self._index.actuator] = self._servo.input(held, position, velocity)
        return self._control

    def run(self, world: Steppable, sensors: ArmSensors, steps: int) -> F64:
        """Let `steps` physics steps pass; returns their controls (steps, nu) for the log."""
        controls = np.empty((steps, world.model.nu))
        for k in range(steps):
            controls[k] = self.next_control()
            with sensors.during_step():
                world.step(controls[k])
        return controls
