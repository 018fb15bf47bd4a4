"""What a simulated arm senses: joints, motor torques, the force on its tool, the gripper's opening."""

from __future__ import annotations

import mujoco
import numpy as np

from reflexarc.configs.robot import RobotConfig
from reflexarc.sim.arm import WRIST_FORCE, WRIST_TORQUE, ArmIndex
from reflexarc.wire.messages import F64, Measured


class ArmSensors:
    """Reads an arm's sensors off a model's state. They show the instant at which the last physics step began."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, robot: RobotConfig) -> None:
        """Raises SimulationError if the model lacks something that `robot` names."""
        self.index = ArmIndex.find(model, robot)
        self._model, self._data = model, data
        self._force = _sensor(model, WRIST_FORCE)
        self._torque = _sensor(model, WRIST_TORQUE)
        self._load = [] if min(self.index.wrist, self._force, self._torque) < 0 else self._beyond_sensor()
        self._acceleration = np.zeros(6)

    def read(self, t_ns: int) -> Measured:
        """The reading, stamped `t_ns`. Wrench: (6,) that the tool is pushed with, in the TCP frame, at the TCP."""
        index, data = self.index, self._data
        return Measured(
            t_ns=t_ns,
            joint_position=data.qpos[index.qpos].copy(),
            joint_velocity=data.qvel[index.dof].copy(),
            joint_effort=data.qfrc_actuator[index.dof] + data.qfrc_gravcomp[index.dof],
            wrench_tcp=self._wrench(),
            gripper=index.opening(data),
        )

    def _wrench(self) -> F64:
        """The sensor feels what carries the hand: what moves it and bears its weight, less the contact forces."""
        if not self._load:
            return np.zeros(6)
        data = self._data
        rotation = data.site_xmat[self.index.wrist].reshape(3, 3)
        point = data.site_xpos[self.index.wrist]
        force = -rotation @ data.sensordata[self._force : self._force + 3]
        torque = -rotation @ data.sensordata[self._torque : self._torque + 3]
        for body in self._load:
            own_force, own_torque = self._own(body)
            force += own_force
            torque += own_torque + np.cross(data.xipos[body] - point, own_force)
        torque += np.cross(point - data.site_xpos[self.index.tcp], force)
        to_tcp = data.site_xmat[self.index.tcp].reshape(3, 3).T
        return np.concatenate([to_tcp @ force, to_tcp @ torque])

    def _own(self, body: int) -> tuple[F64, F64]:
        """Force (3,) and torque (3,) about its centre of mass that move a body and bear its weight, world frame."""
        model, data = self._model, self._data
        mujoco.mj_objectAcceleration(model, data, mujoco.mjtObj.mjOBJ_BODY, body, self._acceleration, 0)
        rotation = data.ximat[body].reshape(3, 3)
        inertia = rotation * model.body_inertia[body] @ rotation.T
        spin = data.cvel[body, :3]
        force: F64 = model.body_mass[body] * self._acceleration[3:]  # gravity is in it: at rest it is +g
        torque: F64 = inertia @ self._acceleration[:3] + np.cross(spin, inertia @ spin)
        return force, torque

    def _beyond_sensor(self) -> list[int]:
        """The bodies that the sensor carries; MuJoCo numbers parents before their children."""
        model = self._model
        found = [int(model.site_bodyid[self.index.wrist])]
        for body in range(found[0] + 1, model.nbody):
            if model.body_parentid[body] in found:
                found.append(body)
        return found


def _sensor(model: mujoco.MjModel, name: str) -> int:
    """Where a sensor's numbers begin in `sensordata`; -1 if there is none."""
    found = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SENSOR, name)
    return -1 if found < 0 else int(model.sensor_adr[found])
