"""New sessions made of others: a choice of episodes, several sessions as one, one as several; and deleting.

A log is taken over as it is, by a hard link where the file system has them: no editing of this project ever changes a
log in place, it puts another one under its name. A new session is put together beside its place and renamed, so that it
is there whole, with its index, or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from reflexarc.configs.errors import LogError
from reflexarc.datasets.alike import check_alike
from reflexarc.datasets.lock import held
from reflexarc.datasets.selection import Criteria, choose
from reflexarc.datasets.session import DISCARDED, Session, discard, session_of
from reflexarc.datasets.summary import EpisodeSummary, Progress, silent, survey_whole
from reflexarc.datasets.writer import sync_folder

_PART_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def filter_session(
    session: Path, out: Path, criteria: Criteria, *, copy: bool = False, progress: Progress = silent
) -> tuple[int, int]:
    """The episodes of `session` that meet the criteria, as the new session `out`; (how many, of how many).

    Raises LogError, with nothing at `out`, if no episode meets them, if they name what no episode has, if a log cannot
    be read or is being recorded, or if `out` exists.
    """
    _check_out(out, session)
    episodes = survey_whole(session, progress)
    chosen = choose(episodes, criteria, progress)
    if not chosen:
        raise LogError(
            f"{session}: none of its {len(episodes)} episodes meets the criteria; {out} is not made"
        )
    _build(out, {each.log.relative_to(session).as_posix(): each.log for each in chosen}, copy, progress)
    return len(chosen), len(episodes)


@dataclasses.dataclass(frozen=True, slots=True)
class Merged:
    """names: which log each name of the merged session was. left_out: logs that it had already, byte for byte."""

    names: dict[str, Path]
    left_out: tuple[Path, ...]


def merge(sessions: Sequence[Path], out: Path, *, copy: bool = False, progress: Progress = silent) -> Merged:
    """The episodes of several sessions as the new session `out`.

    Logs keep their names; one whose name is taken gets a number. A log that is in it already, byte for byte, is left
    out. Raises LogError, with nothing at `out`, if sessions differ in robot, joints, action space, rates or pictures,
    if a log cannot be read or is being recorded, or if `out` exists.
    """
    if len(sessions) < 2:
        raise LogError(f"merging takes two sessions or more; {len(sessions)} given")
    _check_out(out, *sessions)
    episodes = [(session, each) for session in sessions for each in survey_whole(session, progress)]
    check_alike([each for _, each in episodes])
    names: dict[str, Path] = {}
    is_twin = _twins([each.log for _, each in episodes])
    for (session, each), twin in zip(episodes, is_twin, strict=True):
        if not twin:
            names[_free_name(each.log.relative_to(session).as_posix(), names)] = each.log
    _build(out, names, copy, progress)
    left_out = (each.log for (_, each), twin in zip(episodes, is_twin, strict=True) if twin)
    return Merged(names, tuple(left_out))


def split(
    session: Path,
    out: Path,
    parts: Mapping[str, float],
    seed: int,
    *,
    copy: bool = False,
    progress: Progress = silent,
) -> dict[str, list[EpisodeSummary]]:
    """The episodes of `session` in new sessions `out/<part>`, each in one of them; which are in which.

    parts: shares that add up to 1. Every task is shared out alike, as near as whole episodes allow. The same logs,
    parts and seed give the same split. Raises LogError, with nothing at `out`, if parts are wrong or one stays empty,
    if a log cannot be read or is being recorded, or if `out` exists.
    """
    _check_parts(parts)
    _check_out(out, session)
    episodes = survey_whole(session, progress)
    shared = _share_out(session, episodes, parts, seed)
    for part, share in parts.items():
        if not shared[part]:
            raise LogError(f"{session}: part {part!r} ({share:g}) of {len(episodes)} episodes stays empty")
    with _new_folder(out) as aside:
        for part, chosen in shared.items():
            names = {each.log.relative_to(session).as_posix(): each.log for each in chosen}
            _place(aside / part, names, copy, progress)
    return shared


def delete(logs: Sequence[Path]) -> dict[Path, Path]:
    """Move logs into `discarded/` of their sessions, out of what is listed and trained on; where each is now.

    Raises LogError before the first is moved if one of them cannot be deleted.
    """
    check_deletable(logs)
    places: dict[Path, Path] = {}
    sessions = {log: session_of(log) for log in logs}
    try:
        for log, session in sessions.items():
            below = log.absolute().parent.relative_to(session)
            places[log] = discard(log, session / DISCARDED / below)
    except OSError as error:
        raise LogError(f"{error.filename}: the log cannot be deleted: {error.strerror}") from error
    finally:
        for session in set(sessions.values()):
            Session(session)  # which makes its index anew
    return places


def check_deletable(logs: Sequence[Path]) -> None:
    """Raise LogError if one of the files is no log, was deleted before or is being recorded, or if there is none."""
    if not logs:
        raise LogError("no episode log is named")
    for log in logs:
        if not log.is_file() or log.suffix != ".mcap":
            raise LogError(
                f"{log}: no episode log (.mcap); a whole session is deleted by removing its folder"
            )
        if DISCARDED in log.absolute().parts:
            raise LogError(f"{log} was deleted before; remove the file to lose it for good")
        try:
            with held(log):
                pass
        except OSError as error:
            raise LogError(f"{log}: the log cannot be read: {error.strerror}") from error


def _twins(logs: Sequence[Path]) -> list[bool]:
    """Of each log whether it is the same as an earlier one, byte for byte."""
    of_size = [log.stat().st_size for log in logs]
    often, seen = Counter(of_size), set()
    twins = []
    for log, size in zip(logs, of_size, strict=True):
        key = str(size)  # tells logs apart where no other is as long
        if often[size] > 1:
            with log.open("rb") as file:
                key = hashlib.file_digest(file, "sha256").hexdigest()
        twins.append(key in seen)
        seen.add(key)
    return twins


def _free_name(name: str, taken: Mapping[str, Path]) -> str:
    path, number, free = PurePosixPath(name), 2, name
    while free in taken:
        free = path.with_stem(f"{path.stem}-{number}").as_posix()
        number += 1
    return free


def _share_out(
    session: Path, episodes: Sequence[EpisodeSummary], parts: Mapping[str, float], seed: int
) -> dict[str, list[EpisodeSummary]]:
    """Task after task, each in an order drawn by seed; every episode goes to the part that lacks most of its share.

    So the shares hold over all episodes and, as a task's follow one another, within each task too.
    """
    shared: dict[str, list[EpisodeSummary]] = {name: [] for name in parts}
    done = 0
    for task in sorted({each.task for each in episodes}):
        mine = sorted(
            (each for each in episodes if each.task == task),
            key=lambda each: each.log.relative_to(session).as_posix(),
        )
        key = int.from_bytes(hashlib.sha256(task.encode()).digest()[:8])
        for index in np.random.default_rng([seed, key]).permutation(len(mine)).tolist():
            done += 1
            part = max(parts, key=lambda name: parts[name] * done - len(shared[name]))
            shared[part].append(mine[index])
    return shared


def _check_parts(parts: Mapping[str, float]) -> None:
    if len(parts) < 2:
        raise LogError(f"a split takes two parts or more, e.g. train=0.9,val=0.1; {len(parts)} given")
    for name, share in parts.items():
        if not _PART_NAME.fullmatch(name) or name == DISCARDED:
            raise LogError(f"part {name!r} cannot be a folder's name; use letters, digits, '-', '_' and '.'")
        if not 0 < share < 1:
            raise LogError(f"part {name!r} has share {share:g}; must be above 0 and below 1")
    if not math.isclose(sum(parts.values()), 1.0, abs_tol=1e-6):
        raise LogError(f"the parts' shares add up to {sum(parts.values()):.6g}; must be 1")


def _check_out(out: Path, *sessions: Path) -> None:
    if out.exists():
        raise LogError(f"{out} exists already; an edit never writes into a session that is there")
    for session in sessions:
        if out.resolve().is_relative_to(session.resolve()):
            raise LogError(
                f"{out} would be inside of {session}, whose episodes it would double; choose another"
            )


def _build(out: Path, names: Mapping[str, Path], copy: bool, progress: Progress) -> None:
    """The new session `out` of the logs, under their new names."""
    with _new_folder(out) as aside:
        _place(aside, names, copy, progress)


def _place(folder: Path, names: Mapping[str, Path], copy: bool, progress: Progress) -> None:
    """The logs under their new names in the new session `folder`, with its index."""
    name_of = {log: name for name, log in names.items()}
    for log in progress(list(name_of), "writing"):
        target = folder / name_of[log]
        target.parent.mkdir(parents=True, exist_ok=True)
        with held(log):
            _link_or_copy(log, target, copy)
    Session(folder)


def _link_or_copy(log: Path, target: Path, copy: bool) -> None:
    if not copy:
        with contextlib.suppress(OSError):  # another file system, or one without links
            os.link(log, target)
            return
    shutil.copy2(log, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` if all goes well, and is removed if not."""
    aside = out.with_name(f".{out.name}.unfinished")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        sync_folder(aside)
        aside.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        raise LogError(f"{out}: writing the session failed: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
