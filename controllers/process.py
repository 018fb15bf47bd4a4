"""The controller's process: sockets on one side, the sans-IO `Controller` on the other, at a steady rate.

Nothing in the loop waits but for its next deadline. A policy server that is slow, dead or restarted costs no tick; a
recorder that is away costs nothing at all.
"""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable

import msgspec

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.controller import ControllerConfig
from reflexarc.configs.errors import ControlError, WireError
from reflexarc.configs.robot import RobotConfig
from reflexarc.controllers.controller import Controller
from reflexarc.wire.clock import (
    CONTROLLER_PRIORITY,
    Histogram,
    Rate,
    loop_stats,
    monotonic_ns,
    prefer_this_process,
    tie_to_cpus,
)
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import (
    SPEED_EVENT,
    ActionChunk,
    CameraFrame,
    EpisodeStart,
    EpisodeStop,
    ErrorReply,
    Event,
    PolicyInfo,
    PolicyInfoRequest,
    SafetyReport,
    State,
    TeleopCommand,
)
from reflexarc.wire.sockets import Heartbeats, Publisher, Push, Requester, Socket, Subscriber

PEER = "controller"
"""This process's name in heartbeats and events."""
STATS_NS = 1_000_000_000
"""How often the loop tells its statistics and the faults of its sockets, and young garbage is collected."""
HOST_SILENT_NS = 500_000_000
"""A robot host that publishes no state for so long is reported as lost."""
ASK_S = 0.5
"""How long one question after the policy's action space waits, before it is asked again."""
FRAMES_KEPT = 32
"""Pictures waiting to be taken in, for all cameras together."""


