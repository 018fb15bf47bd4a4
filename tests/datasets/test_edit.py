"""Edits of sessions: what is chosen, joined, split, relabelled or deleted stays what it was; nothing is half done."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from contracts.episode_bench import (
    METADATA,
    MS,
    OUTCOME,
    control,
    every_message,
    motion,
    write_many_chunks,
    written,
)
from reflexarc.cli import main
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.errors import LogError
from reflexarc.datasets.cache import build_cache
from reflexarc.datasets.edit import delete, filter_session, merge, split
from reflexarc.datasets.format import RELABELLED
from reflexarc.datasets.lock import held
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.records import RawMessage
from reflexarc.datasets.relabel import Labels, relabel
from reflexarc.datasets.repair import repair
from reflexarc.datasets.sampling import sample_episode
from reflexarc.datasets.selection import Criteria
from reflexarc.datasets.session import DISCARDED, INDEX_FILE, Session
from reflexarc.datasets.statistics import session_statistics, statistics
from reflexarc.datasets.summary import Camera, summarise
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.wire.messages import F64, ActionChunk

SPEC = tcp_delta_spec(4, 0.1)
CAMERAS = ("front", "wrist")


ROBOT = {"name": "panda", "tick_hz": 200.0}


def drift(speed: float) -> Callable[[float], F64]:
    """A commanded pose that moves along x at `speed` m/s."""
    return lambda t: np.array([0.4 + speed * t, 0.0, 0.25, 0.0, 1.0, 0.0, 0.0])


def raws(path: Path) -> list[RawMessage]:
    return list(EpisodeReader(path).raw_messages())


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder but the index, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "index.json"
    }


def episode(path: Path, **options: Any) -> Path:
    """A log of an arm that drifts. Options: seconds, speed, success, cameras, sources, chunk, and metadata."""
    seconds, cameras = options.pop("seconds", 1.0), options.pop("cameras", ("front", "wrist"))
    messages = list(motion(drift(options.pop("speed", 0.1)), seconds, cameras=cameras))
    messages += [
        ("/event", control(number * 10 * MS, name)) for number, name in enumerate(options.pop("sources", ()))
    ]
    chunk = next(message for _, message in every_message() if isinstance(message, ActionChunk))
    messages.append(("/chunk", msgspec.structs.replace(chunk, **options.pop("chunk", {}))))
    outcome = {"success": options.pop("success", True)}
    metadata = METADATA | {"configs": {"robot": ROBOT}, "safety_hash": "a" * 64} | options
    with EpisodeWriter(path, metadata, fsync=False) as writer:
        for topic, message in messages:
            writer.write(topic, message)
        writer.close(outcome)
    return path


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 logs that differ: 12 of `lift` and 8 of `push`, every fourth failed."""
    folder = tmp_path_factory.mktemp("pool")
    for number in range(20):
        task = "lift" if number < 12 else "push"
        episode(
            folder / task / f"{number % 12:03d}.mcap",
            task=task,
            seed=number,
            success=number % 4 != 3,
            speed=0.01 * number,
            seconds=0.3 + 0.1 * (number % 3),
        )
    return folder


def contents(folder: Path) -> Counter[str]:
    """The logs of a session by what they hold."""
    return Counter(
        hashlib.sha256((folder / entry.file).read_bytes()).hexdigest() for entry in Session(folder).episodes
    )


def figures_of(path: Path) -> Any:
    return json.loads(path.read_text())


def ends_at(step: int) -> Callable[[Sequence[Path], str], Iterator[Path]]:
    """A progress in which somebody presses Ctrl-C at this log of the writing."""

    def progress(paths: Sequence[Path], what: str) -> Iterator[Path]:
        for number, path in enumerate(paths):
            if what == "writing" and number == step:
                raise KeyboardInterrupt
            yield path

    return progress


# ------------------------------------------------------------------------------------------------ relabel


