"""Repair keeps whatever can be believed, says what is gone, and never makes up or changes a message."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from contracts.episode_bench import METADATA, every_message, write_many_chunks
from reflexarc.cli import main
from reflexarc.configs.errors import LogError
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.repair import repair
from reflexarc.datasets.session import Session
from reflexarc.datasets.writer import EpisodeWriter


def write_log(path: Path, *, close: bool = True) -> list[bytes]:
    """A log of many small chunks; returns its encoded messages."""
    write_many_chunks(path, close=close)
    return encoded(path)


def encoded(path: Path) -> list[bytes]:
    return [raw.data for raw in EpisodeReader(path).raw_messages()]


def repaired(tmp_path: Path, content: bytes) -> list[bytes] | None:
    """The messages after repair; None if it was refused, and then nothing was touched."""
    path = tmp_path / "e.mcap"
    path.write_bytes(content)
    kept = path.with_name("e.mcap.damaged")
    kept.unlink(missing_ok=True)
    try:
        done = repair(path)
    except LogError:
        assert path.read_bytes() == content
        assert sorted(file.name for file in tmp_path.iterdir()) == ["e.mcap"]
        return None
    if not done.reason:
        assert path.read_bytes() == content
    else:
        assert kept.read_bytes() == content
        reader = EpisodeReader(path)
        assert reader.is_cut
        assert reader.damage == ""
        assert reader.outcome is not None
        assert reader.outcome["cut"]["lost_messages"] == done.lost
    messages = encoded(path)
    assert len(messages) == done.messages
    return messages


def is_part_of(part: list[bytes], whole: list[bytes]) -> bool:
    """Whether `part` is `whole` with some messages left out."""
    rest = iter(whole)
    return all(any(message == other for other in rest) for message in part)


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of files in a row: nobody waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("close", [True, False])
def test_cut_at_any_byte_all_whole_chunks_come_back(tmp_path: Path, close: bool) -> None:
    original = write_log(tmp_path / "source.mcap", close=close)
    content = (tmp_path / "source.mcap").read_bytes()
    (tmp_path / "source.mcap").unlink()
    random = np.random.default_rng(4)
    counts = {}
    for offset in [0, *sorted(random.integers(1, len(content), 250).tolist())]:
        messages = repaired(tmp_path, content[:offset])
        counts[offset] = -1 if messages is None else len(messages)
        assert messages is None or messages == original[: len(messages)]
    assert list(counts.values()) == sorted(counts.values())
    assert max(counts.values()) >= len(original) - 12
    assert sum(count > 0 for count in counts.values()) > 200


@pytest.mark.usefixtures("unsynced")
def test_flipped_bits_cost_the_chunks_they_hit_and_nothing_else(tmp_path: Path) -> None:
    original = write_log(tmp_path / "source.mcap")
    content = (tmp_path / "source.mcap").read_bytes()
    (tmp_path / "source.mcap").unlink()
    random = np.random.default_rng(5)
    shares = []
    for _ in range(150):
        damaged = bytearray(content)
        flips = int(random.integers(1, 4))
        for place in random.integers(0, len(content), flips):
            damaged[place] ^= 1 << int(random.integers(8))
        messages = repaired(tmp_path, bytes(damaged))
        if messages is None:
            continue  # the digit of its version was hit: another version is believed
        assert is_part_of(messages, original)
        shares.append(len(messages) / len(original))
        assert len(messages) >= len(original) - 12 * flips - 12
    assert len(shares) > 147
    assert np.median(shares) > 0.8


def test_a_hole_in_the_middle_is_counted_and_dated(tmp_path: Path) -> None:
    path = tmp_path / "e.mcap"
    original = write_log(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 50] = bytes(50)
    path.write_bytes(content)
    with pytest.raises(LogError, match="damaged"):
        encoded(path)
    done = repair(path)
    assert done.lost == len(original) - done.messages > 0
    outcome = EpisodeReader(path).outcome
    assert outcome is not None
    assert outcome["success"] is True  # what somebody judged is kept; that it is cut stands beside
    assert [len(gap) for gap in outcome["cut"]["gaps_ns"]] == [2]
    assert repair(path).reason == ""  # once is enough


@pytest.mark.parametrize("head", ["whole", "garbled"])
def test_what_rots_at_the_end_of_a_closed_log_is_counted_by_its_index(tmp_path: Path, head: str) -> None:
    path = tmp_path / "e.mcap"
    original = write_log(path)
    end_ns = max(raw.log_time_ns for raw in EpisodeReader(path).raw_messages())
    content = bytearray(path.read_bytes())
    first, last = len(content) // 2, content.index(b"reflexarc.outcome") - 20  # the record's head is kept
    content[first:last] = bytes(last - first)
    if head == "garbled":
        content[20] ^= 1
    path.write_bytes(content)
    done = repair(path)
    assert encoded(path) == original[: done.messages]
    assert done.lost == len(original) - done.messages > 0
    last_ns = [raw.log_time_ns for raw in EpisodeReader(path).raw_messages()][-1]
    outcome = EpisodeReader(path).outcome or {}
    assert outcome["success"] is True
    assert outcome["cut"]["gaps_ns"] == [[last_ns, end_ns]]


def test_a_file_system_without_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    path = tmp_path / "e.mcap"
    original = write_log(path, close=False)
    content = path.read_bytes()
    monkeypatch.setattr(os, "link", refused)
    with monkeypatch.context() as full:
        full.setattr(shutil, "copy2", refused)
        assert repaired(tmp_path, content) is None
    assert repaired(tmp_path, content) == original
    assert sorted(file.name for file in tmp_path.iterdir()) == ["e.mcap", "e.mcap.damaged"]


def test_lost_heads_are_made_up_for_by_what_the_messages_say(tmp_path: Path) -> None:
    path = tmp_path / "e.mcap"
    original = write_log(path)
    content = bytearray(path.read_bytes())
    content[:300] = bytes(300)
    path.write_bytes(content)
    done = repair(path)
    reader = EpisodeReader(path)
    assert is_part_of(encoded(path), original)
    assert done.messages == len(encoded(path)) > 0
    assert reader.metadata["episode"] == "e" or reader.metadata == METADATA


def test_a_log_that_is_being_recorded_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "e.mcap"
    writer = EpisodeWriter(path, METADATA)
    writer.write("/state", next(message for topic, message in every_message() if topic == "/state"))
    writer.sync()
    with pytest.raises(LogError, match="is being recorded"):
        repair(path)
    writer.abandon()
    assert repair(path).reason == "it was not closed"


def test_foreign_and_empty_files_are_refused_untouched(tmp_path: Path) -> None:
    for name, content in (("text", b"hello"), ("zeros", bytes(5000)), ("rubbish", np.random.bytes(5000))):
        path = tmp_path / f"{name}.mcap"
        path.write_bytes(content)
        with pytest.raises(LogError, match="cannot be repaired"):
            repair(path)
        assert path.read_bytes() == content
    with pytest.raises(LogError, match="cannot be repaired"):
        repair(tmp_path / "missing.mcap")
    newer = tmp_path / "newer.mcap"
    write_log(newer)
    newer.write_bytes(newer.read_bytes().replace(b"reflexarc log 1", b"reflexarc log 2"))
    with pytest.raises(LogError, match="reflexarc log 2"):
        repair(newer)


def test_a_session_is_repaired_and_its_index_made_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path / "whole.mcap")
    write_log(tmp_path / "cut.mcap", close=False)
    assert main(["dataset", "repair", str(tmp_path)]) == 0
    assert "1 whole, 1 repaired, 0 not repaired" in capsys.readouterr().out
    entries = {entry.file: entry for entry in Session(tmp_path).episodes}
    assert [(name, entry.is_cut) for name, entry in entries.items()] == [
        ("cut.mcap", True),
        ("whole.mcap", False),
    ]
    (tmp_path / "bad.mcap").write_bytes(b"nothing")
    (tmp_path / "a.mcap").touch()  # the first of all
    write_log(tmp_path / "z.mcap", close=False)
    assert main(["dataset", "repair", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "2 whole, 1 repaired, 2 not repaired" in captured.out
    assert "2 of 5 logs could not be repaired" in captured.err
    assert {entry.file for entry in Session(tmp_path).episodes if entry.error} == {"a.mcap", "bad.mcap"}
    assert main(["dataset", "repair", str(tmp_path / "nowhere")]) == 1
