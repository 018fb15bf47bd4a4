"""The arm as a chain of hinges: forward kinematics and Jacobian of the TCP, compiled.

The numbers are read off the MuJoCo model once. Every joint frame stands on its joint's anchor with z along the axis,
so a joint is one fixed transform and one rotation about z.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import mujoco
import numpy as np

from reflexarc.configs.errors import RobotError
from reflexarc.wire.compiled import compiled
from reflexarc.wire.messages import F64


class Chain(NamedTuple):
    """offset: (n, 3) m, rotation: (n, 3, 3), of joint frame j in frame j-1 (frame -1: the base) at angle `zero`.

    zero: (n,) rad, the angles at which the fixed transforms were read. tcp_offset (3,) m, tcp_rotation (3, 3): of
    the TCP in the last joint frame.
    """

    offset: F64
    rotation: F64
    zero: F64
    tcp_offset: F64
    tcp_rotation: F64


def read_chain(model: mujoco.MjModel, base: int, site: int, joints: list[int]) -> tuple[Chain, list[F64]]:
    """The chain, and the frames (4, 4) of base and joints in the world at `qpos0`, which shapes are read in.

    base, site, joints: ids; the joints in the order of the arm's arrays, which must be that of the chain. Raises
    RobotError if the TCP does not hang on every joint, one after the other.
    """
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    _check_serial(model, base, int(model.site_bodyid[site]), joints)
    frames = [_frame(data.xmat[base].reshape(3, 3), data.xpos[base])]
    for joint in joints:
        frames.append(_frame(_axes(data.xaxis[joint]), data.xanchor[joint]))
    steps = [np.linalg.inv(before) @ after for before, after in itertools.pairwise(frames)]
    tcp = np.linalg.inv(frames[-1]) @ _frame(data.site_xmat[site].reshape(3, 3), data.site_xpos[site])
    chain = Chain(
        offset=np.array([step[:3, 3] for step in steps]),
        rotation=np.array([step[:3, :3] for step in steps]),
        zero=model.qpos0[model.jnt_qposadr[joints]].copy(),
        tcp_offset=tcp[:3, 3].copy(),
        tcp_rotation=tcp[:3, :3].copy(),
    )
    return chain, frames


@compiled
def place(chain: Chain, position: F64, origin: F64, turn: F64) -> None:
    """Write the frames of base, joints and TCP at joint position (n,) into origin (n+2, 3) and turn (n+2, 3, 3).

    Row 0 is the base itself, row j+1 joint j, the last row the TCP.
    """
    n = position.size
    for i in range(3):
        origin[0, i] = 0.0
        for j in range(3):
            turn[0, i, j] = 1.0 if i == j else 0.0
    for joint in range(n):
        angle = position[joint] - chain.zero[joint]
        cosine, sine = math.cos(angle), math.sin(angle)
        offset, fixed = chain.offset[joint], chain.rotation[joint]
        for i in range(3):
            r0, r1, r2 = turn[joint, i, 0], turn[joint, i, 1], turn[joint, i, 2]
            origin[joint + 1, i] = origin[joint, i] + r0 * offset[0] + r1 * offset[1] + r2 * offset[2]
            x = r0 * fixed[0, 0] + r1 * fixed[1, 0] + r2 * fixed[2, 0]
            y = r0 * fixed[0, 1] + r1 * fixed[1, 1] + r2 * fixed[2, 1]
            turn[joint + 1, i, 0] = cosine * x + sine * y
            turn[joint + 1, i, 1] = cosine * y - sine * x
            turn[joint + 1, i, 2] = r0 * fixed[0, 2] + r1 * fixed[1, 2] + r2 * fixed[2, 2]
    for i in range(3):
        origin[n + 1, i] = origin[n, i]
        for k in range(3):
            origin[n + 1, i] += turn[n, i, k] * chain.tcp_offset[k]
        for j in range(3):
            turn[n + 1, i, j] = 0.0
            for k in range(3):
                turn[n + 1, i, j] += turn[n, i, k] * chain.tcp_rotation[k, j]


@compiled
def jacobian(origin: F64, turn: F64, out: F64) -> None:
    """Write the TCP's Jacobian (6, n), m/rad above rad/rad, base frame, for the frames that `place` wrote."""
    n = out.shape[1]
    for j in range(n):
        zx, zy, zz = turn[j + 1, 0, 2], turn[j + 1, 1, 2], turn[j + 1, 2, 2]
        x = origin[n + 1, 0] - origin[j + 1, 0]
        y = origin[n + 1, 1] - origin[j + 1, 1]
        z = origin[n + 1, 2] - origin[j + 1, 2]
        out[0, j], out[1, j], out[2, j] = zy * z - zz * y, zz * x - zx * z, zx * y - zy * x
        out[3, j], out[4, j], out[5, j] = zx, zy, zz


@compiled
def twist_step(before: F64, before_turn: F64, after: F64, after_turn: F64, out: F64) -> None:
    """Write how a frame moved from one tick to the next: (6,) m and rotation vector, rad, base frame."""
    for i in range(3):
        out[i] = after[i] - before[i]
    # The relative rotation is after·beforeᵀ; its skew part is sin(angle)·axis, its trace 1 + 2·cos(angle).
    trace = 0.0
    r = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            for k in range(3):
                r[i, j] += after_turn[i, k] * before_turn[j, k]
        trace += r[i, i]
    x, y, z = (r[2, 1] - r[1, 2]) / 2, (r[0, 2] - r[2, 0]) / 2, (r[1, 0] - r[0, 1]) / 2
    sine = math.sqrt(x * x + y * y + z * z)
    scale = math.atan2(sine, (trace - 1) / 2) / sine if sine > 1e-12 else 1.0
    out[3], out[4], out[5] = scale * x, scale * y, scale * z


def _check_serial(model: mujoco.MjModel, base: int, tip: int, joints: list[int]) -> None:
    found = []
    body = tip
    while body not in (0, base):
        first = int(model.body_jntadr[body])
        own = range(first, first + int(model.body_jntnum[body]))
        found += [joint for joint in reversed(own) if joint in joints]
        body = int(model.body_parentid[body])
    if found[::-1] != joints:
        raise RobotError("the TCP site does not hang on every joint of the arm, in the order of the config")


def _frame(rotation: F64, origin: F64) -> F64:
    frame = np.eye(4)
    frame[:3, :3], frame[:3, 3] = rotation, origin
    return frame


def _axes(z: F64) -> F64:
    """(3, 3) a rotation whose third column is the unit vector z."""
    helper = np.eye(3)[int(np.argmin(np.abs(z)))]
    x = np.cross(helper, z)
    x /= np.linalg.norm(x)
    return np.column_stack([x, np.cross(z, x), z])
