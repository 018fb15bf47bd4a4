"""A non-blocking socket for messages on loopback: what publishing, pushing and requesting have in common.

No call waits unless it is given a timeout; every queue is bounded; what cannot be delivered is dropped and counted.
Bytes that are not a message never raise in a loop: they are counted, with the reason of the last one. A socket
belongs to the thread that made it. The context is shared by a process and made anew after a fork.
"""

from __future__ import annotations

import contextlib
import socket as posix
from collections.abc import Iterable
from typing import Any, Self

import zmq

from reflexarc.configs.errors import WireError
from reflexarc.wire.codec import MAX_MESSAGE_BYTES, decode
from reflexarc.wire.endpoints import not_loopback

QUEUE = 1000
"""Messages a socket holds for each peer and direction before it drops."""

_OPTIONS: tuple[tuple[int, int | bytes], ...] = ((zmq.LINGER, 0), (zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES))
_OPTIONS_OF: dict[int, tuple[tuple[int, int | bytes], ...]] = {
    zmq.SUB: ((zmq.SUBSCRIBE, b""),),
    zmq.PUSH: ((zmq.IMMEDIATE, 1),),  # nothing piles up for a receiver that is not there
    zmq.DEALER: ((zmq.IMMEDIATE, 1),),
    zmq.ROUTER: ((zmq.ROUTER_MANDATORY, 1),),  # an answer to a client that has gone is refused, not lost
}


class Socket:
    """What all the sockets share: opening, closing, counting what was bad."""

    def __init__(
        self,
        kind: int,
        address: str,
        *,
        bind: bool,
        queue: int,
        name: str = "",
        options: tuple[tuple[int, int | bytes], ...] = (),
    ) -> None:
        """options: of ZMQ, beyond those of this kind.

        Raises WireError naming the address if it is not loopback, occupied or malformed.
        """
        problem = not_loopback(address)
        if problem:
            raise WireError(problem)
        self.name = name or address
        self.faults = 0
        self.last_fault = ""
        self.dropped = 0
        self._told = 0
        self._zmq: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
        self._zmq.setsockopt(zmq.SNDHWM, queue)
        self._zmq.setsockopt(zmq.RCVHWM, queue)
        for option, value in (*_OPTIONS, *_OPTIONS_OF.get(kind, ()), *options):
            self._zmq.setsockopt(option, value)
        try:
            if bind:
                _refuse_live_ipc(address)
                self._zmq.bind(address)
            else:
                self._zmq.connect(address)
        except (zmq.ZMQError, OSError) as error:
            self._zmq.close()
            raise WireError(_why_not(error, self.name, address, bind)) from error
        self.address = self._zmq.getsockopt_string(zmq.LAST_ENDPOINT) if bind else address

    def wait(self, timeout_s: float) -> bool:
        """Whether something is there to receive, waiting for it up to `timeout_s`."""
        return bool(self._zmq.poll(milliseconds(timeout_s), zmq.POLLIN))

    def take_fault(self) -> str:
        """What was bad since the last call, in one line with how often; empty if nothing was."""
        new, self._told = self.faults - self._told, self.faults
        return f"{self.name}: {new} bad, last: {self.last_fault}" if new else ""

    def close(self) -> None:
        """Drop what was not sent and release the address; safe to call twice."""
        self._zmq.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, frames: list[bytes]) -> bool:
        try:
            self._zmq.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise WireError(f"{self.name}: cannot send: {error}") from error
            self.dropped += 1  # its queue is full, or nobody is there
            return False
        return True

    def _receive(self, limit: int) -> list[list[bytes]]:
        """What has arrived, oldest first, at most `limit`: a flood can't hold a loop up."""
        received: list[list[bytes]] = []
        while len(received) < limit:
            try:
                received.append(self._zmq.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                break
            except zmq.ZMQError as error:
                raise WireError(f"{self.name}: cannot receive: {error}") from error
        return received

    def _decode(self, data: bytes, accepts: tuple[type[Any], ...]) -> Any:
        """The message in `data`, None and counted if it is none of those accepted."""
        try:
            message = decode(data)
        except WireError as error:
            self._fault(str(error))
            return None
        if isinstance(message, accepts):
            return message
        expected = ", ".join(each.__name__ for each in accepts)
        self._fault(f"got {type(message).__name__}, expected {expected}")
        return None

    def _fault(self, reason: str) -> None:
        self.faults += 1
        self.last_fault = reason


def wait_any(sockets: Iterable[Socket], timeout_s: float) -> bool:
    """Whether something is there to receive on any of the sockets, waiting for it up to `timeout_s`."""
    poller = zmq.Poller()
    for each in sockets:
        poller.register(each._zmq, zmq.POLLIN)
    return bool(poller.poll(milliseconds(timeout_s)))


def milliseconds(timeout_s: float) -> int:
    """For ZMQ, to which a negative number means for ever."""
    return max(0, round(timeout_s * 1000))


def _why_not(error: OSError | zmq.ZMQError, name: str, address: str, bind: bool) -> str:
    """One line for a socket that could not be opened."""
    where = address if name == address else f"{name} at {address}"
    if error.errno == zmq.EADDRINUSE:
        return f"cannot bind {where}: it is in use; end the other run, or choose another base_port"
    return f"cannot {'bind' if bind else 'connect'} {where}: {error}"


def _refuse_live_ipc(address: str) -> None:
    """Raise OSError if somebody answers at an ipc address: ZMQ would take it away from them without a word."""
    if not address.startswith("ipc://"):
        return
    with contextlib.closing(posix.socket(posix.AF_UNIX, posix.SOCK_STREAM)) as probe:
        try:
            probe.connect(address.removeprefix("ipc://"))
        except OSError:
            return
    raise OSError(zmq.EADDRINUSE, "in use")
