"""Springy push buttons. The housing is a mocap body (a seed may move it), the cap slides down in it."""

from __future__ import annotations

import mujoco

from reflexarc.sim.scenes.collide import ARM_ONLY, NOTHING
from reflexarc.sim.scenes.palette import DARK

CAP_RADIUS = 0.03
CAP_TOP = 0.036
"""Height of the cap's top at rest, m."""

TRAVEL = 0.014
BUTTON_THRESHOLD = 0.009
"""A cap pushed in by this much is pressed, m."""

STIFFNESS = 450.0
"""N/m; with the preload the end of the travel takes 7.2 N."""

PRELOAD_TRAVEL = 0.002


def add_button(spec: mujoco.MjSpec, name: str) -> None:
    """Add a button; its mocap body and slide joint have that name, the cap's geom `name/cap`."""
    housing = spec.worldbody.add_body(name=name, mocap=True, pos=[0.5, 0.0, 0.0])
    housing.add_geom(
        name=f"{name}/housing",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        pos=[0.0, 0.0, 0.0075],
        size=[CAP_RADIUS + 0.008, 0.0075, 0.0],
        rgba=DARK,
        **NOTHING,
    )
    cap = housing.add_body(name=f"{name}/cap", pos=[0.0, 0.0, CAP_TOP])
    cap.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[0.0, 0.0, -1.0],
        range=[0.0, TRAVEL],
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        stiffness=STIFFNESS,
        springref=-PRELOAD_TRAVEL,
        damping=4.0,
        armature=0.05,
    )
    cap.add_geom(
        name=f"{name}/cap",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        pos=[0.0, 0.0, -0.0125],
        size=[CAP_RADIUS, 0.0125, 0.0],
        mass=0.03,
        **ARM_ONLY,
    )
