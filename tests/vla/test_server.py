"""The policy server: several clients, good and bad ones, at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from contracts.toy_policy import toy_checkpoint, toy_observation
from reflexarc.configs.errors import PolicyError, WireError
from reflexarc.vla.checkpoint import save_checkpoint
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.vla.server import ServerSummary, run_server
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import (
    ActionChunk,
    ErrorReply,
    Message,
    Observation,
    PolicyInfo,
    PolicyInfoRequest,
)
from reflexarc.wire.sockets import PeerWatch, Requester


class SlowPolicy:
    """Answers with what its toy model says, a little later; refuses the seq 13; remembers what it was asked."""

    def __init__(self, seconds: float) -> None:
        self._policy = VlaPolicy(toy_checkpoint())
        self._seconds = seconds
        self.seen: list[int] = []
        self.resets: list[str] = []

    @property
    def info(self) -> PolicyInfo:
        return self._policy.info

    def reset(self, session: str) -> None:
        self.resets.append(session)

    def act(self, observation: Observation) -> ActionChunk:
        self.seen.append(observation.seq)
        time.sleep(self._seconds)
        if observation.seq == 13:
            raise PolicyError("13 brings bad luck")
        return self._policy.act(observation)


class Running:
    """A server in a thread."""

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        self.endpoints = Endpoints(policy=f"ipc://{folder}/policy", heartbeat=f"ipc://{folder}/heartbeat")
        self.policy = SlowPolicy(seconds)
        self.said: list[str] = []
        self.summary = ServerSummary()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.summary = run_server(self.policy, self.endpoints, stop=self._stop, say=self.said.append)

    def client(self) -> Requester[Message]:
        """A client that has been heard once, so that what it sends next is not lost to connecting."""
        client: Requester[Message] = Requester(self.endpoints.policy, Message)
        client.request(PolicyInfoRequest(t_ns=0), 10.0)
        return client

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        assert not self._thread.is_alive()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.close()


def collect(client: Requester[Message], count: int, timeout_s: float = 5.0) -> list[Message]:
    """`count` answers, in the order of arrival."""
    answers: list[Message] = []
    deadline = time.monotonic() + timeout_s
    while len(answers) < count and time.monotonic() < deadline:
        client.wait(0.05)
        answers += client.poll()
    return answers


def test_observations_get_chunks_and_questions_get_info(server: Running) -> None:
    with server.client() as client:
        info = client.request(PolicyInfoRequest(t_ns=0), 5.0)
        chunk = client.request(toy_observation(seq=3, session="s"), 5.0)
    assert isinstance(info, PolicyInfo)
    assert info.model_id == "toy"
    assert isinstance(chunk, ActionChunk)
    assert (chunk.obs_seq, chunk.session) == (3, "s")
    assert np.array_equal(chunk.actions, VlaPolicy(toy_checkpoint()).act(toy_observation(seq=3)).actions)


def test_bad_requests_are_answered_and_disturb_nobody(server: Running) -> None:
    with server.client() as bad, server.client() as good, zmq.Context().socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(server.endpoints.policy)
        stranger.send_multipart([b"1", b"garbage"])
        stranger.send(b"half a message")
        for observation in (toy_observation(seq=1, cameras=("front",)), toy_observation(seq=2)):
            (bad if observation.seq == 1 else good).send(observation)
        refused, answered = collect(bad, 1)[0], collect(good, 1)[0]
        assert stranger.poll(5000)
    assert isinstance(refused, ErrorReply)
    assert refused.obs_seq == 1
    assert "needs camera wrist" in refused.text
    assert isinstance(answered, ActionChunk)
    assert any("needs camera wrist" in line for line in server.said)
    assert all("\n" not in line for line in server.said)


def test_the_same_trouble_is_said_once(server: Running) -> None:
    with server.client() as client:
        for seq in range(5):
            client.send(toy_observation(seq=seq, size=16))
            reply = collect(client, 1)[0]
            assert isinstance(reply, ErrorReply)
    assert len(server.said) == 1


def test_only_the_newest_waiting_observation_of_a_client_is_answered(tmp_path: Path) -> None:
    running = Running(tmp_path, seconds=0.15)
    try:
        with running.client() as client, running.client() as other:
            client.send(toy_observation(seq=0))
            time.sleep(0.05)
            for seq in (1, 2, 3):
                client.send(toy_observation(seq=seq))
            other.send(toy_observation(seq=100))
            answers, others = collect(client, 4), collect(other, 1)
    finally:
        running.close()
    chunks = [answer.obs_seq for answer in answers if isinstance(answer, ActionChunk)]
    refused = {answer.obs_seq: answer.text for answer in answers if isinstance(answer, ErrorReply)}
    assert chunks == [0, 3]
    assert set(refused) == {1, 2}
    assert "superseded by 2" in refused[1]
    assert isinstance(others[0], ActionChunk)
    assert sorted(running.policy.seen) == [0, 3, 100]
    assert (running.summary.answered, running.summary.superseded) == (3, 2)


def test_a_policy_is_reset_once_for_each_new_session(server: Running) -> None:
    with server.client() as client:
        for seq, session in enumerate(("a", "a", "b", "b")):
            client.request(toy_observation(seq=seq, session=session), 5.0)
    assert server.policy.resets == ["a", "b"]


def test_an_error_of_the_policy_is_an_answer(server: Running) -> None:
    with server.client() as client:
        client.send(toy_observation(seq=13))
        reply = collect(client, 1)[0]
        assert isinstance(reply, ErrorReply)
        assert reply.text == "13 brings bad luck"
        assert isinstance(client.request(toy_observation(seq=14), 5.0), ActionChunk)


def test_heartbeats_go_out_while_nothing_is_asked(tmp_path: Path) -> None:
    watch = PeerWatch(f"ipc://{tmp_path}/heartbeat", ["policy"])
    running = Running(tmp_path)
    deadline = time.monotonic() + 5
    while watch.waiting and time.monotonic() < deadline:
        time.sleep(0.02)
        watch.update(time.monotonic_ns())
    running.close()
    watch.close()
    assert not watch.waiting


def test_an_occupied_address_is_named(server: Running) -> None:
    deadline = time.monotonic() + 5
    while not Path(server.endpoints.policy.removeprefix("ipc://")).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(WireError, match=r"cannot bind policy server at ipc://.* in use"):
        run_server(server.policy, server.endpoints)


SERVE = """
import sys
from reflexarc.vla.checkpoint import load_policy
from reflexarc.vla.server import run_server
from reflexarc.wire.endpoints import Endpoints
folder = sys.argv[1]
run_server(load_policy(folder + "/toy"), Endpoints(policy=f"ipc://{folder}/policy", heartbeat=f"ipc://{folder}/hb"))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    checkpoint = toy_checkpoint()
    save_checkpoint(tmp_path / "toy", checkpoint, checkpoint.model.state_dict(), "")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path)], stderr=subprocess.PIPE, text=True
    )
    with Requester(f"ipc://{tmp_path}/policy", PolicyInfo) as client:
        assert client.request(PolicyInfoRequest(t_ns=0), 120.0).model_id == "toy"
    process.send_signal(number)
    assert process.wait(30) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
