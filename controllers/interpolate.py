"""Between waypoints: straight lines, cubics with continuous velocity, or jerk-limited motion (Ruckig).

Each is a `Path` through the knots of a chunk. After the last waypoint the motion of the last segment goes on and
brakes to a hold, unless the chunk was slowing down or is to end at rest.
"""

from __future__ import annotations

import numpy as np

from reflexarc.controllers.chunk import Knots
from reflexarc.controllers.kernels import cubic_at, rates_through
from reflexarc.controllers.path import NS, Sample, Stop
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64


class Braking:
    """How a path ends. deceleration: per s² of the point; spin_deceleration: rad/s²; rest: stop at the last one."""

    __slots__ = ("deceleration", "rest", "spin_deceleration")

    def __init__(self, deceleration: float, spin_deceleration: float, rest: bool = False) -> None:
        self.deceleration = deceleration
        self.spin_deceleration = spin_deceleration
        self.rest = rest

    def stop(self, start: Sample, start_ns: int) -> Stop:
        """The stop from `start`."""
        return Stop(start, start_ns, self.deceleration, self.spin_deceleration)


class LinearPath:
    """Straight from knot to knot at constant velocity, turning at constant angular velocity."""

    def __init__(self, knots: Knots, braking: Braking) -> None:
        self._knots = knots
        step_s = knots.step_ns * NS
        self._velocities = np.diff(knots.points, axis=0) / step_s
        self._spins = knots.turns / step_s
        still = np.zeros_like(self._velocities[-1]), np.zeros(3)
        velocity, spin = still if braking.rest else (self._velocities[-1], self._spins[-1])
        self._end = braking.stop(Sample(knots.points[-1], knots.quats[-1], velocity, spin), knots.end_ns)
        self.rest_ns = self._end.rest_ns

    def sample(self, t_ns: int) -> Sample:
        """The target at `t_ns`."""
        knots = self._knots
        if t_ns >= knots.end_ns:
            return self._end.sample(t_ns)
        k, passed_ns = divmod(max(t_ns - knots.start_ns, 0), knots.step_ns)
        passed = passed_ns * NS
        turn = geometry.exp(passed * self._spins[k])
        return Sample(
            knots.points[k] + passed * self._velocities[k],
            geometry.multiply(turn, knots.quats[k]),
            self._velocities[k],
            self._spins[k],
        )


class CubicPath:
    """A cubic spline through the knots: continuous velocity and, where it needs no taming, acceleration.

    Knot velocities are those of the spline with continuous acceleration, limited as by Fritsch and Carlson (1980), so
    that no dimension overshoots between knots: zero where it turns round or rests. Orientation: in segment k the
    rotation vector from knot k is a cubic whose end rates are the knots' angular velocities, taken through the
    Jacobian of SO(3), so angular velocity is continuous too.
    """

    def __init__(self, knots: Knots, braking: Braking) -> None:
        self._knots = knots
        size = knots.points.shape[1]
        rates = knot_rates(knots, braking.rest)
        self._points, self._quats, self._turns, self._rates = (
            np.ascontiguousarray(part) for part in (knots.points, knots.quats, knots.turns, rates)
        )
        end = Sample(knots.points[-1], knots.quats[-1], rates[-1, :size], rates[-1, size:])
        self._end = braking.stop(end, knots.end_ns)
        self.rest_ns = self._end.rest_ns

    def sample(self, t_ns: int) -> Sample:
        """The target at `t_ns`."""
        knots = self._knots
        if t_ns >= knots.end_ns:
            return self._end.sample(t_ns)
        k, passed_ns = divmod(max(t_ns - knots.start_ns, 0), knots.step_ns)
        u, h = passed_ns / knots.step_ns, knots.step_ns * NS
        return Sample(*cubic_at(self._points, self._quats, self._turns, self._rates, k, u, h))


def knot_rates(knots: Knots, rest: bool) -> F64:
    """Velocity and spin (H + 1, m + 3) at each knot; `rest`: zero at the last."""
    points, turns = np.ascontiguousarray(knots.points), np.ascontiguousarray(knots.turns)
    return rates_through(points, turns, knots.velocity, knots.spin, knots.step_ns * NS, rest)


def knot_accelerations(knots: Knots, rates: F64) -> F64:
    """Acceleration (H + 1, m + 3) of the cubics with these rates: the mean of a knot's two sides, zero at the ends."""
    h = knots.step_ns * NS
    slopes = np.hstack([np.diff(knots.points, axis=0), knots.turns]) / h
    first = (6.0 * slopes - 4.0 * rates[:-1] - 2.0 * rates[1:]) / h
    last = (2.0 * rates[:-1] + 4.0 * rates[1:] - 6.0 * slopes) / h
    end = np.zeros((1, slopes.shape[1]))
    return np.vstack([end, 0.5 * (last[:-1] + first[1:]), end])
