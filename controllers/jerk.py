"""Between waypoints with bounded velocity, acceleration and jerk (Ruckig).

Each segment is Ruckig's motion from one knot's place, velocity and acceleration to the next one's, stretched to be
there when the knot is due; where the limits do not allow that, it is there as soon as they do, and the next segments
make up for it. Velocity and acceleration at the knots are those of the spline through them.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math

import numpy as np
import ruckig

from reflexarc.configs.errors import ControlError
from reflexarc.controllers.chunk import Knots
from reflexarc.controllers.interpolate import Braking, knot_accelerations, knot_rates
from reflexarc.controllers.path import NS, Path, Sample
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64

SPAN_NS = 1_000_000
"""Over which the acceleration of a path is measured."""
TINY = 1e-10


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class MotionLimits:
    """Largest velocity, acceleration and jerk of each of the m + 3 numbers of a path: point, then rotation vector."""

    velocity: F64
    acceleration: F64
    jerk: F64


def jerk_limited(start: F64, end: F64, limits: MotionLimits, shortest_s: float) -> ruckig.Trajectory:
    """The motion from `start` to `end`, no shorter than `shortest_s`, in a straight line where that is possible.

    Both are place, velocity and acceleration (3, D). A start that is faster than the limits brakes into them first.
    Raises ControlError with Ruckig's reason.
    """
    solver, task = _solver(start.shape[1])
    trajectory = ruckig.Trajectory(start.shape[1])
    task.current_position, task.current_velocity, task.current_acceleration = _tidy(start)
    task.target_position, task.target_velocity, task.target_acceleration = _tidy(end)
    task.max_velocity, task.max_acceleration = limits.velocity, limits.acceleration
    task.max_jerk, task.minimum_duration = limits.jerk, shortest_s
    try:
        result = solver.calculate(task, trajectory)
    except (
        ruckig.RuckigError,
        ValueError,
    ) as error:  # ValueError: a result that its bindings have no name for
        raise ControlError(f"no jerk-limited motion: {error}") from error
    if result < 0:
        raise ControlError(f"no jerk-limited motion: {ruckig.Result(result).name}")
    return trajectory


@functools.cache
def _solver(size: int) -> tuple[ruckig.Ruckig, ruckig.InputParameter]:
    """Ruckig for so many numbers, and its input, made once: a tick should not make them. For one thread."""
    task = ruckig.InputParameter(size)
    task.synchronization = ruckig.Synchronization.Phase
    return ruckig.Ruckig(size), task


def _tidy(motion: F64) -> list[list[float]]:
    """(3, D) without rounding: Ruckig finds no profile for some numbers that are almost 0."""
    return [[0.0 if abs(value) < TINY else value for value in row] for row in motion.tolist()]


class JerkLimitedPath:
    """Ruckig through all knots, from the first one's velocity on.

    Rotations are rotation vectors from each segment's start, whose rates are limited in place of the angular velocity;
    the two differ by the second order of the turn of one step. Raises ControlError with Ruckig's reason.
    """

    def __init__(self, knots: Knots, braking: Braking, limits: MotionLimits) -> None:
        self._size = knots.points.shape[1]
        self._starts_ns: list[int] = []
        self._segments: list[tuple[F64, F64, ruckig.Trajectory]] = []
        rates = knot_rates(knots, braking.rest)
        bound = limits.acceleration
        accelerations = np.clip(knot_accelerations(knots, rates), -bound, bound)
        rates = np.clip(rates, -limits.velocity, limits.velocity)
        now_ns = knots.start_ns
        for knot in range(knots.steps):
            now_ns = self._add(knots, knot, now_ns, rates, accelerations, limits)
        end = Sample(
            knots.points[-1], knots.quats[-1], rates[-1, : self._size].copy(), rates[-1, self._size :].copy()
        )
        self._end = braking.stop(end, now_ns)
        self._end_ns = now_ns
        self.rest_ns = self._end.rest_ns

    def sample(self, t_ns: int) -> Sample:
        """The target at `t_ns`."""
        if t_ns >= self._end_ns:
            return self._end.sample(t_ns)
        index = max(bisect.bisect_right(self._starts_ns, t_ns) - 1, 0)
        point, quat, trajectory = self._segments[index]
        passed = max(t_ns - self._starts_ns[index], 0) * NS
        place, rate, _ = trajectory.at_time(passed)
        rotvec, turn_rate = np.array(place[self._size :]), np.array(rate[self._size :])
        return Sample(
            point + place[: self._size],
            geometry.multiply(geometry.exp(rotvec), quat),
            np.array(rate[: self._size]),
            geometry.left_jacobian(rotvec, turn_rate),
        )

    def _add(
        self, knots: Knots, knot: int, now_ns: int, rates: F64, accelerations: F64, limits: MotionLimits
    ) -> int:
        """Append the segment from a knot to the next; returns when it ends."""
        turn = knots.turns[knot]
        arrival = rates[knot + 1].copy()
        arrival[self._size :] = geometry.left_jacobian_inverse(turn, arrival[self._size :])
        arrival = np.clip(arrival, -limits.velocity, limits.velocity)
        way = np.concatenate([knots.points[knot + 1] - knots.points[knot], turn])
        start = np.array([np.zeros_like(way), rates[knot], accelerations[knot]])
        end = np.array([way, arrival, accelerations[knot + 1]])
        shortest_s = max(knots.due_ns(knot + 1) - now_ns, 0) * NS
        try:
            trajectory = jerk_limited(start, end, limits, shortest_s)
        except ControlError as error:
            raise ControlError(f"waypoint {knot + 1}: {error}") from error
        self._starts_ns.append(now_ns)
        self._segments.append((knots.points[knot], knots.quats[knot], trajectory))
        return now_ns + math.ceil(float(trajectory.duration) / NS)


def acceleration_before(path: Path, here: Sample, t_ns: int) -> F64:
    """How velocity and spin (m + 3,) of `path`, which is `here` at `t_ns`, changed per second just before (1 ms)."""
    return _change(path.sample(t_ns - SPAN_NS), here)


def acceleration_after(path: Path, here: Sample, t_ns: int) -> F64:
    """The same in the millisecond after it."""
    return _change(here, path.sample(t_ns + SPAN_NS))


def _change(before: Sample, after: Sample) -> F64:
    change = np.concatenate([after.velocity - before.velocity, after.spin - before.spin])
    result: F64 = change / (SPAN_NS * NS)
    return result
