"""The policy server: several clients, good and bad ones, at once."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from contracts.toy_policy import toy_checkpoint, toy_observation
from reflexarc.commands.serve import serve_policy
from reflexarc.configs.errors import PolicyError, ReflexarcError, WireError
from reflexarc.configs.serving import ServingConfig
from reflexarc.vla.checkpoint import save_checkpoint
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.vla.serving.metrics import Metrics, serve_http
from reflexarc.vla.serving.replicas import GroupConsole, replica_endpoints, replica_name, run_relay
from reflexarc.vla.serving.server import ServerSummary, run_server
from reflexarc.vla.sessions import name_in
from reflexarc.wire.codec import MAX_MESSAGE_BYTES, encode
from reflexarc.wire.contracts import Policy
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import (
    ActionChunk,
    ErrorReply,
    Message,
    Observation,
    PolicyAction,
    PolicyControl,
    PolicyControlReply,
    PolicyInfo,
    PolicyInfoRequest,
    TokenRange,
)
from reflexarc.wire.sockets import PeerWatch, Requester, Responder


class SlowPolicy:
    """Answers with what its toy model says, a little later; refuses the seq 13; remembers what it was asked."""

    def __init__(self, seconds: float) -> None:
        self._policy = VlaPolicy(toy_checkpoint())
        self.told = self._policy.info
        self._seconds = seconds
        self.seen: list[int] = []
        self.resets: list[str] = []

    @property
    def info(self) -> PolicyInfo:
        return self.told

    def reset(self, session: str) -> None:
        self.resets.append(session)

    def act(self, observation: Observation) -> ActionChunk:
        self.seen.append(observation.seq)
        time.sleep(self._seconds)
        if observation.seq == 13:
            raise PolicyError("13 brings bad luck")
        return msgspec.structs.replace(self._policy.act(observation), model_id=self.told.model_id)


def patient(**settings: float) -> ServingConfig:
    """For a server that refuses no answer for being late, however busy this machine is."""
    return ServingConfig.model_validate({"max_age_s": 60.0} | settings)


class Running:
    """A server in a thread."""

    def __init__(
        self,
        folder: Path,
        seconds: float = 0.0,
        *,
        policy: Policy | None = None,
        config: ServingConfig | None = None,
        load: Callable[[str], Policy] | None = None,
    ) -> None:
        self.endpoints = Endpoints(
            policy=f"ipc://{folder}/policy",
            policy_console=f"ipc://{folder}/console",
            heartbeat=f"ipc://{folder}/heartbeat",
        )
        self.policy = SlowPolicy(seconds)
        self._served, self._load = policy or self.policy, load
        self._config = config or patient()
        self.said: list[str] = []
        self._metrics = Metrics()
        self.summary = ServerSummary()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.summary = run_server(
            self._served,
            self.endpoints,
            config=self._config,
            load=self._load,
            metrics=self._metrics,
            stop=self._stop,
            say=self.said.append,
        )

    def client(self) -> Requester[Message]:
        """A client that has been heard once, so that what it sends next is not lost to connecting."""
        client: Requester[Message] = Requester(self.endpoints.policy, Message)
        client.request(PolicyInfoRequest(t_ns=0), 10.0)
        return client

    def control(self, action: PolicyAction, name: str = "") -> PolicyControlReply:
        """What the server's console answers."""
        with Requester(self.endpoints.policy_console, PolicyControlReply) as console:
            return console.request(PolicyControl(t_ns=0, action=action, policy=name), 5.0)

    def http(self, path: str) -> tuple[int, str]:
        """Status and body of a page."""
        with serve_http(self._metrics, 0) as port:
            return page(f"http://127.0.0.1:{port}{path}")

    def ended(self, timeout_s: float) -> bool:
        """Whether it ends by itself."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        assert not self._thread.is_alive()


def page(address: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.close()


def collect(client: Requester[Message], count: int, timeout_s: float = 30.0) -> list[Message]:
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
    assert len([line for line in server.said if "refused" in line]) == 1


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


def test_a_policy_is_reset_where_a_session_begins_and_where_it_ends(server: Running) -> None:
    with server.client() as client:
        for seq, session in enumerate(("a", "a", "b", "b")):
            client.request(toy_observation(seq=seq, session=session), 5.0)
    assert server.policy.resets == ["a", "a", "b"]  # what was remembered of the first is let go


class Remembering(SlowPolicy):
    """Says as its only token how many questions of the session it remembers."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self._asked: dict[str, int] = {}

    def reset(self, session: str) -> None:
        self._asked.pop(session, None)

    def act(self, observation: Observation) -> ActionChunk:
        session = observation.session
        self._asked[session] = self._asked.get(session, 0) + 1
        return msgspec.structs.replace(
            super().act(observation),
            policy_tokens=[self._asked[session], zlib.crc32(name_in(session).encode())],
        )


