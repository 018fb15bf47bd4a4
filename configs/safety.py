"""Schema of the safety limits that a robot host enforces, whatever is asked of it."""

from __future__ import annotations

from pydantic import Field, model_validator

from reflexarc.configs.base import Config


class WorkspaceBox(Config):
    """Axis-aligned box in the base frame that the TCP must stay in, stopping distance included. Metres."""

    lower: tuple[float, float, float]
    upper: tuple[float, float, float]

    @model_validator(mode="after")
    def _ordered(self) -> WorkspaceBox:
        for axis, low, high in zip("xyz", self.lower, self.upper, strict=True):
            if not low < high:
                raise ValueError(f"workspace {axis}: lower {low} m must be below upper {high} m")
        return self


class SafetyConfig(Config):
    """Limits and watchdogs. Scales multiply the robot's published joint limits and may not exceed 1.

    beyond_published: names of limits that are meant to exceed the robot's published ones; refused otherwise.
    force_ceiling N and torque_ceiling N·m: on the wrist sensor, gravity removed; `wrench_ticks` consecutive ticks
    above it stop the arm. hold_after_s: a setpoint older than this is a hold; stop_after_s: then a latched stop.
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
    workspace: WorkspaceBox
    tcp_speed: float = Field(gt=0)
    reduced_speed_scale: float = Field(default=0.25, gt=0, le=1)
    force_ceiling: float = Field(gt=0)
    torque_ceiling: float = Field(gt=0)
    wrench_ticks: int = Field(default=4, ge=1)
    hold_after_s: float = Field(default=0.1, gt=0)
    stop_after_s: float = Field(default=0.5, gt=0)
    chunk_age_limit_s: float = Field(default=2.0, gt=0)
    driver_silence_s: float = Field(default=0.05, gt=0)
    start_mismatch_rad: float = Field(default=0.1, gt=0)
    sources: dict[str, str] = {}

    @model_validator(mode="after")
    def _ordered(self) -> SafetyConfig:
        if not self.hold_after_s < self.stop_after_s:
            raise ValueError(
                f"hold_after_s {self.hold_after_s} s must be below stop_after_s {self.stop_after_s} s"
            )
        for name in ("velocity_scale", "acceleration_scale", "jerk_scale"):
            if getattr(self, name) > 1 and name not in self.beyond_published:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: beyond the robot's published limit (1); "
                    f"name it in beyond_published if that is meant"
                )
        return self
