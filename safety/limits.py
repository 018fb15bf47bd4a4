"""The limits in force, as arrays: the robot's published limits, scaled and narrowed by the safety configuration."""

from __future__ import annotations

import dataclasses

import numpy as np

from reflexarc.configs.errors import SafetyError
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.wire.messages import F64

# Every limit is enforced a little inside its value, so that the rounding of sums and of whoever checks the
# motion by finite differences never shows as a violation.
RELATIVE_MARGIN = 1e-9


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """joint_*: (n,) rad, rad/s, rad/s². box_*: (3,) m in the base frame. tcp_speed m/s. dt: the tick, s.

    acceleration_step: (n,) the largest change of velocity in one tick, rad/s.
    """

    names: tuple[str, ...]
    lower: F64
    upper: F64
    velocity: F64
    acceleration: F64
    acceleration_step: F64
    box_lower: F64
    box_upper: F64
    tcp_speed: float
    reduced_scale: float
    gripper_step: float
    dt: float

    @staticmethod
    def of(robot: RobotConfig, safety: SafetyConfig) -> Limits:
        """Raises SafetyError if the margin leaves a joint no room, or the box leaves none."""
        shrink = 1 - RELATIVE_MARGIN
        margin = safety.position_margin_rad
        for joint in robot.joints:
            if joint.upper - joint.lower <= 2 * margin:
                raise SafetyError(
                    f"position_margin_rad {margin} rad leaves joint {joint.name} no room within "
                    f"[{joint.lower}, {joint.upper}] rad"
                )
        dt = robot.tick_ns * 1e-9
        acceleration = _array(joint.acceleration for joint in robot.joints) * safety.acceleration_scale
        box_lower = np.asarray(safety.workspace.lower, dtype=np.float64)
        box_upper = np.asarray(safety.workspace.upper, dtype=np.float64)
        inset = (box_upper - box_lower) * RELATIVE_MARGIN
        return Limits(
            names=robot.joint_names,
            lower=_array(joint.lower for joint in robot.joints) + margin,
            upper=_array(joint.upper for joint in robot.joints) - margin,
            velocity=_array(joint.velocity for joint in robot.joints) * safety.velocity_scale * shrink,
            acceleration=acceleration,
            acceleration_step=acceleration * dt * shrink,
            box_lower=box_lower + inset,
            box_upper=box_upper - inset,
            tcp_speed=safety.tcp_speed * shrink,
            reduced_scale=safety.reduced_speed_scale,
            gripper_step=robot.gripper.speed * dt,
            dt=dt,
        )

    def outside(self, position: F64, point: F64) -> str:
        """Which limit joint position (n,) or TCP point (3,) is outside of, in words; empty if none."""
        for name, value, low, high in zip(self.names, position, self.lower, self.upper, strict=True):
            if not low <= value <= high:
                return f"joint {name} at {value:.4f} rad is outside [{low:.4f}, {high:.4f}]"
        for axis, value, low, high in zip("xyz", point, self.box_lower, self.box_upper, strict=True):
            if not low <= value <= high:
                return f"TCP {axis} at {value:.4f} m is outside the workspace [{low:.4f}, {high:.4f}]"
        return ""


def _array(values: object) -> F64:
    return np.array(list(values), dtype=np.float64)  # type: ignore[call-overload]
