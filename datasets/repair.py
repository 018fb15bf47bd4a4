"""Make a damaged log whole again: every chunk that is true to its CRC is kept, everything else is left out and said.

The repaired log takes the place of the damaged one, which is kept beside it as `<name>.mcap.damaged`. It reads like any
other, but stays marked as cut: what is missing from it cannot be told from its messages alone. A log that is being
recorded is not touched.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mcap.opcode import Opcode
from mcap.records import Footer, Header, Metadata, Statistics

from reflexarc.configs.errors import LogError, WireError
from reflexarc.datasets.format import (
    CUT,
    EPISODE_RECORD,
    LIBRARY,
    MAGIC,
    OUTCOME_RECORD,
    SchemaError,
    metadata_values,
)
from reflexarc.datasets.lock import held
from reflexarc.datasets.reader import EpisodeReader
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
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.wire.codec import decode
from reflexarc.wire.messages import EpisodeStart

DAMAGED_SUFFIX = ".damaged"
_FOOTER_BYTES = RECORD_HEAD.size + 20 + len(MAGIC)
_OTHER_VERSION = re.compile(r"reflexarc log \d+")
_HEADS = re.compile(rb"[\x06\x0c].{4}\x00{4}", re.DOTALL)
"""Where a chunk or metadata record (MCAP opcodes 6 and 12) below 4 GB may begin."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of one log.

    messages: that it holds now. lost: messages known to be missing; what was lost at the end of a file that was never
    closed nobody counted. reason: what was wrong, empty for a log that was whole and was left alone.
    """

    path: Path
    messages: int
    lost: int
    reason: str


def repair(path: Path | str) -> Repair:
    """Repair one log in place, atomically. A log that is whole, or was repaired before, is left as it is.

    Raises LogError, with the file untouched, if it is being recorded, is empty, holds no whole chunk, or is no episode
    log of this version.
    """
    path = Path(path)
    try:
        with held(path) as file:
            if path.stat().st_size == 0:
                raise LogError(
                    f"{path} is not an episode log: it is empty, there is nothing to repair; delete it"
                )
            count, reason = _check(path)
            if not reason:
                return Repair(path, count, 0, "")
            return _rewrite(file, path, reason)
    except SchemaError as error:
        raise LogError(f"{path} cannot be repaired: {error}") from error
    except OSError as error:
        raise LogError(f"{path}: the log cannot be repaired: {error.strerror}") from error


def _check(path: Path) -> tuple[int, str]:
    """(messages, what is wrong with the log); the second is empty if all of it can be read."""
    count = 0
    try:
        reader = EpisodeReader(path)
        for count, _ in enumerate(reader.messages(), 1):  # noqa: B007
            pass
    except LogError as error:
        return count, str(error).removeprefix(f"{path}: ")
    if reader.outcome is None:
        return count, reader.damage or "it was not closed"
    return count, ""


def _rewrite(file: BinaryIO, path: Path, reason: str) -> Repair:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if not _is_a_log(data):
            raise LogError(f"{path} cannot be repaired: {reason}")
        metadata, outcome = _metadata(data, path)
        aside = path.with_name(f".{path.name}.repair")
        aside.unlink(missing_ok=True)
        writer = EpisodeWriter(aside, metadata, fsync=False)
        try:
            lost, gaps, expected, last_ns = 0, [], 0, 0
            for raw in _messages(data):
                if raw.sequence != expected and writer.message_count:
                    lost += raw.sequence - expected
                    gaps.append([last_ns, raw.log_time_ns])
                elif raw.sequence != expected:
                    lost += raw.sequence
                expected, last_ns = raw.sequence + 1, raw.log_time_ns
                name = type(decode(raw.data)).__name__
                writer.write_encoded(raw.topic, name, raw.data, raw.log_time_ns, raw.content_ns)
            counted = _statistics(data)
            if counted is not None and counted.message_count > expected:
                lost += counted.message_count - expected
                gaps.append([last_ns, counted.message_end_time])
            count = writer.message_count
            writer.close(outcome | {CUT: {"reason": reason, "lost_messages": lost, "gaps_ns": gaps}})
            _put_in_place(aside, path)
        finally:
            writer.abandon()
            aside.unlink(missing_ok=True)
    return Repair(path, count, lost, reason)


def _is_a_log(data: mmap.mmap) -> bool:
    """Whether there is something of ours in it, and it is not of another version; a garbled head decides nothing."""
    if next(_whole_records(data), None) is None:
        return False
    try:
        opcode, content, _ = read_record(_as_file(data), len(MAGIC))
        library = Header.read(stream(content)).library if opcode == Opcode.HEADER else ""
    except DAMAGE:
        return True
    return library == LIBRARY or _OTHER_VERSION.fullmatch(library) is None


def _metadata(data: mmap.mmap, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was written at the start and at the end; of a lost start what the first messages say."""
    found: dict[str, dict[str, Any]] = {}
    for opcode, content in _whole_records(data):
        if opcode == Opcode.METADATA:
            record = Metadata.read(stream(content))
            found[record.name] = metadata_values(record)
    if EPISODE_RECORD not in found:
        found[EPISODE_RECORD] = {"episode": path.stem}
        for raw in _messages(data):
            message = decode(raw.data) if raw.topic == "/episode" else None
            if isinstance(message, EpisodeStart):
                found[EPISODE_RECORD] |= {"instruction": message.instruction, "session": message.session}
                break
    return found[EPISODE_RECORD], found.get(OUTCOME_RECORD, {})


