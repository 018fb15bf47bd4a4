"""How messages travel between the parts of a lockstep run: through the wire codec, in memory or over sockets.

Both ways hand the receiver what a separate process would have received: bytes decoded into a new message. A
run over either gives the identical trajectory, which a test holds them to.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import zmq

from reflexarc.configs.errors import WireError
from reflexarc.wire.codec import decode, encode
from reflexarc.wire.messages import Message

M = TypeVar("M", bound=Message)


class Link(Protocol):
    """Carries one message from its sender to its receiver."""

    def carry(self, message: M) -> M:
        """The message as its receiver gets it; raises WireError if it does not arrive."""

    def close(self) -> None:
        """Release what the link holds; safe to call twice."""


class CodecLink:
    """Encode and decode in memory: no socket, the same bytes."""

    def carry(self, message: M) -> M:
        """The message, encoded and decoded."""
        received = decode(encode(message))
        assert isinstance(received, type(message))
        return received

    def close(self) -> None:
        """Nothing to release."""


class SocketLink:
    """A real TCP socket pair on the loopback interface; each message is awaited, so order is kept."""

    def __init__(self, timeout_s: float = 5.0) -> None:
        self._context = zmq.Context()
        self._pull = self._context.socket(zmq.PULL)
        self._push = self._context.socket(zmq.PUSH)
        for socket in (self._pull, self._push):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVTIMEO, round(timeout_s * 1000))
            socket.setsockopt(zmq.SNDTIMEO, round(timeout_s * 1000))
        port = self._pull.bind_to_random_port("tcp://127.0.0.1")
        self._push.connect(f"tcp://127.0.0.1:{port}")
        self._timeout_s = timeout_s

    def carry(self, message: M) -> M:
        """Send the message and wait for it to come out at the other end."""
        try:
            self._push.send(encode(message))
            received = decode(self._pull.recv())
        except zmq.Again as error:
            raise WireError(
                f"{type(message).__name__} did not arrive within {self._timeout_s} s over the loopback socket"
            ) from error
        assert isinstance(received, type(message))
        return received

    def close(self) -> None:
        """Close both ends."""
        self._push.close()
        self._pull.close()
        self._context.term()
