"""A damaged log never crashes the reader and never gives a message other than the one that was written.

What is read is always the beginning of what was written: all of it, or up to the damage, which is said.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from contracts.episode_bench import METADATA, OUTCOME, every_message, write_many_chunks
from reflexarc.configs.errors import LogError
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.wire.codec import encode

HERE = np.array([0.45, 0.0, 0.25, 0.0, 1.0, 0.0, 0.0])


@pytest.fixture(scope="module", params=["closed", "cut"])
def log(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, list[bytes]]:
    """(bytes of the file, encoded messages) of a log of several chunks."""
    path = tmp_path_factory.mktemp("log") / "e.mcap"
    write_many_chunks(path, close=request.param == "closed")
    return path.read_bytes(), [raw.data for raw in EpisodeReader(path).raw_messages()]


def check(path: Path, content: bytes, original: list[bytes], *, may_be_whole: bool) -> None:
    """Read `content` in every way; anything but LogError or the beginning of the original is a failure."""
    path.write_bytes(content)
    try:
        reader = EpisodeReader(path)
    except LogError:
        return
    read: list[bytes] = []
    try:
        read.extend(encode(message) for _, message in reader.messages())
        whole = True
    except LogError:
        whole = False
    assert read == original[: len(read)]
    if whole and not reader.is_cut:
        assert may_be_whole
        assert len(read) == len(original)
    if whole:
        assert sum(reader.topics.values()) == len(read)
    with contextlib.suppress(LogError):
        assert reader.metadata == METADATA
    assert reader.outcome in (None, OUTCOME)
    if not reader.is_cut:
        assert reader.outcome == OUTCOME


def test_cut_anywhere_it_reads_up_to_the_cut(tmp_path: Path, log: tuple[bytes, list[bytes]]) -> None:
    content, original = log
    random = np.random.default_rng(1)
    offsets = [*random.integers(0, len(content), 60).tolist(), len(content) - 1, len(content) - 8, 8, 7, 1]
    for offset in offsets:
        check(tmp_path / "cut.mcap", content[:offset], original, may_be_whole=False)


def test_the_more_is_left_the_more_is_read(tmp_path: Path, log: tuple[bytes, list[bytes]]) -> None:
    content, original = log
    path = tmp_path / "cut.mcap"
    counts = []
    for share in (0.2, 0.4, 0.6, 0.8, 0.999):
        path.write_bytes(content[: int(share * len(content))])
        counts.append(sum(1 for _ in EpisodeReader(path).messages()))
    assert counts == sorted(counts)
    assert 0 < counts[1] < counts[-1] <= len(original)


def test_a_flipped_bit_is_never_read_as_something_else(
    tmp_path: Path, log: tuple[bytes, list[bytes]]
) -> None:
    content, original = log
    random = np.random.default_rng(2)
    # The head, where a flip can redefine the whole file, then anywhere.
    places = [
        *range(0, 400, 3),
        *random.integers(0, len(content), 250).tolist(),
        *range(len(content) - 60, len(content)),
    ]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        # MCAP does not protect everything that we do not read, such as the indexes of the messages in a chunk.
        check(tmp_path / "flip.mcap", bytes(damaged), original, may_be_whole=True)


def test_a_tail_of_zeros_or_of_rubbish_ends_the_log(tmp_path: Path, log: tuple[bytes, list[bytes]]) -> None:
    content, original = log
    random = np.random.default_rng(3)
    for tail in (bytes(4096), random.bytes(4096)):
        for keep in (0.3, 0.7, 0.97):
            start = content[: int(keep * len(content))]
            check(tmp_path / "tail.mcap", start + tail, original, may_be_whole=False)


def test_a_chunk_lost_from_the_middle_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "e.mcap"
    writer = EpisodeWriter(path, METADATA, fsync=False)
    ends = []
    for seed in range(3):
        for topic, message in every_message(seed):
            writer.write(topic, message)
        writer.sync()
        ends.append(path.stat().st_size)
    writer.abandon()
    content = path.read_bytes()
    path.write_bytes(content[: ends[0]] + content[ends[1] :])
    reader = EpisodeReader(path)
    assert reader.is_cut
    assert "are missing" in reader.damage
    assert sum(1 for _ in reader.messages()) == len(every_message())


def test_damage_says_where(tmp_path: Path) -> None:
    path = tmp_path / "e.mcap"
    writer = EpisodeWriter(path, METADATA, fsync=False)
    for topic, message in every_message():
        writer.write(topic, message)
    writer.sync()
    size = path.stat().st_size
    writer.close(OUTCOME)
    content = bytearray(path.read_bytes())
    content[size // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(LogError, match=r"e\.mcap: the chunk at byte \d+ is damaged"):
        list(EpisodeReader(path).messages())
    path.write_bytes(content[:size])
    assert "reading stops at byte" in EpisodeReader(path).damage
