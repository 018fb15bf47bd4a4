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
from reflexarc.robots.estop import open_inputs
from reflexarc.robots.host import RobotHost, cause
from reflexarc.safety.states import ENABLED
from reflexarc.wire.clock import (
    HOST_PRIORITY,
    Histogram,
    Rate,
    loop_stats,
    monotonic_ns,
    prefer_this_process,
    tie_to_cpus,
)
from reflexarc.wire.contracts import Robot
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import Event, Heartbeat, HostRequest, Message, Setpoint
from reflexarc.wire.roles import Keys, kept
from reflexarc.wire.sockets import Heartbeats, Publisher, Pull, Responder, Subscriber

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
    keys: Keys | None = None,
    monitored: bool = False,
) -> HostSummary:
    """Run until asked to stop, then brake, release the driver and return.

    make_robot: builds the driver, not yet connected. keys: of the roles on the console; without them whoever reaches it
    on this computer may ask for everything. monitored: an independent monitor must be alive, see `IntegrityConfig`.
    stop: ends the loop like a SIGTERM. Raises RobotError if the driver does not open, SafetyError if its first reading
    is unusable, WireError if an address is occupied, ConfigError if `cpus` names a processor that is not there; the
    driver is then released and nothing has moved.
    """
    stop = stop or threading.Event()
    with contextlib.ExitStack() as stack:
        # First in, last out: a Ctrl-C while everything is being released must not cut that short.
        stack.enter_context(_signals(stop))
        tie_to_cpus(config.cpus)
        robot = make_robot()
        stack.callback(robot.close)
        sockets = _Sockets(endpoints, stack)
        watch = _Watch(safety, endpoints, stack, monitored)
        if keys is not None:
            stack.enter_context(kept(keys, endpoints.console))
        robot.connect()
        host = RobotHost(robot, config, safety, "monotonic")
        host.restart(monotonic_ns())
        stack.enter_context(_quiet_garbage_collector())
        prefer_this_process(HOST_PRIORITY)
        return _Loop(host, config, sockets, watch, keys, stop).run()


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


class _Watch:
    """Emergency stop inputs, and whether the independent monitor is alive."""

    def __init__(
        self, safety: SafetyConfig, endpoints: Endpoints, stack: contextlib.ExitStack, monitored: bool
    ) -> None:
        self._inputs = open_inputs(safety.estop, endpoints.estop)
        for found in self._inputs:
            stack.callback(found.close)
        self._loss = safety.integrity.monitor_loss if monitored else "ignore"
        self._silence_ns = round(safety.integrity.monitor_silence_s * 1e9)
        self._beats: Subscriber[Heartbeat] | None = None
        if monitored:
            self._beats = stack.enter_context(
                Subscriber(endpoints.monitor, Heartbeat, name="heartbeat of the monitor")
            )
        self._heard_ns: int | None = None

    def look(self, host: RobotHost, safety: str, now_ns: int) -> None:
        """Ask the inputs and listen for the monitor; stop the arm where that is due."""
        for found in self._inputs:
            if found.pressed(now_ns) and safety != "e_stop":
                request = HostRequest(t_ns=now_ns, action="e_stop", seq=0, source=found.name)
                host.request(request)
        if self._beats is None:
            return
        if self._beats.latest() is not None:
            self._heard_ns = now_ns
        lost = self.refusal(now_ns)
        if lost and safety in ENABLED:
            if self._loss == "stop":
                silent_ns = now_ns - (self._heard_ns or now_ns)
                host.trip(lost, cause("monitor_silence", "monitor", silent_ns, self._silence_ns))
            elif safety != "hold":
                host.request(HostRequest(t_ns=now_ns, action="hold", seq=0, source="host: " + lost))

    def refusal(self, now_ns: int) -> str:
        """Why the arm must not be enabled, or must stop; empty if the monitor is alive, or none is asked for."""
        if self._loss == "ignore":
            return ""
        if self._heard_ns is None:
            return "the independent monitor has not been heard yet"
        silent = now_ns - self._heard_ns
        if silent <= self._silence_ns:
            return ""
        limit = self._silence_ns * 1e-6
        return f"the independent monitor has been silent for {silent * 1e-6:.0f} ms (limit {limit:.0f} ms)"


class _Loop:
    def __init__(
        self,
        host: RobotHost,
        config: RobotConfig,
        sockets: _Sockets,
        watch: _Watch,
        keys: Keys | None,
        stop: threading.Event,
    ) -> None:
        self._host = host
        self._sockets = sockets
        self._watch = watch
        self._keys = keys
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
            missed = rate.overruns
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
            if rate.overruns > missed:
                self._tell_overrun(rate.overruns - missed, rate.overruns, now)
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
        self._watch.look(self._host, self._safety, now_ns)
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
            request = msgspec.structs.replace(request, t_ns=now_ns, clock="monotonic")
            refusal = self._keys.refusal(request.action, request.key) if self._keys else ""
            if not refusal and request.action == "enable":
                refusal = self._watch.refusal(now_ns)
            if refusal:
                self._sockets.console.reply(client, self._host.refuse(request, refusal))
                continue
            if request.action == "enable":  # what came before it is not fresh, whatever its stamp says
                self._sockets.setpoint.latest()
                self._setpoint = None
            reply = self._host.request(request)
            self._sockets.console.reply(client, reply)
            if request.action == "shutdown" and reply.ok:
                self._stop.set()

    def _shut_down(self, now_ns: int) -> None:
        self._host.request(HostRequest(t_ns=now_ns, action="shutdown", seq=0, source="host"))

    def _tell_overrun(self, missed: int, overruns: int, now_ns: int) -> None:
        text = f"{missed} ticks were missed altogether"
        data: dict[str, str | float | int | bool] = {"overruns": overruns}
        self._sockets.publish(Event(t_ns=now_ns, kind="overrun", source="host", text=text, data=data))

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
