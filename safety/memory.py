"""What the safety filter remembers from tick to tick: all of it, explicit and immutable."""

from __future__ import annotations

import dataclasses

from reflexarc.safety.kinematics import TcpView
from reflexarc.wire.messages import F64, SafetyState, Setpoint


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """The filter's history. Times are ns of the host's clock.

    state: of the machine; reported: the state in the last report; mode: the state that a hold returns to;
    reason: why it is in `state`. position, velocity: (n,) commanded, rad and rad/s; velocity is that of the last
    tick, so with the closed form of braking it also *is* the stored stop. view: the TCP at `position`.
    gripper: commanded opening; gripper_goal: the one asked for. last, before: the newest accepted setpoint and
    the one before it. enabled_ns: setpoints made earlier are not fresh. received_ns: when `last` came, on the
    host's own clock. last_seq: newest sequence number seen, good or bad. refused: rule that refused the newest
    setpoint. held: a person asked to hold. bad_count, wrench_count: so many in a row. reading_ns: time of the
    newest reading. seq: of the reports.
    """

    state: SafetyState
    mode: SafetyState
    reason: str
    now_ns: int
    position: F64
    velocity: F64
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
    held: bool = False
    bad_count: int = 0
    wrench_count: int = 0
    reading_ns: int = -1
    seq: int = 0

    @property
    def at_rest(self) -> bool:
        """Whether the commanded velocity is exactly zero."""
        return not self.velocity.any()
