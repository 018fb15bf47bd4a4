"""One-way sockets: publish to all who listen, push to one who collects.

Latest-wins is done by draining the queue: ZMQ's own CONFLATE would break messages of several frames.
"""

from __future__ import annotations

from typing import Any

import zmq

from reflexarc.wire.codec import encode
from reflexarc.wire.messages import Message
from reflexarc.wire.sockets.base import QUEUE, Socket


class Publisher(Socket):
    """Sends each message to all who are subscribed; a slow one loses messages, the sender never waits."""

    def __init__(self, address: str, *, bind: bool = True, queue: int = QUEUE, name: str = "") -> None:
        super().__init__(zmq.PUB, address, bind=bind, queue=queue, name=name)

    def send(self, message: Message) -> bool:
        """Queue one message. Raises WireError if it cannot be encoded."""
        return self._send([encode(message)])


class _Inlet[M: Message](Socket):
    """Receives messages of the types it accepts, `Message` for all."""

    def __init__(
        self, kind: int, address: str, accepts: tuple[type[M], ...], *, bind: bool, queue: int, name: str
    ) -> None:
        super().__init__(kind, address, bind=bind, queue=queue, name=name)
        self._accepts: tuple[type[Any], ...] = accepts or (Message,)
        self._queue = queue

    def drain(self) -> list[M]:
        """All that has arrived, oldest first."""
        decoded = [self._decode_one(frames) for frames in self._receive(self._queue)]
        return [message for message in decoded if message is not None]

    def latest(self) -> M | None:
        """The newest good message that has arrived, None if there is none; the older ones are gone, undecoded."""
        for frames in reversed(self._receive(self._queue)):
            message = self._decode_one(frames)
            if message is not None:
                return message
        return None

    def _decode_one(self, frames: list[bytes]) -> M | None:
        if len(frames) != 1:
            self._fault(f"got {len(frames)} frames, expected 1")
            return None
        message: M | None = self._decode(frames[0], self._accepts)
        return message


class Subscriber[M: Message](_Inlet[M]):
    """The other end of a `Publisher`. What was published before it connected is not seen."""

    def __init__(
        self, address: str, *accepts: type[M], bind: bool = False, queue: int = QUEUE, name: str = ""
    ) -> None:
        super().__init__(zmq.SUB, address, accepts, bind=bind, queue=queue, name=name)


class Push(Socket):
    """Sends to one receiver; while it is away nothing is kept for it."""

    def __init__(self, address: str, *, bind: bool = False, queue: int = QUEUE, name: str = "") -> None:
        super().__init__(zmq.PUSH, address, bind=bind, queue=queue, name=name)

    def send(self, message: Message) -> bool:
        """Whether the message was queued for the receiver. Raises WireError if it cannot be encoded."""
        return self._send([encode(message)])


class Pull[M: Message](_Inlet[M]):
    """The receiver of any number of `Push`es; `latest()` for setpoints, of which only the newest counts."""

    def __init__(
        self, address: str, *accepts: type[M], bind: bool = True, queue: int = QUEUE, name: str = ""
    ) -> None:
        super().__init__(zmq.PULL, address, accepts, bind=bind, queue=queue, name=name)