def run_controller(
    config: ControllerConfig,
    robot: RobotConfig,
    endpoints: Endpoints,
    *,
    policy_wait_s: float = 180.0,
    steering: ActionSpec | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Run until SIGTERM (or `stop`). Asks the policy server first what it emits and which cameras it needs.

    steering: the space that a person steers in where there is no policy; then no policy server is asked.

    Raises ControlError naming the policy server if it does not answer within `policy_wait_s`, or if its action space
    does not fit `robot`; WireError if a socket cannot be opened; ConfigError if `cpus` names one that is not there.
    """
    stop = stop or threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
    process = ControllerProcess(config, endpoints, has_policy=steering is None)
    try:
        if steering is not None:
            process.run(Controller(config, robot, steering, (), "monotonic"), stop.is_set)
            return
        info = process.ask_policy(policy_wait_s, stop.is_set)
        if info is not None:
            process.run(_controller(config, robot, info), stop.is_set)
    finally:
        process.close()


class ControllerProcess:
    """The sockets of one controller, and its loop."""

    def __init__(self, config: ControllerConfig, endpoints: Endpoints, *, has_policy: bool = True) -> None:
        """Raises WireError naming the endpoint that is occupied."""
        self._has_policy = has_policy
        self._period_ns = config.tick_ns
        self._cpus = config.cpus
        self._policy_address = endpoints.policy
        self._sockets: list[Socket] = []
        self._out = self._keep(Publisher(endpoints.controller, name="controller"))
        self._states = self._keep(Subscriber(endpoints.state, State, SafetyReport, Event, name="state"))
        self._frames = self._keep(Subscriber(endpoints.frames, CameraFrame, queue=FRAMES_KEPT, name="frames"))
        self._runner = self._keep(
            Subscriber(endpoints.runner, EpisodeStart, EpisodeStop, Event, name="runner")
        )
        self._policy = self._keep(
            Requester(endpoints.policy, ActionChunk, PolicyInfo, ErrorReply, name="policy server")
        )
        self._teleop = self._keep(Subscriber(endpoints.teleop, TeleopCommand, Event, name="teleoperator"))
        self._setpoints = self._keep(Push(endpoints.setpoint, name="setpoint", queue=2))
        self._heartbeats = Heartbeats(endpoints.heartbeat, PEER)
        self._lateness = Histogram(late_ns=self._period_ns // 2)
        self._work = Histogram(late_ns=self._period_ns)
        self._overruns = 0
        self._asking = False
        self._state_ns = -1
        self._host_lost = False

    def ask_policy(self, wait_s: float, stopped: Callable[[], bool]) -> PolicyInfo | None:
        """What the policy server says of itself; None if `stopped`. ControlError if it is silent for `wait_s`.

        No heartbeat yet: the first one says that this process can move an arm, which it has yet to be built for.
        """
        deadline = monotonic_ns() + round(wait_s * 1e9)
        reason = "it does not answer"
        while not stopped():
            if monotonic_ns() > deadline:
                where = f"the policy server at {self._policy_address}"
                raise ControlError(f"{where} told no action space within {wait_s} s: {reason}")
            try:
                reply = self._policy.request(PolicyInfoRequest(t_ns=monotonic_ns()), ASK_S)
            except WireError as error:
                reason = str(error)
                continue
            if isinstance(reply, PolicyInfo):
                return reply
            reason = reply.text if isinstance(reply, ErrorReply) else f"it sent {type(reply).__name__}"
            time.sleep(ASK_S)
        return None

    def run(self, controller: Controller, stopped: Callable[[], bool]) -> None:
        """Tick until `stopped`. The garbage collector rests meanwhile, but for sweeps at moments of our choosing."""
        self._drop_backlog(controller)
        _rest_garbage_collector()
        tie_to_cpus(self._cpus)
        prefer_this_process(CONTROLLER_PRIORITY)
        origin = told_ns = monotonic_ns()
        rate = Rate(self._period_ns)
        try:
            while not stopped():
                self._lateness.add(rate.sleep())
                begun = monotonic_ns()
                # The time on the grid of ticks, not of waking up: the computer's jitter must not become the arm's.
                self._step(controller, begun - (begun - origin) % self._period_ns)
                self._work.add(monotonic_ns() - begun)
                if rate.overruns > self._overruns:
                    text = f"{rate.overruns - self._overruns} ticks were missed altogether"
                    self._tell(begun, "overrun", text, overruns=rate.overruns)
                self._overruns = rate.overruns
                if begun - told_ns > STATS_NS:
                    told_ns = begun
                    self._tell_faults(begun)
                    self._tell_stats(begun)
                    gc.collect(0)
        finally:
            gc.enable()
            self._tell_stats(monotonic_ns())

    def close(self) -> None:
        """Give what was published last a moment to leave, then release the sockets; safe to call twice."""
        time.sleep(0.05)
        self._heartbeats.close()
        for socket in self._sockets:
            socket.close()

    def _drop_backlog(self, controller: Controller) -> None:
        """What arrived while the policy server was still loading: only the newest state says anything, and taking in
        hundreds of them in the first tick would make it the latest of all."""
        state = next(
            (message for message in reversed(self._states.drain()) if isinstance(message, State)), None
        )
        if state is not None:
            controller.on_state(state)
        self._frames.drain()

    def _step(self, controller: Controller, now_ns: int) -> None:
        self._hear_runner(controller)
        for message in self._states.drain():
            if isinstance(message, State):
                controller.on_state(message)
                self._state_ns = now_ns
            elif isinstance(message, SafetyReport):
                controller.on_report(message)
            elif isinstance(message, Event) and message.kind == SPEED_EVENT:
                self._set_speed(controller, message)
        self._watch_host(now_ns)
        for frame in self._frames.drain():
            controller.on_frame(frame)
        self._hear_policy(controller, now_ns)
        for message in self._teleop.drain():
            if isinstance(message, TeleopCommand):
                controller.on_teleop(message, now_ns)
        self._ask(controller, now_ns)
        tick = controller.tick(now_ns)
        if tick.setpoint is not None:
            self._setpoints.send(tick.setpoint)
            self._out.send(tick.setpoint)
        for event in tick.events:
            self._out.send(event)
        self._heartbeats.beat(now_ns)

    def _hear_runner(self, controller: Controller) -> None:
        for message in self._runner.drain():
            if isinstance(message, EpisodeStart):
                controller.reset(message.instruction, message.session)
                self._asking = self._has_policy
                gc.collect()
            elif isinstance(message, EpisodeStop):
                self._asking = False

    def _set_speed(self, controller: Controller, message: Event) -> None:
        """A person's setting of the pace, by the robot host's console."""
        scale = message.data.get("scale")
        try:
            controller.set_speed_scale(float(scale) if isinstance(scale, int | float) else 0.0)
        except ControlError as error:
            self._tell(message.t_ns, "speed_refused", str(error))

    def _hear_policy(self, controller: Controller, now_ns: int) -> None:
        for answer in self._policy.poll():
            if isinstance(answer, ActionChunk):
                controller.on_chunk(answer, now_ns)
                self._out.send(answer)
            elif isinstance(answer, ErrorReply):
                controller.on_error(answer, now_ns)

    def _ask(self, controller: Controller, now_ns: int) -> None:
        """Send what the controller wants answered; between episodes the present chunk runs out and the arm holds."""
        observation = controller.observation(now_ns) if self._asking else None
        if observation is None:
            return
        if not self._policy.send(observation):
            controller.forget_request(now_ns, f"nobody is at {self._policy_address}")
            return
        self._out.send(msgspec.structs.replace(observation, images={}))

    def _watch_host(self, now_ns: int) -> None:
        if self._state_ns < 0:
            return
        silent_ns = now_ns - self._state_ns
        lost = silent_ns > HOST_SILENT_NS
        if lost == self._host_lost:
            return
        self._host_lost = lost
        kind = "peer_lost" if lost else "peer_returned"
        text = f"the robot host has published no state for {silent_ns * 1e-9:.2f} s" if lost else ""
        self._tell(now_ns, kind, text or "the robot host publishes its state again", peer="robot host")

    def _tell_stats(self, now_ns: int) -> None:
        self._tell(now_ns, "loop_stats", "", **loop_stats(self._lateness, self._work, self._overruns))

    def _tell_faults(self, now_ns: int) -> None:
        for socket in self._sockets:
            fault = socket.take_fault()
            if fault:
                self._tell(now_ns, "wire_fault", fault)

    def _tell(self, now_ns: int, kind: str, text: str, **data: str | float | int | bool) -> None:
        self._out.send(Event(t_ns=now_ns, kind=kind, source=PEER, text=text, data=data))

    def _keep[S: Socket](self, socket: S) -> S:
        self._sockets.append(socket)
        return socket


def _controller(config: ControllerConfig, robot: RobotConfig, info: PolicyInfo) -> Controller:
    try:
        spec = ActionSpec.model_validate_json(info.action_spec)
    except ValueError as error:
        line = " ".join(str(error).split())
        raise ControlError(f"policy {info.model_id!r} tells no valid action space: {line}") from error
    return Controller(config, robot, spec, tuple(info.cameras), "monotonic", info.tokens)


def _rest_garbage_collector() -> None:
    """Collect once, then keep what is there out of later sweeps and start none by itself."""
    gc.collect()
    gc.freeze()
    gc.disable()
