"""Edits of sessions: what is chosen, joined, split, relabelled or deleted stays what it was; nothing is half done."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from contracts.episode_bench import METADATA, OUTCOME, every_message, motion, write_many_chunks, written
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.errors import LogError
from reflexarc.datasets.cache import build_cache
from reflexarc.datasets.format import RELABELLED
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.records import RawMessage
from reflexarc.datasets.relabel import Labels, relabel
from reflexarc.datasets.repair import repair
from reflexarc.datasets.sampling import sample_episode
from reflexarc.datasets.session import Session
from reflexarc.datasets.writer import EpisodeWriter

SPEC = tcp_delta_spec(4, 0.1)
CAMERAS = ("front", "wrist")


def drift(speed: float):  # type: ignore[no-untyped-def]
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
    from reflexarc.datasets.lock import held

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
