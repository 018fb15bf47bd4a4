"""Between waypoints with bounded velocity, acceleration and jerk (Ruckig).

Each segment is Ruckig's motion from one knot's place and velocity to the next one's, stretched to be there when the
knot is due; where the limits do not allow that, it is there as soon as they do, and the next segments make up for it.
The first starts from the present place, velocity and acceleration, so a new path needs no blending.
"""

from __future__ import annotations

import bisect
import dataclasses
import math

import numpy as np
import ruckig

from reflexarc.configs.errors import ControlError
from reflexarc.controllers.chunk import Knots
from reflexarc.controllers.interpolate import Braking, knot_rates
from reflexarc.controllers.path import NS, Path, Sample
from reflexarc.wire import geometry
from reflexarc.wire.messages import F64


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class MotionLimits:
    """Largest velocity, acceleration and jerk of each of the m + 3 numbers of a path: point, then rotation vector."""

    velocity: F64
    acceleration: F64
    jerk: F64


class JerkLimitedPath:
    """Ruckig through the knots from number `ahead` on, from where `old` is at `start_ns`.

    Rotations are rotation vectors from each segment's start, whose rates are limited in place of the angular velocity;
    the two differ by the second order of the turn of one step. Raises ControlError with Ruckig's reason.
    """

    def __init__(
        self, knots: Knots, ahead: int, old: Path, start_ns: int, braking: Braking, limits: MotionLimits
    ) -> None:
        self._size = knots.points.shape[1]
        self._solver = ruckig.Ruckig(self._size + 3)
        self._starts_ns: list[int] = []
        self._segments: list[tuple[F64, F64, ruckig.Trajectory]] = []
        rates = knot_rates(knots, braking.rest)
        state = old.sample(start_ns)
        acceleration = np.clip(_acceleration(old, start_ns), -limits.acceleration, limits.acceleration)
        now_ns = start_ns
        for knot in range(ahead, knots.steps + 1):
            state, now_ns = self._add(state, acceleration, now_ns, knots, knot, rates[knot], limits)
            acceleration = np.zeros_like(acceleration)
        self._end = braking.stop(state, now_ns)
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
        self,
        state: Sample,
        acceleration: F64,
        now_ns: int,
        knots: Knots,
        knot: int,
        rate: F64,
        limits: MotionLimits,
    ) -> tuple[Sample, int]:
        """Append the segment from `state` to a knot; returns the state at the knot and when that is."""
        turn = geometry.difference(knots.quats[knot], state.quat)
        spin = geometry.left_jacobian_inverse(turn, rate[self._size :])
        arrival = np.clip(np.concatenate([rate[: self._size], spin]), -limits.velocity, limits.velocity)
        task = ruckig.InputParameter(self._size + 3)
        task.current_position = [0.0] * (self._size + 3)
        task.current_velocity = [*state.velocity, *state.spin]
        task.current_acceleration = list(acceleration)
        task.target_position = [*(knots.points[knot] - state.point), *turn]
        task.target_velocity = list(arrival)
        task.max_velocity = list(limits.velocity)
        task.max_acceleration = list(limits.acceleration)
        task.max_jerk = list(limits.jerk)
        task.synchronization = ruckig.Synchronization.Phase
        task.minimum_duration = max(knots.due_ns(knot) - now_ns, 0) * NS
        trajectory = ruckig.Trajectory(self._size + 3)
        try:
            result = self._solver.calculate(task, trajectory)
        except ruckig.RuckigError as error:
            raise ControlError(f"no jerk-limited motion to waypoint {knot}: {error}") from error
        if result < 0:
            raise ControlError(f"no jerk-limited motion to waypoint {knot}: {ruckig.Result(result).name}")
        self._starts_ns.append(now_ns)
        self._segments.append((state.point, state.quat, trajectory))
        spin = geometry.left_jacobian(turn, arrival[self._size :])
        end = Sample(knots.points[knot], knots.quats[knot], arrival[: self._size], spin)
        return end, now_ns + math.ceil(trajectory.duration / NS)


def _acceleration(path: Path, t_ns: int, span_ns: int = 1_000_000) -> F64:
    """How velocity and spin (m + 3,) of `path` change at `t_ns`, from the millisecond before it."""
    before, now = path.sample(t_ns - span_ns), path.sample(t_ns)
    change = np.concatenate([now.velocity - before.velocity, now.spin - before.spin])
    result: F64 = change / (span_ns * NS)
    return result