def test_a_relabelled_log_has_the_same_messages_and_training_sees_the_new_words(tmp_path: Path) -> None:
    log = tmp_path / "session" / "a.mcap"
    before = written(log, motion(drift(0.1), 1.0))
    old, messages, labels = before.metadata, raws(log), sample_episode(before, SPEC, CAMERAS)
    build_cache(log.parent, tmp_path / "cache", SPEC, CAMERAS, progress=False)

    was = relabel(log, Labels(success=True, instruction="push the blue button", task="button"))

    assert was == {"instruction": "lift the red cube", "task": "lift"}
    assert raws(log) == messages
    after = EpisodeReader(log)
    assert (after.instruction, after.metadata["task"]) == ("push the blue button", "button")
    assert after.outcome == OUTCOME
    assert not after.is_cut
    changed = {name for name in after.metadata if after.metadata[name] != old.get(name)}
    assert changed == {"instruction", "task", RELABELLED}
    (record,) = after.metadata[RELABELLED]
    assert record["was"] == was
    again = sample_episode(after, SPEC, CAMERAS)
    assert again.instruction == "push the blue button"
    np.testing.assert_array_equal(again.actions, labels.actions)
    cache = build_cache(log.parent, tmp_path / "cache", SPEC, CAMERAS, progress=False)
    assert cache.instructions == ["push the blue button"]  # although the old rows are in the cache
    assert os.listdir(log.parent) == ["a.mcap"]


def test_every_label_that_ever_was_stays_on_record(tmp_path: Path) -> None:
    log = tmp_path / "a.mcap"
    written(log, motion(drift(0.1), 0.2))
    sizes = [log.stat().st_size]
    for success, words in ((False, "w"), (False, "w"), (True, "lift the red cube"), (True, "lift")):
        relabel(log, Labels(success=success, instruction=words))
        sizes.append(log.stat().st_size)
    was = [change["was"] for change in EpisodeReader(log).metadata[RELABELLED]]
    assert was == [
        {"success": True, "instruction": "lift the red cube"},
        {"success": False, "instruction": "w"},
        {"instruction": "lift the red cube"},
    ]
    assert sizes[1] == sizes[2]  # it had these labels: left alone
    assert sorted({*sizes}) == [sizes[0], *sizes[2:]]  # else it grows, however short the words
    entry = Session(tmp_path).episodes[0]
    assert (entry.success, entry.instruction) == (True, "lift")


def test_a_log_that_cannot_be_relabelled_is_left_as_it_is(tmp_path: Path) -> None:
    whole, cut, foreign = (tmp_path / f"{name}.mcap" for name in ("whole", "cut", "foreign"))
    written(whole, motion(drift(0.1), 0.2))
    writer = EpisodeWriter(cut, METADATA)
    for topic, message in motion(drift(0.1), 0.2):
        writer.write(topic, message)
    writer.sync()
    foreign.write_bytes(b"rubbish")
    found = files(tmp_path)
    with pytest.raises(LogError, match="is being recorded"):
        relabel(cut, Labels(success=True))
    writer.abandon()
    with pytest.raises(LogError, match="cut before its end; run `reflexarc dataset repair`"):
        relabel(cut, Labels(success=True))
    with pytest.raises(LogError, match="not an episode log"):
        relabel(foreign, Labels(success=True))
    with pytest.raises(LogError, match="cannot be relabelled: No such file"):
        relabel(tmp_path / "nowhere.mcap", Labels(success=True))
    with pytest.raises(LogError, match="the new instruction is blank"):
        relabel(whole, Labels(instruction=" "))
    with pytest.raises(LogError, match="no label is given"):
        relabel(whole, Labels())
    assert files(tmp_path) == found

    repair(cut)
    relabel(cut, Labels(success=False))
    assert EpisodeReader(cut).is_cut
    assert (EpisodeReader(cut).outcome or {})["success"] is False


