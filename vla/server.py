"""The policy server: any number of clients ask one policy over a ROUTER socket; nobody waits for anybody's mistakes.

An observation is answered with an action chunk or an ErrorReply, a PolicyInfoRequest with a PolicyInfo. Of several
observations that wait from one client only the newest is worth an answer; the others get an ErrorReply at once. Clients
are served in the order in which their turn came, one observation each, so a fast one cannot starve the others.
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
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.contracts import Policy
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import ErrorReply, Message, Observation, PolicyInfoRequest
from reflexarc.wire.sockets import Client, Heartbeats, Responder

IDLE_S = 0.02
"""Longest wait for a request, so that heartbeats go out and a stop is noticed."""

REMEMBERED_CLIENTS = 1024
"""Sessions are remembered of this many clients; the one heard longest ago is forgotten first."""


@dataclasses.dataclass(slots=True)
class ServerSummary:
    """How many observations were answered with a chunk, with an error, and were superseded by newer ones."""

    answered: int = 0
    refused: int = 0
    superseded: int = 0


def run_server(
    policy: Policy,
    endpoints: Endpoints,
    *,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = print,
) -> ServerSummary:
    """Serve until SIGTERM, Ctrl-C or `stop`. `say` is given one line about each new kind of trouble.

    Raises WireError if the address is occupied.
    """
    stop = stop or threading.Event()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_signals(stop))
        requests: Responder[Observation | PolicyInfoRequest] = stack.enter_context(
            Responder(endpoints.policy, Observation, PolicyInfoRequest, name="policy server")
        )
        heartbeats = Heartbeats(endpoints.heartbeat, "policy")
        stack.callback(heartbeats.close)
        server = PolicyServer(policy, requests, say)
        while not stop.is_set():
            heartbeats.beat(monotonic_ns())
            server.serve_once(IDLE_S)
        return server.summary


class PolicyServer:
    """The queue between clients and policy: at most one waiting observation a client."""

    def __init__(
        self,
        policy: Policy,
        requests: Responder[Observation | PolicyInfoRequest],
        say: Callable[[str], None],
    ) -> None:
        self.summary = ServerSummary()
        self._policy = policy
        self._requests = requests
        self._say = say
        self._waiting: OrderedDict[bytes, tuple[Client, Observation]] = OrderedDict()
        self._sessions: OrderedDict[bytes, str] = OrderedDict()
        self._last_trouble = ""

    def serve_once(self, timeout_s: float) -> None:
        """Take in what has arrived, waiting up to `timeout_s` if there is nothing to do, and answer one observation."""
        if not self._waiting:
            self._requests.wait(timeout_s)
        self._take_in()
        if self._waiting:
            _, (client, observation) = self._waiting.popitem(last=False)
            self._requests.reply(client, self._answer(client, observation))

    def _take_in(self) -> None:
        for client, request in self._requests.poll():
            if isinstance(request, PolicyInfoRequest):
                info = msgspec.structs.replace(self._policy.info, t_ns=monotonic_ns())
                self._requests.reply(client, info)
                continue
            older = self._waiting.get(client.identity)
            if older is not None:
                self.summary.superseded += 1
                text = f"observation {older[1].seq} was superseded by {request.seq}"
                self._requests.reply(older[0], _refusal(text, older[1]))
            self._waiting[client.identity] = (client, request)  # keeps the place in the queue
        fault = self._requests.take_fault()
        if fault:
            self._trouble(fault)

    def _answer(self, client: Client, observation: Observation) -> Message:
        try:
            self._begin_session(client, observation)
            chunk = self._policy.act(observation)
        except ReflexarcError as error:
            self.summary.refused += 1
            self._trouble(f"observation {observation.seq} refused: {error}")
            return _refusal(str(error), observation)
        self.summary.answered += 1
        return chunk

    def _begin_session(self, client: Client, observation: Observation) -> None:
        if self._sessions.get(client.identity) != observation.session:
            self._policy.reset(observation.session)
        self._sessions[client.identity] = observation.session
        self._sessions.move_to_end(client.identity)
        if len(self._sessions) > REMEMBERED_CLIENTS:
            self._sessions.popitem(last=False)

    def _trouble(self, text: str) -> None:
        """Say it in one line, unless it is what was said last: a client may repeat its mistake ten times a second."""
        if text.split(":", 1)[-1] != self._last_trouble:
            self._last_trouble = text.split(":", 1)[-1]
            self._say(f"policy server: {' '.join(text.split())}")


def _refusal(text: str, observation: Observation) -> ErrorReply:
    return ErrorReply(t_ns=monotonic_ns(), text=text, obs_seq=observation.seq)


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
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
