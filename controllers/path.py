"""Paths over time, and the simplest of them: a stop.

A path tells where the target is at any time, for ever: after its last waypoint it brakes to a hold by itself, so
nothing has to happen in time for the arm to come to rest.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np

from reflexarc.wire import geometry
from reflexarc.wire.messages import F64

NS = 1e-9
"""Seconds in a nanosecond."""


class Sample(NamedTuple):
    """A path at one time: point (m,) m or rad, quat (4,), and how they move: velocity (m,)/s, spin (3,) rad/s."""

    point: F64
    quat: F64
    velocity: F64
    spin: F64


class Path(Protocol):
    """A target over time."""

    @property
    def rest_ns(self) -> int:
        """From when on the path stands still."""

    def sample(self, t_ns: int) -> Sample:
        """The target at `t_ns`; before a path's start, as at its start."""


class Stop:
    """Brakes from `start` at constant deceleration, then stands still.

    deceleration: per s² of the point, > 0. spin_deceleration: rad/s², > 0.
    """

    def __init__(self, start: Sample, start_ns: int, deceleration: float, spin_deceleration: float) -> None:
        self._start = start
        self._start_ns = start_ns
        self._time = math.sqrt(float(start.velocity @ start.velocity)) / deceleration
        self._spin_time = math.sqrt(float(start.spin @ start.spin)) / spin_deceleration
        self.rest_ns = start_ns + math.ceil(max(self._time, self._spin_time) / NS)
        self._still = Sample(start.point, start.quat, np.zeros_like(start.velocity), np.zeros(3))

    def sample(self, t_ns: int) -> Sample:
        """The target at `t_ns`."""
        passed = (t_ns - self._start_ns) * NS
        if passed <= 0.0:
            return self._start
        if self._time == 0.0 and self._spin_time == 0.0:
            return self._still
        travel, speed = _braked(passed, self._time)
        turn, rate = _braked(passed, self._spin_time)
        quat = self._start.quat
        if turn > 0.0:
            quat = geometry.multiply(geometry.exp(turn * self._start.spin), quat)
        return Sample(
            self._start.point + travel * self._start.velocity,
            quat,
            speed * self._start.velocity,
            rate * self._start.spin,
        )


def _braked(passed_s: float, stop_s: float) -> tuple[float, float]:
    """Travel in seconds of the initial speed, and the share of it that is left, after braking for `passed_s`."""
    if passed_s >= stop_s:
        return 0.5 * stop_s, 0.0
    return passed_s - 0.5 * passed_s * passed_s / stop_s, 1.0 - passed_s / stop_s
