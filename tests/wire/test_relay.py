"""The relay: clients are shared out, stay where they are, and move on when their responder is dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from reflexarc.configs.errors import WireError
from reflexarc.wire.messages import HostReply, HostRequest
from reflexarc.wire.sockets import Relay, Requester, Responder


class Group:
    """A relay before two responders, each of which answers with its own name."""

    def __init__(self, folder: Path) -> None:
        self.address = f"ipc://{folder}/front"
        self.alive = {0, 1}
        self._stop = threading.Event()
        self._behind = [f"ipc://{folder}/{index}" for index in range(2)]
        runs = [threading.Thread(target=self._respond, args=(index,), daemon=True) for index in range(2)]
        self._threads = [*runs, threading.Thread(target=self._relay, daemon=True)]
        for thread in self._threads:
            thread.start()

    def ask(self, client: Requester[HostReply], seq: int = 0) -> str:
        """Who answered."""
        return client.request(HostRequest(t_ns=0, action="status", seq=seq), 5.0).text

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5)

    def _relay(self) -> None:
        with Relay(self.address, self._behind, name="relay") as relay:
            while not self._stop.is_set():
                relay.pump(self.alive, 0.01)

    def _respond(self, index: int) -> None:
        with Responder(self._behind[index], HostRequest) as responder:
            while not self._stop.is_set():
                responder.wait(0.01)
                for client, request in responder.poll():
                    text = f"{index}"
                    responder.reply(
                        client, HostReply(t_ns=0, seq=request.seq, ok=True, safety="off", text=text)
                    )


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    running = Group(tmp_path)
    yield running
    running.close()


def test_clients_are_shared_out_and_stay(group: Group) -> None:
    clients = [Requester(group.address, HostReply) for _ in range(4)]
    first = [group.ask(client) for client in clients]
    again = [group.ask(client) for client in clients]
    for client in clients:
        client.close()
    assert sorted(first) == ["0", "0", "1", "1"]
    assert again == first


def test_a_client_of_a_dead_responder_moves_on(group: Group) -> None:
    with Requester(group.address, HostReply) as one, Requester(group.address, HostReply) as other:
        before = {group.ask(one), group.ask(other)}
        group.alive = {1}
        time.sleep(0.05)  # the round of the relay that is under way still knows the old ones
        after = {group.ask(one), group.ask(other)}
    assert before == {"0", "1"}
    assert after == {"1"}


def test_with_nobody_alive_the_client_is_told(group: Group) -> None:
    group.alive = set()
    time.sleep(0.05)
    with (
        Requester(group.address, HostReply) as client,
        pytest.raises(WireError, match=r"none of 2 is alive"),
    ):
        group.ask(client)


def test_a_malformed_question_disturbs_nobody(group: Group) -> None:
    with Requester(group.address, HostReply) as client, zmq.Context().socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(group.address)
        stranger.send_multipart([b"1", b"2", b"3", b"4"])
        stranger.send(b"half")
        time.sleep(0.05)
        assert group.ask(client) in ("0", "1")
