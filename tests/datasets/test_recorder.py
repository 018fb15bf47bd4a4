"""The recorder as a process of its own, over real sockets: killed, stopped, and on a full disk."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.episode_bench import every_message, picture, same, state
from reflexarc.configs.errors import LogError
from reflexarc.datasets.format import content_time_ns, topic_of
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.recorder import PEER, run_recorder
from reflexarc.datasets.repair import repair
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.codec import decode
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.messages import EpisodeStart, EpisodeStop, Event, Message, Observation, Setpoint
from reflexarc.wire.sockets import PeerWatch, Publisher, Subscriber

HERE = np.array([0.45, 0.0, 0.25, 0.0, 1.0, 0.0, 0.0])
CHILD = """
import resource, signal, sys
from pathlib import Path
from reflexarc.datasets.recorder import run_recorder
from reflexarc.wire.endpoints import Endpoints
limit = int(sys.argv[3])
if limit:  # a file may not grow beyond this: to the writer the same as a full disk
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
run_recorder(Path(sys.argv[1]), Endpoints.model_validate_json(sys.argv[2]))
"""
HANGING = """
import os, time
from reflexarc.datasets import recording
recording.BACKLOG_BYTES = 40_000
sync = os.fsync
def hangs_while_told(fd):
    while os.path.exists(sys.argv[4]):
        time.sleep(0.01)
    sync(fd)
os.fsync = hangs_while_told
"""
"""A disk that takes nothing while a file of that name is there."""
SOURCE_OF = {
    "/state": "state",
    "/safety": "state",
    "/setpoint": "controller",
    "/chunk": "controller",
    "/observation": "controller",
    "/event": "controller",
    "/teleop": "teleop",
    "/sim/initial": "arm_state",
    "/sim/steps": "arm_state",
    "/sim/truth": "arm_state",
    "/camera/front": "frames",
    "/camera/wrist": "frames",
    "/episode": "runner",
}


class Bench:
    """Everybody else of a run, with a recorder in a process of its own."""

    def __init__(self, folder: Path, tmp_path: Path, limit: int = 0, hang: Path | None = None) -> None:
        self.folder = folder
        code = CHILD if hang is None else "import sys" + HANGING + CHILD
        names = {
            name: f"ipc://{tmp_path}/{name}" for name in (*set(SOURCE_OF.values()), "heartbeat", "recorder")
        }
        self.endpoints = Endpoints.model_validate(names)
        self._publishers = {
            name: Publisher(getattr(self.endpoints, name)) for name in set(SOURCE_OF.values())
        }
        self._watch = PeerWatch(self.endpoints.heartbeat, [PEER])
        self._told: Subscriber[Event] = Subscriber(self.endpoints.recorder, Event)
        self.events: list[Event] = []
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                code,
                str(folder),
                self.endpoints.model_dump_json(),
                str(limit),
                str(hang),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.until(lambda: not self._watch.waiting)
        time.sleep(0.3)  # its subscriptions reach the publishers

    def until(self, condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
        """Wait for a condition, taking in heartbeats and events."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._watch.update(monotonic_ns())
            self.events += self._told.drain()
            assert time.monotonic() < deadline, self.events
            assert self.process.poll() is None or self.process.returncode == 0, self.process.stdout
            time.sleep(0.01)

    def send(self, *messages: Message) -> None:
        """Publish where each of them is published in a run, as made now."""
        for message in messages:
            name = SOURCE_OF[str(topic_of(message))]
            self._publishers[name].send(
                msgspec.structs.replace(message, clock="monotonic", t_ns=monotonic_ns())
            )

    def begin(self, name: str) -> None:
        metadata = '{"task": "lift", "seed": 3}'
        self.send(EpisodeStart(t_ns=0, episode=name, instruction="lift it", session="s", metadata=metadata))

    def end(self, name: str) -> None:
        self.send(EpisodeStop(t_ns=0, episode=name, outcome='{"success": true}'))
        self.until(lambda: any(event.kind == "recorded" for event in self.events))

    def stream(self, seconds: float) -> int:
        """States at 100 Hz and pictures at 10 Hz, for so long; returns how many states."""
        begun, count = time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            self.send(state(monotonic_ns(), commanded=HERE, seq=count))
            if count % 10 == 0:
                self.send(picture(monotonic_ns(), "front", count // 10))
            count += 1
            time.sleep(0.01)
        return count

    def log(self, name: str) -> EpisodeReader:
        return EpisodeReader(self.folder / f"{name}.mcap")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        for socket in (*self._publishers.values(), self._told):
            socket.close()
        self._watch.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "logs", tmp_path)
    yield made
    made.close()


def test_everything_published_is_logged_and_a_clean_end_closes_the_file(bench: Bench) -> None:
    sent = [message for topic, message in every_message() if topic != "/episode"]
    bench.begin("one")
    time.sleep(0.05)
    bench.send(*sent)
    time.sleep(0.05)
    bench.end("one")
    reader = bench.log("one")
    assert reader.outcome == {"success": True, "dropped": {}}
    assert reader.metadata["instruction"] == "lift it"
    read = {topic: message for topic, message in reader.messages() if topic != "/episode"}
    assert len(read) == len(sent)
    for message in sent:
        received = read[str(topic_of(message))]
        if not isinstance(message, Observation):
            as_sent = msgspec.structs.replace(message, clock="monotonic", t_ns=received.t_ns)
            assert same(as_sent, received)
    for raw in reader.raw_messages():  # when it was taken, when it was sent, when it was received
        message = decode(raw.data)
        assert raw.content_ns == content_time_ns(message)
        assert message.t_ns <= raw.log_time_ns <= monotonic_ns()
        assert message.clock == "monotonic"
    bench.begin("two")
    bench.stream(0.2)
    bench.process.send_signal(signal.SIGTERM)
    assert bench.process.wait(10) == 0
    assert bench.log("two").outcome == {"error": "the recorder was stopped during the episode", "dropped": {}}


def lost_by_a_kill(bench: Bench, name: str, seconds: float) -> float:
    """Seconds of an episode that are lost when the recorder is killed after so long; the log must be sound."""
    begun_ns = monotonic_ns()
    bench.begin(name)
    sent = bench.stream(seconds)
    bench.process.kill()
    killed_ns = monotonic_ns()
    bench.process.wait(10)
    reader = bench.log(name)
    assert reader.is_cut
    assert reader.damage == ""
    assert reader.outcome is None
    assert reader.metadata["seed"] == 3
    numbers = [getattr(message, "seq", -1) for _, message in reader.messages(["/state"])]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) <= sent
    return (killed_ns - max((message.t_ns for _, message in reader.messages()), default=begun_ns)) * 1e-9


