"""Read an episode log, whole or cut short, and never hand out a message whose bytes were damaged.

A log that was closed is opened by its index alone. One that was not is scanned, every chunk checked, up to the first
byte that is torn or damaged; `is_cut` says so and `damage` says where. Damage inside a closed log raises LogError when
it is met. A log that was repaired (`repair.py`) has an index again and stays marked as cut.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    ChunkIndex,
    Footer,
    Header,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
)
from numpy.typing import NDArray

from reflexarc.configs.errors import LogError, WireError
from reflexarc.datasets.format import (
    CAMERA_PREFIX,
    CUT,
    EPISODE_RECORD,
    LIBRARY,
    MAGIC,
    OUTCOME_RECORD,
    PROFILE,
    RELABELLED,
    check_schema,
    metadata_values,
)
from reflexarc.datasets.records import (
    DAMAGE,
    RECORD_HEAD,
    DamageError,
    RawMessage,
    checked_records,
    messages_of,
    read_record,
    records_in,
    stream,
)
from reflexarc.wire.codec import decode
from reflexarc.wire.messages import EpisodeStart, Message

_FOOTER_BYTES = RECORD_HEAD.size + 20 + len(MAGIC)
_DATA_OPCODES = frozenset(
    {Opcode.HEADER, Opcode.CHUNK, Opcode.MESSAGE_INDEX, Opcode.METADATA, Opcode.DATA_END}
)


@dataclass(frozen=True, slots=True)
class Column:
    """The messages of one topic, ordered by the instant they are about; decoded only when asked for.

    times_ns: (N,) int64, not decreasing. payloads: N encoded messages.
    """

    topic: str
    times_ns: NDArray[np.int64]
    payloads: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.payloads)

    def message(self, index: int) -> Message:
        """Decode message `index`."""
        return _decode(self.payloads[index], self.topic)

    def latest(self, t_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each time the index of the latest message at or before it, -1 where there is none."""
        return np.searchsorted(self.times_ns, t_ns, side="right") - 1


@dataclass(frozen=True, slots=True)
class _ChunkPlace:
    """Where a chunk stands; `topics` is None where no index says what is in it."""

    offset: int
    length: int
    topics: frozenset[str] | None


