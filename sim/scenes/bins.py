"""Shallow bins that blocks are put into. A bin is a mocap body: a seed may move it, physics does not."""

from __future__ import annotations

import mujoco

from reflexarc.sim.scenes.collide import SOLID

BIN_HALF_WIDTH = 0.06
"""Half of the inner width, m."""

WALL_HEIGHT = 0.03
WALL_HALF_THICKNESS = 0.003
FLOOR_HALF_THICKNESS = 0.0015


def add_bin(spec: mujoco.MjSpec, name: str) -> None:
    """Add a square bin; its mocap body has that name, its geoms `name/0` .. `name/4`."""
    body = spec.worldbody.add_body(name=name, mocap=True, pos=[0.5, 0.23, 0.0])
    inner, thick, floor = BIN_HALF_WIDTH, WALL_HALF_THICKNESS, FLOOR_HALF_THICKNESS
    height = WALL_HEIGHT / 2
    outer = inner + 2 * thick
    boxes = [
        ((0.0, 0.0, floor), (inner, inner, floor)),
        ((inner + thick, 0.0, height), (thick, outer, height)),
        ((-inner - thick, 0.0, height), (thick, outer, height)),
        ((0.0, inner + thick, height), (inner, thick, height)),
        ((0.0, -inner - thick, height), (inner, thick, height)),
    ]
    for index, (pos, size) in enumerate(boxes):
        body.add_geom(name=f"{name}/{index}", type=mujoco.mjtGeom.mjGEOM_BOX, pos=pos, size=size, **SOLID)
