"""Write one episode into one MCAP file: append-only, small chunks, synced to disk twice a second.

A file that was never closed (power cut, `kill -9`, full disk) is read back up to the last chunk that reached the
disk. Nothing is ever overwritten. The file is locked while it is written (flock(2)): nobody repairs it meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
import zlib
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    Chunk,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    MessageIndex,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)

from reflexarc.configs.errors import LogError, WireError, unknown
from reflexarc.configs.recording import RecordingConfig
from reflexarc.datasets.format import (
    CAMERA_PREFIX,
    EPISODE_RECORD,
    LIBRARY,
    MAGIC,
    OUTCOME_RECORD,
    PROFILE,
    TOPICS,
    channel_record,
    content_time_ns,
    metadata_record,
    schema_record,
)
from reflexarc.wire.codec import encode
from reflexarc.wire.images import packed_frame
from reflexarc.wire.messages import CameraFrame, Message, Observation

CHUNK_BYTES = 256 * 1024
SYNC_S = 0.5
"""At most a second may be lost; a slow disk has as long to take it."""
LAST_NS = 2**63 - 1
"""Times are unsigned in MCAP, and int64 to everyone who reads them."""
_ZSTD_LEVEL = 1
_MESSAGE_HEAD = struct.Struct("<BQHIQQ")
"""Opcode, record length, channel id, sequence, log time, publish time."""
_MESSAGE_FIELDS = _MESSAGE_HEAD.size - 9


class EpisodeWriter:
    """Appends messages to a new episode log.

    fsync: sync to disk twice a second of wall time, as a live recording must; False syncs once, at the end, for
    fast collection in virtual time. recording: how pictures are kept; default as they come. Messages of one topic must
    be of one type. Raises LogError if the file exists, the folder cannot be written, the disk is full, a message has a
    time that no log can hold, or a topic that is not one of the log's; `is_open` after it unless the disk failed.
    """

    def __init__(
        self,
        path: Path | str,
        metadata: dict[str, Any],
        *,
        fsync: bool = True,
        recording: RecordingConfig | None = None,
    ) -> None:
        """`metadata`: JSON-ready values that explain the episode (configs, versions, seed, instruction)."""
        self.path = Path(path)
        head = _record(Header(profile=PROFILE, library=LIBRARY))
        episode = _metadata_bytes(self.path, EPISODE_RECORD, metadata)
        self._fsync = fsync
        self._recording = recording or RecordingConfig()
        self._fd = _create(self.path)
        self._offset = 0
        self._data_crc = 0
        self._compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        self._channels: dict[tuple[str, str], tuple[Channel, Schema]] = {}
        self._chunk = _OpenChunk()
        self._chunk_indexes: list[ChunkIndex] = []
        self._metadata_indexes: list[MetadataIndex] = []
        self._counts: dict[int, int] = defaultdict(int)
        self._times: tuple[int, int] | None = None
        self._sequence = 0
        self._synced_at = time.monotonic()
        try:
            self._append(MAGIC + head)
            self._append_metadata(EPISODE_RECORD, episode)
            if fsync:
                self._sync_to_disk()
                sync_folder(self.path.parent)
        except LogError:
            self.path.unlink(missing_ok=True)
            raise

    @property
    def is_open(self) -> bool:
        """False after `close`, and after an error that ended the file."""
        return self._fd >= 0

    @property
    def message_count(self) -> int:
        """Messages written so far."""
        return self._sequence

    def write(self, topic: str, message: Message, log_time_ns: int | None = None) -> None:
        """Append `message`; `log_time_ns` is when it was recorded (default: when it was made).

        Images are taken out of an observation: they stand in the log once, under `/camera/<name>`.
        """
        if isinstance(message, Observation) and message.images:
            message = msgspec.structs.replace(
                message, images={name: _without_pixels(frame) for name, frame in message.images.items()}
            )
        elif isinstance(message, CameraFrame):
            with contextlib.suppress(WireError):  # what is no picture is kept as it came
                message = packed_frame(message, self._recording.images, self._recording.jpeg_quality)
        log_time = message.t_ns if log_time_ns is None else log_time_ns
        self.write_encoded(topic, type(message).__name__, encode(message), log_time, content_time_ns(message))

    def write_encoded(
        self, topic: str, message_type: str, data: bytes, log_time_ns: int, content_ns: int
    ) -> None:
        """Append a message that is encoded already. `content_ns`: the instant its content is about."""
        if not self.is_open:
            raise LogError(f"{self.path}: the episode log is closed; {topic} cannot be written")
        for time_ns in (log_time_ns, content_ns):
            if not 0 <= time_ns <= LAST_NS:
                raise LogError(f"{self.path}: {topic} has time {time_ns} ns; must be within 0..{LAST_NS}")
        channel, schema = self._channel(topic, message_type)
        self._chunk.add(channel, schema, self._sequence, log_time_ns, content_ns, data)
        self._sequence += 1
        self._counts[channel.id] += 1
        first, last = self._times or (log_time_ns, log_time_ns)
        self._times = (min(first, log_time_ns), max(last, log_time_ns))
        if self._chunk.size >= CHUNK_BYTES:
            self._flush_chunk()
        self.sync_if_due()

    def sync_if_due(self) -> None:
        """Flush and sync if that was last done half a second ago; call it when no message arrives for a while."""
        if self._fsync and self.is_open and time.monotonic() - self._synced_at >= SYNC_S:
            self.sync()

    def sync(self) -> None:
        """Write what is buffered as a chunk and wait until the disk has it."""
        self._flush_chunk()
        self._sync_to_disk()

    def close(self, outcome: dict[str, Any]) -> None:
        """Write the outcome and the index, sync and close; safe to call twice."""
        if not self.is_open:
            return
        record = _metadata_bytes(self.path, OUTCOME_RECORD, outcome)
        self._flush_chunk()
        self._append_metadata(OUTCOME_RECORD, record)
        self._append(_record(DataEnd(self._data_crc)))
        self._append(self._summary())
        self._sync_to_disk()
        self._release()

    def abandon(self) -> None:
        """Close the file as it is on disk, without outcome and index: it will read as cut. Safe to call twice."""
        if self.is_open:
            self._release()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; an exception is recorded as the outcome."""
        if error is None:
            self.close({})
        elif self.is_open:
            self.close({"error": f"{type(error).__name__}: {error}"})

    def _channel(self, topic: str, message_type: str) -> tuple[Channel, Schema]:
        """The channel of one message type on one topic (`/episode` carries two types)."""
        key = (topic, message_type)
        if key not in self._channels:
            if topic not in TOPICS and not topic.startswith(CAMERA_PREFIX):
                raise LogError(unknown("topic", topic, (*TOPICS, f"{CAMERA_PREFIX}<name>")))
            number = len(self._channels) + 1
            self._channels[key] = (
                channel_record(number, number, topic),
                schema_record(number, message_type),
            )
        return self._channels[key]

    def _flush_chunk(self) -> None:
        """Compress and append the open chunk with the index of its messages."""
        if self._chunk.count == 0:
            return
        records, times, indexes = self._chunk.finish()
        self._chunk = _OpenChunk()
        chunk = Chunk(
            compression="zstd",
            data=self._compressor.compress(records),
            message_start_time=times[0],
            message_end_time=times[1],
            uncompressed_crc=zlib.crc32(records),
            uncompressed_size=len(records),
        )
        body = _record(chunk)
        start = self._offset
        offsets: dict[int, int] = {}
        tail = bytearray()
        for index in indexes:
            offsets[index.channel_id] = start + len(body) + len(tail)
            tail += _record(index)
        self._append(body + bytes(tail))
        self._chunk_indexes.append(
            ChunkIndex(
                chunk_length=len(body),
                chunk_start_offset=start,
                compression="zstd",
                compressed_size=len(chunk.data),
                message_end_time=times[1],
                message_index_length=len(tail),
                message_index_offsets=offsets,
                message_start_time=times[0],
                uncompressed_size=len(records),
            )
        )

    def _append_metadata(self, name: str, data: bytes) -> None:
        self._metadata_indexes.append(MetadataIndex(offset=self._offset, length=len(data), name=name))
        self._append(data)

    def _summary(self) -> bytes:
        """Schemas, channels, statistics and indexes, the offsets of those groups, and the footer."""
        channels = [pair[0] for pair in self._channels.values()]
        schemas = [pair[1] for pair in self._channels.values()]
        start, end = self._times or (0, 0)
        statistics = Statistics(
            attachment_count=0,
            channel_count=len(channels),
            channel_message_counts=dict(self._counts),
            chunk_count=len(self._chunk_indexes),
            message_count=self._sequence,
            message_end_time=end,
            message_start_time=start,
            metadata_count=len(self._metadata_indexes),
            schema_count=len(schemas),
        )
        groups: list[tuple[Opcode, list[McapRecord]]] = [
            (Opcode.SCHEMA, [*schemas]),
            (Opcode.CHANNEL, [*channels]),
            (Opcode.STATISTICS, [statistics]),
            (Opcode.CHUNK_INDEX, [*self._chunk_indexes]),
            (Opcode.METADATA_INDEX, [*self._metadata_indexes]),
        ]
        summary = bytearray()
        offsets: list[McapRecord] = []
        for opcode, records in groups:
            group = b"".join(_record(record) for record in records)
            if group:
                offsets.append(SummaryOffset(opcode, self._offset + len(summary), len(group)))
            summary += group
        offsets_start = self._offset + len(summary)
        summary += b"".join(_record(record) for record in offsets)
        # The footer's CRC covers the summary and the footer's own fields before it (MCAP spec, "Footer").
        head = struct.pack("<BQQQ", Opcode.FOOTER, 20, self._offset, offsets_start)
        footer = Footer(self._offset, offsets_start, zlib.crc32(bytes(summary) + head))
        return bytes(summary) + _record(footer) + MAGIC

    def _append(self, data: bytes) -> None:
        """Write all of `data`; on an error, cut the file back to its last whole record and close it."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise self._failed(error) from error
        self._data_crc = zlib.crc32(data, self._data_crc)
        self._offset += len(data)

    def _sync_to_disk(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._failed(error) from error
        self._synced_at = time.monotonic()

    def _failed(self, error: OSError) -> LogError:
        """Close what can be kept and say what happened."""
        with contextlib.suppress(OSError):  # if even that fails, the reader stops at the torn record
            os.ftruncate(self._fd, self._offset)
        self._release()
        return LogError(
            f"{self.path}: writing the episode log failed: {error.strerror}; {_free_bytes(self.path)} bytes free; "
            f"what was written before ({self._offset} bytes) can be read"
        )

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)


class _OpenChunk:
    """The records of the chunk being filled."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._index: dict[int, list[tuple[int, int]]] = {}
        self.size = 0
        self.count = 0

    def add(
        self, channel: Channel, schema: Schema, sequence: int, log_time: int, publish_time: int, data: bytes
    ) -> None:
        """Append one message, and its schema and channel where this chunk has not got them yet."""
        if channel.id not in self._index:
            self._index[channel.id] = []
            self._put(_record(schema) + _record(channel))
        self._index[channel.id].append((log_time, self.size))
        head = _MESSAGE_HEAD.pack(
            Opcode.MESSAGE, _MESSAGE_FIELDS + len(data), channel.id, sequence, log_time, publish_time
        )
        self._put(head)
        self._put(data)
        self.count += 1

    def finish(self) -> tuple[bytes, tuple[int, int], list[MessageIndex]]:
        """(records, (first, last log time), message indexes)."""
        records = b"".join(self._parts)
        times = [entry[0] for entries in self._index.values() for entry in entries]
        indexes = [MessageIndex(channel, entries) for channel, entries in self._index.items()]
        return records, (min(times), max(times)), indexes

    def _put(self, data: bytes) -> None:
        self._parts.append(data)
        self.size += len(data)


def _record(record: McapRecord) -> bytes:
    builder = RecordBuilder()
    record.write(builder)
    data: bytes = builder.end()  # type: ignore[no-untyped-call]
    return data


def _metadata_bytes(path: Path, name: str, values: dict[str, Any]) -> bytes:
    """A metadata record; raises LogError if the values are not JSON."""
    try:
        return _record(metadata_record(name, values))
    except (TypeError, ValueError, RecursionError) as error:
        raise LogError(f"{path}: {name} cannot be written as JSON: {error}") from error


def _without_pixels(frame: CameraFrame) -> CameraFrame:
    """The frame's name, times and size, with no data."""
    return msgspec.structs.replace(frame, data=b"")


def _create(path: Path) -> int:
    """Open a new file for appending; its folder is made."""
    if path.exists():
        raise LogError(f"{path} exists already; an episode log is never overwritten")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    except OSError as error:
        raise LogError(f"{path}: the episode log cannot be created: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Make the new file's name survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _free_bytes(path: Path) -> int:
    stats = os.statvfs(path.parent)
    return stats.f_bavail * stats.f_frsize
