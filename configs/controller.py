"""Schema of the fast loop: rate, interpolation, blending, inverse kinematics."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reflexarc.configs.base import Config
from reflexarc.configs.watch import CameraWatchConfig

Interpolation = Literal["linear", "cubic", "ruckig"]
Seam = Literal["jerk_limited", "ensemble", "switch"]


class ControllerConfig(Config):
    """The controller between a policy and a robot host.

    rate_hz: of setpoints. execute_steps: ask for a new chunk after this many policy steps of the present one (0: as
    soon as the last answer arrived). seam: how an old path gives way to a new one. `jerk_limited` fades what they
    differ by, over `blend_s` at least, and keeps the joints within *_share of the robot's published velocity,
    acceleration and jerk; `ensemble` and `switch` are baselines, which leave that to safety: the mean of all chunks
    (weights exp(-ensemble_decay·i), oldest first), and the new path at once.
    unhurried_s: a model that takes longer than this to answer is followed more slowly, in proportion, since the arm
    moves blindly meanwhile (0: never).
    real_time_chunking: tell the policy what the arm goes on with meanwhile, so that its next chunk continues that.
    catch_up_speed: m/s that the TCP may go faster than its path to make up for what passed while the model thought;
    where that does not suffice it is late; catch_up_acceleration m/s² and catch_up_jerk m/s³ of the same, as far as the
    joints can. speed_scale: pace of the path's clock; whatever is due is due later.
    hold_deceleration: m/s² of the TCP when a chunk has run out. cpus: processors that the loop may use; all if empty.
    policy_timeout_s: an unanswered request is forgotten after this. teleop_follow_s: a person's target is reached this
    much later; teleop_speed m/s and teleop_acceleration m/s² bound the way there. ik_*: weights of the differential IK
    (mink). camera_watch: when a camera has stalled. ruckig_*: m/s, m/s², m/s³ of the TCP on a jerk-limited path. In
    joint space the robot's own limits hold in place of those of the TCP.
    """

    name: str = "default"
    rate_hz: float = Field(default=100.0, ge=10, le=1000)
    interpolation: Interpolation = "cubic"
    seam: Seam = "jerk_limited"
    ensemble_decay: float = 0.01
    blend_s: float = Field(default=0.05, ge=0)
    execute_steps: int = Field(default=4, ge=0)
    unhurried_s: float = Field(default=0.0, ge=0)
    real_time_chunking: bool = False
    catch_up_speed: float = Field(default=0.5, gt=0)
    catch_up_acceleration: float = Field(default=10.0, gt=0)
    catch_up_jerk: float = Field(default=1000.0, gt=0)
    speed_scale: float = Field(default=1.0, gt=0, le=1)
    velocity_share: float = Field(default=0.68, gt=0, le=1)
    acceleration_share: float = Field(default=0.68, gt=0, le=1)
    jerk_share: float = Field(default=0.2, gt=0, le=1)
    cpus: tuple[int, ...] = ()
    hold_deceleration: float = Field(default=1.0, gt=0)
    policy_timeout_s: float = Field(default=2.0, gt=0)
    teleop_follow_s: float = Field(default=0.15, gt=0.02)
    teleop_speed: float = Field(default=0.3, gt=0)
    teleop_acceleration: float = Field(default=2.0, gt=0)
    camera_watch: CameraWatchConfig = CameraWatchConfig()
    ik_posture_cost: float = Field(default=1e-3, ge=0)
    ik_damping: float = Field(default=1e-6, ge=0)
    ruckig_velocity: float = Field(default=1.0, gt=0)
    ruckig_acceleration: float = Field(default=3.0, gt=0)
    ruckig_jerk: float = Field(default=150.0, gt=0)

    @property
    def tick_ns(self) -> int:
        """The controller's period in nanoseconds."""
        return round(1e9 / self.rate_hz)
