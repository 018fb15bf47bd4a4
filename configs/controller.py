"""Schema of the fast loop: rate, interpolation, blending, inverse kinematics."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reflexarc.configs.base import Config

Interpolation = Literal["linear", "cubic", "ruckig"]


class ControllerConfig(Config):
    """The controller between a policy and a robot host.

    rate_hz: of setpoints. blend_s: window over which an old path gives way to a new one. execute_steps: ask for a
    new chunk after this many policy steps of the present one (0: as soon as the last answer arrived).
    catch_up_speed: m/s that the TCP may go faster than its path to make up for what passed while the model thought;
    where that does not suffice it is late. hold_deceleration: m/s² of the TCP when a chunk has run out.
    policy_timeout_s: an unanswered request is forgotten after this. teleop_follow_s: a person's target is reached this
    much later; teleop_speed m/s and teleop_acceleration m/s² bound the way there. ik_*: weights of the differential IK
    (mink).
    ruckig_*: m/s, m/s², m/s³ of the TCP on a jerk-limited path (in joint space the robot's own limits hold instead).
    """

    name: str = "default"
    rate_hz: float = Field(default=100.0, ge=10, le=1000)
    interpolation: Interpolation = "cubic"
    blend_s: float = Field(default=0.05, ge=0)
    execute_steps: int = Field(default=4, ge=0)
    catch_up_speed: float = Field(default=0.5, gt=0)
    hold_deceleration: float = Field(default=1.0, gt=0)
    policy_timeout_s: float = Field(default=2.0, gt=0)
    teleop_follow_s: float = Field(default=0.15, gt=0.02)
    teleop_speed: float = Field(default=0.3, gt=0)
    teleop_acceleration: float = Field(default=2.0, gt=0)
    ik_posture_cost: float = Field(default=1e-3, ge=0)
    ik_damping: float = Field(default=1e-6, ge=0)
    ruckig_velocity: float = Field(default=1.0, gt=0)
    ruckig_acceleration: float = Field(default=8.0, gt=0)
    ruckig_jerk: float = Field(default=500.0, gt=0)

    @property
    def tick_ns(self) -> int:
        """The controller's period in nanoseconds."""
        return round(1e9 / self.rate_hz)
