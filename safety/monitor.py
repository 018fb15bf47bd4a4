"""A second pair of eyes: judges what the arm does, not what it was told, and shares no code with the filter.

It reads the arm's own sensors and what the host says of itself. A verdict needs several readings in a row, so that a
spike of a sensor is none. It holds what is measured against the same limits as the filter holds what it commands, with
tolerances for what a servo may be off (`MonitorConfig`): what lies beyond those the filter should have prevented.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety.watched import WatchedArm
from reflexarc.wire.messages import F64, Measured, State

STOPPED = ("off", "ready", "protective_stop", "e_stop")
UNDRIVEN = ("off", "ready")
PRESSED = "the wrist is pressed far beyond its ceiling"


@dataclasses.dataclass(frozen=True, slots=True)
class Sight:
    """What was seen so far. count: readings in a row that violate something, whatever it is: a runaway is not the same
    joint's all the time. host_ns: newest stamp of the host, by its own clock, which counts for nothing else than being
    new; heard_ns: when it came. stopped_ns: since when the host says that it stopped. least: (K,) m, how little each
    part has been where it must not be, since the arm was last switched on: it may stand where that found it, and come
    back, as in recovery, but not go there."""

    count: int = 0
    reading_ns: int = -1
    host_ns: int = -1
    heard_ns: int = -1
    stopped_ns: int = -1
    least: F64 | None = None


BLANK = Sight()


class Monitor:
    """The limits of one robot, with tolerances. Not thread-safe: it holds the model's scratch memory."""

    def __init__(self, robot: RobotConfig, safety: SafetyConfig) -> None:
        self._config = config = safety.monitor
        self._arm = WatchedArm(robot, safety)
        self._names = robot.joint_names
        self._lower = np.array([joint.lower for joint in robot.joints]) - config.joint_tolerance
        self._upper = np.array([joint.upper for joint in robot.joints]) + config.joint_tolerance
        self._velocity = config.speed_factor * np.array([joint.velocity for joint in robot.joints])
        self._tcp_speed = config.speed_factor * safety.tcp_speed + config.speed_tolerance
        self._body_speed = config.speed_factor * safety.body_speed + config.speed_tolerance
        self._force = config.force_factor * safety.contact.transient_factor * safety.force_ceiling
        self._settle_ns = round(config.settle_s * 1e9)
        self._host_ns = round(config.host_silence_s * 1e9)

    def see(self, sight: Sight, measured: Measured, host: State | None, now_ns: int) -> tuple[Sight, str]:
        """Judge the newest reading and the newest word of the host; why the arm must be stopped, empty if it need not.

        now_ns: of the caller's own clock, by which the host's silence counts: the host's may be set at any moment.
        `host` is None until it was first heard: an arm that nobody has driven yet is not judged by its silence.
        """
        if host is not None and host.t_ns != sight.host_ns:
            sight = dataclasses.replace(sight, host_ns=host.t_ns, heard_ns=now_ns)
        silent_ns = 0 if host is None else now_ns - sight.heard_ns
        if silent_ns > self._host_ns:
            silent, limit = silent_ns * 1e-6, self._host_ns * 1e-6
            return sight, f"the robot host has been silent for {silent:.0f} ms (limit {limit:.0f} ms)"
        if measured.t_ns == sight.reading_ns:
            return sight, ""
        stopped = sight.stopped_ns
        if host is None or host.safety not in STOPPED:
            stopped = -1
        elif stopped < 0:
            stopped = now_ns
        rule, least = self._violation(sight, measured, host, 0 <= stopped < now_ns - self._settle_ns)
        count = sight.count + 1 if rule else 0
        seen = dataclasses.replace(
            sight, count=count, reading_ns=measured.t_ns, stopped_ns=stopped, least=least
        )
        return seen, rule if count >= self._config.readings else ""

    def _violation(
        self, sight: Sight, measured: Measured, host: State | None, must_stand: bool
    ) -> tuple[str, F64 | None]:
        """What a reading violates, and the new `Sight.least`."""
        position, velocity = measured.joint_position, measured.joint_velocity
        joints = np.isfinite(position).all() and np.isfinite(velocity).all()
        if not (joints and math.isfinite(measured.gripper)):
            return "a reading of joints or gripper is not finite", sight.least
        self._arm.move(position, velocity, measured.gripper)
        beyond = self._arm.beyond()
        moves = float(np.max(np.abs(velocity))) > self._config.still
        least = beyond
        if sight.least is not None and (moves or (host is not None and host.safety not in UNDRIVEN)):
            least = np.minimum(sight.least, beyond)
        least = np.maximum(least, 0.0)
        rule = self._too_fast_or_far(position, velocity) or self._misplaced(beyond - least)
        # Written so that a NaN counts as too high.
        if not rule and not float(np.linalg.norm(measured.wrench_tcp[:3])) <= self._force:
            rule = PRESSED
        if not rule and must_stand and moves:
            rule = "the host says that it stopped, and the arm moves"
        return rule, least

    def _too_fast_or_far(self, position: F64, velocity: F64) -> str:
        for name, value, low, high in zip(self._names, position, self._lower, self._upper, strict=True):
            if not low <= value <= high:
                return f"joint {name} is outside its published range"
        if (np.abs(velocity) > self._velocity).any():
            joint = self._names[int(np.argmax(np.abs(velocity) / self._velocity))]
            return f"joint {joint} is faster than its published limit"
        if self._arm.tcp_speed() > self._tcp_speed:
            return "the TCP is faster than its limit"
        speed, part = self._arm.fastest_part()
        return f"{part} is faster than any part may be" if speed > self._body_speed else ""

    def _misplaced(self, beyond: F64) -> str:
        """beyond: (K,) m further than it has been."""
        worst = int(np.argmax(beyond))
        return self._arm.rules[worst] if beyond[worst] > self._config.place_tolerance else ""
