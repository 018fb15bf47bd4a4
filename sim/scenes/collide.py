"""Who may touch whom, as MuJoCo's contact bits: few pairs, so that a step is cheap.

Two geoms collide if `contype` of one shares a bit with `conaffinity` of the other. The geoms of an arm have contype
ARM and conaffinity WORLD: an arm touches what is in the world and never itself.
"""

from __future__ import annotations

WORLD = 1
ARM = 2

SOLID = {"contype": WORLD, "conaffinity": WORLD}
"""Loose objects, the table, bins: touch the arm and each other (what is fixed never touches what is fixed)."""

ARM_ONLY = {"contype": 0, "conaffinity": ARM}
"""Buttons and drawers: touched by the arm only."""

NOTHING = {"contype": 0, "conaffinity": 0}
"""Only to be seen."""