@pytest.mark.parametrize("moment", ["write_encoded", "close"])
def test_an_interrupted_relabelling_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    written(tmp_path / "a.mcap", every_message())
    found = files(tmp_path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EpisodeWriter, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        relabel(tmp_path / "a.mcap", Labels(success=False))
    assert files(tmp_path) == found


def relabel_for_ever(log: Path, begun: Event) -> None:
    begun.set()
    for number in itertools.count():
        relabel(log, Labels(instruction=f"attempt {number}", success=number % 2 == 0))


def test_a_relabelling_that_is_killed_leaves_a_whole_log(tmp_path: Path) -> None:
    log = tmp_path / "a.mcap"
    written(log, motion(drift(0.1), 0.5))
    aside = tmp_path / ".a.mcap.relabel"
    messages, random, halves = raws(log), np.random.default_rng(0), 0
    context = multiprocessing.get_context("fork")
    for _ in range(40):
        begun = context.Event()
        process = context.Process(target=relabel_for_ever, args=(log, begun))
        process.start()
        assert begun.wait(20)
        time.sleep(random.uniform(0.005, 0.05))
        process.kill()
        process.join()
        halves += aside.exists()
        aside.unlink(missing_ok=True)
        assert raws(log) == messages
        assert EpisodeReader(log).outcome is not None
        written_down = EpisodeReader(log).metadata.get(RELABELLED, [])
        log.unlink()
        written(log, motion(drift(0.1), 0.5))
        assert [each["was"]["instruction"] for each in written_down[1:]] == [
            f"attempt {number}" for number in range(len(written_down) - 1)
        ]
    assert halves > 5  # else nothing was killed in the middle
    aside.write_bytes(b"what a power cut left")
    assert relabel(log, Labels(success=False)) == {"success": True}
    assert os.listdir(tmp_path) == ["a.mcap"]


def test_what_a_damaged_log_holds_is_not_copied_into_a_new_one(tmp_path: Path) -> None:
    log = tmp_path / "a.mcap"
    written(log, motion(drift(0.1), 0.5))
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)
    with pytest.raises(LogError, match="damaged"):
        relabel(log, Labels(success=False))
    assert files(tmp_path) == {"a.mcap": bytes(content)}


def test_two_who_relabel_at_once_do_not_lose_what_either_said(tmp_path: Path) -> None:
    log = tmp_path / "a.mcap"
    written(log, motion(drift(0.1), 0.2))
    with held(log):
        with pytest.raises(LogError, match="edited elsewhere"):
            relabel(log, Labels(success=False))
        with pytest.raises(LogError, match="edited elsewhere"):
            repair(log)
    relabel(log, Labels(success=False))
    assert (EpisodeReader(log).outcome or {})["success"] is False


@pytest.mark.parametrize("closed", [True, False])
def test_ends_are_the_first_and_last_of_each_topic(tmp_path: Path, closed: bool) -> None:
    log = tmp_path / "a.mcap"
    write_many_chunks(log, close=closed)
    reader = EpisodeReader(log)
    found: dict[str, list[RawMessage]] = {}
    for raw in reader.raw_messages():
        found.setdefault(raw.topic, []).append(raw)
    ends = reader.ends([*found, "/camera/nowhere"])
    assert ends == {topic: (each[0], each[-1]) for topic, each in found.items()}
    assert ends["/sim/initial"][0] != ends["/sim/initial"][1]


# ------------------------------------------------------------------------- filter, merge, split


def test_merge_then_split_then_filter_loses_and_doubles_nothing(pool: Path, tmp_path: Path) -> None:
    before = files(pool)
    everything = contents(pool)
    (pool / INDEX_FILE).unlink()
    assert len(everything) == 20

    merged = merge([pool / "lift", pool / "push"], tmp_path / "both")
    assert contents(tmp_path / "both") == everything
    assert merged.left_out == ()
    assert {name for name in merged.names if "-2" in name} == {f"{n:03d}-2.mcap" for n in range(8)}

    shared = split(tmp_path / "both", tmp_path / "parts", {"train": 0.7, "val": 0.3}, 4)
    parts = {name: contents(tmp_path / "parts" / name) for name in shared}
    assert parts["train"] + parts["val"] == everything
    assert not parts["train"] & parts["val"]

    found: Counter[str] = Counter()
    for part in shared:
        session = Session(tmp_path / "parts" / part)
        for task, success in {(entry.task, entry.success) for entry in session.episodes}:
            out = tmp_path / f"{part}-{task}-{success}"
            criteria = Criteria(tasks=(task,), success=("true" if success else "false",))
            filter_session(session.folder, out, criteria)
            assert {(entry.task, entry.success) for entry in Session(out).episodes} == {(task, success)}
            found += contents(out)
    assert found == everything
    assert files(pool) == before
    assert not (pool / "lift" / INDEX_FILE).exists()


