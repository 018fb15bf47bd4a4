"""What the motors and the wrist should feel if nothing touched the arm: inverse dynamics of its MuJoCo model.

The payload is a body of its own, fixed to the TCP, so that its weight and inertia follow from the same recursion
(recursive Newton-Euler, MuJoCo's `mj_rne`). Contacts, joint stops and couplings are left out: they are looked for.
"""

from __future__ import annotations

import mujoco
import numpy as np

from reflexarc.configs.errors import SafetyError, unknown
from reflexarc.configs.load import resolve_asset
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.watch import Payload
from reflexarc.wire.messages import F64

PAYLOAD = "reflexarc_payload"


class Dynamics:
    """Inverse dynamics of one robot with its payload; holds scratch memory, so one instance serves one thread."""

    def __init__(self, robot: RobotConfig, payload: Payload) -> None:
        """Raises SafetyError if the MJCF lacks a joint or the TCP site that `robot` names."""
        model = _model_with(robot, payload)
        self._model = model
        self._data = mujoco.MjData(model)
        joints = [model.joint(name).id for name in robot.joint_names]
        self._qpos = model.jnt_qposadr[joints]
        self._dof = model.jnt_dofadr[joints]
        self._site = model.site(robot.tcp_site).id
        self._linear, self._angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        self._payload = model.body(PAYLOAD).id if payload.mass > 0 else -1

    def effort(self, position: F64, velocity: F64, acceleration: F64) -> F64:
        """(n,) N·m that the motors need for (n,) rad, rad/s, rad/s², gravity and the joints' damping included."""
        data = self._data
        data.qpos[self._qpos] = position
        data.qvel[self._dof] = velocity
        data.qacc[self._dof] = acceleration
        mujoco.mj_inverse(self._model, data)
        return np.array(data.qfrc_inverse[self._dof])

    def torque_of(self, wrench: F64) -> F64:
        """(n,) N·m that (6,) N and N·m at the TCP, in its frame, push the joints with, in the pose last given to
        `effort`: the Jacobian's transpose times the wrench."""
        model, data = self._model, self._data
        mujoco.mj_jacSite(model, data, self._linear, self._angular, self._site)
        to_base = data.site_xmat[self._site].reshape(3, 3)
        pushed = self._linear.T @ (to_base @ wrench[:3]) + self._angular.T @ (to_base @ wrench[3:])
        return np.array(pushed[self._dof])

    def payload_wrench(self) -> F64:
        """(6,) N and N·m that the payload pulls at the hand with, TCP frame, in the motion last given to `effort`."""
        if self._payload < 0:
            return np.zeros(6)
        data = self._data
        # cfrc_int: [torque force] from the parent on the body, in the world's axes, about the arm's centre of mass.
        mujoco.mj_rnePostConstraint(self._model, data)
        pull = -data.cfrc_int[self._payload]
        root = self._model.body_rootid[self._payload]
        lever = data.subtree_com[root] - data.site_xpos[self._site]
        to_tcp = data.site_xmat[self._site].reshape(3, 3).T
        return np.concatenate([to_tcp @ pull[3:], to_tcp @ (pull[:3] + np.cross(lever, pull[3:]))])

    def weight_torque(self, position: F64) -> F64:
        """(n,) N·m of gravity at rest."""
        zero = np.zeros_like(position)
        return self.effort(position, zero, zero)


def _model_with(robot: RobotConfig, payload: Payload) -> mujoco.MjModel:
    spec = mujoco.MjSpec.from_file(str(resolve_asset(robot.mjcf)))
    for kind, names, elements in (
        ("joint", robot.joint_names, spec.joints),
        ("site", (robot.tcp_site,), spec.sites),
    ):
        present = {str(element.name) for element in elements}
        for name in names:
            if name not in present:
                raise SafetyError(f"robot {robot.name}: {robot.mjcf}: {unknown(kind, name, present)}")
    if payload.mass > 0:
        site = next(site for site in spec.sites if site.name == robot.tcp_site)
        body = site.parent.add_body(name=PAYLOAD, pos=site.pos, quat=site.quat)
        body.mass, body.ipos, body.explicitinertial = payload.mass, payload.center, True
        body.inertia = np.maximum(payload.inertia, 1e-9)  # MuJoCo refuses a point
    for body in spec.bodies:
        body.gravcomp = 0.0
    for key in list(spec.keys):
        spec.delete(key)
    model = spec.compile()
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONSTRAINT)
    return model
