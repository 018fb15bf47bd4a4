"""Two-way sockets: ask, and be asked. On the wire a request is (number, message), and its answer carries the number."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import zmq

from reflexarc.configs.errors import WireError
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.codec import encode
from reflexarc.wire.messages import ErrorReply, Message
from reflexarc.wire.sockets.base import QUEUE, Socket, milliseconds


class Requester[M: Message](Socket):
    """Asks a `Responder`. Answers are matched to requests, so a late one is never taken for the next one's."""

    def __init__(
        self, address: str, *accepts: type[M], bind: bool = False, queue: int = QUEUE, name: str = ""
    ) -> None:
        """accepts: types of the answers; with `ErrorReply` among them, refusals are answers like any other."""
        super().__init__(zmq.DEALER, address, bind=bind, queue=queue, name=name)
        self._accepts: tuple[type[Any], ...] = accepts or (Message,)
        self._queue = queue
        self._number = 0
        self._open: OrderedDict[bytes, None] = OrderedDict()
        self._answers: deque[M] = deque(maxlen=queue)

    def send(self, message: Message) -> bool:
        """Whether the request was queued; its answer comes out of `poll`. Raises WireError if it cannot be encoded."""
        return self._ask(encode(message)) is not None

    def poll(self) -> list[M]:
        """The answers that have arrived to requests made with `send`, oldest first."""
        for frames in self._receive(self._queue):
            self._sort(frames)
        answers = list(self._answers)
        self._answers.clear()
        return answers

    def request(self, message: Message, timeout_s: float) -> M:
        """The answer to `message`. Raises WireError if none comes in time, or if it is a refusal."""
        data, name = encode(message), type(message).__name__
        deadline = monotonic_ns() + round(timeout_s * 1e9)
        self._zmq.poll(milliseconds(timeout_s), zmq.POLLOUT)
        number = self._ask(data)
        if number is None:
            raise WireError(f"{self.name}: nobody at {self.address} took {name} within {timeout_s} s")
        while self.wait((deadline - monotonic_ns()) * 1e-9):
            for frames in self._receive(1):
                answer = self._sort(frames, wanted=number)
                if answer is not None:
                    return answer
            if number not in self._open:
                raise WireError(f"{self.name}: {name} was answered with: {self.last_fault}")
        del self._open[number]
        raise WireError(f"{self.name}: no answer to {name} from {self.address} within {timeout_s} s")

    def _ask(self, data: bytes) -> bytes | None:
        """The number of the request just sent, None if it could not be."""
        self._number += 1
        number = self._number.to_bytes(8, "big")
        if not self._send([number, data]):
            return None
        self._open[number] = None
        if len(self._open) > self._queue:
            self._open.popitem(last=False)
        return number

    def _sort(self, frames: list[bytes], wanted: bytes = b"") -> M | None:
        """The answer if it is the one wanted; one to another open request is kept for `poll`, the rest dropped."""
        if len(frames) != 2:
            self._fault(f"got {len(frames)} frames, expected 2")
            return None
        number, data = frames
        if number not in self._open:
            return None  # too late: nobody waits for it any more
        del self._open[number]
        answer = self._decode(data, (*self._accepts, ErrorReply))
        if isinstance(answer, ErrorReply) and not issubclass(ErrorReply, self._accepts):
            self._fault(answer.text)
            answer = None
        if answer is not None and number != wanted:
            self._answers.append(answer)
            return None
        accepted: M | None = answer
        return accepted


class Client:
    """Who asked, for `Responder.reply`; opaque."""

    __slots__ = ("identity", "number")

    def __init__(self, identity: bytes, number: bytes) -> None:
        self.identity = identity
        self.number = number


class Responder[M: Message](Socket):
    """Answers any number of `Requester`s, in any order and whenever it likes."""

    def __init__(
        self, address: str, *accepts: type[M], bind: bool = True, queue: int = QUEUE, name: str = ""
    ) -> None:
        super().__init__(zmq.ROUTER, address, bind=bind, queue=queue, name=name)
        self._accepts: tuple[type[Any], ...] = accepts or (Message,)
        self._queue = queue

    def poll(self) -> list[tuple[Client, M]]:
        """The requests that have arrived, oldest first. A bad one is answered with an ErrorReply here."""
        requests: list[tuple[Client, M]] = []
        for frames in self._receive(self._queue):
            if len(frames) != 3:
                self._fault(f"got {len(frames)} frames, expected 3")
                continue
            client = Client(frames[0], frames[1])
            message: M | None = self._decode(frames[2], self._accepts)
            if message is None:
                self.reply(client, ErrorReply(t_ns=monotonic_ns(), text=self.last_fault))
            else:
                requests.append((client, message))
        return requests

    def reply(self, client: Client, message: Message) -> bool:
        """Whether the answer was queued; False if the client has gone. Raises WireError if it cannot be encoded."""
        return self._send([client.identity, client.number, encode(message)])
