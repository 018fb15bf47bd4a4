"""The robot host as a process: a loop with absolute deadlines around `RobotHost`, and its sockets.

It binds `state` (PUB of State, SafetyReport, Event), `setpoint` (PULL, the latest wins) and `console` (ROUTER, the only
way in for requests), and tells the runner that it is alive. It needs no other process: with all of them dead it holds
the arm. It ends by a `shutdown` request, SIGTERM or Ctrl-C: a controlled stop, then the arm's own brakes; a second
Ctrl-C changes nothing, because the stop takes a bounded time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import SafetyConfig
from reflexarc.robots.host import RobotHost
from reflexarc.wire.clock import HOST_PRIORITY, Histogram, Rate, loop_stats, monotonic_ns, prefer_this_process
from reflexarc.wire.contracts import Robot
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import Event, HostRequest, Message, Setpoint
from reflexarc.wire.sockets import Heartbeats, Publisher, Pull, Responder

# A commanded stop takes well under half a second; after this the arm's own brakes are used whatever its state.
STOP_LIMIT_NS = 2_000_000_000
# Statistics of the loop are published, and garbage is collected, at this period.
STATISTICS_NS = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class HostSummary:
    """How the loop ran. lateness, work: `Histogram.summary()`. overruns: deadlines that were missed altogether."""

    lateness: dict[str, Any]
    work: dict[str, Any]
    overruns: int
    final_safety: str


def run_host(
    make_robot: Callable[[], Robot],
    config: RobotConfig,
    safety: SafetyConfig,
    endpoints: Endpoints,
    *,
    stop: threading.Event | None = None,
) -> HostSummary:
    """Run until asked to stop, then brake, release the driver and return.

    make_robot: builds the driver, not yet connected. stop: ends the loop like a SIGTERM. Raises RobotError if the
    driver does not open, SafetyError if its first reading is unusable, WireError if an address is occupied; the
    driver is then released and nothing has moved.
    """
    stop = stop or threading.Event()
    with contextlib.ExitStack() as stack:
        # First in, last out: a Ctrl-C while everything is being released must not cut that short.
        stack.enter_context(_signals(stop))
        robot = make_robot()
        stack.callback(robot.close)
        sockets = _Sockets(endpoints, stack)
        robot.connect()
        host = RobotHost(robot, config, safety, "monotonic")
        host.restart(monotonic_ns())
        stack.enter_context(_quiet_garbage_collector())
        prefer_this_process(HOST_PRIORITY)
        return _Loop(host, config, sockets, stop).run()


class _Sockets:
    """What the host sends and receives."""

    def __init__(self, endpoints: Endpoints, stack: contextlib.ExitStack) -> None:
        self.state = stack.enter_context(Publisher(endpoints.state, name="state of the robot host"))
        self.setpoint: Pull[Setpoint] = stack.enter_context(
            Pull(endpoints.setpoint, Setpoint, name="setpoints of the robot host")
        )
        self.console: Responder[HostRequest] = stack.enter_context(
            Responder(endpoints.console, HostRequest, name="console of the robot host")
        )
        self.heartbeat = Heartbeats(endpoints.heartbeat, "host")
        stack.callback(self.heartbeat.close)

    def publish(self, message: Message) -> None:
        """To everybody who listens."""
        self.state.send(message)

    def faults(self) -> list[str]:
        """What arrived and was no message, since the last call."""
        found = (self.setpoint.take_fault(), self.console.take_fault())
        return [fault for fault in found if fault]


class _Loop:
    def __init__(
        self, host: RobotHost, config: RobotConfig, sockets: _Sockets, stop: threading.Event
    ) -> None:
        self._host = host
        self._sockets = sockets
        self._stop = stop
        self._period_ns = config.tick_ns
        self._lateness = Histogram(late_ns=config.tick_ns // 2)
        self._work = Histogram(late_ns=config.tick_ns)
        self._setpoint: Setpoint | None = None
        self._safety = "off"

    def run(self) -> HostSummary:
        rate = Rate(self._period_ns)
        next_statistics = monotonic_ns() + STATISTICS_NS
        deadline: int | None = None
        while deadline is None or (not self._host.at_rest and monotonic_ns() < deadline):
            late = rate.sleep()
            begun = monotonic_ns()
            # The time of the deadline, not of waking up: jitter of the computer must not become jitter of the arm.
            now = begun - late % self._period_ns
            self._lateness.add(late)
            if deadline is None and self._stop.is_set():
                deadline = begun + STOP_LIMIT_NS
                self._shut_down(now)
            self._tick(now)
            self._work.add(monotonic_ns() - begun)
            if begun >= next_statistics:
                next_statistics += STATISTICS_NS
                self._statistics(rate, now)
        # One more tick at rest, so that the last state published is the final one and the brakes are on.
        self._tick(monotonic_ns())
        self._statistics(rate, monotonic_ns())
        return HostSummary(
            lateness=self._lateness.summary(),
            work=self._work.summary(),
            overruns=rate.overruns,
            final_safety=self._safety,
        )

    def _tick(self, now_ns: int) -> None:
        self._answer_console(now_ns)
        newest = self._sockets.setpoint.latest()
        if newest is not None:
            self._setpoint = newest
        result = self._host.tick(now_ns, self._setpoint)
        self._safety = result.state.safety
        self._sockets.publish(result.state)
        if result.report is not None:
            self._sockets.publish(result.report)
        for event in result.events:
            self._sockets.publish(event)
        self._sockets.heartbeat.beat(now_ns)

    def _answer_console(self, now_ns: int) -> None:
        for client, request in self._sockets.console.poll():
            # The host's own clock decides what is fresh, whatever the request says.
            reply = self._host.request(msgspec.structs.replace(request, t_ns=now_ns, clock="monotonic"))
            self._sockets.console.reply(client, reply)
            if request.action == "shutdown":
                self._stop.set()

    def _shut_down(self, now_ns: int) -> None:
        self._host.request(HostRequest(t_ns=now_ns, action="shutdown", seq=0, source="host"))

    def _statistics(self, rate: Rate, now_ns: int) -> None:
        for fault in self._sockets.faults():
            self._sockets.publish(Event(t_ns=now_ns, kind="wire_fault", source="host", text=fault))
        data = loop_stats(self._lateness, self._work, rate.overruns)
        self._sockets.publish(Event(t_ns=now_ns, kind="loop_stats", source="host", data=data))
        gc.collect(0)


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and Ctrl-C, however often, ask for a controlled stop; only a main thread can be asked so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in earlier:
        signal.signal(number, lambda *_: stop.set())
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet_garbage_collector() -> Iterator[None]:
    """No collection at a moment of its own choosing: what exists is frozen, the young are collected between ticks."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
