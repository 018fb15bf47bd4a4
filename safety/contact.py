"""Feels contact: at the wrist's force sensor, free of the payload's weight and inertia, and in the joints' torques.

What the motors needed beyond the model's inverse dynamics is an external torque (A. De Luca, R. Mattone, "Sensorless
robot collision detection and hybrid force/motion control", ICRA 2005; here with the acceleration from the encoders and
a first-order filter); less what pushes the tool, which the wrist judges, it is the torque of what touches the links.
Whatever is felt becomes one *load*, the largest share of a ceiling, and one *push*: the joint torques that it exerts on
the arm, so that motion `dq` leads away from the contact where `push · dq >= 0`.

    load above `yield_share`          the arm may only move away; otherwise it holds and gives way
    load above 1 for `sustained_s`    stop
    load above `transient_factor`     for `wrench_ticks` readings: stop
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety.dynamics import Dynamics
from reflexarc.wire.geometry import rotate
from reflexarc.wire.messages import F64, Intervention, Measured


class Touch(msgspec.Struct, frozen=True):
    """What was felt until the newest reading.

    load: the largest share of a ceiling; rule, field, asked, allowed: of that one. pressed: whether the arm gives way.
    push: (n,) N·m. residual: (n,) N·m of what touches the links, filtered. force: N at the wrist beyond the payload's.
    high_ns: for how long load has been above 1. peaks: readings in a row above the transient factor. position,
    velocity: (n,) measured, of the newest reading, which is of t_ns.
    """

    load: float = 0.0
    pressed: bool = False
    rule: str = ""
    field: str = ""
    asked: float = 0.0
    allowed: float = 0.0
    push: F64 | None = None
    residual: F64 | None = None
    force: float = 0.0
    position: F64 | None = None
    velocity: F64 | None = None
    t_ns: int = -1
    high_ns: int = 0
    peaks: int = 0

    def intervention(self) -> Intervention:
        """The ceiling that is nearest or most exceeded, for a report."""
        return Intervention(
            rule=self.rule,
            field=self.field,
            asked=self.asked,
            allowed=self.allowed,
            margin=self.allowed - self.asked,
        )


NOTHING_FELT = Touch()


class Contact:
    """The ceilings of one robot and its payload. Not thread-safe: it holds the model's scratch memory."""

    def __init__(self, robot: RobotConfig, safety: SafetyConfig) -> None:
        """Raises SafetyError if the robot's model lacks what its config names."""
        self._names = robot.joint_names
        self._force = safety.force_ceiling
        self._torque = safety.torque_ceiling
        self._config = safety.contact
        self._peak_readings = safety.wrench_ticks
        self._sustained_ns = round(safety.contact.sustained_s * 1e9)
        self._dynamics = Dynamics(robot, safety.contact.payload)

    def feel(self, touch: Touch, measured: Measured, jacobian: F64, quat: F64) -> Touch:
        """Take in a reading, new or not. jacobian (3, n) m/rad and quat (4,) wxyz: of the TCP, base frame."""
        if measured.t_ns == touch.t_ns:
            return touch
        if touch.t_ns < 0 or touch.velocity is None or measured.t_ns < touch.t_ns:
            elapsed_ns, acceleration = 0, np.zeros_like(measured.joint_velocity)
        else:
            elapsed_ns = measured.t_ns - touch.t_ns
            acceleration = (measured.joint_velocity - touch.velocity) / (elapsed_ns * 1e-9)
        effort = self._dynamics.effort(measured.joint_position, measured.joint_velocity, acceleration)
        wrench = measured.wrench_tcp - self._dynamics.payload_wrench()
        links = np.zeros_like(effort)
        if measured.joint_effort.any():  # a driver without torque sensors reports zeros, which say nothing
            links = measured.joint_effort - effort + self._dynamics.torque_of(wrench)
        residual = self._filtered(touch, links, elapsed_ns)
        force, torque = math.hypot(*wrench[:3].tolist()), math.hypot(*wrench[3:].tolist())
        joint = int(np.abs(residual).argmax())
        shares = (
            (force / self._force, "wrist_force", "wrist", force, self._force),
            (torque / self._torque, "wrist_torque", "wrist", torque, self._torque),
            (
                abs(float(residual[joint])) / self._config.joint_torque,
                "joint_torque",
                self._names[joint],
                abs(float(residual[joint])),
                self._config.joint_torque,
            ),
        )
        # A NaN compares with nothing: it counts as the highest load.
        load, rule, field, asked, allowed = max(shares, key=lambda item: _rank(item[0]))
        load = _rank(load)
        # Torque of the motors beyond what motion needs balances the contact, so the contact pushes the other way.
        push = jacobian.T @ rotate(quat, wrench[:3]) if rule != "joint_torque" else -residual
        return Touch(
            load=load,
            pressed=load > self._config.yield_share,
            rule=rule,
            field=field,
            asked=asked,
            allowed=allowed,
            push=push,
            residual=residual,
            force=force,
            position=measured.joint_position.copy(),
            velocity=measured.joint_velocity.copy(),
            t_ns=measured.t_ns,
            high_ns=touch.high_ns + elapsed_ns if load > 1 else 0,
            peaks=touch.peaks + 1 if load > self._config.transient_factor else 0,
        )

    def verdict(self, touch: Touch) -> str:
        """Why the arm must stop, in words; empty if it need not."""
        what = f"{touch.rule.replace('_', ' ')} {touch.asked:.1f} above its ceiling {touch.allowed:g}"
        unit = "N" if touch.rule == "wrist_force" else "N·m"
        if touch.peaks >= self._peak_readings:
            return f"{what} {unit} by more than {self._config.transient_factor:g} times ({touch.field})"
        if touch.high_ns >= self._sustained_ns:
            return f"{what} {unit} for {touch.high_ns * 1e-9:.2f} s ({touch.field})"
        return ""

    def payload_doubt(self, touch: Touch) -> str:
        """For an arm at rest: in words, that it feels another weight than its payload's; empty if it does not."""
        if touch.t_ns < 0 or touch.force <= self._config.payload_tolerance:
            return ""
        mass = self._config.payload.mass
        return f"{touch.force:.1f} N at the wrist beside the payload of {mass:g} kg: is something held or touched?"

    def _filtered(self, touch: Touch, residual: F64, elapsed_ns: int) -> F64:
        if touch.residual is None or not elapsed_ns:
            return np.zeros_like(residual) if touch.residual is None else touch.residual
        share = 1 - math.exp(-elapsed_ns * 1e-9 / self._config.joint_filter_s)
        before = touch.residual
        if not np.isfinite(before).all():  # a reading that was no number must not stay for ever
            before = np.nan_to_num(before)
        return before + share * (residual - before)


def moves_away(touch: Touch, step: F64) -> bool:
    """Whether a step (n,) rad of the joints goes along with what pushes, or is none."""
    return touch.push is not None and float(touch.push @ step) >= 0.0


def _rank(load: float) -> float:
    return math.inf if math.isnan(load) else load
