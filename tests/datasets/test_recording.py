"""Which messages make an episode, and what is given up first when the disk is slow; no socket, no clock."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest

from contracts.episode_bench import MS, every_message, picture, same, state
from reflexarc.configs.recording import RecordingConfig
from reflexarc.datasets import recording
from reflexarc.datasets.format import content_time_ns, topic_of
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.recording import Backlog, EpisodeRecorder
from reflexarc.wire.codec import decode, encode
from reflexarc.wire.images import decode_image, encode_image
from reflexarc.wire.messages import CameraFrame, EpisodeStart, EpisodeStop, Event, Message, SimSteps

HERE = np.array([0.45, 0.0, 0.25, 0.0, 1.0, 0.0, 0.0])
INITIAL = next(message for topic, message in every_message() if topic == "/sim/initial")


class Bench:
    """A recorder and what it reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[tuple[str, str]] = []
        self.recorder = EpisodeRecorder(
            folder, lambda kind, text, _: self.told.append((kind, text)), fsync=False
        )

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.recorder.handle(str(topic_of(message)), message, message.t_ns)

    def log(self, name: str) -> EpisodeReader:
        return EpisodeReader(self.folder / f"{name}.mcap")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def start(name: str, metadata: str = '{"task": "lift", "seed": 3}') -> EpisodeStart:
    return EpisodeStart(
        t_ns=0, clock="virtual", episode=name, instruction="lift it", session="s", metadata=metadata
    )


def stop(name: str, outcome: str = '{"success": true}') -> EpisodeStop:
    return EpisodeStop(t_ns=9 * MS, clock="virtual", episode=name, outcome=outcome)


def steps(first: int) -> SimSteps:
    nothing = np.zeros(3)
    return SimSteps(
        t_ns=0, clock="virtual", first_step=first, control=np.zeros((2, 8)), qpos=nothing, qvel=nothing
    )


def states(count: int) -> list[Message]:
    return [state(number * MS, commanded=HERE, seq=number) for number in range(count)]


def test_an_episode_lasts_from_its_start_to_its_stop(bench: Bench) -> None:
    bench.send(*states(3), start("one"), *states(5), stop("one"), *states(2), start("two"), stop("two"))
    one, two = bench.log("one"), bench.log("two")
    assert one.topics == {"/episode": 2, "/state": 5}
    assert one.metadata == {
        "task": "lift",
        "seed": 3,
        "episode": "one",
        "instruction": "lift it",
        "session": "s",
    }
    assert one.outcome == {"success": True, "dropped": {}}
    assert two.topics == {"/episode": 2}
    assert [kind for kind, _ in bench.told] == ["recorded", "recorded"]
    assert bench.recorder.episode == ""


def test_physics_since_the_reset_belongs_to_the_episode(bench: Bench) -> None:
    bench.send(
        steps(7),
        INITIAL,
        steps(99),
        INITIAL,
        steps(0),
        *states(2),
        steps(2),
        start("one"),
        steps(4),
        stop("one"),
    )
    messages = [message for _, message in bench.log("one").messages(["/sim/initial", "/sim/steps"])]
    assert [getattr(message, "first_step", "initial") for message in messages] == ["initial", 0, 2, 4]


def test_too_much_physics_before_a_start_is_given_up_and_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "PREROLL_MESSAGES", 3)
    bench.send(INITIAL, *[steps(2 * number) for number in range(5)], start("one"), stop("one"))
    assert bench.log("one").topics == {"/episode": 2}
    assert any("it cannot be replayed" in text for _, text in bench.told)


def test_a_stop_for_another_episode_ends_nothing(bench: Bench) -> None:
    bench.send(start("one"), stop("two"), *states(1))
    assert bench.recorder.episode == "one"


def test_a_start_without_a_stop_closes_the_one_before(bench: Bench) -> None:
    bench.send(start("one"), *states(1), start("two"))
    assert bench.log("one").outcome == {
        "error": "episode two began before this one was stopped",
        "dropped": {},
    }
    bench.recorder.stop("the recorder was stopped")
    assert bench.log("two").outcome == {"error": "the recorder was stopped", "dropped": {}}
    assert not bench.log("two").is_cut


def test_a_name_that_is_taken_is_reported_and_the_file_left_alone(bench: Bench) -> None:
    bench.send(start("one"), stop("one"))
    before = (bench.folder / "one.mcap").read_bytes()
    bench.send(start("one"), *states(3), stop("one"), start("two"), stop("two"))
    assert (bench.folder / "one.mcap").read_bytes() == before
    errors = [text for kind, text in bench.told if kind == "recorder_error"]
    assert len(errors) == 1
    assert "exists already" in errors[0]
    assert not bench.log("two").is_cut