def test_killed_in_the_middle_of_an_episode_at_most_the_last_second_is_lost(bench: Bench) -> None:
    assert lost_by_a_kill(bench, "one", 2.6) <= 1.0
    assert len(list(bench.log("one").messages(["/state"]))) >= 100
    started = time.monotonic()
    bench.send(*[state(0, commanded=HERE)] * 2000)  # nobody listens any more; nobody waits
    assert time.monotonic() - started < 2.0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_a_hundred_times_at_random_moments(tmp_path: Path) -> None:
    """The last result stands in docs/data.md."""
    random = np.random.default_rng(0)
    losses = []
    for number in range(100):
        sockets = tmp_path / f"s{number}"
        sockets.mkdir()
        made = Bench(tmp_path / f"{number}", sockets)
        try:
            made.begin("neighbour")
            made.stream(0.1)
            made.end("neighbour")
            before = (tmp_path / f"{number}" / "neighbour.mcap").read_bytes()
            losses.append(lost_by_a_kill(made, "killed", random.uniform(0.2, 2.5)))
            assert (tmp_path / f"{number}" / "neighbour.mcap").read_bytes() == before
            assert not made.log("neighbour").is_cut
            done = repair(tmp_path / f"{number}" / "killed.mcap")
            assert done.lost == 0
            assert sum(made.log("killed").topics.values()) == done.messages
        finally:
            made.close()
    print(f"lost by 100 kills: {np.median(losses):.2f} s in the median, {max(losses):.2f} s at most")
    assert max(losses) <= 1.0


