"""How an arm stops by its own means: its joints decelerate evenly, come to rest together, on a straight joint path."""

from __future__ import annotations

import dataclasses

import numpy as np

from reflexarc.configs.robot import RobotConfig
from reflexarc.wire.messages import F64

ACCELERATION_SHARE = 0.7
"""Of the joints' published acceleration limits; the rest is left to the servo, which follows with a small error."""


@dataclasses.dataclass(frozen=True, slots=True)
class Brake:
    """A stop from joint position (n,) rad and velocity (n,) rad/s that takes `duration_s`."""

    position: F64
    velocity: F64
    duration_s: float

    @staticmethod
    def plan(robot: RobotConfig, position: F64, velocity: F64) -> Brake:
        """The shortest such stop within the joints' acceleration limits."""
        limits = ACCELERATION_SHARE * np.array([joint.acceleration for joint in robot.joints])
        return Brake(position.copy(), velocity.copy(), float(np.max(np.abs(velocity) / limits)))

    def at(self, time_s: float) -> tuple[F64, F64]:
        """Position (n,) and velocity (n,) `time_s` after the brake was pulled; at rest from `duration_s` on."""
        left = max(0.0, self.duration_s - time_s)
        share = left / self.duration_s if self.duration_s > 0 else 0.0
        travelled = 0.5 * (self.duration_s - left * share)
        return self.position + travelled * self.velocity, share * self.velocity
