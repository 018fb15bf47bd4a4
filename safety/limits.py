"""The limits in force, as arrays: the robot's published limits, scaled and narrowed by the safety configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from reflexarc.configs.errors import SafetyError
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety.judge import Rates
from reflexarc.wire.messages import F64

# Every limit is enforced a little inside its value, so that the rounding of sums and of whoever checks the
# motion by finite differences never shows as a violation.
RELATIVE_MARGIN = 1e-9
# A limit exceeded by less than this fraction is enforced but not reported: it is rounding, not a decision.
REPORT_FRACTION = 1e-4
# The planned stop uses so much of what the TCP's acceleration and jerk may be; the rest is for its path's bending.
STOP_SHARE = 0.7
CARTESIAN = {
    "tcp_speed": "speed",
    "tcp_acceleration": "acceleration",
    "tcp_jerk": "jerk",
    "tcp_angular_speed": "angular_speed",
    "tcp_angular_acceleration": "angular_acceleration",
    "tcp_angular_jerk": "angular_jerk",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """lower, upper, velocity: (n,) rad, rad/s. rates: how fast, as the kernels want it. dt: the tick, s."""

    names: tuple[str, ...]
    lower: F64
    upper: F64
    velocity: F64
    rates: Rates
    reduced_scale: float
    gripper_step: float
    dt: float

    @staticmethod
    def of(robot: RobotConfig, safety: SafetyConfig, reach: F64) -> Limits:
        """reach: as in `Kinematics`.

        Raises SafetyError if the margin leaves a joint no room, or a Cartesian limit exceeds the published one and
        `beyond_published` does not name it.
        """
        margin = safety.position_margin_rad
        for joint in robot.joints:
            if joint.upper - joint.lower <= 2 * margin:
                raise SafetyError(
                    f"position_margin_rad {margin} rad leaves joint {joint.name} no room within "
                    f"[{joint.lower}, {joint.upper}] rad"
                )
        _check_published(robot, safety)
        dt = robot.tick_ns * 1e-9
        rates = _rates(robot, safety, reach, dt)
        return Limits(
            names=robot.joint_names,
            lower=_array(joint.lower for joint in robot.joints) + margin,
            upper=_array(joint.upper for joint in robot.joints) - margin,
            velocity=rates.velocity,
            rates=rates,
            reduced_scale=safety.reduced_speed_scale,
            gripper_step=robot.gripper.speed * dt,
            dt=dt,
        )


def _check_published(robot: RobotConfig, safety: SafetyConfig) -> None:
    for name, published_name in CARTESIAN.items():
        published = getattr(robot.cartesian, published_name, None)
        value = getattr(safety, name)
        if published is not None and value > published and name not in safety.beyond_published:
            raise SafetyError(
                f"{name} is {value}: beyond {published}, the published limit of {robot.name}; "
                f"name it in beyond_published if that is meant"
            )


def _rates(robot: RobotConfig, safety: SafetyConfig, reach: F64, dt: float) -> Rates:
    shrink = 1 - RELATIVE_MARGIN
    joints = robot.joints
    tcp = np.array(
        [
            [safety.tcp_speed * dt, safety.tcp_acceleration * dt**2, safety.tcp_jerk * dt**3],
            [
                safety.tcp_angular_speed * dt,
                safety.tcp_angular_acceleration * dt**2,
                safety.tcp_angular_jerk * dt**3,
            ],
        ]
    )
    return Rates(
        dt=dt,
        velocity=_array(joint.velocity for joint in joints) * safety.velocity_scale * shrink,
        change=_array(joint.acceleration for joint in joints) * safety.acceleration_scale * dt * shrink,
        step=_array(joint.jerk for joint in joints) * safety.jerk_scale * dt**2 * shrink,
        near=np.array([_near(robot, safety, i) for i in range(len(joints))]),
        tcp=tcp * shrink,
        tcp_change=STOP_SHARE * tcp[:, 1] / dt,
        tcp_step=STOP_SHARE * tcp[:, 2] / dt,
        body=safety.body_speed * dt * shrink,
        reach=reach,
    )


def _near(robot: RobotConfig, safety: SafetyConfig, index: int) -> list[float]:
    """offset, slope, lower, upper of one joint's `VelocityNearLimits`, for a speed scaled by `velocity_scale`."""
    near = robot.joints[index].velocity_near_limits
    if near is None:
        return [0.0, 0.0, 0.0, 0.0]
    scale = min(safety.velocity_scale, 1.0) * (1 - RELATIVE_MARGIN)
    return [near.offset * scale, near.slope * scale**2, near.lower, near.upper]


def _array(values: Iterable[float]) -> F64:
    return np.array(list(values), dtype=np.float64)
