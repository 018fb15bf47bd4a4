"""Colours: vivid, far apart in RGB, each with the one word that instructions use."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco

COLORS: dict[str, tuple[float, float, float, float]] = {
    "red": (0.88, 0.06, 0.06, 1.0),
    "green": (0.06, 0.62, 0.10, 1.0),
    "blue": (0.06, 0.16, 0.92, 1.0),
    "yellow": (1.00, 0.86, 0.00, 1.0),
    "purple": (0.58, 0.08, 0.72, 1.0),
    "orange": (1.00, 0.45, 0.00, 1.0),
    "cyan": (0.00, 0.78, 0.86, 1.0),
}

TABLE = (0.82, 0.82, 0.80, 1.0)
DARK = (0.25, 0.25, 0.27, 1.0)
PALE = (0.93, 0.91, 0.86, 1.0)


def paint(model: mujoco.MjModel, geoms: Sequence[int], color: str) -> None:
    """Give the geoms with these ids a named colour; it has no effect on the physics."""
    for geom in geoms:
        model.geom_rgba[geom] = COLORS[color]
