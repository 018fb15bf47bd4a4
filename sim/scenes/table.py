"""The table, the light and the front camera. The table top is the plane z = 0 of the arm's base frame."""

from __future__ import annotations

import mujoco
import numpy as np

from reflexarc.sim.scenes.collide import NOTHING, SOLID
from reflexarc.sim.scenes.palette import TABLE

TABLE_FRICTION = 0.4
"""Blocks on the table. Times that of the finger tips (1.5) it must stay below 1: else a push from the side locks."""

FRONT_CAMERA = "front"
CAMERA_POSITION = (1.02, 0.0, 0.86)
CAMERA_TARGET = (0.495, 0.0, 0.01)
CAMERA_FOVY_DEG = 37.0


def add_table(spec: mujoco.MjSpec) -> None:
    """Add table, light and front camera, and set the options that every scene shares."""
    spec.option.timestep = 0.0025
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    spec.visual.headlight.ambient = [0.45, 0.45, 0.45]
    spec.visual.headlight.diffuse = [0.25, 0.25, 0.25]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    world = spec.worldbody
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[1.5, 1.5, 0.1],
        rgba=TABLE,
        friction=[TABLE_FRICTION, 0.01, 0.001],
        **SOLID,
    )
    world.add_light(
        name="lamp", pos=[0.4, 0.3, 2.0], dir=[0.0, -0.15, -1.0], diffuse=[0.45, 0.45, 0.45], castshadow=False
    )
    world.add_camera(
        name=FRONT_CAMERA,
        pos=CAMERA_POSITION,
        quat=look_at(CAMERA_POSITION, CAMERA_TARGET),
        fovy=CAMERA_FOVY_DEG,
    )


def add_zone(
    spec: mujoco.MjSpec,
    name: str,
    center: tuple[float, float],
    half: tuple[float, float],
    rgba: tuple[float, float, float, float],
) -> None:
    """Paint a rectangle on the table: only to be seen. Centre and half sizes in m."""
    spec.worldbody.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[*center, 0.0],
        size=[*half, 0.0008],
        rgba=rgba,
        **NOTHING,
    )


def look_at(position: tuple[float, float, float], target: tuple[float, float, float]) -> list[float]:
    """Quaternion (wxyz) of a MuJoCo camera at `position` that looks at `target`, with +z up in the picture."""
    backward = np.subtract(position, target)
    backward /= np.linalg.norm(backward)
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right)
    up = np.cross(backward, right)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.column_stack([right, up, backward]).ravel())
    return [float(x) for x in quat]