class EpisodeReader:
    """One episode log, opened read-only; holds no file handle between calls.

    Raises LogError for a missing file, a file that is not an episode log, and one of another version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.damage = ""
        """Why reading stops before the end of a cut file; empty if it simply ends."""
        self._metadata: dict[str, dict[str, Any]] = {}
        self._places: list[_ChunkPlace] = []
        self._counts: dict[str, int] = {}
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, io.SEEK_END)
                head_end = self._check_head(file)
                self.is_cut = not self._read_summary(file, size)
                if self.is_cut:
                    self._scan(file, head_end, size)
                self.is_cut |= CUT in (self.outcome or {})
        except OSError as error:
            raise LogError(f"{self.path}: the episode log cannot be read: {error.strerror}") from error

    @property
    def metadata(self) -> dict[str, Any]:
        """What was written at the start; raises LogError if it is missing."""
        if EPISODE_RECORD not in self._metadata:
            raise LogError(f"{self.path}: the log was cut before its metadata")
        return self._metadata[EPISODE_RECORD]

    @property
    def outcome(self) -> dict[str, Any] | None:
        """What was written at the end; None if the log was cut before it."""
        return self._metadata.get(OUTCOME_RECORD)

    @property
    def instruction(self) -> str:
        """What the arm was told to do; empty if nothing says it.

        From the metadata where it was relabelled, else from the start message, else from the metadata.
        """
        metadata = self._metadata.get(EPISODE_RECORD, {})
        if any("instruction" in change["was"] for change in metadata.get(RELABELLED, ())):
            return str(metadata["instruction"])
        for message in self.messages(["/episode"]):
            if isinstance(message[1], EpisodeStart):
                return message[1].instruction
        return str(self.metadata.get("instruction", ""))

    @property
    def topics(self) -> dict[str, int]:
        """Number of messages by topic."""
        return dict(self._counts)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that have images in the log, sorted."""
        return tuple(
            sorted(
                topic.removeprefix(CAMERA_PREFIX) for topic in self._counts if topic.startswith(CAMERA_PREFIX)
            )
        )

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[tuple[str, Message]]:
        """(topic, message) in the order they were recorded; all topics, or only those asked for."""
        for raw in self.raw_messages(topics):
            yield raw.topic, _decode(raw.data, f"{self.path}: {raw.topic}")

    def raw_messages(self, topics: Iterable[str] | None = None) -> Iterator[RawMessage]:
        """The same without decoding. Raises LogError at a chunk that fails its CRC."""
        wanted = None if topics is None else frozenset(topics)
        expected = 0
        with self.path.open("rb") as file:
            for place in self._places:
                if wanted is not None and place.topics is not None and not wanted & place.topics:
                    expected = -1
                    continue
                for raw in messages_of(self._chunk_records(file, place)):
                    if expected not in (-1, raw.sequence):
                        raise LogError(f"{self.path}: messages {expected} to {raw.sequence - 1} are missing")
                    expected = raw.sequence + 1
                    if wanted is None or raw.topic in wanted:
                        yield raw

    def columns(self, topics: Iterable[str]) -> dict[str, Column]:
        """The messages of each topic by the instant they are about, in one pass over the file."""
        names = tuple(topics)
        found: dict[str, list[RawMessage]] = {name: [] for name in names}
        for raw in self.raw_messages(names):
            found[raw.topic].append(raw)
        columns = {}
        for name, raws in found.items():
            times = np.array([raw.content_ns for raw in raws], dtype=np.int64)
            order = np.argsort(times, kind="stable")
            columns[name] = Column(name, times[order], tuple(raws[index].data for index in order))
        return columns

    def ends(self, topics: Iterable[str]) -> dict[str, tuple[RawMessage, RawMessage]]:
        """The first and the last message recorded on each topic that has any; what lies between is not read."""
        names = frozenset(topics) & self._counts.keys()
        with self.path.open("rb") as file:
            first = self._outermost(file, names, self._places, last=False)
            last = self._outermost(file, names, self._places[::-1], last=True)
        return {name: (first[name], last[name]) for name in sorted(names)}

    def _outermost(
        self, file: BinaryIO, names: frozenset[str], places: list[_ChunkPlace], *, last: bool
    ) -> dict[str, RawMessage]:
        """By topic the first message (or the last) in the first of `places` that has any."""
        found: dict[str, RawMessage] = {}
        for place in places:
            missing = names - found.keys()
            if not missing:
                break
            if place.topics is not None and not missing & place.topics:
                continue
            for raw in messages_of(self._chunk_records(file, place)):
                if raw.topic in missing and (last or raw.topic not in found):
                    found[raw.topic] = raw
        return found

    def _check_head(self, file: BinaryIO) -> int:
        """Check magic and header; returns where the first record after them starts."""
        file.seek(0)
        if file.read(len(MAGIC)) != MAGIC:
            raise LogError(f"{self.path} is not an episode log: it does not start as an MCAP file")
        try:
            opcode, content, end = read_record(file, len(MAGIC))
            header = Header.read(stream(content))
        except DAMAGE as error:
            raise LogError(f"{self.path} is not an episode log: its MCAP header is damaged") from error
        if opcode != Opcode.HEADER or header.profile != PROFILE:
            raise LogError(
                f"{self.path} is an MCAP file of profile {header.profile!r}, not an episode log ({PROFILE!r})"
            )
        if header.library != LIBRARY:
            raise LogError(
                f"{self.path} was written as {header.library!r}; this version of reflexarc reads {LIBRARY!r}"
            )
        return end

    def _read_summary(self, file: BinaryIO, size: int) -> bool:
        """Read the index at the end; False if there is none that is whole and true to its CRC."""
        if size < _FOOTER_BYTES:
            return False
        file.seek(size - _FOOTER_BYTES)
        tail = file.read(_FOOTER_BYTES)
        opcode, length = RECORD_HEAD.unpack_from(tail)
        if opcode != Opcode.FOOTER or length != 20 or not tail.endswith(MAGIC):
            return False
        footer = Footer.read(stream(tail[RECORD_HEAD.size :]))
        if not 0 < footer.summary_start <= size - _FOOTER_BYTES:
            return False
        file.seek(footer.summary_start)
        summary = file.read(size - _FOOTER_BYTES - footer.summary_start)
        covered = summary + tail[: RECORD_HEAD.size + 16]
        if zlib.crc32(covered) != footer.summary_crc:
            return False
        self._take_summary(file, summary)
        return True

    def _take_summary(self, file: BinaryIO, summary: bytes) -> None:
        topics: dict[int, str] = {}
        for opcode, content in records_in(summary):
            record = stream(content)
            if opcode == Opcode.SCHEMA:
                self._check_schema(Schema.read(record))
            elif opcode == Opcode.CHANNEL:
                channel = Channel.read(record)
                topics[channel.id] = channel.topic
            elif opcode == Opcode.STATISTICS:
                for channel_id, count in Statistics.read(record).channel_message_counts.items():
                    topic = topics[channel_id]
                    self._counts[topic] = self._counts.get(topic, 0) + count
            elif opcode == Opcode.CHUNK_INDEX:
                index = ChunkIndex.read(record)
                inside = frozenset(topics[channel] for channel in index.message_index_offsets)
                self._places.append(_ChunkPlace(index.chunk_start_offset, index.chunk_length, inside))
            elif opcode == Opcode.METADATA_INDEX:
                self._read_metadata(file, MetadataIndex.read(record).offset)

    def _read_metadata(self, file: BinaryIO, offset: int) -> None:
        try:
            opcode, content, _ = read_record(file, offset)
            if opcode != Opcode.METADATA:
                raise DamageError("no metadata where the index says there are some")
            self._take_metadata(Metadata.read(stream(content)))
        except DAMAGE as error:
            raise LogError(f"{self.path}: the metadata at byte {offset} are damaged: {error}") from error

    def _take_metadata(self, record: Metadata) -> None:
        try:
            self._metadata[record.name] = metadata_values(record)
        except LogError as error:
            raise DamageError(str(error)) from error

    def _scan(self, file: BinaryIO, start: int, size: int) -> None:
        """Walk a log that has no index, checking every chunk, up to its end or the first damage."""
        offset = start
        expected = 0
        while offset < size:
            try:
                opcode, content, end = read_record(file, offset)
                if opcode == Opcode.DATA_END:
                    return
                if opcode == Opcode.METADATA:
                    self._take_metadata(Metadata.read(stream(content)))
                elif opcode == Opcode.CHUNK:
                    expected = self._scan_chunk(content, _ChunkPlace(offset, end - offset, None), expected)
                elif opcode not in _DATA_OPCODES:
                    raise DamageError(f"unexpected record type {opcode}")
            except DAMAGE as error:
                self.damage = f"reading stops at byte {offset} of {size}: {str(error) or 'torn record'}"
                return
            offset = end

    def _scan_chunk(self, content: bytes, place: _ChunkPlace, expected: int) -> int:
        """Take a chunk if it is whole; returns the sequence number that must follow."""
        topics: list[str] = []
        for raw in messages_of(checked_records(content)):
            if raw.sequence != expected:
                raise DamageError(f"messages {expected} to {raw.sequence - 1} are missing")
            expected += 1
            topics.append(raw.topic)
        self._places.append(_ChunkPlace(place.offset, place.length, frozenset(topics)))
        for topic in topics:
            self._counts[topic] = self._counts.get(topic, 0) + 1
        return expected

    def _chunk_records(self, file: BinaryIO, place: _ChunkPlace) -> bytes:
        try:
            opcode, content, end = read_record(file, place.offset)
            if opcode != Opcode.CHUNK or end - place.offset != place.length:
                raise DamageError("no chunk where the index says there is one")
            return checked_records(content)
        except DAMAGE as error:
            raise LogError(f"{self.path}: the chunk at byte {place.offset} is damaged: {error}") from error

    def _check_schema(self, schema: Schema) -> None:
        try:
            check_schema(schema)
        except LogError as error:
            raise LogError(f"{self.path}: {error}") from error


def _decode(data: bytes, what: str) -> Message:
    try:
        return decode(data)
    except WireError as error:
        raise LogError(f"{what}: {error}") from error