def test_two_robots_whose_sessions_have_one_name_share_nothing(tmp_path: Path) -> None:
    running = Running(tmp_path, policy=Remembering())
    said: dict[str, list[Message]] = {"one": [], "other": [], "alone": []}
    with running.client() as one, running.client() as other, running.client() as alone:
        for seq in range(3):
            for name, client in (("one", one), ("other", other)):
                said[name].append(client.request(toy_observation(seq=seq, session="lift-0000"), 5.0))
        other.request(
            toy_observation(seq=3, session="lift-0001"), 5.0
        )  # ends its own session, not the first's
        said["one"].append(one.request(toy_observation(seq=3, session="lift-0000"), 5.0))
        said["alone"].append(alone.request(toy_observation(seq=0, session="lift-0000"), 5.0))
    running.close()
    seed = zlib.crc32(b"lift-0000")
    expected = {"one": [1, 2, 3, 4], "other": [1, 2, 3], "alone": [1]}
    for name, answers in said.items():
        chunks = [answer for answer in answers if isinstance(answer, ActionChunk)]
        assert [chunk.session for chunk in chunks] == ["lift-0000"] * len(answers)
        assert [chunk.policy_tokens for chunk in chunks] == [[count, seed] for count in expected[name]]


def test_a_session_that_cannot_begin_is_refused_and_begun_with_the_next_question(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a cluster whose model has died and is not up again."""

    def away(session: str) -> None:
        raise PolicyError("the cluster does not answer")

    with server.client() as client:
        with monkeypatch.context() as patched:
            patched.setattr(server.policy, "reset", away)
            refused = client.request(toy_observation(seq=1), 5.0)
        answered = client.request(toy_observation(seq=2), 5.0)
    assert isinstance(refused, ErrorReply)
    assert (refused.obs_seq, refused.text) == (1, "the cluster does not answer")
    assert isinstance(answered, ActionChunk)
    assert server.policy.resets == ["a"]


def test_a_question_of_wrong_shapes_is_refused_before_any_policy_sees_it(server: Running) -> None:
    """Well-formed messages that a policy would break on; those of the robots beside it are answered."""
    good = toy_observation()
    broken = [
        msgspec.structs.replace(good, state=msgspec.structs.replace(good.state, **{name: np.zeros(shape)}))
        for name, shape in (
            ("pose_base_tcp", 3),
            ("wrench_tcp", (6, 2)),
            ("joint_effort", 5),
            ("joint_position", 0),
        )
    ]
    broken.append(msgspec.structs.replace(good, latent=np.zeros((2, 2))))
    broken.append(msgspec.structs.replace(good, committed=np.zeros(7)))
    broken.append(msgspec.structs.replace(good, instruction="go " * 5000))
    broken.append(msgspec.structs.replace(good, session="s" * 1000))
    said = []
    with server.client() as bad, server.client() as other:
        for each in broken:
            answer = bad.request(each, 5.0)
            assert isinstance(answer, ErrorReply)
            said.append(answer.text)
            assert isinstance(other.request(good, 5.0), ActionChunk)
    assert said[0] == "state.pose_base_tcp has shape (3,); it must be (7,)"
    assert said[3] == "state.joint_position has shape (0,); it must be (n,), n joints"
    assert said[6] == "instruction has 15000 characters; at most 4096 are read"


class Brittle:
    """A policy for several robots that breaks, as a programmer's mistake would have it, on the seq 13."""

    def __init__(self) -> None:
        self._policy = VlaPolicy(toy_checkpoint())
        self.info, self.reset, self.act = self._policy.info, self._policy.reset, self._policy.act

    def act_batch(self, observations: list[Observation]) -> list[ActionChunk | ReflexarcError]:
        if any(each.seq == 13 for each in observations):
            raise ZeroDivisionError("thirteen\nby nothing")
        return self._policy.act_batch(observations)


def test_a_policy_that_breaks_on_one_robots_question_answers_the_others(tmp_path: Path) -> None:
    running = Running(tmp_path, policy=Brittle(), config=patient(max_wait_s=0.5))
    try:
        with running.client() as one, running.client() as other:
            one.send(toy_observation(seq=13))
            other.send(toy_observation(seq=2))
            broken, fine = collect(one, 1)[0], collect(other, 1)[0]
    finally:
        running.close()
    assert isinstance(broken, ErrorReply)
    assert broken.text == "toy broke on this observation: ZeroDivisionError: thirteen by nothing"
    assert isinstance(fine, ActionChunk)


def test_an_error_of_the_policy_is_an_answer(server: Running) -> None:
    with server.client() as client:
        client.send(toy_observation(seq=13))
        reply = collect(client, 1)[0]
        assert isinstance(reply, ErrorReply)
        assert reply.text == "13 brings bad luck"
        assert isinstance(client.request(toy_observation(seq=14), 5.0), ActionChunk)


def test_robots_that_ask_together_are_answered_together(tmp_path: Path) -> None:
    policy = VlaPolicy(toy_checkpoint())
    running = Running(tmp_path, policy=policy, config=patient(max_batch=8, max_wait_s=0.05))
    clients = [running.client() for _ in range(4)]
    for seq in range(6):
        for client in clients:
            client.send(toy_observation(seq=seq, session="s"))
        answers = [collect(client, 1)[0] for client in clients]
        assert all(isinstance(answer, ActionChunk) and answer.obs_seq == seq for answer in answers)
    for client in clients:
        client.close()
    status, metrics = running.http("/metrics")
    running.close()
    assert status == 200
    assert 'reflexarc_policy_observations_total{outcome="answered"} 24.0' in metrics
    assert running.summary.answered == 24
    assert running.summary.batches < 20
    chunk = answers[0]
    assert isinstance(chunk, ActionChunk)
    assert list(chunk.latency_ns) == ["queue", "preprocess", "vision", "prefix", "action"]


class OnceSlowPolicy(SlowPolicy):
    """Takes long over its first answer only, as one whose model is loaded by it."""

    def act(self, observation: Observation) -> ActionChunk:
        chunk = super().act(observation)
        self._seconds = 0.0
        return chunk


def test_one_slow_answer_does_not_have_all_that_follow_refused(tmp_path: Path) -> None:
    running = Running(tmp_path, policy=OnceSlowPolicy(1.2), config=ServingConfig(max_age_s=0.3))
    with running.client() as client:
        answers = [client.request(toy_observation(seq=seq), 10.0) for seq in range(12)]
    running.close()
    assert isinstance(answers[0], ActionChunk)
    assert isinstance(answers[1], ErrorReply)
    assert any(isinstance(answer, ActionChunk) for answer in answers[2:])


def test_a_bad_observation_in_a_batch_harms_no_other(tmp_path: Path) -> None:
    running = Running(tmp_path, policy=VlaPolicy(toy_checkpoint()), config=patient(max_wait_s=0.05))
    with running.client() as good, running.client() as bad:
        for seq in range(3):
            bad.send(toy_observation(seq=seq, size=16))
            good.send(toy_observation(seq=seq))
            assert isinstance(collect(good, 1)[0], ActionChunk)
            assert isinstance(collect(bad, 1)[0], ErrorReply)
    running.close()


def test_a_full_server_says_so(tmp_path: Path) -> None:
    running = Running(tmp_path, config=patient(max_clients=1))
    with running.client() as first, running.client() as second:
        for seq in range(2):  # who asks only once takes no place
            assert isinstance(first.request(toy_observation(seq=seq), 5.0), ActionChunk)
        second.send(toy_observation(seq=1))
        reply = collect(second, 1)[0]
    running.close()
    assert isinstance(reply, ErrorReply)
    assert "serves 1 robots (max_clients)" in reply.text


def test_robots_are_answered_beside_clients_that_come_once_are_too_large_or_never_read(
    tmp_path: Path,
) -> None:
    running = Running(tmp_path, config=patient(max_clients=3))
    question, context = toy_observation(seq=1), zmq.Context()
    with running.client() as robot, context.socket(zmq.DEALER) as silent, context.socket(zmq.DEALER) as large:
        answers = [robot.request(question, 10.0), robot.request(question, 10.0)]
        for bad in (silent, large):
            bad.setsockopt(zmq.RCVHWM, 1)
            bad.linger = 0
            bad.connect(running.endpoints.policy)
        for number in range(6):
            silent.send_multipart([number.to_bytes(8, "big"), encode(question)])
            large.send_multipart([number.to_bytes(8, "big"), bytes(MAX_MESSAGE_BYTES + 1)])
            with running.client() as stranger:
                deadline = time.monotonic() + 10
                while not isinstance(stranger.request(question, 10.0), ActionChunk):
                    assert time.monotonic() < deadline
            answers.append(robot.request(question, 10.0))
    context.destroy()
    running.close()
    assert all(isinstance(answer, ActionChunk) for answer in answers)


def renamed(
    name: str, cameras: tuple[str, ...] = ("front", "wrist"), tokens: TokenRange | None = None
) -> Policy:
    """The toy policy under another name, which says that it needs `cameras`, and what its tokens are."""
    policy = SlowPolicy(0.0)
    said = policy.info.tokens if tokens is None else tokens
    policy.told = msgspec.structs.replace(policy.info, model_id=name, cameras=list(cameras), tokens=said)
    return policy


def test_the_model_is_swapped_while_a_robot_goes_on(tmp_path: Path) -> None:
    running = Running(tmp_path, load=renamed)
    with running.client() as client:
        before = client.request(toy_observation(seq=0), 5.0)
        assert running.control("swap", "better").ok
        deadline, model, seq = time.monotonic() + 20, "toy", 100
        while model == "toy" and time.monotonic() < deadline:
            answer = client.request(toy_observation(seq=seq), 5.0)
            assert isinstance(answer, ActionChunk)
            assert answer.obs_seq == seq
            model, seq = answer.model_id, seq + 1
    status = running.control("status")
    running.close()
    assert isinstance(before, ActionChunk)
    assert (before.model_id, model) == ("toy", "better")
    assert "swapped to better" in status.text


def test_a_swap_that_robots_could_not_live_with_is_refused(tmp_path: Path) -> None:
    def load(name: str) -> Policy:
        if name == "absent":
            raise PolicyError("no checkpoint absent")
        return renamed(name, ("side",)) if name == "other" else renamed(name, tokens=TokenRange(end=9))

    running = Running(tmp_path, load=load)
    for name, text in (
        ("absent", "failed: no checkpoint absent"),
        ("other", "refused: its cameras differ"),
        ("wordy", "refused: its tokens differ"),
    ):
        begun = running.control("swap", name)
        assert (begun.ok, begun.text) == (True, f"loading {name}; toy goes on answering meanwhile")
        deadline = time.monotonic() + 10
        while text not in running.control("status").text and time.monotonic() < deadline:
            time.sleep(0.02)
        assert text in running.control("status").text
    running.close()
    assert not any("takes the place" in line for line in running.said)


def test_without_a_loader_there_is_no_swap(server: Running) -> None:
    reply = server.control("swap", "other")
    assert not reply.ok
    assert "was not told how to load" in reply.text


def test_a_drained_server_serves_its_sessions_to_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reflexarc.vla.serving.server.DRAINED_NS", 60_000_000_000)
    running = Running(tmp_path)
    with running.client() as client, running.client() as late:
        assert isinstance(client.request(toy_observation(seq=0, session="s"), 5.0), ActionChunk)
        assert running.control("drain").ok
        assert running.http("/healthz") == (503, '{"state": "draining"}\n')
        assert isinstance(client.request(toy_observation(seq=1, session="s"), 5.0), ActionChunk)
        for asker, session in ((late, "x"), (client, "t")):
            asker.send(toy_observation(seq=2, session=session))
            reply = collect(asker, 1)[0]
            assert isinstance(reply, ErrorReply)
            assert "draining" in reply.text
        monkeypatch.setattr("reflexarc.vla.serving.server.DRAINED_NS", 0)
        assert running.ended(10)


def test_health_is_told_over_http(server: Running) -> None:
    with server.client():
        assert server.http("/healthz") == (200, '{"state": "serving"}\n')
        assert server.http("/elsewhere")[0] == 404


def test_health_says_that_it_loads_while_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages: list[tuple[int, str]] = []

    def load(name: str, **_: object) -> Policy:
        address = capsys.readouterr().out.split()[1].removesuffix("/metrics,")
        pages.append(page(f"{address}/healthz"))
        raise PolicyError(f"no checkpoint {name}")

    monkeypatch.setattr("reflexarc.policies.open_policy", load)
    monkeypatch.setattr("reflexarc.wire.clock.give_way_to_loops", lambda: None)
    with pytest.raises(PolicyError, match="no checkpoint absent"):
        serve_policy("absent", Endpoints(), http_port=0)
    assert pages == [(503, '{"state": "loading"}\n')]


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
from reflexarc.vla.serving.server import run_server
from reflexarc.wire.endpoints import Endpoints
folder = sys.argv[1]
names = {name: f"ipc://{folder}/{name}" for name in ("policy", "policy_console", "heartbeat")}
run_server(load_policy(folder + "/toy"), Endpoints(**names))
"""


def test_a_signal_ends_the_process_cleanly(tmp_path: Path) -> None:
    """Two servers, started together: each is ended by another signal."""
    checkpoint, processes = toy_checkpoint(), dict[signal.Signals, subprocess.Popen[str]]()
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            folder = tmp_path / number.name
            save_checkpoint(folder / "toy", checkpoint, checkpoint.model.state_dict(), "")
            processes[number] = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(folder)], stderr=subprocess.PIPE, text=True
            )
        for number, process in processes.items():
            with Requester(f"ipc://{tmp_path / number.name}/policy", PolicyInfo) as client:
                assert client.request(PolicyInfoRequest(t_ns=0), 120.0).model_id == "toy"
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
            assert (process.returncode, said) == (0, ""), number.name
    finally:
        for process in processes.values():
            process.kill()


def test_replicas_share_the_robots_and_stand_in_for_each_other(tmp_path: Path) -> None:
    stops = [threading.Event() for _ in range(3)]
    policies = [renamed("zero"), renamed("one")]
    front = Endpoints(
        policy=f"ipc://{tmp_path}/front",
        policy_console=f"ipc://{tmp_path}/front-console",
        heartbeat=f"ipc://{tmp_path}/beats",
    )

    def serve(index: int) -> None:
        where, peer = replica_endpoints(tmp_path, index), replica_name(index)
        run_server(policies[index], where, stop=stops[index], say=lambda _: None, peer=peer)

    def relay() -> None:
        run_relay(2, tmp_path, front, group=Unattended(), stop=stops[2], say=lambda _: None)

    threads = [threading.Thread(target=serve, args=(index,), daemon=True) for index in range(2)]
    threads.append(threading.Thread(target=relay, daemon=True))
    for thread in threads:
        thread.start()
    with Requester(front.policy, Message) as one, Requester(front.policy, Message) as other:
        wait_for_replicas(one)
        answered = {model_of(one), model_of(other)}
        stops[0].set()
        deadline = time.monotonic() + 15
        after: set[str] = set()
        while after != {"one"} and time.monotonic() < deadline:
            after = {model_of(one), model_of(other)}
    for stop in stops:
        stop.set()
    for thread in threads:
        thread.join(10)
    assert answered == {"zero", "one"}
    assert after == {"one"}


class Unattended:
    """Replicas that nobody starts again."""

    def tend(self, waiting: Collection[str], policy: str) -> None:
        pass

    def ended(self) -> bool:
        return False


class Group:
    """The console of two replicas that say what they are told to say."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        address, behind = f"ipc://{folder}/front", [f"ipc://{folder}/{index}" for index in range(2)]
        self._replicas = [stack.enter_context(Responder(one, PolicyControl)) for one in behind]
        self.console = GroupConsole(address, behind, stack)
        self._client = stack.enter_context(Requester(address, PolicyControlReply))
        self.statuses = ["serving; no swap", "serving; no swap"]
        self.swap_refused_by: set[int] = set()

    def step(self, alive: Collection[int]) -> None:
        """One turn of everybody's loop."""
        self.console.pump(alive)
        for index, replica in enumerate(self._replicas):
            for asker, request in replica.poll():
                ok = request.action != "swap" or index not in self.swap_refused_by
                told = {"swap": f"loading {request.policy}; toy goes on", "status": self.statuses[index]}
                text = told.get(request.action, "draining") if ok else "busy"
                replica.reply(asker, PolicyControlReply(t_ns=0, ok=ok, text=text))
        time.sleep(0.002)

    def ask(
        self, action: PolicyAction, name: str = "", alive: Collection[int] = (0, 1)
    ) -> PolicyControlReply:
        """What the one console answers."""
        request, deadline = PolicyControl(t_ns=0, action=action, policy=name), time.monotonic() + 10
        while not self._client.send(request):  # until it is connected
            assert time.monotonic() < deadline
        while time.monotonic() < deadline:
            self.step(alive)
            for reply in self._client.poll():
                return reply
        raise AssertionError("no answer")

    def remembers(self, policy: str, *statuses: str) -> bool:
        """Whether `policy` is what it takes for swapped in once the replicas have said so for a while."""
        self.statuses, deadline = list(statuses), time.monotonic() + 10
        for turn in itertools.count():
            self.step((0, 1))
            if turn > 100 and (self.console.policy == policy or time.monotonic() > deadline):
                break
        return self.console.policy == policy


def test_the_console_of_a_group_asks_every_replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reflexarc.vla.serving.replicas.ASK_AGAIN_NS", 0)
    with contextlib.ExitStack() as stack:
        group = Group(tmp_path, stack)
        assert group.ask("status").text == "serving; no swap"
        group.swap_refused_by = {1}
        mixed = group.ask("swap", "other")
        assert (mixed.ok, mixed.text) == (False, "policy-0: loading other; toy goes on; policy-1: busy")
        assert group.remembers("", "serving; swapped to other", "serving; no swap")
        group.swap_refused_by = set()
        assert group.ask("swap", "absent").ok
        assert group.remembers("", *2 * ["serving; swap to absent failed: no such checkpoint"])
        assert group.ask("swap", "other").ok
        assert group.remembers("", "serving; swapped to other", "serving; loading other")
        assert "policy-1: serving; loading other" in group.ask("status").text
        assert group.remembers("other", *2 * ["serving; swapped to other"])
        assert group.ask("swap", "sideways").ok
        assert group.remembers("other", *2 * ["serving; swap to sideways refused: its cameras differ"])
        assert (group.ask("drain", alive=[0]).ok, group.console.draining) == (True, True)
        assert not group.ask("status", alive=[]).ok


def model_of(client: Requester[Message]) -> str:
    """Which model answers this client; empty if nobody does within a second."""
    try:
        answer = client.request(PolicyInfoRequest(t_ns=0), 1.0)
    except WireError:
        return ""
    return answer.model_id if isinstance(answer, PolicyInfo) else ""


def wait_for_replicas(client: Requester[Message]) -> None:
    """Until the relay has heard from both."""
    deadline = time.monotonic() + 10
    while not model_of(client) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
