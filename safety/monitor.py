"""A second pair of eyes: judges what the arm does, not what it was told, and shares no code with the filter.

It reads the arm's own sensors and what the host says of itself. A verdict needs several readings in a row, so that a
spike of a sensor is none. It knows only the outermost limits: what lies beyond them the filter should have prevented.
"""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np

from reflexarc.configs.load import resolve_asset
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.wire.messages import F64, Measured, State

READINGS = 4
"""In a row that must be beyond a limit."""
SLACK = 1.1
"""Measured speed over commanded: what a servo overshoots."""
POSITION_SLACK = 0.02
"""rad and m beyond a limit: the tracking error of a servo, several times."""
MOVES = 0.05
"""rad/s: an arm whose fastest joint is slower stands."""
STAND_NS = 1_000_000_000
"""A stop takes less than this."""
FORCE_FACTOR = 3.0
"""Over the transient ceiling: the filter stops at once at one, so this is a filter that does not."""
STOPPED = ("off", "ready", "protective_stop", "e_stop")


@dataclasses.dataclass(frozen=True, slots=True)
class Sight:
    """What was seen so far. rule: what the newest readings violate, count: so many in a row. stopped_ns: since when the
    host says that it stopped. outside: m of the TCP beyond its box, at the reading before."""

    rule: str = ""
    count: int = 0
    reading_ns: int = -1
    stopped_ns: int = -1
    outside: float = 0.0


BLANK = Sight()


class Monitor:
    """The outermost limits of one robot."""

    def __init__(self, robot: RobotConfig, safety: SafetyConfig, host_silence_s: float = 0.25) -> None:
        """host_silence_s: a host that says nothing for so long has died."""
        self._model = mujoco.MjModel.from_xml_path(str(resolve_asset(robot.mjcf)))
        self._data = mujoco.MjData(self._model)
        joints = [self._model.joint(name) for name in robot.joint_names]
        self._names = robot.joint_names
        self._qpos = [int(joint.qposadr[0]) for joint in joints]
        self._dof = [int(joint.dofadr[0]) for joint in joints]
        self._site = self._model.site(robot.tcp_site).id
        self._base = self._model.body(robot.base_body).id
        self._lower = np.array([joint.lower for joint in robot.joints]) - POSITION_SLACK
        self._upper = np.array([joint.upper for joint in robot.joints]) + POSITION_SLACK
        self._velocity = SLACK * np.array([joint.velocity for joint in robot.joints])
        self._box = (np.array(safety.workspace.lower), np.array(safety.workspace.upper))
        self._speed = SLACK * safety.tcp_speed + 0.05
        self._force = FORCE_FACTOR * safety.contact.transient_factor * safety.force_ceiling
        self._host_ns = round(host_silence_s * 1e9)

    def see(self, sight: Sight, measured: Measured, host: State | None, now_ns: int) -> tuple[Sight, str]:
        """Judge the newest reading and the newest word of the host; why the arm must be stopped, empty if it need not.

        `host` is None until it was first heard: an arm that nobody has driven yet is not judged by its silence.
        """
        if host is not None and now_ns - host.t_ns > self._host_ns:
            silent = (now_ns - host.t_ns) * 1e-6
            return (
                sight,
                f"the robot host has been silent for {silent:.0f} ms (limit {self._host_ns * 1e-6:.0f} ms)",
            )
        if measured.t_ns == sight.reading_ns:
            return sight, ""
        stopped = sight.stopped_ns
        if host is None or host.safety not in STOPPED:
            stopped = -1
        elif stopped < 0:
            stopped = now_ns
        rule, outside = self._violation(sight, measured, 0 <= stopped < now_ns - STAND_NS)
        count = (sight.count + 1 if rule == sight.rule else 1) if rule else 0
        seen = Sight(rule, count, measured.t_ns, stopped, outside)
        return seen, rule if count >= READINGS else ""

    def _violation(self, sight: Sight, measured: Measured, must_stand: bool) -> tuple[str, float]:
        """What a reading violates, and how far the TCP is outside its box, m."""
        position, velocity = measured.joint_position, measured.joint_velocity
        if not (np.isfinite(position).all() and np.isfinite(velocity).all()):
            return "a reading of the joints is not finite", sight.outside
        point, speed = self._tcp(position, velocity)
        outside = float(np.max(np.maximum(self._box[0] - point, point - self._box[1])))
        fastest = float(np.max(np.abs(velocity)))
        for name, value, low, high in zip(self._names, position, self._lower, self._upper, strict=True):
            if not low <= value <= high:
                return f"joint {name} is outside its published range", outside
        if (np.abs(velocity) > self._velocity).any():
            joint = self._names[int(np.argmax(np.abs(velocity) / self._velocity))]
            return f"joint {joint} is faster than its published limit", outside
        if speed > self._speed:
            return "the TCP is faster than its limit", outside
        # Outside it may stand, and come back, as in recovery.
        if outside > POSITION_SLACK and outside > sight.outside and fastest > MOVES:
            return "the TCP leaves its workspace", outside
        # Written so that a NaN counts as too high.
        if not float(np.linalg.norm(measured.wrench_tcp[:3])) <= self._force:
            return "the wrist is pressed far beyond its ceiling", outside
        if must_stand and fastest > MOVES:
            return "the host says that it stopped, and the arm moves", outside
        return "", outside

    def _tcp(self, position: F64, velocity: F64) -> tuple[F64, float]:
        """Point (3,) of the TCP in the base frame, m, and its speed, m/s."""
        model, data = self._model, self._data
        data.qpos[self._qpos] = position
        data.qvel[self._dof] = velocity
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_comVel(model, data)
        moved = np.zeros(6)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_SITE, self._site, moved, 0)
        turn = data.xmat[self._base].reshape(3, 3)
        return turn.T @ (data.site_xpos[self._site] - data.xpos[self._base]), float(np.linalg.norm(moved[3:]))
