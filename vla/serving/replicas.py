"""Several policy servers behind one address: robots are shared out among them, and move on when one falls silent.

They have one console as well: what is asked of it is asked of every replica.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from reflexarc.vla.serving.server import end_on_signals
from reflexarc.vla.serving.swap import loading, swapped
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import PolicyControl, PolicyControlReply
from reflexarc.wire.sockets import Client, Heartbeats, PeerWatch, Relay, Requester, Responder

SILENT_S = 3.0
"""A replica whose heartbeats stop for so long gets no more questions: it is dead, or stuck in one answer."""

CONSOLE_NS = 2_000_000_000
"""A replica that has not answered its console by then is answered for."""

ASK_AGAIN_NS = 500_000_000
"""While replicas load another policy they are asked so often whether it is in."""

IDLE_S = 0.02
TEND_NS = 1_000_000_000


class Group(Protocol):
    """Who keeps the replicas' processes."""

    def tend(self, waiting: Collection[str], policy: str) -> None:
        """Start again what has died, with `policy` if that was swapped in; `waiting`: those never heard so far."""

    def ended(self) -> bool:
        """Whether no replica runs any more."""


def replica_name(index: int) -> str:
    """The name of a replica in heartbeats."""
    return f"policy-{index}"


def replica_endpoints(folder: Path, index: int) -> Endpoints:
    """Where replica `index` listens; `folder` is this group's alone."""
    return Endpoints(
        policy=f"ipc://{folder}/policy-{index}",
        policy_console=f"ipc://{folder}/console-{index}",
        heartbeat=f"ipc://{folder}/heartbeat",
    )


def run_relay(
    count: int,
    folder: Path,
    endpoints: Endpoints,
    *,
    group: Group,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Pass questions on to the `count` replicas listening in `folder` until SIGTERM, Ctrl-C, `stop` or a drain's end.

    Raises WireError if an address is occupied.
    """
    stop = stop or threading.Event()
    with contextlib.ExitStack() as stack:
        stack.enter_context(end_on_signals(stop))
        names = [replica_name(index) for index in range(count)]
        behind = [replica_endpoints(folder, index) for index in range(count)]
        relay = stack.enter_context(
            Relay(endpoints.policy, [one.policy for one in behind], name="policy replicas")
        )
        console = GroupConsole(endpoints.policy_console, [one.policy_console for one in behind], stack)
        watch = PeerWatch(replica_endpoints(folder, 0).heartbeat, names, lost_after_s=SILENT_S)
        stack.callback(watch.close)
        heartbeats = Heartbeats(endpoints.heartbeat, "policy")
        stack.callback(heartbeats.close)
        next_tend = 0
        while not stop.is_set():
            now = monotonic_ns()
            for event in watch.update(now):
                say(f"policy replicas: {event.text}")
            away = {*watch.lost, *watch.waiting}
            alive = [index for index, name in enumerate(names) if name not in away]
            if alive:
                heartbeats.beat(now)
            relay.pump(alive, IDLE_S)
            console.pump(alive)
            if now > next_tend:
                next_tend = now + TEND_NS
                if console.draining and group.ended():
                    return
                if not console.draining:
                    group.tend(watch.waiting, console.policy)


class GroupConsole:
    """One console before those of the replicas; one request at a time.

    policy: the name that was last swapped in, in every replica that answers; empty before the first swap. draining:
    whether a drain was asked for.
    """

    def __init__(self, address: str, behind: list[str], stack: contextlib.ExitStack) -> None:
        self.policy, self.draining = "", False
        self._asked: Responder[PolicyControl] = stack.enter_context(
            Responder(address, PolicyControl, name="console of the policy replicas")
        )
        self._behind = [
            stack.enter_context(Requester(one, PolicyControlReply, name=replica_name(index)))
            for index, one in enumerate(behind)
        ]
        self._client: Client | None = None
        self._request: PolicyControl | None = None
        self._answers: dict[int, PolicyControlReply] = {}
        self._wanted: tuple[int, ...] = ()
        self._deadline_ns = 0
        self._loading = ""
        self._ask_again_ns = 0

    def pump(self, alive: Collection[int]) -> None:
        """Pass on what is asked to the replicas that are `alive`, and answer once they have."""
        asks_itself = self._request is not None and self._client is None
        if not asks_itself:  # else whoever asks waits for its end
            self._hear(alive)
        if self._request is None and self._loading and alive and monotonic_ns() > self._ask_again_ns:
            self._pass_on(None, PolicyControl(t_ns=monotonic_ns(), action="status"), alive)
        if self._request is None:
            return
        for index in self._wanted:
            for answer in self._behind[index].poll():
                self._answers[index] = answer
        if len(self._answers) == len(self._wanted) or monotonic_ns() > self._deadline_ns:
            if self._client is not None:
                self._asked.reply(self._client, self._joint_answer())
            self._conclude(self._request)
            self._client = self._request = None

    def _hear(self, alive: Collection[int]) -> None:
        for client, request in self._asked.poll():
            if self._request is not None or not alive:
                text = "another request is being answered" if alive else "no replica is alive"
                self._asked.reply(client, PolicyControlReply(t_ns=monotonic_ns(), ok=False, text=text))
            else:
                self._pass_on(client, request, alive)

    def _conclude(self, request: PolicyControl) -> None:
        """Remember a policy once every status says that it is in; a swap that fails or is refused is let go."""
        self._ask_again_ns = monotonic_ns() + ASK_AGAIN_NS
        answers = self._answers.values()
        if request.action == "swap" and any(answer.ok for answer in answers):
            self._loading = request.policy
        elif request.action == "status" and self._loading and len(answers) == len(self._wanted):
            if all(answer.text.endswith(swapped(self._loading)) for answer in answers):
                self.policy, self._loading = self._loading, ""
            elif not any(answer.text.endswith(loading(self._loading)) for answer in answers):
                self._loading = ""

    def _pass_on(self, client: Client | None, request: PolicyControl, alive: Collection[int]) -> None:
        self.draining |= request.action == "drain"
        self._client, self._request, self._wanted, self._answers = client, request, tuple(alive), {}
        self._deadline_ns = monotonic_ns() + CONSOLE_NS
        for index in self._wanted:
            self._behind[index].poll()  # what came too late for the last request
            self._behind[index].send(request)

    def _joint_answer(self) -> PolicyControlReply:
        texts = {
            index: self._answers[index].text if index in self._answers else "no answer from its console"
            for index in self._wanted
        }
        same = len(set(texts.values())) == 1
        text = next(iter(texts.values())) if same else ""
        text = text or "; ".join(f"{replica_name(index)}: {one}" for index, one in texts.items())
        ok = len(self._answers) == len(texts) and all(answer.ok for answer in self._answers.values())
        return PolicyControlReply(t_ns=monotonic_ns(), ok=ok, text=text)
