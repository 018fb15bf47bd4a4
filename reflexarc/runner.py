"""The runner: owns reset, instruction, episode limits and, in simulation, the privileged success check.

It stands beside the control path: it asks the robot host's console, asks the simulated arm if there is one, tells
everybody when an episode begins and ends, and watches. If it dies, controller and host go on to their own hold.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any, Literal

from reflexarc.configs.errors import RobotError, WireError
from reflexarc.safety.states import LATCHED, latched_by
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import (
    ActionChunk,
    EpisodeStart,
    EpisodeStop,
    Event,
    HostAction,
    HostReply,
    HostRequest,
    Message,
    SafetyReport,
    SafetyState,
    SimAnswer,
    SimQuery,
    State,
)
from reflexarc.wire.roles import find_key
from reflexarc.wire.sockets import PeerWatch, Publisher, Requester, Subscriber

POLL_S = 0.05
"""Period of the success check and of the watch over the peers."""

SETTLE_S = 0.15
"""Time for everybody to take in that an episode has begun or ended, before the arm moves."""

Verdict = Literal["", "success", "fail", "redo", "quit"]
"""What a person says of the episode that is running; empty while there is nothing to say."""

STANDS_S = 2.0
"""An arm that was told to stop stands well before this; then it may be reset, or enabled again."""

MAY_RETURN = {"policy", "cameras", "recorder", "teleop"}
"""Peers whose loss does not end an episode: the arm holds (or goes unrecorded), and goes on when they are back."""


class LatchedError(RobotError):
    """No episode begins: the robot host is latched in a stop, which is a person's to undo."""


@dataclasses.dataclass(slots=True)
class EpisodeFigures:
    """What was seen of one episode. Times in seconds, latencies in ms. judge: `person` where one ended it.

    success: None where nobody judged, as happens on an arm that is not simulated.
    stop_rule: of a latched stop (its reason is in `end`), or empty. unrecorded: why the log does not hold all of it, or
    empty.
    """

    episode: str
    task: str
    instruction: str
    success: bool | None = False
    time_s: float = 0.0
    end: str = ""
    chunks: int = 0
    policy_hz: float = 0.0
    latency_ms_p50: float = 0.0
    latency_ms_max: float = 0.0
    limited: dict[str, int] = dataclasses.field(default_factory=dict)
    events: list[str] = dataclasses.field(default_factory=list)
    judge: str = ""
    stop_rule: str = ""
    unrecorded: str = ""