def _messages(data: mmap.mmap) -> Iterator[RawMessage]:
    """The messages of all whole chunks in the order in which they were recorded."""
    expected = 0
    for opcode, content in _whole_records(data):
        if opcode == Opcode.CHUNK:
            raws = list(messages_of(checked_records(content)))
            if raws and raws[0].sequence >= expected:
                yield from raws
                expected = raws[-1].sequence + 1


def _statistics(data: mmap.mmap) -> Statistics | None:
    """What the index at the end of a log that was closed says of it, if it is whole and true to its CRC."""
    end = len(data) - _FOOTER_BYTES
    with contextlib.suppress(*DAMAGE):
        opcode, content, _ = read_record(_as_file(data), max(0, end))
        if opcode == Opcode.FOOTER:
            footer = Footer.read(stream(content))
            covered = data[footer.summary_start : len(data) - len(MAGIC) - 4]  # all but the CRC itself
            if zlib.crc32(covered) == footer.summary_crc:
                records = records_in(data[footer.summary_start : end])
                found = (Statistics.read(stream(each)) for code, each in records if code == Opcode.STATISTICS)
                return next(found, None)
    return None


def _whole_records(data: mmap.mmap) -> Iterator[tuple[int, bytes]]:
    """(opcode, content) of the chunks and metadata that can be believed, wherever they stand."""
    file, offset = _as_file(data), 0
    while True:
        head = _HEADS.search(data, offset)
        if head is None:
            return
        try:
            opcode, content, end = read_record(file, head.start())
            _believe(opcode, content)
        except SchemaError:  # its CRC is right: this is no damage, and whoever can read it wants it as it is
            raise
        except (*DAMAGE, LogError, WireError):
            offset = head.start() + 1
            continue
        yield opcode, content
        offset = end


def _believe(opcode: int, content: bytes) -> None:
    """Raise unless the record is whole: its CRC is right, and everything in it can be decoded."""
    if opcode == Opcode.METADATA:
        metadata_values(Metadata.read(stream(content)))
        return
    before = -1
    for raw in messages_of(checked_records(content)):
        decode(raw.data)
        if before not in (-1, raw.sequence - 1):
            raise DamageError("its messages are not in order")
        before = raw.sequence


def _as_file(data: mmap.mmap) -> BinaryIO:
    return data  # type: ignore[return-value]  # it has seek and read, which is all that is used


def _put_in_place(aside: Path, path: Path) -> None:
    """The repaired log for the damaged one, which is kept; at every moment there is one under the name."""
    kept = path.with_name(path.name + DAMAGED_SUFFIX)
    if kept.exists():
        raise LogError(
            f"{kept} is there already: move it away, it is the only copy of what was damaged first"
        )
    try:
        os.link(path, kept)
    except OSError:  # a file system without links
        copy = path.with_name(f".{kept.name}")
        try:
            shutil.copy2(path, copy)
            copy.replace(kept)
        finally:
            copy.unlink(missing_ok=True)
    aside.replace(path)
