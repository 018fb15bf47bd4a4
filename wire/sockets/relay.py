"""One address for several responders: each client is given to one of them and stays there while it lives.

Frames pass unread, (number, message) in and out. Each client has a DEALER of its own to its responder, under its own
identity, so that a responder sees as many clients as there are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

import zmq

from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.codec import encode
from reflexarc.wire.messages import ErrorReply
from reflexarc.wire.sockets.base import QUEUE, Socket, milliseconds

MAX_CLIENTS = 1024
"""Each has a socket; the client heard longest ago loses its first."""


class Relay(Socket):
    """The front of several responders at the addresses `behind`."""

    def __init__(self, address: str, behind: Sequence[str], *, queue: int = QUEUE, name: str = "") -> None:
        super().__init__(zmq.ROUTER, address, bind=True, queue=queue, name=name)
        self._behind = tuple(behind)
        self._queue = queue
        self._next = 0
        self._clients: OrderedDict[bytes, tuple[int, _Link]] = OrderedDict()
        self._poller = zmq.Poller()
        self._poller.register(self._zmq, zmq.POLLIN)

    @property
    def shares(self) -> list[int]:
        """How many clients each responder has."""
        indices = [index for index, _ in self._clients.values()]
        return [indices.count(index) for index in range(len(self._behind))]

    def pump(self, alive: Collection[int], timeout_s: float) -> None:
        """Pass on what has arrived in both directions, waiting up to `timeout_s` for it.

        alive: which responders may be asked. A client whose responder is not among them is given to another; where
        none is, it gets an ErrorReply.
        """
        self._poller.poll(milliseconds(timeout_s))
        for frames in self._receive(self._queue):
            if len(frames) == 3:
                identity, number, data = frames
                self._ask(identity, number, data, alive)
            else:
                self._fault(f"got {len(frames)} frames, expected 3")
        for identity, (_, link) in self._clients.items():
            for answer in link.answers(self._queue):
                self._send([identity, *answer])

    def close(self) -> None:
        """Release everything; safe to call twice."""
        for _, link in self._clients.values():
            link.close()
        self._clients.clear()
        super().close()

    def _ask(self, identity: bytes, number: bytes, data: bytes, alive: Collection[int]) -> None:
        link = self._link(identity, alive)
        if link is None:
            refusal = ErrorReply(
                t_ns=monotonic_ns(), text=f"{self.name}: none of {len(self._behind)} is alive"
            )
            self._send([identity, number, encode(refusal)])
            return
        link.ask(number, data)

    def _link(self, identity: bytes, alive: Collection[int]) -> _Link | None:
        """The client's way to its responder; a new one if it has none, or if that responder is dead."""
        if identity in self._clients:
            index, link = self._clients[identity]
            if index in alive:
                self._clients.move_to_end(identity)
                return link
            self._drop(identity)
        if not alive:
            return None
        if len(self._clients) >= MAX_CLIENTS:
            self._drop(next(iter(self._clients)))
        index = next(
            k % len(self._behind) for k in range(self._next, 2**62) if k % len(self._behind) in alive
        )
        self._next = index + 1
        link = _Link(self._behind[index], identity, self._queue)
        self._clients[identity] = (index, link)
        self._poller.register(link.raw, zmq.POLLIN)
        return link

    def _drop(self, identity: bytes) -> None:
        _, link = self._clients.pop(identity)
        self._poller.unregister(link.raw)
        link.close()


class _Link(Socket):
    """One client's DEALER to its responder."""

    def __init__(self, address: str, identity: bytes, queue: int) -> None:
        # ZMQ keeps identities that begin with a zero, as those it gives out do, to itself. The first question may wait
        # for the connection: it is made for it.
        options = ((zmq.IDENTITY, b"c" + identity), (zmq.IMMEDIATE, 0))
        super().__init__(zmq.DEALER, address, bind=False, queue=queue, options=options)

    @property
    def raw(self) -> zmq.Socket[bytes]:
        return self._zmq

    def ask(self, number: bytes, data: bytes) -> bool:
        """Whether it was queued."""
        return self._send([number, data])

    def answers(self, limit: int) -> list[list[bytes]]:
        """What the responder sent, oldest first."""
        return self._receive(limit)
