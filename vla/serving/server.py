"""The policy server: any number of robots ask one policy over a ROUTER socket; nobody waits for anybody's mistakes.

An observation is answered with an action chunk or an ErrorReply, a PolicyInfoRequest with a PolicyInfo. Of several
observations that wait from one robot only the newest is worth an answer; the others get an ErrorReply at once. Robots
that ask at about the same time are answered in one pass of the model, in the order in which their turn came. The
policy is given a key for each robot's session, so that two robots with one name for theirs share nothing.

The console socket (`policy_console`) is for whoever runs the server: status, swapping the model while robots go on,
and draining. A robot's socket can do none of these.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator

import msgspec

from reflexarc.configs.errors import ReflexarcError
from reflexarc.configs.serving import ServingConfig
from reflexarc.vla.answers import answers_whatever
from reflexarc.vla.serving.admission import objection
from reflexarc.vla.serving.metrics import Metrics
from reflexarc.vla.serving.queue import Queue, Waiting
from reflexarc.vla.serving.swap import Swap
from reflexarc.vla.sessions import key_among, name_in
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.contracts import BatchPolicy, Policy
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import (
    ActionChunk,
    ErrorReply,
    Message,
    Observation,
    PolicyControl,
    PolicyControlReply,
    PolicyInfoRequest,
)
from reflexarc.wire.sockets import Client, Heartbeats, Responder, wait_any

IDLE_S = 0.02
"""Longest wait for a request, so that heartbeats go out and a stop is noticed."""

REMEMBERED_CLIENTS = 1024
"""Sessions are remembered of this many clients; the one heard longest ago is forgotten first."""

DRAINED_NS = 2_000_000_000
"""A draining server ends when none of its sessions has asked for so long."""


@dataclasses.dataclass(slots=True)
class ServerSummary:
    """What became of the observations. batches: passes of the model that answered them."""

    answered: int = 0
    refused: int = 0
    superseded: int = 0
    late: int = 0
    batches: int = 0


def run_server(
    policy: Policy,
    endpoints: Endpoints,
    *,
    config: ServingConfig | None = None,
    load: Callable[[str], Policy] | None = None,
    metrics: Metrics | None = None,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = print,
    peer: str = "policy",
) -> ServerSummary:
    """Serve until SIGTERM, Ctrl-C, `stop` or a drain's end; those who wait are answered first.

    load: makes a policy from its name, for swaps; without it there are none. metrics: where it counts and says how it
    is. say: is given one line about each new kind of trouble. peer: the name in heartbeats.
    Raises WireError if an address is occupied.
    """
    stop, config, metrics = stop or threading.Event(), config or ServingConfig(), metrics or Metrics()
    with contextlib.ExitStack() as stack:
        stack.enter_context(end_on_signals(stop))
        requests: Responder[Observation | PolicyInfoRequest] = stack.enter_context(
            Responder(endpoints.policy, Observation, PolicyInfoRequest, name="policy server")
        )
        console: Responder[PolicyControl] = stack.enter_context(
            Responder(endpoints.policy_console, PolicyControl, name="console of the policy server")
        )
        heartbeats = Heartbeats(endpoints.heartbeat, peer)
        stack.callback(heartbeats.close)
        server = PolicyServer(
            policy, requests, say, config=config, console=console, load=load, metrics=metrics
        )
        while not (stop.is_set() or server.drained):
            heartbeats.beat(monotonic_ns())
            server.serve_once(IDLE_S)
        server.finish(config.drain_s)
        return server.summary


class PolicyServer:
    """Between robots and policy: takes in, batches, answers."""

    def __init__(
        self,
        policy: Policy,
        requests: Responder[Observation | PolicyInfoRequest],
        say: Callable[[str], None],
        *,
        config: ServingConfig,
        console: Responder[PolicyControl],
        load: Callable[[str], Policy] | None,
        metrics: Metrics,
    ) -> None:
        self.summary = ServerSummary()
        self._policy = policy
        self._requests = requests
        self._console = console
        self._say = say
        self._config = config
        self._metrics = metrics
        self._swap = Swap(load)
        self._queue = self._empty_queue()
        self._clients: dict[bytes, Client] = {}
        self._sessions: OrderedDict[bytes, str] = OrderedDict()
        self._answer_ns = 0
        self._drain_ns = -1
        self._last_trouble = ""
        metrics.beat(clients=0, waiting=0)
        metrics.state = "serving"

    @property
    def drained(self) -> bool:
        """Whether a drain was asked for and every session has ended."""
        return self._drain_ns >= 0 and monotonic_ns() - self._drain_ns > DRAINED_NS and not self._queue

    def serve_once(self, timeout_s: float) -> None:
        """Take in what has arrived, waiting up to `timeout_s` if there is nothing to do, and answer one batch."""
        due = self._queue.wait_ns(monotonic_ns())
        if due != 0:
            wait_any(
                (self._requests, self._console), timeout_s if due is None else min(timeout_s, due * 1e-9)
            )
        self._take_in()
        self._hear_console()
        fresh = self._swap.ready()
        if fresh is not None:
            self._put_in(fresh)
        if self._queue.wait_ns(monotonic_ns()) == 0:
            self._answer_batch()
        self._metrics.beat(self._queue.clients(monotonic_ns()), len(self._queue))

    def finish(self, limit_s: float) -> None:
        """Answer those who wait, for at most `limit_s`; nobody new is taken in."""
        self._metrics.state = "ending"
        deadline = monotonic_ns() + round(limit_s * 1e9)
        while self._queue and monotonic_ns() < deadline:
            self._answer_batch()

    def _empty_queue(self) -> Queue[bytes]:
        batches = isinstance(self._policy, BatchPolicy)
        config = self._config if batches else self._config.model_copy(update={"max_batch": 1})
        return Queue(config)

    def _take_in(self) -> None:
        for client, request in self._requests.poll():
            if isinstance(request, PolicyInfoRequest):
                info = msgspec.structs.replace(self._policy.info, t_ns=monotonic_ns())
                self._requests.reply(client, info)
            else:
                self._admit(client, request)
        fault = self._requests.take_fault()
        if fault:
            self._metrics.outcome("malformed")
            self._trouble(fault.removeprefix("policy server: "))

    def _admit(self, client: Client, observation: Observation) -> None:
        now = monotonic_ns()
        text = objection(observation) or self._queue.refusal(client.identity, now)
        text = text or self._drain_refusal(client, observation)
        if text:
            self._refuse(client, observation, text)
            return
        older = self._queue.put(client.identity, observation, now)
        if older is not None:
            self.summary.superseded += 1
            self._metrics.outcome("superseded")
            text = f"observation {older.observation.seq} was superseded by {observation.seq}"
            self._requests.reply(self._clients[client.identity], _refusal(text, older.observation))
        self._clients[client.identity] = client

    def _drain_refusal(self, client: Client, observation: Observation) -> str:
        if self._drain_ns < 0:
            return ""
        known = self._sessions.get(client.identity)
        if known is None or name_in(known) != name_in(observation.session):
            return "the policy server is draining: it begins no new session; ask another replica"
        self._drain_ns = monotonic_ns()
        return ""

    def _answer_batch(self) -> None:
        began = monotonic_ns()
        batch, late = self._queue.take(began, self._answer_ns)
        for item in late:
            self.summary.late += 1
            self._metrics.outcome("late")
            waited = (began - item.arrived_ns) * 1e-6
            limit = self._config.max_age_s * 1e3
            text = (
                f"observation {item.observation.seq} waited {waited:.0f} ms; its answer would come too late"
            )
            self._reply(item, _refusal(f"{text} (limit {limit:.0f} ms)", item.observation))
        if not batch:
            self._answer_ns //= 2  # one slow answer must not have all that follow refused for ever
            return
        keyed = [(item, key) for item in batch if (key := self._session_key(item, began)) is not None]
        if not keyed:
            return
        asked = [msgspec.structs.replace(item.observation, session=key) for item, key in keyed]
        answers = answers_whatever(self._policy, asked)
        self._answer_ns = monotonic_ns() - began
        batch = [item for item, _ in keyed]
        for item, answer in zip(batch, answers, strict=True):
            self._give(item, answer, began)
        self._tell_batch(batch, answers, began)

    def _give(self, item: Waiting[bytes], answer: ActionChunk | ReflexarcError, began: int) -> None:
        if isinstance(answer, ReflexarcError):
            self._trouble(f"observation {item.observation.seq} refused: {answer}")
            self.summary.refused += 1
            self._metrics.outcome("refused")
            self._reply(item, _refusal(str(answer), item.observation))
            return
        self.summary.answered += 1
        self._metrics.outcome("answered")
        latency = {"queue": began - item.arrived_ns} | answer.latency_ns
        session = item.observation.session
        self._reply(item, msgspec.structs.replace(answer, latency_ns=latency, session=session))

    def _tell_batch(
        self, batch: list[Waiting[bytes]], answers: list[ActionChunk | ReflexarcError], began: int
    ) -> None:
        self.summary.batches += 1
        stages = next((answer.latency_ns for answer in answers if isinstance(answer, ActionChunk)), {})
        self._metrics.batch(len(batch), [began - item.arrived_ns for item in batch], stages)

    def _reply(self, item: Waiting[bytes], message: Message) -> None:
        self._requests.reply(self._clients.pop(item.key), message)

    def _refuse(self, client: Client, observation: Observation, text: str) -> None:
        self.summary.refused += 1
        self._metrics.outcome("refused")
        self._trouble(f"observation {observation.seq} refused: {text}")
        self._requests.reply(client, _refusal(text, observation))

    def _session_key(self, item: Waiting[bytes], began: int) -> str | None:
        """What the policy knows its session by. None if it cannot be told of it, and whoever asked has heard why."""
        try:
            return self._begin_session(item)
        except ReflexarcError as error:
            self._sessions.pop(item.key, None)
            self._give(item, error, began)
            return None

    def _begin_session(self, item: Waiting[bytes]) -> str:
        name, key = name_in(item.observation.session), self._sessions.pop(item.key, None)
        if key is None or name_in(key) != name:
            if key is not None:
                self._policy.reset(key)  # nobody will ask about it again: pictures of the past, plans
            key = key_among(name, set(self._sessions.values()))
            self._policy.reset(key)
        self._sessions[item.key] = key
        if len(self._sessions) > REMEMBERED_CLIENTS:
            self._policy.reset(self._sessions.popitem(last=False)[1])
        return key

    def _hear_console(self) -> None:
        for client, request in self._console.poll():
            ok, text = self._control(request)
            self._console.reply(client, PolicyControlReply(t_ns=monotonic_ns(), ok=ok, text=text))
        fault = self._console.take_fault()
        if fault:
            self._trouble(fault)

    def _control(self, request: PolicyControl) -> tuple[bool, str]:
        if request.action == "swap":
            return self._swap.begin(request.policy, self._policy.info)
        if request.action == "drain":
            self._metrics.state = "draining"
            self._drain_ns = monotonic_ns()
            return True, "draining: running sessions are served to their end, new ones are refused"
        done = self.summary
        counts = f"{done.answered} answered in {done.batches} batches, {done.refused} refused, {done.late} too late"
        return True, f"{self._metrics.state} {self._policy.info.model_id}: {counts}; {self._swap.state}"

    def _put_in(self, fresh: Policy) -> None:
        """Every session begins anew: the new model knows nothing of what the old one remembered."""
        self._say(f"policy server: {fresh.info.model_id} takes the place of {self._policy.info.model_id}")
        self._policy = fresh
        self._sessions.clear()
        self._answer_ns = 0

    def _trouble(self, text: str) -> None:
        """Say it in one line, unless it is what was said last: a client may repeat its mistake ten times a second."""
        if text.split(":", 1)[-1] != self._last_trouble:
            self._last_trouble = text.split(":", 1)[-1]
            self._say(f"policy server: {' '.join(text.split())}")


def _refusal(text: str, observation: Observation) -> ErrorReply:
    return ErrorReply(t_ns=monotonic_ns(), text=text, obs_seq=observation.seq)


@contextlib.contextmanager
def end_on_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and Ctrl-C ask for an end after the answer in progress; only a main thread can be asked so."""
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