def test_a_full_disk_ends_the_episode_not_the_recorder(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "logs", tmp_path, limit=20_000)
    try:
        bench.begin("one")
        for number in range(20):
            bench.send(*[message for _, message in every_message(number) if topic_of(message) != "/episode"])
            time.sleep(0.02)
        bench.send(EpisodeStop(t_ns=0, episode="one", outcome="{}"))
        bench.until(lambda: any(event.kind == "recorder_error" for event in bench.events))
        (error,) = [event for event in bench.events if event.kind == "recorder_error"]
        assert "one.mcap: writing the episode log failed" in error.text
        assert "bytes free" in error.text
        reader = bench.log("one")
        assert reader.is_cut
        list(reader.messages())
        bench.begin("two")
        time.sleep(0.05)
        bench.end("two")
        assert not bench.log("two").is_cut
        assert bench.process.poll() is None
    finally:
        bench.close()


def test_a_disk_that_hangs_ends_the_episode_before_the_memory_is_full(tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    bench = Bench(tmp_path / "logs", tmp_path, hang=hang)
    setpoint = next(message for topic, message in every_message() if topic == "/setpoint")
    assert isinstance(setpoint, Setpoint)
    try:
        bench.begin("one")
        bench.stream(0.2)
        hang.touch()
        sent = 0

        def told() -> list[Event]:
            nonlocal sent
            bench.send(msgspec.structs.replace(setpoint, seq=sent))
            sent += 1
            return [event for event in bench.events if event.kind == "recorder_error"]

        bench.until(lambda: bool(told()))
        (error,) = told()
        assert "recording one ends: the disk of" in error.text
        assert "have reached 40000 bytes, the limit" in error.text
        bench.begin("two")
        bench.until(lambda: len(told()) == 2)
        assert told()[1].text.startswith("two is not recorded: the disk of")
        assert len(told()) == 2  # said once, however much is refused
        hang.unlink()
        bench.until(lambda: any(event.kind == "recorded" for event in bench.events))
        reader = bench.log("one")
        assert not reader.is_cut
        outcome = reader.outcome or {}
        assert "takes nothing" in outcome["error"]
        kept = [getattr(message, "seq", -1) for _, message in reader.messages(["/setpoint"])]
        assert kept == list(range(len(kept)))
        assert 0 < len(kept) < sent
        assert outcome["dropped"]["/setpoint"] > 0
        assert not (bench.folder / "two.mcap").exists()
        bench.events.clear()
        bench.begin("three")
        bench.stream(0.1)
        bench.end("three")
        assert bench.log("three").outcome == {"success": True, "dropped": {}}
    finally:
        bench.close()


def test_a_slow_disk_costs_pictures_first_and_every_one_is_counted(tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    bench = Bench(tmp_path / "logs", tmp_path, hang=hang)
    setpoint = next(message for topic, message in every_message() if topic == "/setpoint")
    assert isinstance(setpoint, Setpoint)
    try:
        bench.begin("one")
        bench.stream(0.2)
        hang.touch()
        bench.stream(0.7)  # half a second after the last the next sync is due, and hangs
        for number in range(900):
            bench.send(picture(monotonic_ns(), "wrist", number))
            if number % 20 == 0:
                bench.send(msgspec.structs.replace(setpoint, seq=number // 20))
                time.sleep(0.002)
        time.sleep(0.3)
        hang.unlink()
        bench.end("one")
        reader = bench.log("one")
        dropped = (reader.outcome or {})["dropped"]
        assert set(dropped) == {"/camera/wrist"}
        kept = reader.topics["/camera/wrist"]
        assert kept + dropped["/camera/wrist"] == 900
        assert 500 < kept < 900
        asked = [getattr(message, "seq", -1) for _, message in reader.messages(["/setpoint"])]
        assert asked == list(range(45))
        told = [event for event in bench.events if event.kind == "recorder_drop"]
        assert sum(int(event.data.get("/camera/wrist", 0)) for event in told) == dropped["/camera/wrist"]
        assert all("dropped: /camera/wrist" in event.text for event in told[:1])
    finally:
        bench.close()


def test_a_folder_that_cannot_be_used_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="the folder for episode logs cannot be made"):
        run_recorder(tmp_path / "file" / "logs", Endpoints())