@pytest.mark.parametrize("copy", [False, True])
def test_a_new_session_has_its_index_and_is_independent_of_the_old_one(
    pool: Path, tmp_path: Path, copy: bool
) -> None:
    before = files(pool)
    chosen, total = filter_session(pool, tmp_path / "out", Criteria(tasks=("push",)), copy=copy)
    assert (chosen, total) == (8, 20)
    index = json.loads((tmp_path / "out" / INDEX_FILE).read_text())
    assert [entry["file"] for entry in index["episodes"]] == [f"push/{n:03d}.mcap" for n in range(8)]
    old, new = pool / "push" / "000.mcap", tmp_path / "out" / "push" / "000.mcap"
    assert old.samefile(new) != copy
    relabel(new, Labels(instruction="something else"))
    delete([tmp_path / "out" / "push" / "001.mcap"])
    assert files(pool) == before
    assert EpisodeReader(old).instruction == "lift the red cube"


def test_every_criterion_chooses_what_it_says(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    episode(logs / "expert.mcap", sources=("expert", "perturb", "expert"), seconds=0.4)
    episode(logs / "taken.mcap", sources=("policy", "teleop", "policy", "teleop"), policy="tiny", seconds=1.0)
    episode(logs / "hand.mcap", sources=("teleop",), policy="teleop", success=None, task="pour", seconds=2.0)
    written(logs / "limited.mcap", every_message(), outcome={"success": False})
    writer = EpisodeWriter(logs / "cut.mcap", METADATA)
    writer.write(*next(iter(motion(drift(0.1), 0.1))))
    writer.sync()
    writer.abandon()
    number = itertools.count()

    def chosen(**criteria: Any) -> list[str]:
        out = tmp_path / str(next(number))
        filter_session(logs, out, Criteria(**criteria))
        return [entry.file.removesuffix(".mcap") for entry in Session(out).episodes]

    assert chosen() == ["cut", "expert", "hand", "limited", "taken"]
    assert chosen(tasks=("pour",)) == ["hand"]
    assert chosen(policies=("tiny", "teleop")) == ["hand", "taken"]
    assert chosen(instructions=("lift the red cube",), success=("true",)) == ["expert", "taken"]
    assert chosen(success=("unjudged",)) == ["cut", "hand"]
    assert chosen(success=("false", "unjudged")) == ["cut", "hand", "limited"]
    assert chosen(sources=("human",)) == chosen(sources=("teleop",)) == ["hand", "taken"]
    assert chosen(sources=("expert", "policy")) == ["expert", "taken"]
    assert chosen(min_seconds=1.0) == ["hand", "taken"]
    assert chosen(min_seconds=0.4, max_seconds=1.0) == ["expert", "taken"]
    assert chosen(max_takeovers=1) == ["cut", "expert", "hand", "limited"]
    assert chosen(max_interventions=0) == ["cut", "expert", "hand", "taken"]
    assert chosen(is_cut=True) == ["cut"]
    assert chosen(is_cut=False, max_seconds=0.1) == ["limited"]
    refused = {
        "unknown task 'lfit'; known: lift, pour": Criteria(tasks=("lfit",)),
        "unknown source 'robot'; known: expert, human, perturb, policy, teleop": Criteria(sources=("robot",)),
        "unknown policy 'x'": Criteria(policies=("x",)),
        "unknown instruction 'dance'": Criteria(instructions=("dance",)),
        "none of its 5 episodes meets the criteria": Criteria(min_seconds=60.0),
        "min_seconds is nan; must be at least 0": Criteria(min_seconds=float("nan")),
        "max_takeovers is -1; must be at least 0": Criteria(max_takeovers=-1),
        "min_seconds 2.0 is above max_seconds 1.0": Criteria(min_seconds=2.0, max_seconds=1.0),
    }
    for message, criteria in refused.items():
        with pytest.raises(LogError, match=message):
            filter_session(logs, tmp_path / "never", criteria)
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"configs": {"robot": ROBOT | {"name": "ur5e"}}}, "robot is 'ur5e', in .*a.mcap it is 'panda'"),
        ({"configs": {"robot": ROBOT | {"tick_hz": 500.0}}}, "host rate tick_hz is 500, in .* it is 200"),
        ({"chunk": {"spec_id": "joint-8/h8/100ms"}}, "action space is 'joint-8', in .* it is 'tcp-delta-7'"),
        ({"chunk": {"step_ns": 50 * MS}}, "action step_s is 0.05, in .* it is 0.1"),
        ({}, ""),
        ({"chunk": {"spec_id": "tcp-delta-7/h1/100ms"}}, ""),
        ({"configs": {}}, ""),
        ({"cameras": ("front", "side")}, ""),
    ],
)
def test_only_sessions_of_one_kind_are_merged(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    episode(tmp_path / "one" / "a.mcap")
    episode(tmp_path / "two" / "a.mcap", seed=8, **other)
    before = files(tmp_path)
    if message:
        with pytest.raises(LogError, match=message):
            merge([tmp_path / "one", tmp_path / "two"], tmp_path / "both")
        assert files(tmp_path) == before
    else:
        merge([tmp_path / "one", tmp_path / "two"], tmp_path / "both")
        assert sorted(files(tmp_path / "both")) == ["a-2.mcap", "a.mcap"]


def test_pictures_of_another_size_or_rate_are_not_merged(tmp_path: Path) -> None:
    for name, size, every in (("one", 16, 1), ("size", 8, 1), ("rate", 16, 2)):
        with EpisodeWriter(tmp_path / name / "a.mcap", METADATA | {"name": name}, fsync=False) as writer:
            for topic, message in motion(drift(0.1), 1.0, cameras=("front",)):
                if topic == "/camera/front":
                    if message.seq % every:  # type: ignore[attr-defined]
                        continue
                    message = msgspec.structs.replace(message, width=size, height=size)
                writer.write(topic, message)
    assert summarise(tmp_path / "one" / "a.mcap").cameras == {"front": Camera(16, 16, pytest.approx(10.0))}
    with pytest.raises(LogError, match=r"camera front size is '8x8', in .* it is '16x16'"):
        merge([tmp_path / "one", tmp_path / "size"], tmp_path / "both")
    with pytest.raises(LogError, match=r"camera front rate \(Hz\) is 5, in .* it is 10"):
        merge([tmp_path / "one", tmp_path / "rate"], tmp_path / "both")


def test_what_is_there_byte_for_byte_is_merged_once(pool: Path, tmp_path: Path) -> None:
    filter_session(pool, tmp_path / "push", Criteria(tasks=("push",)), copy=True)
    merged = merge([pool, tmp_path / "push", pool], tmp_path / "both")
    assert len(merged.names) == 20
    assert len(merged.left_out) == 28
    assert contents(tmp_path / "both") == Counter(dict.fromkeys(contents(pool), 1))
    (pool / INDEX_FILE).unlink()


def test_a_split_is_the_same_again_and_shares_every_task_alike(pool: Path, tmp_path: Path) -> None:
    parts = {"train": 0.6, "val": 0.25, "test": 0.15}

    def names(out: str, session: Path, seed: int) -> dict[str, set[str]]:
        shared = split(session, tmp_path / out, parts, seed)
        return {
            part: {each.log.relative_to(session).as_posix() for each in of} for part, of in shared.items()
        }

    first = names("1", pool, 7)
    assert names("2", pool, 7) == first
    assert names("3", pool, 8) != first
    for part, share in parts.items():
        assert abs(len(first[part]) - 20 * share) < 1
        for task, count in (("lift", 12), ("push", 8)):
            mine = [name for name in first[part] if name.startswith(task)]
            assert abs(len(mine) - count * share) < 1.5
    filter_session(pool, tmp_path / "moved", Criteria(), copy=True)
    assert names("4", tmp_path / "moved", 7) == first  # of the logs, not of where they are
    many = split(pool, tmp_path / "5", {"a": 0.5, "b": 0.5}, 0)
    assert [len(of) for of in many.values()] == [10, 10]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": 0.9, "val": 0.2}, "add up to 1.1; must be 1"),
        ({"train": 1.0}, "two parts or more"),
        ({"train": 1.5, "val": -0.5}, "'train' has share 1.5"),
        ({"train": 0.5, "../val": 0.5}, "'../val' cannot be a folder's name"),
        ({"train": 0.5, "discarded": 0.5}, "'discarded' cannot be a folder's name"),
        ({"train": 0.99, "val": 0.01}, r"part 'val' \(0.01\) of 20 episodes stays empty"),
    ],
)
def test_parts_that_cannot_be_are_refused(
    pool: Path, tmp_path: Path, parts: dict[str, float], message: str
) -> None:
    with pytest.raises(LogError, match=message):
        split(pool, tmp_path / "out", parts, 0)
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------------ nothing half done