def test_odd_names_and_texts_that_are_no_json_lose_nothing(bench: Bench) -> None:
    bench.send(start("../../etc/a b", metadata="not json"), stop("../../etc/a b", outcome="[1]"))
    (path,) = bench.folder.glob("*.mcap")
    assert path.parent == bench.folder
    reader = EpisodeReader(path)
    assert reader.metadata["metadata"] == "not json"
    assert reader.outcome == {"outcome": [1], "dropped": {}}


def test_drops_stand_in_the_outcome(bench: Bench) -> None:
    bench.recorder.count_drops({"/camera/front": 9})
    bench.send(start("one"))
    bench.recorder.count_drops({"/camera/front": 2})
    bench.recorder.count_drops({"/camera/front": 1, "/state": 4})
    bench.send(stop("one"))
    assert bench.log("one").outcome == {"success": True, "dropped": {"/camera/front": 3, "/state": 4}}


def test_what_never_arrived_is_told_by_its_numbers(bench: Bench) -> None:
    numbered = [state(number * MS, commanded=HERE, seq=number) for number in (5, 6, 9, 8, 10, 20, 21)]
    bench.recorder.count_drops({"/state": 99})  # of the time before
    bench.send(start("one"), *numbered, *(picture(MS, "front", number) for number in (0, 3)))
    bench.recorder.count_drops({"/camera/front": 2})  # dropped here: those are counted once
    bench.send(stop("one"), *states(1), start("two"), *states(2), stop("two"))
    outcome = bench.log("one").outcome or {}
    assert outcome["dropped"] == {"/camera/front": 2}
    assert outcome["never_arrived"] == {"/state": 11}
    assert ("recorder_drop", "never arrived at the recorder: /state 11") in bench.told
    assert "never_arrived" not in (bench.log("two").outcome or {})


def test_a_message_that_no_log_can_hold_is_left_out_alone(bench: Bench) -> None:
    bad = [msgspec.structs.replace(picture(MS, "front", number), t_capture_ns=-1) for number in (0, 1)]
    bench.send(start("one"), *states(50), *bad, *states(9), stop("one"), start("two"), stop("two"))
    one = bench.log("one")
    assert one.topics == {"/episode": 2, "/state": 59}
    assert one.outcome == {"success": True, "dropped": {}, "refused": {"/camera/front": 2}}
    ((_, text),) = [item for item in bench.told if item[0] == "bad_message"]
    assert "left out of the log, as any more on /camera/front in this episode" in text
    assert f"/camera/front has time -1 ns; must be within 0..{2**63 - 1}" in text
    assert "refused" not in (bench.log("two").outcome or {})


