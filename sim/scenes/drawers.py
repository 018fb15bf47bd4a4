"""A low cabinet with drawers side by side that slide towards the arm, each with an upright bar as a handle.

The cabinet is a mocap body (a seed may move it a little); each drawer is its child on a slide joint.
"""

from __future__ import annotations

import mujoco

from reflexarc.sim.scenes.collide import ARM_ONLY, NOTHING
from reflexarc.sim.scenes.palette import DARK, PALE

PITCH = 0.1
"""Distance between neighbouring drawers, m."""

DRAWER_HANDLE_HEIGHT = 0.05
"""Height at which a handle is taken, m."""

HANDLE_TOP = 0.085
HANDLE_HALF = (0.010, 0.011)
FACE_TOP = 0.06
FACE_DISTANCE = 0.045
"""From a handle's axis to the drawer's face, m."""

DEPTH = 0.16
TRAVEL = 0.15


def add_cabinet(spec: mujoco.MjSpec, name: str, drawers: int) -> None:
    """Add a cabinet; its origin is the middle of the closed handles' row, on the table.

    Drawer i has a slide joint and a body `name/i`, 0 closed, positive open, and a handle geom `name/i/handle`.
    """
    cabinet = spec.worldbody.add_body(name=name, mocap=True, pos=[0.58, 0.0, 0.0])
    half_width = drawers * PITCH / 2
    back = FACE_DISTANCE + DEPTH
    for part, pos, size in (
        ("lid", (back - DEPTH / 2, 0.0, FACE_TOP + 0.004), (DEPTH / 2, half_width, 0.004)),
        ("back", (back, 0.0, FACE_TOP / 2), (0.004, half_width, FACE_TOP / 2)),
    ):
        cabinet.add_geom(
            name=f"{name}/{part}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=pos,
            size=size,
            rgba=PALE,
            **ARM_ONLY,
        )
    for index in range(drawers):
        _add_drawer(cabinet, f"{name}/{index}", (index - (drawers - 1) / 2) * PITCH)


def _add_drawer(cabinet: mujoco.MjsBody, name: str, y: float) -> None:
    drawer = cabinet.add_body(name=name, pos=[0.0, y, 0.0])
    drawer.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[-1.0, 0.0, 0.0],
        range=[0.0, TRAVEL],
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        damping=4.0,
        frictionloss=1.0,
        armature=0.1,
    )
    half_face = PITCH / 2 - 0.004
    middle = HANDLE_TOP / 2 + 0.01
    drawer.add_geom(
        name=f"{name}/handle",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0.0, 0.0, middle],
        size=[*HANDLE_HALF, HANDLE_TOP - middle],
        mass=0.05,
        condim=4,
        friction=[1.0, 0.02, 0.001],
        **ARM_ONLY,
    )
    drawer.add_geom(
        name=f"{name}/face",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[FACE_DISTANCE, 0.0, FACE_TOP / 2],
        size=[0.004, half_face, FACE_TOP / 2 - 0.002],
        mass=0.1,
        rgba=PALE,
        **ARM_ONLY,
    )
    for part, pos, size in (
        ("post", (FACE_DISTANCE / 2, 0.0, 0.035), (FACE_DISTANCE / 2, 0.005, 0.005)),
        ("tray", (FACE_DISTANCE + DEPTH / 2 - 0.01, 0.0, 0.02), (DEPTH / 2 - 0.01, half_face, 0.015)),
    ):
        drawer.add_geom(
            name=f"{name}/{part}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=pos,
            size=size,
            mass=0.05,
            rgba=DARK,
            **NOTHING,
        )
