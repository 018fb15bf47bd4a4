"""From an old motion into a new path without a step in place, velocity or acceleration (Ruckig).

What the two differ by at the join is itself brought to rest at zero by a jerk-limited motion, as fast as its limits
allow, while the new path goes on: nothing of the new path is lost, and the take-over ends after a known time.
"""

from __future__ import annotations

import math

import numpy as np

from reflexarc.controllers.jerk import MotionLimits, acceleration_after, jerk_limited
from reflexarc.controllers.kernels import beside, gap_between
from reflexarc.controllers.path import NS, Path, Sample
from reflexarc.wire.messages import F64

EASE_S = 0.025
"""A difference of acceleration is gone after this."""


class Blend:
    """Takes a motion over from `old` into `new`: the gap between them fades to nothing.

    acceleration: (m + 3,) of the old motion at the join. shortest_s: the take-over lasts at least so long. limits:
    of the gap, whose motion adds to the new path's. Raises ControlError if Ruckig finds no motion.
    """

    def __init__(
        self,
        old: Sample,
        acceleration: F64,
        new: Path,
        start_ns: int,
        shortest_s: float,
        limits: MotionLimits,
    ) -> None:
        self._new = new
        self._start_ns = start_ns
        first = new.sample(start_ns)
        change = acceleration - acceleration_after(new, first, start_ns)
        # What is left of an acceleration must go faster than the new path's own, or the sum of both turns back.
        pairs = zip(change.tolist(), limits.jerk.tolist(), strict=True)
        faster = max(1.0, *(abs(each) / (jerk * EASE_S) for each, jerk in pairs))
        limits = MotionLimits(limits.velocity, limits.acceleration, faster * limits.jerk)
        # Ruckig treats each axis for itself, and would bend a straight line by what rounding left of the other two.
        self._axes, start = gap_between(*old, *first, change, limits.acceleration)
        self._fade = jerk_limited(start, np.zeros_like(start), limits, shortest_s)
        self._end_ns = start_ns + math.ceil(self._fade.duration / NS)
        self.rest_ns = max(new.rest_ns, self._end_ns)

    def settled(self, t_ns: int) -> Path:
        """The new path alone once the gap is closed, else this blend."""
        return self._new if t_ns >= self._end_ns else self

    def gap(self, t_ns: int) -> float:
        """What is left of the gap at `t_ns`: the largest of its m + 3 numbers, rad and m alike."""
        place, _, _ = self._fade.at_time(max(t_ns - self._start_ns, 0) * NS)
        return float(max(abs(value) for value in place))

    def sample(self, t_ns: int) -> Sample:
        """The target at `t_ns`; before the join as at the join."""
        new = self._new.sample(max(t_ns, self._start_ns))
        if t_ns >= self._end_ns:
            return new
        fade = np.array(self._fade.at_time(max(t_ns - self._start_ns, 0) * NS))
        return Sample(*beside(*new, self._axes, fade))


def settle(path: Path, t_ns: int) -> Path:
    """`path` without a blend that is over at `t_ns`."""
    return path.settled(t_ns) if isinstance(path, Blend) else path