class Runner:
    """Runs episodes against the processes of a run."""

    def __init__(self, endpoints: Endpoints, peers: tuple[str, ...], *, simulated: bool = True) -> None:
        """peers: whose heartbeats to expect. simulated: the arm lays tasks out and says when they are done."""
        self._watch = PeerWatch(endpoints.heartbeat, peers)
        self._publisher = Publisher(endpoints.runner, name="runner")
        self._console: Requester[HostReply] = Requester(endpoints.console, HostReply, name="host console")
        self._sim: Requester[SimAnswer] | None = None
        if simulated:
            self._sim = Requester(endpoints.sim, SimAnswer, name="simulated arm")
        self._states: Subscriber[Message] = Subscriber(
            endpoints.state, State, SafetyReport, Event, name="runner's view of the host"
        )
        self._controller: Subscriber[Message] = Subscriber(
            endpoints.controller, ActionChunk, Event, name="runner's view of the controller"
        )
        self._recorder: Subscriber[Event] = Subscriber(
            endpoints.recorder, Event, name="runner's view of the recorder"
        )
        self._port = endpoints.base_port
        self._seq = 0
        self._since_ns = 0
        self._loops: dict[str, dict[str, Any]] = {}

    @property
    def simulated(self) -> bool:
        """Whether the arm lays out tasks and judges them."""
        return self._sim is not None

    def loops(self) -> dict[str, dict[str, Any]]:
        """The latest figures of each real-time loop, by its process."""
        return dict(self._loops)

    def wait_ready(self, timeout_s: float, check: Callable[[], None]) -> None:
        """Wait for the first heartbeat of every peer; `check` raises if a process has died meanwhile.

        Raises RobotError naming the peers that were not heard.
        """
        deadline = time.monotonic() + timeout_s
        while self._watch.waiting:
            self._watch.update(monotonic_ns())
            check()
            if time.monotonic() > deadline:
                missing = ", ".join(self._watch.waiting)
                raise RobotError(f"no heartbeat within {timeout_s:.0f} s from: {missing}; see their logs")
            time.sleep(POLL_S)

    def episode(
        self,
        episode: str,
        *,
        task: str = "",
        seed: int = 0,
        instruction: str = "",
        time_limit_s: float,
        metadata: str,
        check: Callable[[], None],
        verdict: Callable[[], Verdict] = lambda: "",
        reset_protective_stop: bool = False,
    ) -> EpisodeFigures:
        """Run one episode. In simulation the task gives the instruction, unless one is named, and `seed` its layout.

        verdict: asked all the time; whatever a person says ends the episode. reset_protective_stop: of a simulated arm
        that nobody stands beside, left by the episode before; never an emergency stop.

        Raises LatchedError if the robot host is latched in a stop, RobotError if it does not enable the arm.
        """
        self._release(episode, may_reset=reset_protective_stop and self.simulated)
        if self._sim is not None:
            told = self._sim_query("reset", task=task, seed=seed).instruction
            instruction = instruction or told
        figures = EpisodeFigures(episode, task, instruction, success=False if self.simulated else None)
        start = EpisodeStart(
            t_ns=monotonic_ns(),
            episode=episode,
            instruction=instruction,
            session=episode,
            metadata=metadata,
        )
        self._since_ns = start.t_ns
        self._publisher.send(start)
        time.sleep(SETTLE_S)
        try:
            self._enable()
            self._follow(figures, time_limit_s, check, verdict)
        finally:
            figures.end = figures.end or "interrupted"
            self._finish(figures)
        return figures

    def request(self, action: HostAction, from_state: SafetyState | None = None) -> HostReply:
        """One request to the host's console; the reply says whether it was granted. from_state: only in that one."""
        self._seq += 1
        key = find_key(self._console.address, "supervisor")
        request = HostRequest(
            t_ns=monotonic_ns(), action=action, seq=self._seq, source="runner", key=key, from_state=from_state
        )
        return self._console.request(request, 2.0)

    def close(self) -> None:
        """Leave the arm disabled and release the sockets."""
        sockets = (self._publisher, self._console, self._sim, self._states, self._controller, self._recorder)
        for socket in sockets:
            if socket is not None:
                socket.close()
        self._watch.close()

    def _release(self, episode: str, *, may_reset: bool) -> None:
        """Bring the host to `off`, where it commands nothing. LatchedError if a stop is latched.

        may_reset: a protective stop is reset, once the arm stands.
        """
        end = time.monotonic() + STANDS_S
        while may_reset and self.request("status").safety == "protective_stop" and time.monotonic() < end:
            if not self.request("reset", from_state="protective_stop").ok:
                time.sleep(POLL_S)
        self.request("disable")
        status = self.request("status")
        if status.safety in LATCHED:
            raise LatchedError(
                f"{episode} does not begin, the robot host is in {status.text}; look why, then "
                f"`reflexarc console reset --port {self._port}`"
            )

    def _enable(self) -> None:
        """Enable the arm from `off`, once it stands. A refusal is an error: nothing would move.

        Nothing is reset here, so a stop since `_release` is a refusal.
        """
        end = time.monotonic() + STANDS_S
        while not (reply := self.request("enable")).ok:
            if reply.safety != "off" or time.monotonic() > end:
                raise RobotError(
                    f"the robot host refused to enable the arm in state {reply.safety}: {reply.text}"
                )
            time.sleep(POLL_S)

    def _sim_query(self, query: Literal["reset", "success"], task: str = "", seed: int = 0) -> SimAnswer:
        assert self._sim is not None
        self._seq += 1
        ask = SimQuery(t_ns=monotonic_ns(), query=query, seq=self._seq, task=task, seed=seed)
        answer = self._sim.request(ask, 20.0 if query == "reset" else 2.0)
        if not answer.ok:
            raise RobotError(f"the simulated arm refused {query}: {answer.text}")
        return answer

    def _follow(
        self,
        figures: EpisodeFigures,
        limit_s: float,
        check: Callable[[], None],
        verdict: Callable[[], Verdict],
    ) -> None:
        """Watch until success, a person's word, a latched stop, a lost peer or the end of the time."""
        begun = time.monotonic()
        latencies: list[float] = []
        rules: collections.Counter[str] = collections.Counter()
        while not figures.end:
            time.sleep(POLL_S)
            check()
            figures.time_s = time.monotonic() - begun
            stopped = self._watch_host(figures, rules)
            self._watch_controller(figures, latencies)
            self._watch_recorder(figures)
            for event in self._watch.update(monotonic_ns()):
                figures.events.append(f"{event.kind}: {event.text}")
                self._publisher.send(event)
            if said := verdict():
                figures.success, figures.end, figures.judge = said == "success", said, "person"
            elif self._sim is not None and self._sim_query("success").success:
                figures.success, figures.end = True, "success"
            elif stopped:
                figures.end = stopped
            elif lost := set(self._watch.lost) - MAY_RETURN:
                figures.end = f"lost: {', '.join(sorted(lost))}"
            elif figures.time_s > limit_s:
                figures.end = "time limit"
        figures.limited = dict(rules)
        figures.policy_hz = figures.chunks / figures.time_s
        if latencies:
            latencies.sort()
            figures.latency_ms_p50 = latencies[len(latencies) // 2]
            figures.latency_ms_max = latencies[-1]

    def _fresh[M: Message](self, socket: Subscriber[M]) -> list[M]:
        """What was published since the episode began: between episodes nobody reads, and a stop would queue up."""
        return [message for message in socket.drain() if message.t_ns >= self._since_ns]

    def _watch_host(self, figures: EpisodeFigures, rules: collections.Counter[str]) -> str:
        """What latched a stop, in words; empty while nothing did."""
        stopped = ""
        for message in self._fresh(self._states):
            if isinstance(message, State) and message.safety in LATCHED:
                stopped = stopped or f"the safety layer is in {message.safety}"
            elif isinstance(message, SafetyReport):
                rules.update({item.rule for item in message.interventions})
                if rule := latched_by(message):
                    figures.stop_rule = rule
                    stopped = f"{message.state} by {rule}: {message.reason}"
                    figures.events.append(stopped)
            elif isinstance(message, Event):
                self._note(message, figures)
        return stopped

    def _watch_controller(self, figures: EpisodeFigures, latencies: list[float]) -> None:
        for message in self._fresh(self._controller):
            if isinstance(message, ActionChunk):
                figures.chunks += 1
                latencies.append((message.t_ns - message.t_obs_ns) * 1e-6)
            elif isinstance(message, Event):
                self._note(message, figures)

    def _watch_recorder(self, figures: EpisodeFigures) -> None:
        """A recording that ends or loses something ends no episode, but whoever asked for one must hear of it."""
        for event in self._fresh(self._recorder):
            if event.kind in ("recorder_error", "recorder_drop"):
                figures.events.append(f"{event.kind}: {event.text}")
                figures.unrecorded = figures.unrecorded or event.text

    def _note(self, event: Event, figures: EpisodeFigures) -> None:
        if event.kind == "loop_stats":
            self._loops[event.source] = dict(event.data)
        elif event.kind != "control":
            figures.events.append(f"{event.kind}: {event.text}")

    def _finish(self, figures: EpisodeFigures) -> None:
        """Hold the arm, then tell everybody that the episode is over."""
        try:
            self.request("hold")
        except WireError as error:  # a dead host: its arm brakes by itself
            figures.events.append(str(error))
        outcome = json.dumps(dataclasses.asdict(figures))
        self._publisher.send(EpisodeStop(t_ns=monotonic_ns(), episode=figures.episode, outcome=outcome))
        time.sleep(SETTLE_S)
        self._watch_recorder(figures)
