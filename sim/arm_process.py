"""The simulated arm as a process of its own: physics at the pace of the clock, behind the sockets of `SimulatedArm`.

It binds `arm_command` (PULL, the latest wins), `arm_stop` (PULL, the monitor's own line), `arm_state` (PUB of ArmState,
SimInitial, SimSteps, SimTruth, Event) and `sim` (ROUTER: reset, success, shutdown). Freezing or killing the robot host
does not stop its physics, only its motion.
"""

from __future__ import annotations

import contextlib
import gc
import threading

from reflexarc.configs.errors import SimulationError
from reflexarc.configs.robot import RobotConfig
from reflexarc.sim.real_time import steady_loop
from reflexarc.sim.simulated_arm import SimulatedArm
from reflexarc.wire.clock import (
    ARM_PRIORITY,
    Histogram,
    Rate,
    loop_stats,
    monotonic_ns,
    prefer_this_process,
)
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import ArmCommand, ArmStop, Event, Message, SimAnswer, SimQuery
from reflexarc.wire.sockets import Heartbeats, Publisher, Pull, Responder

PEER = "arm"
"""This process's name in heartbeats and events."""

STATS_NS = 5_000_000_000
"""How often the loop tells its statistics and the faults of its sockets."""


def run_arm(
    task: str,
    robot: RobotConfig,
    endpoints: Endpoints,
    *,
    seed: int = 0,
    stop: threading.Event | None = None,
) -> None:
    """Run until SIGTERM, a `shutdown` query or `stop`. The loop runs at the host's rate.

    Raises SimulationError for an unknown task or an arm that lacks what its config names, WireError if an address is
    occupied.
    """
    stop = stop or threading.Event()
    with contextlib.ExitStack() as stack:
        process = _ArmProcess(SimulatedArm(robot, task, seed), endpoints, stop, stack)
        stack.enter_context(steady_loop(stop))
        prefer_this_process(ARM_PRIORITY)
        process.run(robot.tick_ns)


class _ArmProcess:
    """The arm's sockets and its loop."""

    def __init__(
        self, arm: SimulatedArm, endpoints: Endpoints, stop: threading.Event, stack: contextlib.ExitStack
    ) -> None:
        self._arm = arm
        self._stop = stop
        self._commands: Pull[ArmCommand] = stack.enter_context(
            Pull(endpoints.arm_command, ArmCommand, name="commands of the simulated arm")
        )
        self._stops: Pull[ArmStop] = stack.enter_context(
            Pull(endpoints.arm_stop, ArmStop, name="stop input of the simulated arm")
        )
        self._out = stack.enter_context(Publisher(endpoints.arm_state, name="state of the simulated arm"))
        self._queries: Responder[SimQuery] = stack.enter_context(
            Responder(endpoints.sim, SimQuery, name="queries to the simulated arm")
        )
        self._heartbeats = Heartbeats(endpoints.heartbeat, PEER)
        stack.callback(self._heartbeats.close)
        self._task = arm.world.task.name

    def run(self, period_ns: int) -> None:
        """Tick until told to stop."""
        rate = Rate(period_ns)
        lateness, work = Histogram(late_ns=period_ns // 2), Histogram(late_ns=period_ns)
        told_ns = monotonic_ns()
        self._publish(self._arm.begin(told_ns))
        while not self._stop.is_set():
            late = rate.sleep()
            begun = monotonic_ns()
            lateness.add(late)
            # The time of the deadline, not of waking up: a steady number of physics steps each time.
            self._tick(begun - late % period_ns)
            work.add(monotonic_ns() - begun)
            if begun - told_ns > STATS_NS:
                told_ns = begun
                self._tell_faults(begun)
                self._tell_stats(begun, lateness, work, rate.overruns)
                gc.collect(0)

    def _tick(self, now_ns: int) -> None:
        for client, query in self._queries.poll():
            self._queries.reply(client, self._answer(query))
        stop = self._stops.latest()
        if stop is not None:
            self._arm.stop(stop.stop, stop.reason, now_ns)
        command = self._commands.latest()
        if command is not None:
            self._arm.command(command, now_ns)
        self._publish(self._arm.advance(now_ns))
        self._heartbeats.beat(now_ns)

    def _answer(self, query: SimQuery) -> SimAnswer:
        if query.query == "shutdown":
            self._stop.set()
        elif query.query == "reset":
            try:
                self._reset(query)
            except SimulationError as error:
                return self._reply(query, ok=False, text=str(error))
        return self._reply(query, ok=True)

    def _reset(self, query: SimQuery) -> None:
        task = query.task or self._task
        self._arm.reset(task, query.seed)
        self._task = task
        self._commands.latest()  # what was meant for the arm as it stood before
        self._publish(self._arm.begin(monotonic_ns()))

    def _reply(self, query: SimQuery, *, ok: bool, text: str = "") -> SimAnswer:
        return SimAnswer(
            t_ns=monotonic_ns(),
            seq=query.seq,
            ok=ok,
            success=self._arm.world.success(),
            instruction=self._arm.world.instruction,
            sim_time_ns=self._arm.time_ns,
            text=text,
        )

    def _publish(self, messages: tuple[Message, ...]) -> None:
        for message in messages:
            self._out.send(message)

    def _tell_faults(self, now_ns: int) -> None:
        for fault in (self._commands.take_fault(), self._stops.take_fault(), self._queries.take_fault()):
            if fault:
                self._out.send(Event(t_ns=now_ns, kind="wire_fault", source=PEER, text=fault))

    def _tell_stats(self, now_ns: int, lateness: Histogram, work: Histogram, overruns: int) -> None:
        data = loop_stats(lateness, work, overruns) | {"lost_ms": self._arm.lost_ns * 1e-6}
        self._out.send(Event(t_ns=now_ns, kind="loop_stats", source=PEER, data=data))
