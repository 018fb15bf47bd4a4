"""Paths over time: a stop, and the take-over from an old path into a new one.

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


class Blend:
    """Takes a motion over from `old` into `new`: what they differ by at the join fades to nothing over a window.

    Place and velocity are those of `old` at the join and those of `new` from the window's end on. Of two that only
    differ in place, the share of the new one is the smooth step 3s² - 2s³; two that agree at the join give exactly
    `new`.
    """

    def __init__(self, old: Sample, new: Path, start_ns: int, window_ns: int) -> None:
        self._new = new
        self._start_ns = start_ns
        self._window_ns = window_ns
        first = new.sample(start_ns)
        self._gap = old.point - first.point
        self._gap_rate = old.velocity - first.velocity
        self._turn = geometry.difference(old.quat, first.quat)
        excess = old.spin - geometry.rotate(geometry.exp(self._turn), first.spin)
        self._turn_rate = geometry.left_jacobian_inverse(self._turn, excess)
        self._turning = bool(np.any(self._turn) or np.any(self._turn_rate))
        self.rest_ns = max(new.rest_ns, start_ns + window_ns)

    def settled(self, t_ns: int) -> Path:
        """The new path alone once the window has passed, else this blend."""
        return self._new if t_ns >= self._start_ns + self._window_ns else self

    def sample(self, t_ns: int) -> Sample:
        """The target at `t_ns`; before the join as at the join."""
        new = self._new.sample(max(t_ns, self._start_ns))
        if t_ns >= self._start_ns + self._window_ns:
            return new
        h = self._window_ns * NS
        u = max(t_ns - self._start_ns, 0) / self._window_ns
        gap, gap_rate = _fade(u, h, self._gap, self._gap_rate)
        quat, spin = new.quat, new.spin
        if self._turning:
            turn, turn_rate = _fade(u, h, self._turn, self._turn_rate)
            over = geometry.exp(turn)
            quat = geometry.multiply(over, quat)
            spin = geometry.left_jacobian(turn, turn_rate) + geometry.rotate(over, spin)
        return Sample(new.point + gap, quat, new.velocity + gap_rate, spin)


def _fade(u: float, h: float, gap: F64, rate: F64) -> tuple[F64, F64]:
    """The cubic from (`gap`, `rate`) to (0, 0) over `h` seconds at share `u`: value and rate."""
    v = 1.0 - u
    value = v * v * ((1.0 + 2.0 * u) * gap + h * u * rate)
    slope = v * ((-6.0 * u / h) * gap + (1.0 - 3.0 * u) * rate)
    return value, slope


def settle(path: Path, t_ns: int) -> Path:
    """`path` without blends that are over at `t_ns`."""
    return path.settled(t_ns) if isinstance(path, Blend) else path


def _braked(passed_s: float, stop_s: float) -> tuple[float, float]:
    """Travel in seconds of the initial speed, and the share of it that is left, after braking for `passed_s`."""
    if passed_s >= stop_s:
        return 0.5 * stop_s, 0.0
    return passed_s - 0.5 * passed_s * passed_s / stop_s, 1.0 - passed_s / stop_s
