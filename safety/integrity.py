"""Whether the readings and the clock can be true: frozen encoders, a clock that jumps, a host that is always late.

A joint whose encoder does not move while it was commanded to is frozen, or stuck: the arm is then not where it is
believed to be. At rest nothing can be told, and nothing is claimed. A joint that moves, but not to where it is told, is
driven by something else.
"""

from __future__ import annotations

import msgspec
import numpy as np
from msgspec.structs import replace

from reflexarc.configs.errors import SafetyError
from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.wire.messages import F64, Intervention, Measured


class Trust(msgspec.Struct, frozen=True):
    """What the checks remember.

    seen: (n,) rad, where each encoder was when it last moved; commanded: (n,) rad, the command of that moment.
    late: ticks of the host in a row that came late.
    """

    seen: F64 | None = None
    commanded: F64 | None = None
    late: int = 0

    def moved(self, by: F64) -> Trust:
        """The same, after the command was said to be (n,) rad further without any motion that was asked for."""
        return self if self.commanded is None else replace(self, commanded=self.commanded + by)


NEW = Trust()


# A reading is taken at every tick, so one that is in order may be a tick old, and a little more.
SILENT_TICKS = 2


class Integrity:
    """The checks of one robot."""

    def __init__(self, robot: RobotConfig, safety: SafetyConfig) -> None:
        """Raises SafetyError if `driver_silence_s` is less than two ticks, which every arm would exceed."""
        least = SILENT_TICKS * robot.tick_ns * 1e-9
        if safety.driver_silence_s < least:
            raise SafetyError(
                f"driver_silence_s is {safety.driver_silence_s} s: below {least:g} s, two ticks at "
                f"{robot.tick_hz:g} Hz of {robot.name}; raise it, or tick_hz"
            )
        self._names = robot.joint_names
        self._tick_ns = robot.tick_ns
        self._noise = safety.integrity.encoder_noise_rad
        self._motion = safety.integrity.encoder_motion_rad
        self._late_limit = safety.integrity.overrun_ticks
        self._jump_ns = round(safety.integrity.clock_jump_s * 1e9)
        self._tracking = safety.integrity.tracking_rad

    def clock(self, trust: Trust, before_ns: int, now_ns: int) -> tuple[Trust, Intervention | None]:
        """Judge the time since the tick before: backwards, a jump, or late for the so manieth time."""
        elapsed = now_ns - before_ns
        late = trust.late + 1 if elapsed >= 1.5 * self._tick_ns else 0
        trust = replace(trust, late=late)
        if elapsed < 0:
            return trust, _fault("clock", "backwards", elapsed, 0)
        if elapsed > self._jump_ns:
            return trust, _fault("clock", "jump", elapsed, self._jump_ns)
        if late >= self._late_limit:
            return trust, _fault("overrun", "host", late, self._late_limit)
        return trust, None

    def encoders(self, trust: Trust, measured: Measured, commanded: F64) -> tuple[Trust, Intervention | None]:
        """Judge a reading against the command (n,) rad that the arm was last given."""
        position = measured.joint_position.copy()
        if trust.seen is None or trust.commanded is None:
            return replace(trust, seen=position, commanded=commanded), None
        moved = np.abs(position - trust.seen) > self._noise
        if moved.any():
            seen = np.where(moved, position, trust.seen)
            since = np.where(moved, commanded, trust.commanded)
            trust = replace(trust, seen=seen, commanded=since)
        asked = np.abs(commanded - (trust.commanded if trust.commanded is not None else commanded))
        worst = int(asked.argmax())
        if asked[worst] > self._motion:
            return trust, _fault("frozen_encoder", self._names[worst], float(asked[worst]), self._motion)
        return trust, None

    def tracking(self, measured: Measured, commanded: F64) -> Intervention | None:
        """Whether the arm is where it was commanded to be, (n,) rad, but for what a servo may lag."""
        off = np.abs(commanded - measured.joint_position)
        worst = int(off.argmax())
        if off[worst] <= self._tracking:
            return None
        return _fault("tracking", self._names[worst], float(off[worst]), self._tracking)

    def words(self, fault: Intervention) -> str:
        """The fault in one line."""
        if fault.rule == "clock" and fault.field == "backwards":
            return "the clock went backwards"
        if fault.rule == "clock":
            gap = f"{fault.asked * 1e-6:.0f} ms (limit {self._jump_ns * 1e-6:.0f} ms)"
            return f"no tick for {gap}: the clock jumped or the host stood still"
        if fault.rule == "overrun":
            return f"{fault.asked:.0f} ticks in a row were late (limit {self._late_limit})"
        if fault.rule == "tracking":
            limit = f"limit {self._tracking:g} rad"
            return f"joint {fault.field} is {fault.asked:.3f} rad from where it was commanded to be ({limit})"
        return f"joint {fault.field}: its encoder does not move, {fault.asked:.3f} rad were commanded since it did"


def _fault(rule: str, field: str, asked: float, allowed: float) -> Intervention:
    return Intervention(
        rule=rule,
        field=field,
        asked=float(asked),
        allowed=float(allowed),
        margin=float(allowed) - float(asked),
    )
