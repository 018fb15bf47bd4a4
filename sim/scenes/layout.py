"""Where things stand: random points with a distance kept between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.errors import SimulationError

TRIES = 2000


def scatter(
    rng: np.random.Generator,
    count: int,
    lower: tuple[float, float],
    upper: tuple[float, float],
    distance: float,
) -> NDArray[np.float64]:
    """(count, 2) points in the rectangle, uniform, each pair at least `distance` m apart.

    Dart throwing: the whole set is thrown anew when a point finds no room. Raises SimulationError if the
    rectangle is too small.
    """
    for _ in range(TRIES):
        points: list[NDArray[np.float64]] = []
        for _ in range(20 * count):
            point = rng.uniform(lower, upper)
            if all(np.linalg.norm(point - other) >= distance for other in points):
                points.append(point)
            if len(points) == count:
                return np.array(points)
    raise SimulationError(f"no room for {count} things {distance} m apart between {lower} and {upper} m")
