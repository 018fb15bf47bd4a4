"""The episode log: what is written is what is read, by us and by a stock MCAP reader; bad use is one clear line."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.writer import Writer

from contracts.episode_bench import METADATA, MS, OUTCOME, every_message, motion, same, state, written
from reflexarc.configs.errors import LogError
from reflexarc.datasets import writer as writer_module
from reflexarc.datasets.format import TOPICS
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.wire.codec import decode
from reflexarc.wire.messages import Message, Observation

HERE = np.array([0.45, 0.0, 0.25, 0.0, 1.0, 0.0, 0.0])


def write_all(writer: EpisodeWriter, messages: list[tuple[str, Message]]) -> None:
    for topic, message in messages:
        writer.write(topic, message)


def test_every_topic_comes_back_as_it_went_in(tmp_path: Path) -> None:
    messages = every_message()
    reader = written(tmp_path / "e.mcap", messages)
    assert {topic for topic, _ in messages} == {*TOPICS, "/camera/front", "/camera/wrist"}
    read = list(reader.messages())
    assert [topic for topic, _ in read] == [topic for topic, _ in messages]
    for (_, before), (_, after) in zip(messages, read, strict=True):
        if not isinstance(before, Observation):
            assert same(before, after)
    assert reader.metadata == METADATA
    assert reader.outcome == OUTCOME
    assert not reader.is_cut
    assert reader.cameras == ("front", "wrist")
    assert reader.instruction == "lift the red cube"
    assert sum(reader.topics.values()) == len(messages)


def test_an_observation_keeps_the_names_and_times_of_its_images_but_no_pixels(tmp_path: Path) -> None:
    reader = written(tmp_path / "e.mcap", every_message())
    ((_, observation),) = reader.messages(["/observation"])
    assert isinstance(observation, Observation)
    assert {name: frame.t_capture_ns for name, frame in observation.images.items()} == {
        "front": 20 * MS,
        "wrist": 20 * MS,
    }
    assert all(frame.data == b"" for frame in observation.images.values())


def test_topics_can_be_read_alone_and_in_order_of_their_content(tmp_path: Path) -> None:
    late_first = [state(t * MS, commanded=HERE, seq=t) for t in (30, 10, 20)]
    reader = written(tmp_path / "e.mcap", [*every_message(), *(("/state", item) for item in late_first)])
    assert {topic for topic, _ in reader.messages(["/chunk", "/event"])} == {"/chunk", "/event"}
    column = reader.columns(["/state"])["/state"]
    assert column.times_ns.tolist() == [10 * MS, 20 * MS, 20 * MS, 30 * MS]
    assert column.latest(np.array([5, 10, 25, 99]) * MS).tolist() == [-1, 0, 2, 3]


def test_the_log_is_a_valid_mcap_file_for_a_stock_reader(tmp_path: Path) -> None:
    messages = list(motion(lambda _: HERE, 2.0))
    reader = written(tmp_path / "e.mcap", messages)
    with reader.path.open("rb") as file:
        stock = make_reader(file, validate_crcs=True)
        summary = stock.get_summary()
        assert summary is not None
        assert summary.statistics is not None
        assert summary.statistics.message_count == len(messages)
        assert len(summary.chunk_indexes) == summary.statistics.chunk_count > 1
        read = [(channel.topic, decode(message.data)) for _, channel, message in stock.iter_messages()]
        assert {record.name for record in stock.iter_metadata()} == {"reflexarc.episode", "reflexarc.outcome"}
    assert len(read) == len(messages)
    with reader.path.open("rb") as file:
        assert sum(1 for _ in StreamReader(file, validate_crcs=True).records) > len(messages)


def test_every_chunk_names_its_own_schemas_and_channels(tmp_path: Path) -> None:
    reader = written(tmp_path / "e.mcap", motion(lambda _: HERE, 3.0))
    with reader.path.open("rb") as file:
        chunks = [
            breakup_chunk(record, validate_crc=True)
            for record in StreamReader(file, emit_chunks=True).records
            if type(record).__name__ == "Chunk"
        ]
    assert len(chunks) > 2
    for records in chunks:
        schemas, channels = set(), {}
        for record in records:
            kind = type(record).__name__
            if kind == "Schema":
                schemas.add(record.id)
            elif kind == "Channel":
                assert record.schema_id in schemas
                channels[record.id] = record.topic
            else:
                assert record.channel_id in channels


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "e.mcap"
    path.write_bytes(b"precious")
    with pytest.raises(LogError, match=r"e\.mcap exists already; an episode log is never overwritten"):
        EpisodeWriter(path, METADATA)
    assert path.read_bytes() == b"precious"


def test_bad_use_is_refused_in_one_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"reflexarc\.episode cannot be written as JSON"):
        EpisodeWriter(tmp_path / "bad.mcap", {"array": np.zeros(3)})
    assert not (tmp_path / "bad.mcap").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="cannot be created"):
        EpisodeWriter(tmp_path / "file" / "e.mcap", {})
    with EpisodeWriter(tmp_path / "e.mcap", {}, fsync=False) as writer:
        with pytest.raises(LogError, match=r"unknown topic '/stat'; known: .*/camera/<name>.*/state"):
            writer.write("/stat", state(0, commanded=HERE))
        with pytest.raises(LogError, match="has time -5 ns; must be within 0"):
            writer.write("/state", state(-5, commanded=HERE))
    with pytest.raises(LogError, match="is closed; /state cannot be written"):
        writer.write("/state", state(0, commanded=HERE))
    writer.close({})
    assert EpisodeReader(writer.path).outcome == {}


def test_an_exception_stands_in_the_outcome(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), EpisodeWriter(tmp_path / "e.mcap", {}, fsync=False):
        raise RuntimeError("the arm fell off")
    assert EpisodeReader(tmp_path / "e.mcap").outcome == {"error": "RuntimeError: the arm fell off"}


def test_a_full_disk_is_named_and_what_was_written_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = list(motion(lambda _: HERE, 3.0))
    room = 30_000
    real_write = os.write

    def write(fd: int, data: memoryview) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real_write(fd, data[: max(1, min(len(data), room))])
        room -= count
        return count

    monkeypatch.setattr(writer_module.os, "write", write)
    path = tmp_path / "e.mcap"
    writer = EpisodeWriter(path, METADATA, fsync=False)
    with pytest.raises(
        LogError, match=r"e\.mcap: .*No space left on device; \d+ bytes free; .*can be read"
    ) as caught:
        write_all(writer, messages * 20)
    assert "\n" not in str(caught.value)
    assert not writer.is_open
    reader = EpisodeReader(path)
    assert reader.is_cut
    assert reader.damage == ""
    read = list(reader.messages())
    assert read
    for (_, before), (_, after) in zip(messages, read, strict=False):
        assert same(before, after)


def test_a_disk_full_from_the_start_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(fd: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer_module.os, "write", write)
    with pytest.raises(LogError, match="No space left on device"):
        EpisodeWriter(tmp_path / "e.mcap", METADATA)
    assert list(tmp_path.iterdir()) == []


def test_a_live_log_reaches_the_disk_every_second_without_further_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(writer_module.time, "monotonic", lambda: now)
    writer = EpisodeWriter(tmp_path / "e.mcap", METADATA)
    writer.write("/state", state(0, commanded=HERE))
    writer.sync_if_due()
    assert sum(EpisodeReader(writer.path).topics.values()) == 0
    now += 1.0
    writer.sync_if_due()
    reader = EpisodeReader(writer.path)
    assert reader.topics == {"/state": 1}
    assert reader.is_cut
    writer.abandon()


def test_foreign_newer_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"gone\.mcap: .*No such file"):
        EpisodeReader(tmp_path / "gone.mcap")
    with pytest.raises(LogError, match="Is a directory"):
        EpisodeReader(tmp_path)
    (tmp_path / "text.mcap").write_text("not a log at all")
    with pytest.raises(LogError, match="is not an episode log"):
        EpisodeReader(tmp_path / "text.mcap")
    (tmp_path / "empty.mcap").touch()
    with pytest.raises(LogError, match="is not an episode log"):
        EpisodeReader(tmp_path / "empty.mcap")
    with (tmp_path / "ros.mcap").open("wb") as file:
        stock = Writer(file)
        stock.start(profile="ros2")
        stock.finish()
    with pytest.raises(LogError, match=r"MCAP file of profile 'ros2', not an episode log"):
        EpisodeReader(tmp_path / "ros.mcap")
    newer = written(tmp_path / "e.mcap", every_message()).path.read_bytes()
    (tmp_path / "newer.mcap").write_bytes(newer.replace(b"reflexarc log 1", b"reflexarc log 2", 1))
    with pytest.raises(LogError, match="written as 'reflexarc log 2'; this version of reflexarc reads"):
        EpisodeReader(tmp_path / "newer.mcap")


@pytest.mark.parametrize("close", [True, False])
def test_a_newer_wire_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, close: bool
) -> None:
    monkeypatch.setattr("reflexarc.datasets.format.WIRE_VERSION", 2)
    writer = EpisodeWriter(tmp_path / "e.mcap", METADATA, fsync=False)
    writer.write("/state", msgspec.structs.replace(state(0, commanded=HERE), version=2))
    if close:
        writer.close({})
    else:
        writer.sync()
        writer.abandon()
    monkeypatch.undo()
    with pytest.raises(LogError, match="has wire version 2; this version of reflexarc reads 1"):
        EpisodeReader(tmp_path / "e.mcap")


def test_opening_reads_the_index_alone(tmp_path: Path) -> None:
    reader = written(tmp_path / "e.mcap", motion(lambda _: HERE, 20.0))
    started = time.perf_counter()
    for _ in range(10):
        EpisodeReader(reader.path)
    opening = (time.perf_counter() - started) / 10
    started = time.perf_counter()
    count = sum(1 for _ in reader.raw_messages())
    reading = time.perf_counter() - started
    assert count == sum(reader.topics.values())
    assert opening < 0.5 * reading
