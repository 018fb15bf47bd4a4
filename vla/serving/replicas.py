"""Several policy servers behind one address: robots are shared out among them, and move on when one falls silent."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from reflexarc.vla.serving.server import end_on_signals
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.sockets import Heartbeats, PeerWatch, Relay

SILENT_S = 3.0
"""A replica whose heartbeats stop for so long gets no more questions: it is dead, or stuck in one answer."""

IDLE_S = 0.02
TEND_NS = 1_000_000_000


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
    tend: Callable[[Collection[str]], None],
    stop: threading.Event | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Pass questions on to the `count` replicas listening in `folder` until SIGTERM, Ctrl-C or `stop`.

    tend: restarts what has died; called often, with the names of the replicas that never were heard. Raises WireError
    if the address is occupied.
    """
    stop = stop or threading.Event()
    with contextlib.ExitStack() as stack:
        stack.enter_context(end_on_signals(stop))
        names = [replica_name(index) for index in range(count)]
        behind = [replica_endpoints(folder, index).policy for index in range(count)]
        relay = stack.enter_context(Relay(endpoints.policy, behind, name="policy replicas"))
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
            if now > next_tend:
                next_tend = now + TEND_NS
                tend(watch.waiting)
