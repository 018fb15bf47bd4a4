"""Other labels for an episode: whether it succeeded, what the arm was told to do, which task it was.

Labels stand in the log's metadata and win over what the messages say; no message is touched. The log is written anew
beside itself, read back, synced and put in its own place, so that there is one log under the name at every moment. What
a label was before stays on record in the metadata, and so does the size of the log: none that it ever had comes again.
Whoever knows a log by name and size (`cache.py`) sees that it is another one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reflexarc.configs.errors import LogError
from reflexarc.datasets.format import RELABELLED
from reflexarc.datasets.lock import held
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.writer import EpisodeWriter, sync_folder
from reflexarc.wire.codec import decode


@dataclasses.dataclass(frozen=True, slots=True)
class Labels:
    """What is judged of an episode rather than measured; None for a label that shall stay, or that nobody gave."""

    success: bool | None = None
    instruction: str | None = None
    task: str | None = None

    def given(self) -> dict[str, Any]:
        """Those that are not None."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def labels_of(reader: EpisodeReader) -> Labels:
    """The labels that a log has now."""
    success, task = (reader.outcome or {}).get("success"), reader.metadata.get("task")
    return Labels(
        success=success if isinstance(success, bool) else None,
        instruction=reader.instruction,
        task=None if task is None else str(task),
    )


def relabel(path: Path | str, labels: Labels) -> dict[str, Any]:
    """Give a log other labels; returns those that changed as they were before, nothing if it had them already.

    Raises LogError, with the log untouched, if there is no label to give or a blank one, if the log is being recorded,
    was cut and not repaired, is damaged, or is no episode log.
    """
    path = Path(path)
    wanted = labels.given()
    if not wanted:
        raise LogError("no label is given; give success, instruction or task")
    for name, value in wanted.items():
        if isinstance(value, str) and not value.strip():
            raise LogError(f"the new {name} is blank; an episode without one cannot be learned from")
    try:
        with held(path):
            return _relabel(path, wanted)
    except OSError as error:
        raise LogError(f"{path}: the log cannot be relabelled: {error.strerror}") from error


def relabel_all(
    logs: Sequence[Path], labels: Labels, progress: Callable[[Sequence[Path], str], Iterator[Path]]
) -> dict[Path, dict[str, Any]]:
    """`relabel` log after log; what each was. All are looked at before the first is changed.

    Whatever interrupts it, every log is whole, and doing it again does the rest.
    """
    for log in progress(logs, "looking"):
        _open(log)
    return {log: relabel(log, labels) for log in progress(logs, "relabelling")}


def _open(path: Path) -> EpisodeReader:
    """The log; LogError if its labels cannot be changed as it is."""
    reader = EpisodeReader(path)
    if reader.outcome is None:
        raise LogError(f"{path} was cut before its end; run `reflexarc dataset repair` on it first")
    return reader


def _relabel(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    reader = _open(path)
    now = dataclasses.asdict(labels_of(reader))
    was = {name: now[name] for name, value in wanted.items() if value != now[name]}
    if not was:
        return was
    at = datetime.now(UTC).isoformat(timespec="seconds")
    change = {"at": at, "was": was, "size": path.stat().st_size}
    metadata = reader.metadata | {name: wanted[name] for name in was if name != "success"}
    metadata[RELABELLED] = [*metadata.get(RELABELLED, ()), change]
    outcome = (reader.outcome or {}) | {name: wanted[name] for name in was if name == "success"}
    _rewrite(reader, metadata, outcome)
    return was


def _rewrite(reader: EpisodeReader, metadata: dict[str, Any], outcome: dict[str, Any]) -> None:
    """The same messages with other metadata, in the place of the log."""
    path = reader.path
    aside = path.with_name(f".{path.name}.relabel")
    changes = metadata[RELABELLED]
    sizes = {change.get("size") for change in changes}
    try:
        _write(reader, aside, metadata, outcome)
        while (
            aside.stat().st_size in sizes
        ):  # by chance: packed anew, it may be smaller or larger than it was
            changes[-1]["pad"] = changes[-1].get("pad", "") + "."
            _write(reader, aside, metadata, outcome)
        for old, new in zip(reader.raw_messages(), EpisodeReader(aside).raw_messages(), strict=True):
            if old != new:
                raise LogError(f"{path}: message {old.sequence} did not come back as written")
        aside.chmod(path.stat().st_mode)
        aside.replace(path)
        sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _write(reader: EpisodeReader, aside: Path, metadata: dict[str, Any], outcome: dict[str, Any]) -> None:
    aside.unlink(missing_ok=True)
    writer = EpisodeWriter(aside, metadata, fsync=False)
    try:
        for raw in reader.raw_messages():
            name = type(decode(raw.data)).__name__
            writer.write_encoded(raw.topic, name, raw.data, raw.log_time_ns, raw.content_ns)
        writer.close(outcome)  # which syncs it
    finally:
        writer.abandon()
