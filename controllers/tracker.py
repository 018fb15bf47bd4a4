"""The last stage of the controller: joints that follow their target within velocity, acceleration and jerk.

Whatever comes out of chunks, blends and inverse kinematics, the setpoints that leave are a motion that the arm can do,
so that safety, whose limits are wider, has nothing to do in normal work. A target within the limits is followed
exactly; one beyond them as fast as they allow, and caught up with (Ruckig, in the frame that moves with the target).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import ruckig

from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.robot import RobotConfig
from reflexarc.wire.messages import F64

ARRIVED_RAD = 1e-5
"""A target at rest is reached when the joints are this near."""
FRAME_SHARE = 0.9
"""Of the limits that a target's own motion may use up; some must be left to catch up with it."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class JointLimits:
    """Largest velocity rad/s, acceleration rad/s² and jerk rad/s³ of each joint, (n,)."""

    velocity: F64
    acceleration: F64
    jerk: F64

    @staticmethod
    def of(robot: RobotConfig, config: ControllerConfig) -> JointLimits:
        """The config's shares of what the robot's maker publishes."""
        return JointLimits(
            np.array([joint.velocity for joint in robot.joints]) * config.velocity_share,
            np.array([joint.acceleration for joint in robot.joints]) * config.acceleration_share,
            np.array([joint.jerk for joint in robot.joints]) * config.jerk_share,
        )


class JointTracker:
    """The motion of the joints, tick by tick. Never raises: where Ruckig finds no motion, the joints brake."""

    def __init__(self, limits: JointLimits) -> None:
        self.limits = limits
        n = len(limits.velocity)
        self._solver = ruckig.Ruckig(n)
        self._task = ruckig.InputParameter(n)
        self._way = ruckig.Trajectory(n)
        self._task.synchronization = ruckig.Synchronization.Phase
        self._task.max_jerk = limits.jerk
        self._task.target_position = np.zeros(n)
        self.start(np.zeros(n), np.zeros(n))

    def start(self, position: F64, velocity: F64) -> None:
        """Go on from here: (n,) rad and rad/s."""
        self.position, self.velocity = position.copy(), velocity.copy()
        self._acceleration = np.zeros_like(velocity)
        self._aimed = velocity.copy()

    def follow(self, target: F64, velocity: F64, period_s: float) -> None:
        """One period further, towards `target` (n,) rad that moves at `velocity` (n,) rad/s at its end."""
        if not self._follow_exactly(target, velocity, period_s):
            self._catch_up(target, velocity, period_s)
        self._aimed = velocity

    def lag(self, target: F64) -> float:
        """How far the joint that is furthest from `target` (n,) is, rad."""
        return float(np.max(np.abs(target - self.position)))

    def _follow_exactly(self, target: F64, velocity: F64, h: float) -> bool:
        """Be on the target at the end of the period, if the cubic there keeps the limits.

        That cubic, through both places with both velocities, is what the robot host follows between setpoints.
        """
        limits = self.limits
        way = target - self.position
        first = (6.0 * way / h - 4.0 * self.velocity - 2.0 * velocity) / h
        last = (2.0 * self.velocity + 4.0 * velocity - 6.0 * way / h) / h
        step = limits.jerk * h
        fits = (
            np.all(np.abs(velocity) <= limits.velocity)
            and np.all(np.abs(first) <= limits.acceleration)
            and np.all(np.abs(last) <= limits.acceleration)
            and np.all(np.abs(last - first) <= step)
            and np.all(np.abs(first - self._acceleration) <= step)
        )
        if fits:
            self.position, self.velocity, self._acceleration = target.copy(), velocity.copy(), last
        return bool(fits)

    def _catch_up(self, target: F64, velocity: F64, h: float) -> None:
        """In the frame of the target as it moves now, to rest at its origin: the limits are shifted, all else stays."""
        limits, task = self.limits, self._task
        frame_velocity = _within(velocity, limits.velocity)
        frame_acceleration = _within((velocity - self._aimed) / h, limits.acceleration)
        before = frame_velocity - frame_acceleration * h
        origin = target - frame_velocity * h + 0.5 * frame_acceleration * h * h
        task.current_position = self.position - origin
        task.current_velocity = self.velocity - before
        task.current_acceleration = self._acceleration - frame_acceleration
        task.max_velocity = limits.velocity - before
        task.min_velocity = -limits.velocity - before
        task.max_acceleration = limits.acceleration - frame_acceleration
        task.min_acceleration = -limits.acceleration - frame_acceleration
        try:
            found = self._solver.calculate(task, self._way) >= 0
        except (ruckig.RuckigError, ValueError):  # ValueError: a result that its bindings have no name for
            found = False
        if not found:
            self._brake(h)
            return
        place, rate, change = (np.array(values) for values in self._way.at_time(h))
        self.position = place + target
        self.velocity = rate + frame_velocity
        self._acceleration = change + frame_acceleration

    def _brake(self, h: float) -> None:
        """Slow down within acceleration and jerk."""
        limits = self.limits
        wanted = np.clip(-self.velocity / h, -limits.acceleration, limits.acceleration)
        step = limits.jerk * h
        acceleration = np.clip(wanted, self._acceleration - step, self._acceleration + step)
        before, self.velocity = self.velocity, self.velocity + acceleration * h
        self.position = self.position + 0.5 * (before + self.velocity) * h
        self._acceleration = acceleration


def _within(wanted: F64, limit: F64) -> F64:
    """`wanted` (n,), scaled as a whole to leave room below `limit` (n,)."""
    result: F64 = wanted / max(1.0, float(np.max(np.abs(wanted) / (FRAME_SHARE * limit))))
    return result
