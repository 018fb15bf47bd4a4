"""Who is alive: each process sends heartbeats, one watches them and names who fell silent."""

from __future__ import annotations

from collections.abc import Iterable

from reflexarc.wire.messages import Event, Heartbeat
from reflexarc.wire.sockets.streams import Pull, Push


class Heartbeats:
    """Tells a `PeerWatch` that this process is alive."""

    def __init__(self, address: str, peer: str, period_s: float = 0.1) -> None:
        self.peer = peer
        self._push = Push(address, queue=4, name=f"heartbeat of {peer}")
        self._period_ns = round(period_s * 1e9)
        self._next_ns = 0
        self._seq = 0

    def beat(self, now_ns: int) -> None:
        """Send a heartbeat if one is due; to be called from the loop whose health it vouches for."""
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + self._period_ns
        self._push.send(Heartbeat(t_ns=now_ns, peer=self.peer, seq=self._seq))
        self._seq += 1

    def close(self) -> None:
        """Release the socket; safe to call twice."""
        self._push.close()


class PeerWatch:
    """Notices when one of the named peers falls silent, and when it is back."""

    def __init__(self, address: str, peers: Iterable[str], lost_after_s: float = 1.0) -> None:
        """Peers that never were heard are `waiting`, not lost: a policy server may take a minute to start."""
        self._pull: Pull[Heartbeat] = Pull(address, Heartbeat, name="heartbeat")
        self._heard_ns: dict[str, int | None] = dict.fromkeys(peers)
        self._lost: set[str] = set()
        self._limit_ns = round(lost_after_s * 1e9)
        self.address = self._pull.address

    @property
    def waiting(self) -> tuple[str, ...]:
        """Peers that were not heard yet."""
        return tuple(peer for peer, heard in self._heard_ns.items() if heard is None)

    @property
    def lost(self) -> tuple[str, ...]:
        """Peers that were heard and are silent now."""
        return tuple(peer for peer in self._heard_ns if peer in self._lost)

    def update(self, now_ns: int) -> tuple[Event, ...]:
        """Take in what arrived; an Event `peer_lost` or `peer_returned` for each peer that changed, naming it."""
        for beat in self._pull.drain():
            if beat.peer in self._heard_ns:
                self._heard_ns[beat.peer] = now_ns
        changed = (self._judge(peer, heard, now_ns) for peer, heard in self._heard_ns.items())
        return tuple(event for event in changed if event is not None)

    def close(self) -> None:
        """Release the socket; safe to call twice."""
        self._pull.close()

    def _judge(self, peer: str, heard_ns: int | None, now_ns: int) -> Event | None:
        if heard_ns is None:
            return None
        silent_s = (now_ns - heard_ns) * 1e-9
        lost = now_ns - heard_ns > self._limit_ns
        if lost == (peer in self._lost):
            return None
        if lost:
            self._lost.add(peer)
            text = f"{peer} has been silent for {silent_s:.2f} s (limit {self._limit_ns * 1e-9:.2f} s)"
        else:
            self._lost.discard(peer)
            text = f"{peer} is back"
        kind = "peer_lost" if lost else "peer_returned"
        return Event(t_ns=now_ns, kind=kind, source="peer_watch", text=text, data={"peer": peer})
