"""Who may touch whom, as MuJoCo's contact bits: few pairs, so that a step is cheap.

Two geoms collide if `contype` of one shares a bit with `conaffinity` of the other. An arm touches what is in the world
and never itself.
"""

from __future__ import annotations

import mujoco

ARM = 1
WORLD = 2

SOLID = {"contype": WORLD, "conaffinity": ARM | WORLD}
"""Loose objects, the table, bins: touch the arm and each other (what is fixed never touches what is fixed)."""

ARM_ONLY = {"contype": 0, "conaffinity": ARM}
"""Buttons and drawers: touched by the arm only."""

NOTHING = {"contype": 0, "conaffinity": 0}
"""Only to be seen."""


def set_arm_bits(spec: mujoco.MjSpec) -> None:
    """Give every colliding geom of a spec that holds an arm and nothing else the arm's bits."""
    for geom in spec.geoms:
        if geom.contype or geom.conaffinity:
            geom.contype, geom.conaffinity = ARM, 0
