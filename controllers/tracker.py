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
from reflexarc.wire.compiled import compiled
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
        self._catch_up(np.full(n, 1e-3), np.zeros(n), 1.0)  # compiled now, and not while a loop runs
        self.follow(np.zeros(n), np.zeros(n), 1.0)
        self.start(np.zeros(n), np.zeros(n))

    def start(self, position: F64, velocity: F64) -> None:
        """Go on from here: (n,) rad and rad/s."""
        self.position, self.velocity = position.copy(), velocity.copy()
        self._acceleration = np.zeros_like(velocity)
        self._aimed = velocity.copy()

    def follow(self, target: F64, velocity: F64, period_s: float) -> None:
        """One period further, towards `target` (n,) rad that moves at `velocity` (n,) rad/s at its end."""
        limits = self.limits
        exact, acceleration = exact_step(
            self.position,
            self.velocity,
            self._acceleration,
            target,
            velocity,
            period_s,
            limits.velocity,
            limits.acceleration,
            limits.jerk,
        )
        if exact:
            self.position, self.velocity, self._acceleration = target.copy(), velocity.copy(), acceleration
        else:
            self._catch_up(target, velocity, period_s)
        self._aimed = velocity

    def lag(self, target: F64) -> float:
        """How far the joint that is furthest from `target` (n,) is, rad."""
        return float(np.abs(target - self.position).max())

    def _catch_up(self, target: F64, velocity: F64, h: float) -> None:
        """In the frame of the target as it moves now, to rest at its origin: the limits are shifted, all else stays."""
        task = self._task
        rows = moving_frame(
            self.position,
            self.velocity,
            self._acceleration,
            target,
            velocity,
            self._aimed,
            h,
            self.limits.velocity,
            self.limits.acceleration,
        )
        (
            task.current_position,
            task.current_velocity,
            task.current_acceleration,
            task.max_velocity,
            task.min_velocity,
            task.max_acceleration,
            task.min_acceleration,
        ) = rows[2:].tolist()
        try:
            found = self._solver.calculate(task, self._way) >= 0
        except (ruckig.RuckigError, ValueError):  # ValueError: a result that its bindings have no name for
            found = False
        if not found:
            self._brake(h)
            return
        place, rate, change = np.array(self._way.at_time(h))
        self.position, self.velocity, self._acceleration = place + target, rate + rows[0], change + rows[1]

    def _brake(self, h: float) -> None:
        """Slow down within acceleration and jerk."""
        limits = self.limits
        wanted = np.clip(-self.velocity / h, -limits.acceleration, limits.acceleration)
        step = limits.jerk * h
        acceleration = np.clip(wanted, self._acceleration - step, self._acceleration + step)
        before, self.velocity = self.velocity, self.velocity + acceleration * h
        self.position = self.position + 0.5 * (before + self.velocity) * h
        self._acceleration = acceleration


@compiled
def exact_step(
    position: F64,
    velocity: F64,
    acceleration: F64,
    target: F64,
    arrival: F64,
    h: float,
    most_velocity: F64,
    most_acceleration: F64,
    most_jerk: F64,
) -> tuple[bool, F64]:
    """Whether the cubic that is on the target at the end of the period keeps the limits; its last acceleration (n,).

    That cubic, through both places with both velocities, is what the robot host follows between setpoints.
    """
    last = np.empty(position.size)
    for i in range(position.size):
        way = target[i] - position[i]
        first = (6.0 * way / h - 4.0 * velocity[i] - 2.0 * arrival[i]) / h
        last[i] = (2.0 * velocity[i] + 4.0 * arrival[i] - 6.0 * way / h) / h
        step = most_jerk[i] * h
        fits = (
            abs(arrival[i]) <= most_velocity[i]
            and abs(first) <= most_acceleration[i]
            and abs(last[i]) <= most_acceleration[i]
            and abs(last[i] - first) <= step
            and abs(first - acceleration[i]) <= step
        )
        if not fits:
            return False, last
    return True, last


@compiled
def moving_frame(
    position: F64,
    velocity: F64,
    acceleration: F64,
    target: F64,
    arrival: F64,
    aimed: F64,
    h: float,
    most_velocity: F64,
    most_acceleration: F64,
) -> F64:
    """(9, n): velocity and acceleration of the target's frame; in it the joints' place, velocity and acceleration, and
    their limits: largest and least velocity, largest and least acceleration."""
    rows = np.empty((9, position.size))
    rows[0] = _within(arrival, most_velocity)
    rows[1] = _within((arrival - aimed) / h, most_acceleration)
    before = rows[0] - rows[1] * h
    rows[2] = position - (target - rows[0] * h + 0.5 * rows[1] * h * h)
    rows[3], rows[4] = velocity - before, acceleration - rows[1]
    rows[5], rows[6] = most_velocity - before, -most_velocity - before
    rows[7], rows[8] = most_acceleration - rows[1], -most_acceleration - rows[1]
    return rows


@compiled
def _within(wanted: F64, limit: F64) -> F64:
    """`wanted` (n,), scaled as a whole to leave room below `limit` (n,)."""
    over = 1.0
    for i in range(wanted.size):
        over = max(over, abs(wanted[i]) / (FRAME_SHARE * limit[i]))
    return wanted / over
