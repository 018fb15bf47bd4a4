"""Forward kinematics of the tool centre point (TCP) on the arm's own MuJoCo model.

Only positions are computed, no dynamics. Beside pose and Jacobian it gives a bound on how far the TCP's path
bends along a straight line in joint space, which lets a whole stop be judged from one evaluation.
"""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np

from reflexarc.configs.errors import RobotError, unknown
from reflexarc.configs.load import resolve_asset
from reflexarc.configs.robot import RobotConfig
from reflexarc.wire.messages import F64


@dataclasses.dataclass(frozen=True, slots=True)
class TcpView:
    """The TCP at one joint position, in the base frame.

    pose: (7,) `[x y z qw qx qy qz]`, m. point: (3,) its first three. jacobian: (3, n) m/rad of the point.
    """

    pose: F64
    point: F64
    jacobian: F64


class Kinematics:
    """Forward kinematics of one robot; holds scratch memory, so one instance serves one thread."""

    def __init__(self, robot: RobotConfig) -> None:
        """Raises RobotError if the MJCF lacks a joint, the TCP site or the base body that `robot` names."""
        path = resolve_asset(robot.mjcf)
        self._model = mujoco.MjModel.from_xml_path(str(path))
        self._data = mujoco.MjData(self._model)
        self._site = _find(self._model, mujoco.mjtObj.mjOBJ_SITE, "site", robot.tcp_site)
        base = _find(self._model, mujoco.mjtObj.mjOBJ_BODY, "body", robot.base_body)
        joints = [_find(self._model, mujoco.mjtObj.mjOBJ_JOINT, "joint", name) for name in robot.joint_names]
        for name, joint in zip(robot.joint_names, joints, strict=True):
            if self._model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_HINGE:
                raise RobotError(
                    f"joint {name!r} of {robot.name} is not a hinge; only hinge joints are supported"
                )
        self._qpos = self._model.jnt_qposadr[joints]
        self._dof = self._model.jnt_dofadr[joints]
        mujoco.mj_kinematics(self._model, self._data)
        self._base_point = self._data.xpos[base].copy()
        self._base_rotation = self._data.xmat[base].reshape(3, 3).copy()
        self._jacobian = np.zeros((3, self._model.nv))
        self.bend = _bend_matrix(self._model, self._site, joints)
        """(n, n) m: the second derivative of the TCP point along `q + s·v` is at most `|v|ᵀ·bend·|v|`."""

    def view(self, position: F64) -> TcpView:
        """Pose, point and Jacobian of the TCP at joint position (n,) rad."""
        data, model = self._data, self._model
        data.qpos[self._qpos] = position
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, self._jacobian, None, self._site)
        jacobian = self._base_rotation.T @ self._jacobian[:, self._dof]
        pose = self._pose()
        return TcpView(pose=pose, point=pose[:3], jacobian=jacobian)

    def pose(self, position: F64) -> F64:
        """Pose (7,) of the TCP in the base frame at joint position (n,) rad."""
        self._data.qpos[self._qpos] = position
        mujoco.mj_kinematics(self._model, self._data)
        return self._pose()

    def _pose(self) -> F64:
        pose = np.empty(7)
        pose[:3] = self._base_rotation.T @ (self._data.site_xpos[self._site] - self._base_point)
        rotation = self._base_rotation.T @ self._data.site_xmat[self._site].reshape(3, 3)
        mujoco.mju_mat2Quat(pose[3:], rotation.ravel())
        return pose


def _find(model: mujoco.MjModel, kind: mujoco.mjtObj, word: str, name: str) -> int:
    index = mujoco.mj_name2id(model, kind, name)
    if index < 0:
        count = {"site": model.nsite, "body": model.nbody, "joint": model.njnt}[word]
        names = [mujoco.mj_id2name(model, kind, i) or "" for i in range(count)]
        raise RobotError(unknown(f"{word} in the MJCF", name, names))
    return int(index)


def _bend_matrix(model: mujoco.MjModel, site: int, joints: list[int]) -> F64:
    """(n, n) m. For hinges i before j in the chain, |∂²p/∂q_i∂q_j| = |z_i × (z_j × r_j)| ≤ |r_j| ≤ reach of j.

    The reach of j, the largest distance from its anchor to the TCP, is at most the length of the links between; that
    of the joint further out is the smaller one, in whatever order the joints are named.
    """
    reaches = np.array([_reach(model, site, joint) for joint in joints])
    return np.asarray(np.minimum.outer(reaches, reaches), dtype=np.float64)


def _reach(model: mujoco.MjModel, site: int, joint: int) -> float:
    body = int(model.site_bodyid[site])
    length = float(np.linalg.norm(model.site_pos[site]))
    last = int(model.jnt_bodyid[joint])
    while body != last:
        length += float(np.linalg.norm(model.body_pos[body]))
        for other in range(model.njnt):
            if model.jnt_bodyid[other] == body:
                length += 2 * float(np.linalg.norm(model.jnt_pos[other]))
        body = int(model.body_parentid[body])
        if body == 0 and last != 0:
            raise RobotError("the TCP site does not hang on every joint of the arm")
    return length + float(np.linalg.norm(model.jnt_pos[joint]))
