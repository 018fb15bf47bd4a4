"""What the safety filter remembers from tick to tick: all of it, explicit and immutable."""

from __future__ import annotations

import msgspec

from reflexarc.safety.contact import NOTHING_FELT, Touch
from reflexarc.safety.integrity import NEW, Trust
from reflexarc.safety.judge import MotionState
from reflexarc.safety.kinematics import TcpView
from reflexarc.wire.messages import F64, SafetyState, Setpoint


class Memory(msgspec.Struct, frozen=True):
    """The filter's history, in a struct of msgspec: every tick copies it. Times are ns of the host's clock.

    state: of the machine; reported: the state in the last report; mode: the state that a hold returns to;
    reason: why it is in `state`. motion: the commanded motion, with acceleration. stop: (m, n) rad/s, the velocities
    of the ticks of the stored stop: what is commanded if nothing else is accepted. view: the TCP.
    gripper: commanded opening; gripper_goal: the one asked for. last, before: the newest accepted setpoint and
    the one before it. enabled_ns: setpoints made earlier are not fresh. received_ns: when `last` came, on the
    host's own clock. last_seq: newest sequence number seen, good or bad. refused: rule that refused the newest
    setpoint. anew: the arm was pushed, and what leads it must begin where it is. held: a person has to enable; silent:
    the controller had fallen silent by then. bad_count: malformed ones in a row. touch: the contact felt; trust: what
    the checks of readings and clock remember. yielding: (n,) rad, where the servo is told to stay while something
    presses; pushed_from: (n,) rad, the command when that began. giving_way: why a stop must follow, once a contact
    has been given way to, since way_ns. seq: of the reports.
    """

    state: SafetyState
    mode: SafetyState
    reason: str
    now_ns: int
    motion: MotionState
    stop: F64
    view: TcpView
    gripper: float
    gripper_goal: float
    reported: SafetyState
    last: Setpoint | None = None
    before: Setpoint | None = None
    enabled_ns: int = 0
    received_ns: int = 0
    last_seq: int = -1
    refused: str = ""
    anew: bool = False
    held: bool = False
    silent: bool = False
    bad_count: int = 0
    touch: Touch = NOTHING_FELT
    trust: Trust = NEW
    yielding: F64 | None = None
    pushed_from: F64 | None = None
    giving_way: str = ""
    way_ns: int = 0
    seq: int = 0

    @property
    def position(self) -> F64:
        """(n,) rad, commanded."""
        return self.motion.position

    @property
    def velocity(self) -> F64:
        """(n,) rad/s, commanded: that of the last tick."""
        return self.motion.velocity

    @property
    def deaf(self) -> bool:
        """Whether setpoints count for nothing until a person acts: held, or on the way to a stop."""
        return self.held or bool(self.giving_way)

    @property
    def at_rest(self) -> bool:
        """Whether the commanded velocity is exactly zero."""
        return not self.velocity.any()
