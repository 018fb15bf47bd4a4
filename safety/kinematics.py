"""Forward kinematics of the tool centre point (TCP), and the arm's body, from the arm's own MuJoCo model."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np

from reflexarc.configs.errors import RobotError, unknown
from reflexarc.configs.load import resolve_asset
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import HeldTool
from reflexarc.safety.clearance import Scratch, scratch
from reflexarc.safety.judge import MotionState
from reflexarc.safety.shapes import read_body
from reflexarc.wire.chain import Chain, jacobian, place, quaternion, read_chain, twist_step
from reflexarc.wire.compiled import compiled
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
    """Forward kinematics and body of one robot; holds scratch memory, so one instance serves one thread."""

    def __init__(self, robot: RobotConfig, held: HeldTool | None = None) -> None:
        """held: what the gripper holds, as a part of the body.

        Raises RobotError if the MJCF lacks a joint, the TCP site or the base body that `robot` names, if a joint is
        not a hinge, or if the TCP does not hang on all of them, one after the other.
        """
        model = mujoco.MjModel.from_xml_path(str(resolve_asset(robot.mjcf)))
        site = _find(model, mujoco.mjtObj.mjOBJ_SITE, "site", robot.tcp_site)
        base = _find(model, mujoco.mjtObj.mjOBJ_BODY, "body", robot.base_body)
        joints = [_find(model, mujoco.mjtObj.mjOBJ_JOINT, "joint", name) for name in robot.joint_names]
        for name, joint in zip(robot.joint_names, joints, strict=True):
            if model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_HINGE:
                raise RobotError(
                    f"joint {name!r} of {robot.name} is not a hinge; only hinge joints are supported"
                )
        self.chain, frames = read_chain(model, base, site, joints)
        self.body = read_body(model, frames, base, joints, held or HeldTool(), self.chain)
        self.reach = self._reach()
        """(n,) m: no part of the body, nor the TCP, is ever further from a joint's anchor."""
        self._scratch = scratch(len(joints), 0)

    def view(self, position: F64) -> TcpView:
        """Pose, point and Jacobian of the TCP at joint position (n,) rad."""
        at = self._scratch
        place(self.chain, np.asarray(position, dtype=np.float64), at.origin, at.turn)
        jacobian(at.origin, at.turn, at.jacobian)
        return self._view()

    def pose(self, position: F64) -> F64:
        """Pose (7,) of the TCP in the base frame at joint position (n,) rad."""
        at = self._scratch
        place(self.chain, np.asarray(position, dtype=np.float64), at.origin, at.turn)
        return _pose(self._scratch)

    def advance(self, state: MotionState, velocity: F64, dt: float) -> tuple[MotionState, TcpView]:
        """The motion one tick later, at `velocity` (n,) rad/s, and the TCP there."""
        n = len(velocity)
        after = MotionState(np.empty(n), velocity.copy(), np.empty(n), np.empty(6), np.empty(6))
        pose = np.empty(7)
        _advance(
            *self.chain,
            *self._scratch,
            state.position,
            state.velocity,
            state.twist,
            velocity,
            dt,
            after.position,
            after.change,
            after.twist,
            after.twist_change,
            pose,
        )
        return after, TcpView(pose=pose, point=pose[:3], jacobian=self._scratch.jacobian[:3].copy())

    def rest(self, position: F64) -> MotionState:
        """Standing at joint position (n,) rad."""
        zero, still = np.zeros(len(position)), np.zeros(6)
        position = np.array(position, dtype=np.float64)
        return MotionState(position=position, velocity=zero, change=zero, twist=still, twist_change=still)

    def _view(self) -> TcpView:
        pose = _pose(self._scratch)
        return TcpView(pose=pose, point=pose[:3], jacobian=self._scratch.jacobian[:3].copy())

    def _reach(self) -> F64:
        """By the triangle inequality along the chain, from the last link inwards."""
        capsules = self.body.capsules
        n = len(self.chain.zero)
        reach = np.zeros(n)
        beyond = float(np.linalg.norm(self.chain.tcp_offset))
        for joint in reversed(range(n)):
            for c in np.flatnonzero(capsules.link == joint + 1):
                ends = np.linalg.norm([capsules.a[c], capsules.b[c]], axis=1)
                beyond = max(beyond, float(ends.max()))
            reach[joint] = beyond
            beyond += float(np.linalg.norm(self.chain.offset[joint]))
        return reach


@compiled
def _pose(at: Scratch) -> F64:
    """(7,) of the TCP where `at` was arranged."""
    pose = np.empty(7)
    pose[:3], pose[3:] = at.origin[-1], quaternion(at.turn[-1])
    return pose


@compiled
def _advance(
    offset: F64,
    rotation: F64,
    zero: F64,
    tcp_offset: F64,
    tcp_rotation: F64,
    origin: F64,
    turn: F64,
    rates: F64,
    ends: F64,
    position: F64,
    velocity: F64,
    twist: F64,
    following: F64,
    dt: float,
    new_position: F64,
    new_change: F64,
    new_twist: F64,
    new_twist_change: F64,
    pose: F64,
) -> None:
    """Write the motion one tick later, at velocity `following` (n,), and the TCP's pose (7,) there.

    Plain arrays of a chain, a scratch and a motion, which compiled code is entered with more quickly than with tuples.
    """
    chain = Chain(offset, rotation, zero, tcp_offset, tcp_rotation)
    place(chain, position, origin, turn)
    before, before_turn = origin[-1].copy(), turn[-1].copy()
    for i in range(following.size):
        new_position[i] = position[i] + following[i] * dt
        new_change[i] = following[i] - velocity[i]
    place(chain, new_position, origin, turn)
    jacobian(origin, turn, rates)
    twist_step(before, before_turn, origin[-1], turn[-1], new_twist)
    for i in range(6):
        new_twist_change[i] = new_twist[i] - twist[i]
    pose[:3], pose[3:] = origin[-1], quaternion(turn[-1])


def _find(model: mujoco.MjModel, kind: mujoco.mjtObj, word: str, name: str) -> int:
    index = mujoco.mj_name2id(model, kind, name)
    if index < 0:
        count = {"site": model.nsite, "body": model.nbody, "joint": model.njnt}[word]
        names = [mujoco.mj_id2name(model, kind, i) or "" for i in range(count)]
        raise RobotError(unknown(f"{word} in the MJCF", name, names))
    return int(index)
