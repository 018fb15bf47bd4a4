"""Records of an episode log as they stand in the file, each checked before it is believed.

MCAP format: https://mcap.dev/spec. This file knows nothing of episodes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import EndOfFile
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Schema

from reflexarc.datasets.format import check_schema

RECORD_HEAD = struct.Struct("<BQ")
_MESSAGE_FIELDS = struct.Struct("<HIQQ")
_MAX_RECORD_BYTES = 1 << 30
"""No record of ours comes near: a longer one is a damaged length."""


@dataclass(frozen=True, slots=True)
class RawMessage:
    """One message, still encoded. Times in ns: when it was recorded, and what instant it is about."""

    topic: str
    log_time_ns: int
    content_ns: int
    sequence: int
    data: bytes


class DamageError(Exception):
    """A record that is torn or fails its check; becomes LogError, or the end of a cut file."""


DAMAGE = (DamageError, EndOfFile, UnicodeDecodeError, struct.error)
"""What parsing damaged bytes can raise."""


def stream(content: bytes) -> ReadDataStream:
    return ReadDataStream(io.BytesIO(content))


def read_record(file: BinaryIO, offset: int) -> tuple[int, bytes, int]:
    """(opcode, content, offset after it) of the record at `offset`."""
    file.seek(offset)
    head = file.read(RECORD_HEAD.size)
    if len(head) < RECORD_HEAD.size:
        raise DamageError("torn record")
    opcode, length = RECORD_HEAD.unpack(head)
    if length > _MAX_RECORD_BYTES:
        raise DamageError(f"record length {length} is beyond {_MAX_RECORD_BYTES}")
    content = file.read(length)
    if len(content) < length:
        raise DamageError("torn record")
    return opcode, content, offset + RECORD_HEAD.size + length


def checked_records(content: bytes) -> bytes:
    """The uncompressed records of a chunk, true to their CRC."""
    chunk = Chunk.read(stream(content))
    if chunk.compression != "zstd":
        raise DamageError(f"compression {chunk.compression!r}; logs are written with 'zstd'")
    if chunk.uncompressed_size > _MAX_RECORD_BYTES:
        raise DamageError(f"chunk size {chunk.uncompressed_size} is beyond {_MAX_RECORD_BYTES}")
    try:
        if (
            zstandard.frame_content_size(chunk.data) != chunk.uncompressed_size
        ):  # before memory is taken for it
            raise DamageError("its sizes contradict each other")
        records: bytes = zstandard.decompress(chunk.data)
    except zstandard.ZstdError as error:
        raise DamageError(str(error)) from error
    if zlib.crc32(records) != chunk.uncompressed_crc:
        raise DamageError("its CRC does not match")
    return records


def records_in(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(opcode, content) of the records in a block that is true to its CRC."""
    offset = 0
    while offset < len(data):
        opcode, length = RECORD_HEAD.unpack_from(data, offset)
        offset += RECORD_HEAD.size
        yield opcode, data[offset : offset + length]
        offset += length


def messages_of(records: bytes) -> Iterator[RawMessage]:
    """The messages of one chunk, which names their channels itself."""
    topics: dict[int, str] = {}
    for opcode, content in records_in(records):
        if opcode == Opcode.MESSAGE:
            channel, sequence, log_time, publish_time = _MESSAGE_FIELDS.unpack_from(content)
            payload = content[_MESSAGE_FIELDS.size :]
            yield RawMessage(topics[channel], log_time, publish_time, sequence, payload)
        elif opcode == Opcode.CHANNEL:
            record = Channel.read(stream(content))
            topics[record.id] = record.topic
        elif opcode == Opcode.SCHEMA:
            check_schema(Schema.read(stream(content)))
