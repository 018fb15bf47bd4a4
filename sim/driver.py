"""The simulated arm as a `Robot`, under the virtual clock: `advance` moves time, nothing else does.

Writes what the servo law says to the model's position servos and keeps every control for the log. Knows nothing of tasks.
"""

from __future__ import annotations

from typing import Protocol

import mujoco
import numpy as np

from reflexarc.configs.errors import RobotError
from reflexarc.configs.robot import RobotConfig
from reflexarc.robots.servo import position_servo_control
from reflexarc.sim.arm import ArmIndex
from reflexarc.wire.messages import F64, JointCommand, Measured, SimSteps


class Steppable(Protocol):
    """What the driver needs of a world."""

    model: mujoco.MjModel
    data: mujoco.MjData

    def step(self, control: F64) -> None:
        """One physics step with `control` (nu,)."""


class ArmSensors:
    """Reads an arm's sensors from a model's state."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, robot: RobotConfig) -> None:
        self.index = ArmIndex.find(model, robot)
        self._data = data
        self._adr = [_sensor(model, "wrist_force"), _sensor(model, "wrist_torque")]
        hand = model.site_bodyid[self.index.wrist] if self.index.wrist >= 0 else -1
        self._site = self.index.wrist
        # What hangs below the sensor; its weight is taken out, as a real sensor's is once the load is known.
        self._bodies = [] if hand < 0 else _descendants(model, int(hand))
        self._mass = model.body_mass[self._bodies]
        self._gravity = np.array(model.opt.gravity)

    def read(self, t_ns: int) -> Measured:
        """The reading at `t_ns`. Wrench: (6,) that the tool is pushed with, in the TCP frame, at the TCP."""
        index, data = self.index, self._data
        opening = 0.0
        if index.fingers.size:
            opening = float(np.clip(data.qpos[index.fingers].mean() / index.finger_range, 0.0, 1.0))
        return Measured(
            t_ns=t_ns,
            joint_position=data.qpos[index.qpos].copy(),
            joint_velocity=data.qvel[index.dof].copy(),
            joint_effort=data.actuator_force[index.actuator].copy(),
            wrench_tcp=self._wrench(),
            gripper=opening,
        )

    def _wrench(self) -> F64:
        """The sensor gives what the hand is held with (parent on child), so contact is minus that, weight aside."""
        if min(self._adr) < 0:
            return np.zeros(6)
        data = self._data
        sensor_to_world = data.site_xmat[self._site].reshape(3, 3)
        held_force = sensor_to_world @ data.sensordata[self._adr[0] : self._adr[0] + 3]
        held_torque = sensor_to_world @ data.sensordata[self._adr[1] : self._adr[1] + 3]
        weights = self._mass[:, None] * self._gravity
        arms = data.xipos[self._bodies] - data.site_xpos[self._site]
        force = -held_force - weights.sum(axis=0)
        torque = -held_torque - np.cross(arms, weights).sum(axis=0)
        lever = data.site_xpos[self._site] - data.site_xpos[self.index.tcp]
        torque = torque + np.cross(lever, force)
        world_to_tcp = data.site_xmat[self.index.tcp].reshape(3, 3).T
        return np.concatenate([world_to_tcp @ force, world_to_tcp @ torque])


class MujocoRobot:
    """A `Robot` whose time passes only in `advance`."""

    def __init__(self, world: Steppable, config: RobotConfig) -> None:
        self._world = world
        self._config = config
        self._sensors = ArmSensors(world.model, world.data, config)
        self._control = np.zeros(world.model.nu)
        self._connected = False
        self._steps = 0

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the joints, in the order of every array."""
        return self._config.joint_names

    @property
    def now_ns(self) -> int:
        """Simulated time since the last reset."""
        return round(self._steps * self._world.model.opt.timestep * 1e9)

    def connect(self) -> None:
        """Take the world's present state as the beginning."""
        self._connected = True
        self.reset()

    def reset(self) -> None:
        """Take the world's present state as the beginning: hold there."""
        self._steps = 0
        self._control[:] = self._world.data.ctrl

    def read(self) -> Measured:
        """The sensors now; raises RobotError if not connected."""
        self._check_connected()
        return self._sensors.read(self.now_ns)

    def write(self, command: JointCommand) -> None:
        """Hand one filtered command to the servos; raises RobotError on a wrong shape or a number not finite."""
        self._check_connected()
        n = len(self.joint_names)
        for name in ("joint_position", "joint_velocity"):
            value = getattr(command, name)
            if value.shape != (n,) or not np.all(np.isfinite(value)):
                raise RobotError(f"command {name} must be {n} finite numbers, got {value}")
        if not 0.0 <= command.gripper <= 1.0:
            raise RobotError(f"command gripper must be an opening in [0, 1], got {command.gripper}")
        index = self._sensors.index
        self._control[index.actuator] = position_servo_control(command, self._config)
        if index.gripper_actuator >= 0:
            upper = self._world.model.actuator_ctrlrange[index.gripper_actuator, 1]
            self._control[index.gripper_actuator] = command.gripper * upper

    def advance(self, steps: int) -> SimSteps:
        """Let `steps` physics steps pass under the present command; returns their controls for the log."""
        first = self._steps
        for _ in range(steps):
            self._world.step(self._control)
        self._steps += steps
        return SimSteps(
            t_ns=self.now_ns,
            clock="virtual",
            first_step=first,
            control=np.tile(self._control, (steps, 1)),
            qpos=self._world.data.qpos.copy(),
            qvel=self._world.data.qvel.copy(),
        )

    def halt(self) -> None:
        """Hold the position the arm has now."""
        index = self._sensors.index
        self._control[index.actuator] = self._world.data.qpos[index.qpos]

    def close(self) -> None:
        """Halt and disconnect; safe to call twice."""
        if self._connected:
            self.halt()
            self._connected = False

    def _check_connected(self) -> None:
        if not self._connected:
            raise RobotError(f"the simulated {self._config.name} is not connected; call connect() first")


def _sensor(model: mujoco.MjModel, name: str) -> int:
    found = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SENSOR, name)
    return -1 if found < 0 else int(model.sensor_adr[found])


def _descendants(model: mujoco.MjModel, body: int) -> list[int]:
    found = [body]
    for index in range(body + 1, model.nbody):
        if model.body_parentid[index] in found:
            found.append(index)
    return found
