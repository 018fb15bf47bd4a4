"""What a log asked of an arm as a path over time, and what the arm then did: to ask it again, and to compare.

No socket and no clock: times are nanoseconds of the log, whatever clock it was recorded by.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.errors import LogError
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.wire.messages import F64, Setpoint, State

_PEAK = 1.875
"""Greatest over mean speed of the minimum-jerk motion (Flash and Hogan, 1985)."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class JointPath:
    """Joints (T, n) rad and gripper opening (T,) 0..1 at times_ns (T,) int64, which increase; T is 2 or more."""

    times_ns: NDArray[np.int64]
    joints: F64
    gripper: F64

    @property
    def begin_ns(self) -> int:
        """When it begins."""
        return int(self.times_ns[0])

    @property
    def end_ns(self) -> int:
        """When it is over."""
        return int(self.times_ns[-1])

    def at(self, time_ns: int) -> tuple[F64, F64, float]:
        """Position (n,) rad, velocity (n,) rad/s and gripper at a time; it stands still before and after its times.

        Between two points the cubic through both with the slopes of their neighbours (Catmull and Rom, 1974): logged
        velocities are not used, because imported logs have none. The gripper is that of the last point.
        """
        last = len(self.times_ns) - 1
        index = int(np.searchsorted(self.times_ns, time_ns, side="right")) - 1
        if index < 0 or index >= last:
            place = 0 if index < 0 else last
            return self.joints[place], np.zeros(self.joints.shape[1]), float(self.gripper[place])
        span = (self.times_ns[index + 1] - self.times_ns[index]) * 1e-9
        x = (time_ns - self.times_ns[index]) * 1e-9 / span
        move = self.joints[index + 1] - self.joints[index]
        start, end = self._slope(index) * span, self._slope(index + 1) * span
        square, cube = 3 * move - 2 * start - end, start + end - 2 * move
        position = self.joints[index] + x * (start + x * (square + x * cube))
        velocity = (start + x * (2 * square + 3 * x * cube)) / span
        return position, velocity, float(self.gripper[index])

    def _slope(self, index: int) -> F64:
        """rad/s over the neighbours of a point; none at either end, where the arm stands."""
        if index in (0, len(self.times_ns) - 1):
            return np.zeros(self.joints.shape[1])
        span = (self.times_ns[index + 1] - self.times_ns[index - 1]) * 1e-9
        return np.asarray((self.joints[index + 1] - self.joints[index - 1]) / span)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """What an arm did: measured joints (T, n) rad and TCP position (T, 3) m at times_ns (T,) int64."""

    times_ns: NDArray[np.int64]
    joints: F64
    tcp: F64

    @classmethod
    def of(cls, states: list[State]) -> Motion:
        """From states in the order of their time."""
        return cls(
            np.array([state.t_state_ns for state in states], dtype=np.int64),
            np.stack([state.joint_position for state in states]),
            np.stack([state.pose_base_tcp[:3] for state in states]),
        )

    def at(self, times_ns: NDArray[np.int64]) -> tuple[F64, F64]:
        """Joints (K, n) and TCP position (K, 3) at these times, straight between the readings."""

        def between(values: F64) -> F64:
            return np.stack([np.interp(times_ns, self.times_ns, column) for column in values.T], axis=1)

        return between(self.joints), between(self.tcp)


def logged_path(reader: EpisodeReader) -> JointPath:
    """The setpoints of a log at the times they were due; LogError if there are no two, or of different arms."""
    found = [message for _, message in reader.messages(["/setpoint"]) if isinstance(message, Setpoint)]
    kept: list[Setpoint] = []
    for setpoint in found:
        if not kept or setpoint.t_due_ns > kept[-1].t_due_ns:
            kept.append(setpoint)
    if len(kept) < 2:
        raise LogError(f"{reader.path}: {len(kept)} setpoints in the log; nothing to replay on a robot")
    sizes = sorted({len(setpoint.joint_position) for setpoint in kept})
    if len(sizes) > 1:
        raise LogError(f"{reader.path}: setpoints of {' and '.join(map(str, sizes))} joints in one log")
    return JointPath(
        np.array([setpoint.t_due_ns for setpoint in kept], dtype=np.int64),
        np.stack([setpoint.joint_position for setpoint in kept]).astype(np.float64),
        np.array([setpoint.gripper for setpoint in kept], dtype=np.float64),
    )


def logged_motion(reader: EpisodeReader) -> Motion | None:
    """What the arm of the log did; None where the states were not recorded."""
    states = [message for _, message in reader.messages(["/state"]) if isinstance(message, State)]
    return Motion.of(sorted(states, key=lambda state: state.t_state_ns)) if states else None


def approach(here: F64, gripper: float, there: F64, peak_rad_s: float, points_hz: float = 100.0) -> JointPath:
    """From joints `here` (n,) to `there` (n,) straight in joint space, no joint faster than `peak_rad_s`.

    Minimum jerk, `10x³ - 15x⁴ + 6x⁵` (Flash and Hogan, 1985). The gripper is left as it is.
    """
    seconds = max(_PEAK * float(np.max(np.abs(there - here))) / peak_rad_s, 1.0)
    x = np.linspace(0.0, 1.0, int(np.ceil(seconds * points_hz)) + 1)
    share = x**3 * (10 - 15 * x + 6 * x**2)
    times = np.round(x * seconds * 1e9).astype(np.int64)
    return JointPath(times, here + share[:, None] * (there - here), np.full(len(x), gripper))
