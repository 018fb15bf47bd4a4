"""The arm's body as capsules that cover every geom of its MuJoCo model, fixed to the links.

Spheres, capsules and cylinders are covered along their own axis, everything else by the capsule about its bounding
box. A geom on a finger is covered in every position of the finger. What the gripper holds is one capsule more.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import mujoco
import numpy as np

from reflexarc.configs.safety import HeldTool
from reflexarc.wire.chain import Chain
from reflexarc.wire.messages import F64

SPHERE = int(mujoco.mjtGeom.mjGEOM_SPHERE)
ALONG_Z = (SPHERE, int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_CYLINDER))


class Capsules(NamedTuple):
    """link: (C,) int64, the frame each is fixed to: 0 the base, j+1 joint j. a, b: (C, 3) m in it. radius: (C,) m."""

    link: np.ndarray  # type: ignore[type-arg]
    a: F64
    b: F64
    radius: F64


@dataclasses.dataclass(frozen=True, slots=True)
class Body:
    """names: of the capsules, for reports. working: (C,) bool, fingers and held tool: they may touch things."""

    names: tuple[str, ...]
    capsules: Capsules
    working: tuple[bool, ...]


def read_body(
    model: mujoco.MjModel, frames: list[F64], base: int, joints: list[int], held: HeldTool, chain: Chain
) -> Body:
    """Capsules of all geoms at or below body `base`, and of what is held. frames: as `read_chain` gives."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    bodies_of_joints = [int(model.jnt_bodyid[joint]) for joint in joints]
    names, links, a, b, radii, working = [], [], [], [], [], []
    for geom in range(model.ngeom):
        above = _ancestors(model, int(model.geom_bodyid[geom]))
        if base not in above:
            continue
        link = 1 + max((i for i, body in enumerate(bodies_of_joints) if body in above), default=-1)
        slides = [
            joint
            for joint in range(model.njnt)
            if int(model.jnt_bodyid[joint]) in above and joint not in joints
        ]
        segment, radius = _cover(model, data, geom, slides)
        to_link = np.linalg.inv(frames[link])
        ends = segment @ to_link[:3, :3].T + to_link[:3, 3]
        body_name = model.body(int(model.geom_bodyid[geom])).name
        names.append(model.geom(geom).name or body_name)
        links.append(link)
        a.append(ends[0])
        b.append(ends[1])
        radii.append(radius)
        working.append(bool(slides))
    if held.radius > 0 or held.length > 0:
        names.append("held tool")
        links.append(len(joints))
        a.append(chain.tcp_offset)
        b.append(chain.tcp_offset + held.length * chain.tcp_rotation[:, 2])
        radii.append(held.radius)
        working.append(True)
    capsules = Capsules(
        link=np.array(links, dtype=np.int64), a=np.array(a), b=np.array(b), radius=np.array(radii)
    )
    return Body(names=tuple(names), capsules=capsules, working=tuple(working))


def _ancestors(model: mujoco.MjModel, body: int) -> set[int]:
    found = {body}
    while body:
        body = int(model.body_parentid[body])
        found.add(body)
    return found


def _cover(model: mujoco.MjModel, data: mujoco.MjData, geom: int, slides: list[int]) -> tuple[F64, float]:
    """Ends (2, 3) in the world and radius of a capsule that covers the geom wherever its slide joints stand."""
    turn, origin = data.geom_xmat[geom].reshape(3, 3), data.geom_xpos[geom]
    size = model.geom_size[geom]
    kind = int(model.geom_type[geom])
    if kind in ALONG_Z and not slides:
        half = 0.0 if kind == SPHERE else float(size[1])
        return origin + np.outer([-half, half], turn[:, 2]), float(size[0])
    center, half_box = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
    low, high = center - half_box, center + half_box
    for joint in slides:
        way = turn.T @ data.xaxis[joint]
        travel = np.outer(model.jnt_range[joint] - model.qpos0[model.jnt_qposadr[joint]], way)
        low, high = low + travel.min(axis=0), high + travel.max(axis=0)
    middle, half_box = (low + high) / 2, (high - low) / 2
    longest = int(np.argmax(half_box))
    radius = float(np.linalg.norm(np.delete(half_box, longest)))
    ends = middle + np.outer([-1.0, 1.0], half_box[longest] * np.eye(3)[longest])
    return origin + ends @ turn.T, radius