def edits(out: Path) -> dict[str, Callable[..., object]]:
    return {
        "filter": lambda session, **options: filter_session(session, out, Criteria(), **options),
        "merge": lambda session, **options: merge([session / "lift", session / "push"], out, **options),
        "split": lambda session, **options: split(session, out, {"a": 0.5, "b": 0.5}, 0, **options),
    }


@pytest.mark.parametrize("edit", ["filter", "merge", "split"])
@pytest.mark.parametrize("copy", [False, True])
def test_an_interrupted_edit_leaves_nothing(pool: Path, tmp_path: Path, edit: str, copy: bool) -> None:
    run, before = edits(tmp_path / "out")[edit], files(pool)
    for step in (0, 3, 7):
        with pytest.raises(KeyboardInterrupt):
            run(pool, copy=copy, progress=ends_at(step))
        assert os.listdir(tmp_path) == []
    left = tmp_path / ".out.unfinished" / "left by a power cut.mcap"
    left.parent.mkdir()
    left.write_bytes(b"half a log")
    run(pool, copy=copy)
    assert os.listdir(tmp_path) == ["out"]
    assert sum(contents(tmp_path / "out").values()) == 20
    assert files(pool) == before


def test_a_full_disk_leaves_nothing(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copy2", full)
    with pytest.raises(LogError, match="out: writing the session failed: No space left on device"):
        filter_session(pool, tmp_path / "out", Criteria(), copy=True)
    assert os.listdir(tmp_path) == []


def test_where_nothing_can_be_linked_logs_are_copied(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", no_link)
    filter_session(pool, tmp_path / "out", Criteria(tasks=("lift",)))
    assert files(tmp_path / "out") == {f"lift/{name}": data for name, data in files(pool / "lift").items()}


def test_a_log_that_cannot_be_read_stops_an_edit_until_it_is_taken_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = tmp_path / "s"
    episode(session / "good.mcap")
    (session / "bad.mcap").write_bytes(b"rubbish")
    for arguments in (["filter"], ["split"], ["merge", str(session)]):
        out = ["--out", str(tmp_path / "out")]
        assert main(["dataset", arguments[0], str(session), *arguments[1:], *out]) == 1
        assert "1 of 2 logs" in capsys.readouterr().err
    assert main(["dataset", "delete", str(session / "bad.mcap"), "--yes"]) == 0
    assert main(["dataset", "info", str(session)]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["filter", "{empty}", "--out", "{tmp}/x"], "no episode log (.mcap) there"),
        (["filter", "{tmp}/nowhere", "--out", "{tmp}/x"], "no such session folder"),
        (["filter", "{log}", "--out", "{tmp}/x"], "is a file; a session is a folder"),
        (["filter", "{pool}", "--out", "{empty}"], "exists already"),
        (["split", "{pool}", "--out", "{pool}/parts"], "would be inside of"),
        (["split", "{pool}", "--out", "{tmp}/x", "--parts", "train:0.9"], "wrong at 'train:0.9'"),
        (["split", "{pool}", "--out", "{tmp}/x", "--parts", "a=0.5,a=0.5"], "wrong at 'a=0.5'"),
        (["split", "{pool}", "--out", "{tmp}/x", "--seed", "-1"], "seed is -1"),
        (["merge", "{pool}", "--out", "{tmp}/x"], "two sessions or more; 1 given"),
        (["stats", "{pool}", "--step-s", "0"], "step_s is 0.0; must be above 0"),
        (["stats", "{pool}", "--cameras", "top"], "unknown camera 'top'; known: front, wrist"),
        (["info", "{empty}"], "no episode log (.mcap) there"),
        (["relabel", "{log}"], "no label is given"),
        (["relabel", "{empty}", "--success", "true"], "no episode log (.mcap) there"),
        (["delete", "{pool}"], "no episode log (.mcap); a whole session"),
        (["delete", "{tmp}/nowhere.mcap", "--yes"], "nowhere.mcap: no episode log"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    before = files(pool)
    names = {"empty": tmp_path / "empty", "tmp": tmp_path, "log": pool / "lift" / "000.mcap", "pool": pool}
    assert main(["dataset", *(argument.format(**names) for argument in arguments)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert files(pool) == before
    assert os.listdir(tmp_path) == ["empty"]
    assert os.listdir(tmp_path / "empty") == []


def test_a_log_that_is_being_recorded_is_in_no_edit(tmp_path: Path) -> None:
    session = tmp_path / "s"
    episode(session / "a.mcap")
    writer = EpisodeWriter(session / "b.mcap", METADATA)
    for topic, message in motion(drift(0.1), 0.2):
        writer.write(topic, message)
    writer.sync()
    before = files(tmp_path)
    with pytest.raises(LogError, match=r"b.mcap is being recorded"):
        filter_session(session, tmp_path / "out", Criteria())
    with pytest.raises(LogError, match=r"b.mcap is being recorded"):
        delete([session / "a.mcap", session / "b.mcap"])
    assert files(tmp_path) == before
    writer.close(OUTCOME)
    filter_session(session, tmp_path / "out", Criteria())


# ------------------------------------------------------------------------------------------------ delete


def test_a_deleted_log_is_out_of_the_session_and_can_be_moved_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = tmp_path / "s"
    for name in ("lift/0", "lift/1", "push/0"):
        episode(session / f"{name}.mcap", speed=0.1 * len(name) + int(name[-1]))
    Session(session)
    before, log = files(session), session / "lift" / "0.mcap"

    monkeypatch.setattr("builtins.input", lambda *_: "n")
    assert main(["dataset", "delete", str(log)]) == 0
    assert files(session) == before
    assert "nothing is deleted" in capsys.readouterr().out
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    assert main(["dataset", "delete", str(log)]) == 0
    place = session / DISCARDED / "lift" / "0.0.mcap"
    assert place.read_bytes() == before["lift/0.mcap"]
    index = json.loads((session / INDEX_FILE).read_text())
    assert [entry["file"] for entry in index["episodes"]] == ["lift/1.mcap", "push/0.mcap"]
    cache = build_cache(session, tmp_path / "cache", SPEC, CAMERAS, progress=False)
    assert {each.log for each in cache.episodes} == {"lift/1.mcap", "push/0.mcap"}
    with pytest.raises(LogError, match="was deleted before"):
        delete([place])

    episode(log, seed=99)  # another one of that name
    assert delete([log]) == {log: session / DISCARDED / "lift" / "0.1.mcap"}
    place.rename(log)
    assert [entry.file for entry in Session(session).episodes] == [
        "lift/0.mcap",
        "lift/1.mcap",
        "push/0.mcap",
    ]
    assert log.read_bytes() == before["lift/0.mcap"]


def test_a_log_without_an_index_is_discarded_beside_itself(tmp_path: Path) -> None:
    (tmp_path / INDEX_FILE).write_text('{"of": "another program"}')
    log = episode(tmp_path / "s" / "a.mcap")
    assert delete([log, log]) == {log: tmp_path / "s" / DISCARDED / "a.0.mcap"}
    assert (tmp_path / INDEX_FILE).read_text() == '{"of": "another program"}'


# ------------------------------------------------------------------------------------------ info and stats


def test_statistics_are_those_of_what_training_sees(pool: Path, tmp_path: Path) -> None:
    logs = tmp_path / "s"
    filter_session(pool, logs, Criteria())
    writer = EpisodeWriter(logs / "cut.mcap", METADATA)
    for topic, message in motion(drift(9.0), 0.3):
        writer.write(topic, message)
    writer.sync()
    writer.abandon()
    found = session_statistics(logs, tcp_delta_spec(1, 0.1))
    (logs / "cut.mcap").unlink()
    cache = build_cache(logs, tmp_path / "cache", tcp_delta_spec(1, 0.1), CAMERAS, progress=False)
    actions = cache.labels["actions"][:, 0].astype(np.float64)
    assert found["episodes"] == 15
    assert found["tasks"]["push"]["episodes"] == 6
    assert sum(task["labels"] for task in found["tasks"].values()) == len(actions)
    expected = {
        "min": actions.min(0),
        "max": actions.max(0),
        "mean": actions.mean(0),
        "std": actions.std(0),
        "q01": np.quantile(actions, 0.01, axis=0),
        "q99": np.quantile(actions, 0.99, axis=0),
    }
    for figure, row in expected.items():
        mine = [found["labels"][dim.name][figure] for dim in SPEC.dims]
        np.testing.assert_allclose(mine, row, atol=1e-8, rtol=1e-6, err_msg=figure)  # the cache is float32
    assert found["labels"]["dx"]["unit"] == "m"
    assert [*found["states"]][:8] == [*(f"joint{n}" for n in range(1, 8)), "gripper"]
    assert found["states"]["y"]["mean"] == pytest.approx(-1e-3)  # the arm is that far off what is commanded
    assert found["states"]["fz"]["max"] == 2.0
    every = session_statistics(logs, tcp_delta_spec(1, 0.1), all_episodes=True)
    assert every["episodes"] == 20
    assert every["labels"]["dx"]["max"] > found["labels"]["dx"]["max"]


def test_quantiles_are_exact() -> None:
    values = np.arange(201, dtype=np.float64)[::-1, None] * [1.0, -2.0]
    found = statistics(values)
    assert (found["q01"], found["q50"], found["q99"]) == ([2.0, -398.0 + 2.0], [100.0, -200.0], [198.0, -4.0])
    assert (found["min"], found["max"], found["count"]) == ([0.0, -400.0], [200.0, 0.0], 201)


def test_statistics_of_two_robots_are_refused(tmp_path: Path) -> None:
    episode(tmp_path / "a.mcap")
    episode(tmp_path / "b.mcap", configs={"robot": ROBOT | {"name": "ur5e"}})
    with pytest.raises(LogError, match="robot is 'ur5e'"):
        session_statistics(tmp_path, tcp_delta_spec(1, 0.1))
    episode(tmp_path / "fail" / "a.mcap", success=False)
    with pytest.raises(LogError, match="no successful episode to tell statistics of"):
        session_statistics(tmp_path / "fail", tcp_delta_spec(1, 0.1))


def test_info_tells_what_is_in_a_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = tmp_path / "s"
    episode(session / "a.mcap", sources=("policy", "teleop", "policy"), seconds=3.6)
    episode(
        session / "b.mcap", task="push", success=False, cameras=("front",), seconds=3.6, safety_hash="b" * 64
    )
    episode(session / "c.mcap", success=None, seconds=3.6, instruction="[red]lift")
    relabel(session / "c.mcap", Labels(instruction="[red]lift"))
    size = sum(path.stat().st_size for path in session.iterdir())
    assert main(["dataset", "info", str(session), "--json", str(tmp_path / "i.json")]) == 0
    found = figures_of(tmp_path / "i.json")
    assert (found["episodes"], found["bytes"], found["cut"], found["unreadable"]) == (3, size, [], {})
    assert found["hours"] == pytest.approx(3 * 3.6 / 3600)
    assert found["verdicts"] == {"true": 1, "false": 1, "unjudged": 1}
    assert found["tasks"]["push"] == {
        "episodes": 1,
        "hours": pytest.approx(0.001),
        "verdicts": {"true": 0, "false": 1, "unjudged": 0},
    }
    assert found["instructions"] == {"lift the red cube": 2, "[red]lift": 1}
    assert (found["sources"], found["takeovers"]) == ({"policy": 1, "teleop": 1}, 1)
    assert (found["robots"], found["action_spaces"]) == ({"panda": 3}, {"tcp-delta-7": 3})
    assert found["limits"] == {"a" * 64: 2, "b" * 64: 1}
    assert found["versions"] == {"mujoco 4.0": 3}
    assert {name: each["episodes"] for name, each in found["cameras"].items()} == {"front": 3, "wrist": 2}
    assert found["cameras"]["front"]["sizes"] == {"16x16": 3}
    assert found["cameras"]["front"]["rate_hz"] == [pytest.approx(10.0), pytest.approx(10.0)]
    assert [each["seconds"] for each in found["logs"]] == [pytest.approx(3.6)] * 3
    shown = capsys.readouterr().out
    assert "[red]lift" in shown
    assert "1 succeeded, 1 failed, 1 unjudged" in shown
    assert sorted(os.listdir(session)) == ["a.mcap", "b.mcap", "c.mcap"]  # nothing is written


def test_each_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("info", "stats", "filter", "merge", "split", "relabel", "delete"):
        with pytest.raises(SystemExit) as ended:
            main(["dataset", command, "--help"])
        assert ended.value.code == 0
        assert f"Example: reflexarc dataset {command}" in " ".join(
            capsys.readouterr().out.replace("│", " ").split()
        )
