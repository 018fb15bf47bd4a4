"""What a simulated arm senses: joints, motor torques, the force on its tool, the gripper's opening."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import mujoco
import numpy as np

from reflexarc.configs.robot import RobotConfig
from reflexarc.sim.arm import ArmIndex
from reflexarc.wire.geometry import cross
from reflexarc.wire.messages import F64, Measured


class ArmSensors:
    """Reads an arm's sensors off a model's state.

    Torques are the mean since the last reading, as a torque sensor's filter gives; the wrench is that of the last
    physics step, whose wrist sensors make MuJoCo compute `cfrc_ext`.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, robot: RobotConfig) -> None:
        """Raises SimulationError if the model lacks something that `robot` names."""
        self.index = ArmIndex.find(model, robot)
        self._data = data
        self._tool = _subtree(model, int(model.site_bodyid[self.index.wrist]))
        self._root = int(model.body_rootid[self._tool.start])
        self._damping = -model.actuator_biasprm[self.index.actuator, 2]
        self._strongest = model.actuator_forcerange[self.index.actuator, 1]
        self.reset()

    def reset(self) -> None:
        """Forget what was before: the world has been laid out anew."""
        self._effort: F64 = self._applied(np.zeros_like(self._damping))
        self._steps = 0

    @contextlib.contextmanager
    def during_step(self) -> Iterator[None]:
        """Around every physics step: adds up the torques that it applied."""
        before = self._data.qvel[self.index.dof]
        yield
        applied = self._applied(self._data.qvel[self.index.dof] - before)
        self._effort = self._effort + applied if self._steps else applied
        self._steps += 1

    def read(self, t_ns: int) -> Measured:
        """The reading, stamped `t_ns`. Wrench: (6,) that the tool is pushed with, in the TCP frame, at the TCP."""
        index, data = self.index, self._data
        self._effort, self._steps = self._effort / max(1, self._steps), 0
        return Measured(
            t_ns=t_ns,
            joint_position=data.qpos[index.qpos],
            joint_velocity=data.qvel[index.dof],
            joint_effort=self._effort,
            wrench_tcp=self._wrench(),
            gripper=index.opening(data),
        )

    def _applied(self, gained: F64) -> F64:
        """(n,) N·m of a step in which the joints gained (n,) rad/s.

        MuJoCo integrates the servos' damping implicitly (its documentation, "Computation", numerical integration): it
        acts at the velocity that the step ends with, and what `qfrc_actuator` tells is that of the beginning. A
        saturated servo has none.
        """
        data, index = self._data, self.index
        explicit = data.actuator_force[index.actuator]
        damped = np.where(np.abs(explicit) < self._strongest, self._damping * gained, 0.0)
        return np.array(data.qfrc_actuator[index.dof] + data.qfrc_gravcomp[index.dof] - damped)

    def _wrench(self) -> F64:
        """What the wrist sensor shows once the tool's own weight and inertia are taken out.

        That is the sum of the contact forces beyond the sensor, which MuJoCo keeps as `[torque force]` along the axes
        of the world, about the centre of mass of the whole arm.
        """
        data, tcp = self._data, self.index.tcp
        total = data.cfrc_ext[self._tool].sum(axis=0)
        lever = data.subtree_com[self._root] - data.site_xpos[tcp]
        torque = total[:3] + cross(lever, total[3:])
        to_tcp = data.site_xmat[tcp].reshape(3, 3).T
        return np.concatenate([to_tcp @ total[3:], to_tcp @ torque])


def _subtree(model: mujoco.MjModel, top: int) -> slice:
    """A body and all below it; MuJoCo numbers them in a row."""
    last = top
    while last + 1 < model.nbody and top <= model.body_parentid[last + 1]:
        last += 1
    return slice(top, last + 1)