def test_no_message_whatever_its_times_and_numbers_ends_a_recording(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    edges = (-(2**63), -1, 0, 1, MS, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
    told: list[Event] = []

    def report(kind: str, text: str, data: dict[str, str | float | int | bool]) -> None:
        event = Event(t_ns=0, kind=kind, source="recorder", text=text, data=data)
        encode(event)  # as the recorder's process publishes it
        told.append(event)

    recorder = EpisodeRecorder(tmp_path, report, fsync=False)
    recorder.handle("/episode", start("one"), 0)
    taken, refused = Counter({"/episode": 1}), Counter[str]()
    for number in range(600):
        topic, message = every_message()[number % len(every_message())]
        if topic == "/episode":
            continue
        fields = [name for name in ("t_ns", "t_state_ns", "t_capture_ns", "seq") if hasattr(message, name)]
        values: dict[str, Any] = {name: edges[random.integers(len(edges))] for name in fields}
        values["clock"] = ("virtual", "monotonic")[number % 2]
        message = decode(encode(msgspec.structs.replace(message, **values)))
        recorder.handle(topic, message, number)
        logged = content_time_ns(message), number if message.clock == "monotonic" else message.t_ns
        (taken if all(0 <= time_ns < 2**63 for time_ns in logged) else refused)[topic] += 1
    assert recorder.episode == "one"
    recorder.handle("/episode", stop("one", outcome="[" * 100_000), 0)
    reader = EpisodeReader(tmp_path / "one.mcap")
    assert reader.topics == taken + Counter({"/episode": 1})
    assert (reader.outcome or {})["refused"] == refused
    assert len(list(reader.columns(reader.topics)["/state"].times_ns)) == taken["/state"] > 0
    kinds = Counter(event.kind for event in told)
    assert kinds == {"bad_message": len(refused), "recorder_drop": 1, "recorded": 1}


@pytest.mark.parametrize("images", ["raw", "png", "jpeg"])
def test_pictures_are_kept_as_the_configuration_says(
    tmp_path: Path, images: Literal["raw", "png", "jpeg"]
) -> None:
    ramp = np.add.outer(np.arange(32), 3 * np.arange(48)).astype(np.uint8)
    image = np.stack([ramp, 255 - ramp, ramp // 2], axis=2)
    sent = [
        encode_image(image, camera=camera, seq=1, t_capture_ns=MS, encoding=encoding, clock="virtual")
        for camera, encoding in (("front", "raw"), ("wrist", "png"))
    ]
    no_picture = msgspec.structs.replace(sent[0], camera="broken", data=b"no pixels")
    recorder = EpisodeRecorder(
        tmp_path, lambda *_: None, fsync=False, recording=RecordingConfig(images=images)
    )
    for message in (start("one"), *sent, no_picture, stop("one")):
        recorder.handle(str(topic_of(message)), message, MS)
    reader = EpisodeReader(tmp_path / "one.mcap")
    front, wrist, broken = (
        next(message for _, message in reader.messages([f"/camera/{name}"]))
        for name in ("front", "wrist", "broken")
    )
    assert isinstance(front, CameraFrame)
    assert front.encoding == images
    assert (front.t_capture_ns, front.seq, front.height, front.width) == (MS, 1, 32, 48)
    apart = np.abs(decode_image(front).astype(int) - image).max()
    assert apart == 0 if images != "jpeg" else 0 < apart < 12
    assert same(wrist, sent[1])  # packed by the camera: as it came
    assert same(broken, no_picture)


def test_a_full_backlog_drops_images_first_and_commands_never() -> None:
    backlog = Backlog(messages=20, images=5)
    messages = dict(every_message())
    for number in range(10):
        backlog.put("/camera/front", picture(number), number)
    for number in range(30):
        backlog.put("/state", messages["/state"], number)
    essential = ("/setpoint", "/chunk", "/safety", "/event", "/episode", "/sim/initial")
    for topic in essential:
        for _ in range(50):
            assert backlog.put(topic, messages[topic], 0)
    kept = [item[0] for item in iter(lambda: backlog.get(0.0), None)]
    assert backlog.take_drops() == {"/camera/front": 5, "/state": 15}
    assert backlog.take_drops() == {}
    assert len(backlog) == 0
    assert kept[:20] == ["/camera/front"] * 5 + ["/state"] * 15
    assert {topic: kept.count(topic) for topic in essential} == dict.fromkeys(essential, 50)
    assert backlog.put("/camera/front", picture(0), 0)


def test_what_is_never_dropped_is_bounded_in_bytes_and_then_nothing_is_taken_until_it_is_written() -> None:
    messages = dict(every_message())
    setpoint = messages["/setpoint"]
    each = len(encode(setpoint))
    backlog = Backlog(size=10 * each)
    assert [backlog.put("/setpoint", setpoint, number) for number in range(12)] == [True] * 10 + [False] * 2
    assert backlog.stalled
    for topic in ("/state", "/camera/front", "/event", "/setpoint"):
        assert not backlog.put(topic, messages[topic], 0)
    taken = [item[2] for item in iter(lambda: backlog.get(0.0), None)]
    assert taken == list(range(10))  # no gap: what came first, and nothing after the first that was refused
    assert not backlog.put("/setpoint", setpoint, 0)
    assert backlog.take_drops() == {"/setpoint": 4, "/state": 1, "/camera/front": 1, "/event": 1}
    backlog.resume()
    assert [backlog.put("/setpoint", setpoint, number) for number in range(11)] == [True] * 10 + [False]


def test_pictures_and_states_do_not_count_against_the_bound_in_bytes() -> None:
    messages = dict(every_message())
    backlog = Backlog(size=len(encode(messages["/setpoint"])))
    assert all(backlog.put("/camera/front", picture(number), number) for number in range(50))
    assert backlog.put("/setpoint", messages["/setpoint"], 0)
    assert not backlog.stalled


def test_drops_belong_to_the_episode_in_which_they_happened() -> None:
    backlog = Backlog(images=1)
    for name in ("one", "two"):
        backlog.put("/episode", start(name), 0)
        for number in range(3 if name == "one" else 6):
            backlog.put("/camera/front", picture(number), 0)
        backlog.put("/episode", stop(name), 0)
    counted: dict[str, dict[str, int]] = {}
    while (item := backlog.get(0.0)) is not None:
        drops = backlog.take_drops()
        if drops:
            assert isinstance(item[1], EpisodeStop)
            counted[item[1].episode] = drops
    # The picture of the first is still there when those of the second come.
    assert counted == {"one": {"/camera/front": 2}, "two": {"/camera/front": 6}}


def test_a_backlog_hands_over_between_threads_in_order() -> None:
    backlog = Backlog(messages=10_000)
    received: list[int] = []

    def take() -> None:
        while len(received) < 2000:
            item = backlog.get(1.0)
            assert item is not None
            received.append(item[2])

    thread = threading.Thread(target=take)
    thread.start()
    message = state(0, commanded=HERE)
    for number in range(2000):
        backlog.put("/state", message, number)
    thread.join(10)
    assert received == list(range(2000))
