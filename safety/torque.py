"""Limits of what a servo is sent, as torque or as velocity: how much, and how fast it may change.

A servo law runs below the motion filter: it turns the filtered motion into what the arm takes, so what is limited here
is the servo's own answer, never a number that came over a network.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from reflexarc.configs.errors import SafetyError
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety.limits import REPORT_FRACTION
from reflexarc.wire.messages import F64, Intervention


@dataclasses.dataclass(frozen=True, slots=True)
class InputLimits:
    """most: (n,) N·m or rad/s, the largest magnitude. step: (n,), the largest change in one tick. rules: by which a cut
    of the one and of the other is on record."""

    what: str
    names: tuple[str, ...]
    most: F64
    step: F64
    rules: tuple[str, str]

    @staticmethod
    def torque(robot: RobotConfig) -> InputLimits:
        """The published torque and torque rate of each joint, at the rate of the host."""
        return InputLimits(
            what="torque",
            names=robot.joint_names,
            most=np.array([joint.effort for joint in robot.joints]),
            step=np.array([joint.effort_rate for joint in robot.joints]) * robot.tick_ns * 1e-9,
            rules=("effort", "effort_rate"),
        )

    @staticmethod
    def velocity(robot: RobotConfig, safety: SafetyConfig | None) -> InputLimits:
        """The filter's limit of velocity, or without one the published, and the published acceleration.

        The filter keeps its motion below that acceleration by `acceleration_scale`; the rest is for the error of place.
        """
        scale = 1.0 if safety is None else safety.velocity_scale
        return InputLimits(
            what="velocity",
            names=robot.joint_names,
            most=scale * np.array([joint.velocity for joint in robot.joints]),
            step=np.array([joint.acceleration for joint in robot.joints]) * robot.tick_ns * 1e-9,
            rules=("servo_velocity", "servo_acceleration"),
        )


def limit_input(previous: F64, asked: F64, limits: InputLimits) -> tuple[F64, tuple[Intervention, ...]]:
    """The input (n,) nearest to `asked` that is within the limits and reached in one tick from `previous`, and what was
    cut for that: by each rule the joint that lost most.

    Joints are limited one by one: inputs have no path whose direction could be kept. Where `previous` itself is beyond
    the limit, the input falls as fast as its rate allows. Raises SafetyError if a number is not finite; the caller
    stops then.
    """
    for label, values in (("previous", previous), ("asked", asked)):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            joint, value = limits.names[bad[0]], values[bad[0]]
            raise SafetyError(f"{label} {limits.what} of joint {joint} is {value}; it must be finite")
    wanted = np.minimum(np.maximum(asked, -limits.most), limits.most)
    given: F64 = np.minimum(np.maximum(wanted, previous - limits.step), previous + limits.step)
    magnitude, rate = limits.rules
    return given, (*_cut(magnitude, asked, wanted, limits), *_cut(rate, wanted, given, limits))


def _cut(rule: str, asked: F64, allowed: F64, limits: InputLimits) -> tuple[Intervention, ...]:
    lost = np.abs(asked - allowed) / limits.most
    worst = int(np.argmax(lost))
    if lost[worst] <= REPORT_FRACTION:
        return ()
    return (
        Intervention(
            rule=rule,
            field=limits.names[worst],
            asked=float(asked[worst]),
            allowed=float(allowed[worst]),
            margin=0.0,
        ),
    )
