"""The independent monitor as a process: reads the arm by a line of its own, and stops it by that line, past the host.

It publishes a heartbeat (`monitor`), whose absence the host notices, while it sees the arm: whoever is blind watches
nothing, and must not be taken for a guard. Once it has stopped the arm it releases it only when the host stands `ready`
after a person's reset, and what was wrong is right again; nothing moves by that.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from typing import Protocol

from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.safety.monitor import BLANK, Monitor
from reflexarc.wire.clock import HOST_PRIORITY, Rate, monotonic_ns, prefer_this_process
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import Event, Heartbeat, Measured, State
from reflexarc.wire.sockets import Heartbeats, Publisher, Subscriber

PEER = "monitor"
PERIOD_NS = 10_000_000
REPEAT_NS = 100_000_000
"""A stop is repeated: one message may be lost."""


class StopLine(Protocol):
    """A way to an arm that does not lead through the robot host."""

    def read(self) -> Measured | None:
        """The newest reading of the arm's own sensors, None before the first."""

    def stop(self, reason: str) -> None:
        """Brake, and follow no command until released."""

    def release(self) -> None:
        """Let the arm follow commands again; causes no motion."""

    def close(self) -> None:
        """Release the line; safe to call twice."""


def run_monitor(
    make_line: Callable[[], StopLine],
    robot: RobotConfig,
    safety: SafetyConfig,
    endpoints: Endpoints,
    *,
    stop: threading.Event | None = None,
) -> None:
    """Watch until SIGTERM or `stop`. Raises WireError if an address is occupied."""
    stop = stop or threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with contextlib.ExitStack() as stack:
        line = make_line()
        stack.callback(line.close)
        process = _Process(robot, safety, line, endpoints, stack)
        prefer_this_process(HOST_PRIORITY)
        rate = Rate(PERIOD_NS)
        while not stop.is_set():
            rate.sleep()
            process.turn(monotonic_ns())


class _Process:
    def __init__(
        self,
        robot: RobotConfig,
        safety: SafetyConfig,
        line: StopLine,
        endpoints: Endpoints,
        stack: contextlib.ExitStack,
    ) -> None:
        self._monitor = Monitor(robot, safety)
        self._blind_ns = round(safety.monitor.blind_s * 1e9)
        self._line = line
        self._host: Subscriber[State] = stack.enter_context(
            Subscriber(endpoints.state, State, name="state of the robot host to the monitor")
        )
        self._out = stack.enter_context(Publisher(endpoints.monitor, name="monitor"))
        self._heartbeats = Heartbeats(endpoints.heartbeat, PEER)
        stack.callback(self._heartbeats.close)
        self._sight = BLANK
        self._state: State | None = None
        self._reason = ""
        self._told_ns = 0
        self._reading_ns = -1
        self._seen_ns: int | None = None
        self._blind = False
        self._seq = 0

    def turn(self, now_ns: int) -> None:
        """Look once."""
        self._state = self._host.latest() or self._state
        measured = self._line.read()
        if measured is not None:
            if measured.t_ns != self._reading_ns:
                self._reading_ns, self._seen_ns = measured.t_ns, now_ns
            self._sight, reason = self._monitor.see(self._sight, measured, self._state, now_ns)
            if reason and not self._reason:
                self._trip(now_ns, reason)
            elif self._reason and not reason and self._may_release():
                self._release(now_ns)
            elif self._reason and now_ns - self._told_ns > REPEAT_NS:
                self._told_ns = now_ns
                self._line.stop(self._reason)
        if self._sees(now_ns):
            self._seq += 1
            self._out.send(Heartbeat(t_ns=now_ns, peer=PEER, seq=self._seq))
        self._heartbeats.beat(now_ns)

    def _sees(self, now_ns: int) -> bool:
        """Whether the arm's readings are of now, on the monitor's own clock; tells when that changes."""
        if self._seen_ns is None:
            return False
        silent_ns = now_ns - self._seen_ns
        blind = silent_ns > self._blind_ns
        if blind != self._blind:
            self._blind = blind
            silent, limit = silent_ns * 1e-6, self._blind_ns * 1e-6
            silence = f"the arm has shown no new reading for {silent:.0f} ms (limit {limit:.0f} ms)"
            self._tell(now_ns, "monitor_blind", silence if blind else "the arm shows new readings again")
        return not blind

    def _trip(self, now_ns: int, reason: str) -> None:
        self._reason, self._told_ns = reason, now_ns
        self._line.stop(reason)
        self._tell(now_ns, "monitor_trip", reason)

    def _may_release(self) -> bool:
        return self._state is not None and self._state.safety == "ready" and not self._sight.count

    def _release(self, now_ns: int) -> None:
        self._tell(now_ns, "monitor_release", f"released after a reset; it was: {self._reason}")
        self._reason = ""
        self._line.release()

    def _tell(self, now_ns: int, kind: str, text: str) -> None:
        self._out.send(Event(t_ns=now_ns, kind=kind, source=PEER, text=text))
