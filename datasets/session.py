"""A folder of episode logs, with an index that is only ever a copy of what the logs say.

`index.json` saves opening every file again; it can be deleted at any time, and entries whose file has changed are
read afresh. A log that cannot be read is listed with the reason, not left out.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from reflexarc.configs.errors import LogError
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.video import write_aside

INDEX_FILE = "index.json"
DISCARDED = "discarded"
"""Folder of logs that somebody deleted; they can be moved back, and until then no session has them."""
_INDEX_VERSION = 1


@dataclass(frozen=True, slots=True)
class EpisodeEntry:
    """What the index says of one log.

    file: its path below the session's folder. size, modified_ns: of the file, when it was read. success: None where
    nobody judged or the log was cut. messages: how many. error: why it cannot be read; empty if it can.
    """

    file: str
    size: int
    modified_ns: int
    task: str = ""
    seed: int = -1
    policy: str = ""
    instruction: str = ""
    success: bool | None = None
    time_s: float | None = None
    is_cut: bool = False
    messages: int = 0
    error: str = ""


def episode_logs(folder: Path) -> list[Path]:
    """The logs below `folder`, sorted by path, without the discarded and those of an edit that was interrupted."""
    found = []
    for path in sorted(folder.rglob("*.mcap")):
        parts = path.relative_to(folder).parts
        if DISCARDED not in parts and not any(part.startswith(".") for part in parts):
            found.append(path)
    return found


def discard(log: Path, folder: Path) -> Path:
    """Move a log into `folder`, where it keeps its name and gets a number; returns where it is now."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    while (place := folder / f"{log.stem}.{number}.mcap").exists():
        number += 1
    return log.rename(place)


class Session:
    """The episode logs below one folder, sorted by path. Raises LogError if the folder does not exist."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise LogError(f"{self.folder}: no such session folder")
        self.episodes: tuple[EpisodeEntry, ...] = ()
        self.refresh()

    def refresh(self) -> None:
        """Read the logs that are new or have changed, and write the index where the folder can be written."""
        known = _indexed(self.folder) or {}
        entries = []
        for path in episode_logs(self.folder):
            stat = path.stat()
            name = path.relative_to(self.folder).as_posix()
            entry = known.get(name)
            if entry is None or (entry.size, entry.modified_ns) != (stat.st_size, stat.st_mtime_ns):
                entry = _read_entry(path, name, stat.st_size, stat.st_mtime_ns)
            entries.append(entry)
        self.episodes = tuple(entries)
        if {entry.file: entry for entry in entries} != known:
            self._save()

    def open(self, entry: EpisodeEntry) -> EpisodeReader:
        """The log of an entry."""
        return EpisodeReader(self.folder / entry.file)

    def readers(self) -> Iterator[EpisodeReader]:
        """Every log that can be read, one after the other."""
        return (self.open(entry) for entry in self.episodes if not entry.error)

    def _save(self) -> None:
        index = {"version": _INDEX_VERSION, "episodes": [asdict(entry) for entry in self.episodes]}
        text = json.dumps(index, indent=1)
        with contextlib.suppress(LogError):  # a folder that cannot be written works without an index
            write_aside(self.folder / INDEX_FILE, lambda path: path.write_text(text), (OSError,))


def session_of(log: Path) -> Path:
    """The nearest folder above that has an index of logs; the log's own folder if there is none."""
    folders = log.absolute().parents
    return next((folder for folder in folders if _indexed(folder) is not None), folders[0])


def _indexed(folder: Path) -> dict[str, EpisodeEntry] | None:
    """The entries of a folder's index; None if it is missing, damaged or of another version."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        index = json.loads((folder / INDEX_FILE).read_text())
        if index["version"] == _INDEX_VERSION:
            names = {field.name for field in fields(EpisodeEntry)}
            values = [item for item in index["episodes"] if set(item) == names]
            return {item["file"]: EpisodeEntry(**item) for item in values}
    return None


def _read_entry(path: Path, name: str, size: int, modified_ns: int) -> EpisodeEntry:
    try:
        reader = EpisodeReader(path)
        metadata, outcome = reader.metadata, reader.outcome or {}
    except LogError as error:
        return EpisodeEntry(file=name, size=size, modified_ns=modified_ns, error=str(error))
    success, time_s = outcome.get("success"), outcome.get("time_s")
    return EpisodeEntry(
        file=name,
        size=size,
        modified_ns=modified_ns,
        task=str(metadata.get("task", "")),
        seed=int(metadata.get("seed", -1)),
        policy=str(metadata.get("policy", "")),
        instruction=reader.instruction,
        success=success if isinstance(success, bool) else None,
        time_s=float(time_s) if isinstance(time_s, int | float) else None,
        is_cut=reader.is_cut,
        messages=sum(reader.topics.values()),
    )
