"""Schema of the safety limits that a robot host enforces, whatever is asked of it."""

from __future__ import annotations

from pydantic import Field, model_validator

from reflexarc.configs.base import Config
from reflexarc.configs.watch import ContactConfig, EStopConfig, IntegrityConfig, MonitorConfig


class Box(Config):
    """Axis-aligned box in the base frame. Metres."""

    lower: tuple[float, float, float]
    upper: tuple[float, float, float]

    @model_validator(mode="after")
    def _ordered(self) -> Box:
        for axis, low, high in zip("xyz", self.lower, self.upper, strict=True):
            if not low < high:
                raise ValueError(f"box {axis}: lower {low} m must be below upper {high} m")
        return self


class NamedBox(Box):
    """A box that keeps something out, with a name for reports and a reason."""

    name: str = Field(min_length=1)
    source: str = Field(min_length=8)


class HeldTool(Config):
    """What the gripper holds, as a capsule from the TCP onwards: it counts as a part of the hand. Metres."""

    radius: float = Field(default=0.0, ge=0)
    length: float = Field(default=0.0, ge=0)


class SafetyConfig(Config):
    """Limits and watchdogs. Scales multiply the robot's published joint limits and may not exceed 1.

    beyond_published: names of limits that are meant to exceed the robot's published ones; refused otherwise.
    workspace: box that the TCP stays in; arm_box: box that every moving part stays in. keep_out: boxes that no part
    enters, fingers and held tool included. obstacles: boxes (table, walls) that arm and hand keep away from; fingers
    and what they hold may touch them, since that is the work. All of it holds for the whole stop, too.
    tcp_*: m/s, m/s², m/s³, rad/s, rad/s², rad/s³. body_speed: m/s of any point of the arm.
    distance_slow, distance_stop: m; nearer than the first to an obstacle or to itself the arm approaches more and
    more slowly, and nearer than the second not at all. singularity_slow, singularity_stop: the same for the
    condition number of the TCP's Jacobian (m and rad). Moving away is always allowed.
    force_ceiling N and torque_ceiling N·m: on the wrist sensor, for as long as it takes; `wrench_ticks` consecutive
    readings above the transient ceiling stop the arm, see `contact`. integrity: of readings and time. monitor: the
    second pair of eyes. estop: inputs.
    hold_after_s: a setpoint older than this is a hold; stop_after_s: then a latched stop.
    chunk_age_limit_s: a setpoint whose chunk is older than this is not followed (a dead policy cannot be hidden).
    driver_silence_s: a driver reading older than this is a latched stop. start_mismatch_rad: the first setpoint
    after an enable must be this near to the measured position.
    """

    name: str
    position_margin_rad: float = Field(default=0.02, ge=0)
    velocity_scale: float = Field(default=0.7, gt=0)
    acceleration_scale: float = Field(default=0.7, gt=0)
    jerk_scale: float = Field(default=1.0, gt=0)
    beyond_published: tuple[str, ...] = ()
    workspace: Box
    arm_box: Box
    keep_out: tuple[NamedBox, ...] = ()
    obstacles: tuple[NamedBox, ...]
    held_tool: HeldTool = HeldTool()
    tcp_speed: float = Field(gt=0)
    tcp_acceleration: float = Field(gt=0)
    tcp_jerk: float = Field(gt=0)
    tcp_angular_speed: float = Field(gt=0)
    tcp_angular_acceleration: float = Field(gt=0)
    tcp_angular_jerk: float = Field(gt=0)
    body_speed: float = Field(gt=0)
    distance_slow: float = Field(default=0.05, gt=0)
    distance_stop: float = Field(default=0.01, gt=0)
    singularity_slow: float = Field(default=17.0, gt=1)
    singularity_stop: float = Field(default=30.0, gt=1)
    reduced_speed_scale: float = Field(default=0.25, gt=0, le=1)
    force_ceiling: float = Field(gt=0)
    torque_ceiling: float = Field(gt=0)
    wrench_ticks: int = Field(default=4, ge=1)
    hold_after_s: float = Field(default=0.1, gt=0)
    stop_after_s: float = Field(default=0.5, gt=0)
    chunk_age_limit_s: float = Field(default=2.0, gt=0)
    driver_silence_s: float = Field(default=0.02, gt=0)
    start_mismatch_rad: float = Field(default=0.1, gt=0)
    contact: ContactConfig = ContactConfig()
    integrity: IntegrityConfig = IntegrityConfig()
    monitor: MonitorConfig = MonitorConfig()
    estop: EStopConfig = EStopConfig()
    sources: dict[str, str] = {}

    @model_validator(mode="after")
    def _ordered(self) -> SafetyConfig:
        if not self.hold_after_s < self.stop_after_s:
            raise ValueError(
                f"hold_after_s {self.hold_after_s} s must be below stop_after_s {self.stop_after_s} s"
            )
        if self.driver_silence_s > self.stop_after_s:
            raise ValueError(
                f"driver_silence_s {self.driver_silence_s} s must not exceed stop_after_s {self.stop_after_s} s: "
                f"an arm that is not seen is worse than one that is not led"
            )
        for low, high in (("distance_stop", "distance_slow"), ("singularity_slow", "singularity_stop")):
            if not getattr(self, low) < getattr(self, high):
                raise ValueError(f"{low} {getattr(self, low)} must be below {high} {getattr(self, high)}")
        for name in ("velocity_scale", "acceleration_scale", "jerk_scale"):
            if getattr(self, name) > 1 and name not in self.beyond_published:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: beyond the robot's published limit (1); "
                    f"name it in beyond_published if that is meant"
                )
        return self
