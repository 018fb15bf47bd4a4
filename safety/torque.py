"""Limits of commanded joint torque, for the host's torque mode: how much, and how fast it may change.

A torque servo runs below the motion filter: it turns the filtered motion into torque, so what is limited here is
the servo's own answer, never a number that came over a network.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from reflexarc.configs.errors import SafetyError
from reflexarc.configs.robot import RobotConfig
from reflexarc.wire.messages import F64


@dataclasses.dataclass(frozen=True, slots=True)
class TorqueLimits:
    """effort: (n,) N·m, the largest magnitude. step: (n,) N·m, the largest change in one tick."""

    names: tuple[str, ...]
    effort: F64
    step: F64

    @staticmethod
    def of(robot: RobotConfig) -> TorqueLimits:
        """The published torque and torque rate of each joint, at the rate of the host."""
        dt = robot.tick_ns * 1e-9
        return TorqueLimits(
            names=robot.joint_names,
            effort=np.array([joint.effort for joint in robot.joints]),
            step=np.array([joint.effort_rate for joint in robot.joints]) * dt,
        )


def limit_torque(previous: F64, asked: F64, limits: TorqueLimits) -> F64:
    """The torque (n,) N·m nearest to `asked` that is within the limits and reached in one tick from `previous`.

    Joints are limited one by one: torques have no path whose direction could be kept. Where `previous` itself is
    beyond the limit, the torque falls as fast as its rate allows. Raises SafetyError if a number is not finite; the
    caller stops then.
    """
    for label, values in (("previous", previous), ("asked", asked)):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            joint = limits.names[bad[0]]
            raise SafetyError(f"{label} torque of joint {joint} is {values[bad[0]]} N·m; it must be finite")
    wanted = np.minimum(np.maximum(asked, -limits.effort), limits.effort)
    return np.asarray(np.minimum(np.maximum(wanted, previous - limits.step), previous + limits.step))
