"""The arm as a chain of hinges: forward kinematics and Jacobian of the TCP, compiled.

The numbers are read off the MuJoCo model once. Every joint frame stands on its joint's anchor with z along the axis,
so a joint is one fixed transform and one rotation about z. What filter, servo laws and controller all need.
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
        # Into locals: what is written below might be the same memory, for all that the compiler knows.
        o0, o1, o2 = chain.offset[joint, 0], chain.offset[joint, 1], chain.offset[joint, 2]
        x0, x1, x2 = chain.rotation[joint, 0, 0], chain.rotation[joint, 1, 0], chain.rotation[joint, 2, 0]
        y0, y1, y2 = chain.rotation[joint, 0, 1], chain.rotation[joint, 1, 1], chain.rotation[joint, 2, 1]
        z0, z1, z2 = chain.rotation[joint, 0, 2], chain.rotation[joint, 1, 2], chain.rotation[joint, 2, 2]
        for i in range(3):
            r0, r1, r2 = turn[joint, i, 0], turn[joint, i, 1], turn[joint, i, 2]
            origin[joint + 1, i] = origin[joint, i] + r0 * o0 + r1 * o1 + r2 * o2
            x = r0 * x0 + r1 * x1 + r2 * x2
            y = r0 * y0 + r1 * y1 + r2 * y2
            turn[joint + 1, i, 0] = cosine * x + sine * y
            turn[joint + 1, i, 1] = cosine * y - sine * x
            turn[joint + 1, i, 2] = r0 * z0 + r1 * z1 + r2 * z2
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
def quaternion(turn: F64) -> F64:
    """The quaternion (4,), w ≥ 0, of a rotation (3, 3), from the largest of its four candidates (Shepperd 1978)."""
    a, e, i = turn[0, 0], turn[1, 1], turn[2, 2]
    x, y, z = turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]
    u, v, w = turn[1, 0] + turn[0, 1], turn[0, 2] + turn[2, 0], turn[2, 1] + turn[1, 2]
    if a + e + i >= max(a, e, i):
        quat = np.array([1 + a + e + i, x, y, z])
    elif a >= max(e, i):
        quat = np.array([x, 1 + a - e - i, u, v])
    elif e >= i:
        quat = np.array([y, u, 1 - a + e - i, w])
    else:
        quat = np.array([z, v, w, 1 - a - e + i])
    length = math.sqrt(quat[0] ** 2 + quat[1] ** 2 + quat[2] ** 2 + quat[3] ** 2)
    return quat / math.copysign(length, quat[0])


@compiled
def twist_step(before: F64, before_turn: F64, after: F64, after_turn: F64, out: F64) -> None:
    """Write how a frame moved from one tick to the next: (6,) m and rotation vector, rad, base frame."""
    for i in range(3):
        out[i] = after[i] - before[i]
    # The relative rotation is after·beforeᵀ; its skew part is sin(angle)·axis, its trace 1 + 2·cos(angle).
    trace = x = y = z = 0.0
    for k in range(3):
        a, b, c = before_turn[0, k], before_turn[1, k], before_turn[2, k]
        u, v, w = after_turn[0, k], after_turn[1, k], after_turn[2, k]
        trace += u * a + v * b + w * c
        x += (w * b - v * c) / 2
        y += (u * c - w * a) / 2
        z += (v * a - u * b) / 2
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
