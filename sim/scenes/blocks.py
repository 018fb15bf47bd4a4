"""Loose blocks: cubes and upright cylinders, 4 cm in size, that an 8 cm gripper takes from above."""

from __future__ import annotations

from typing import Literal

import mujoco
import numpy as np

from reflexarc.sim.scenes.collide import SOLID

Shape = Literal["cube", "cylinder"]

BLOCK_HALF = 0.02
"""Half of a block's edge, or radius and half height of a cylinder, m."""

BLOCK_MASS = 0.05
"""kg: light wood of that size."""


def add_block(spec: mujoco.MjSpec, name: str, shape: Shape) -> None:
    """Add a loose block, a body, a free joint and a geom of that name."""
    body = spec.worldbody.add_body(name=name, pos=[0.5, 0.0, BLOCK_HALF])
    body.add_freejoint(name=name)
    kind = mujoco.mjtGeom.mjGEOM_BOX if shape == "cube" else mujoco.mjtGeom.mjGEOM_CYLINDER
    body.add_geom(
        name=name,
        type=kind,
        size=[BLOCK_HALF, BLOCK_HALF, BLOCK_HALF],
        mass=BLOCK_MASS,
        condim=4,
        friction=[0.4, 0.02, 0.001],
        **SOLID,
    )


def place_block(
    model: mujoco.MjModel, data: mujoco.MjData, name: str, x: float, y: float, yaw: float
) -> None:
    """Stand a block on the table at (x, y) m, turned by `yaw` rad."""
    start = model.jnt_qposadr[model.joint(name).id]
    data.qpos[start : start + 3] = (x, y, BLOCK_HALF)
    data.qpos[start + 3 : start + 7] = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
