"""What an episode log is about, told without reading most of it; and what the logs of a session are about together."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from reflexarc.configs.errors import LogError, WireError
from reflexarc.datasets.format import CAMERA_PREFIX, HUMAN
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.relabel import labels_of
from reflexarc.datasets.session import episode_logs
from reflexarc.wire.codec import decode
from reflexarc.wire.messages import ActionChunk, CameraFrame, Event, SafetyReport, State

Progress = Callable[[Sequence[Path], str], Iterator[Path]]
"""Hands out the paths it is given, and shows how far that is, and of what."""


def silent(paths: Sequence[Path], what: str) -> Iterator[Path]:
    """A progress that nobody sees."""
    return iter(paths)


@dataclasses.dataclass(frozen=True, slots=True)
class Camera:
    """Size of a camera's pictures, pixels, and its mean rate over the episode, Hz (0 for a single picture)."""

    width: int
    height: int
    rate_hz: float


@dataclasses.dataclass(frozen=True, slots=True)
class EpisodeSummary:
    """One log. What it does not say is None, "" or empty.

    log: its path. size: bytes. seconds: from its first state to its last. policy: who was to drive; sources: who did,
    in order of first appearance. takeovers: how often a person took the arm from somebody. robot, joints, tick_hz:
    name, number of joints and rate of the host. action_space, step_s: of the chunks that were played, whatever their
    horizon. limits: hash of the safety limits. versions: of the software.
    """

    log: Path
    size: int
    seconds: float
    task: str
    instruction: str
    success: bool | None
    policy: str
    is_cut: bool
    messages: int
    cameras: dict[str, Camera]
    sources: tuple[str, ...]
    takeovers: int
    robot: str
    joints: int | None
    tick_hz: float | None
    action_space: str
    step_s: float | None
    limits: str
    versions: dict[str, str]


def summarise(log: Path) -> EpisodeSummary:
    """Read the ends of a log and its events. Raises LogError if it cannot be read."""
    reader = EpisodeReader(log)
    metadata, labels = reader.metadata, labels_of(reader)
    robot = _object(_object(metadata, "configs"), "robot")
    ends = reader.ends(["/state", "/chunk", *(CAMERA_PREFIX + name for name in reader.cameras)])
    first = {topic: decode(pair[0].data) for topic, pair in ends.items()}
    state, chunk = first.get("/state"), first.get("/chunk")
    spans_s = {topic: (last.content_ns - begin.content_ns) * 1e-9 for topic, (begin, last) in ends.items()}
    sources = _sources(reader)
    return EpisodeSummary(
        log=log,
        size=log.stat().st_size,
        seconds=spans_s.get("/state", 0.0),
        task=labels.task or "",
        instruction=labels.instruction or "",
        success=labels.success,
        policy=str(metadata.get("policy", "")),
        is_cut=reader.is_cut,
        messages=sum(reader.topics.values()),
        cameras={
            name: _camera(
                first[CAMERA_PREFIX + name],
                reader.topics[CAMERA_PREFIX + name],
                spans_s[CAMERA_PREFIX + name],
            )
            for name in reader.cameras
        },
        sources=tuple(dict.fromkeys(sources)),
        takeovers=sum(now == HUMAN != before for before, now in itertools.pairwise(sources)),
        robot=str(robot.get("name", "")),
        joints=len(state.joint_position) if isinstance(state, State) else None,
        tick_hz=float(robot["tick_hz"]) if "tick_hz" in robot else None,
        action_space=chunk.spec_id.split("/")[0] if isinstance(chunk, ActionChunk) else "",
        step_s=chunk.step_ns * 1e-9 if isinstance(chunk, ActionChunk) else None,
        limits=str(metadata.get("safety_hash", "")),
        versions={name: str(version) for name, version in _object(metadata, "versions").items()},
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Survey:
    """The logs below a folder, sorted by path. unreadable: path and reason of those that say nothing."""

    folder: Path
    episodes: tuple[EpisodeSummary, ...]
    unreadable: dict[Path, str]


def survey(folder: Path, progress: Progress = silent) -> Survey:
    """Summarise every log of a session, or a single log; nothing is written. Raises LogError if there is none."""
    if not folder.exists():
        raise LogError(f"{folder}: no such session folder")
    logs = [folder] if folder.is_file() else episode_logs(folder)
    if not logs:
        raise LogError(f"{folder}: no episode log (.mcap) there")
    episodes, unreadable = [], {}
    for log in progress(logs, "reading"):
        try:
            episodes.append(summarise(log))
        except (LogError, WireError) as error:
            unreadable[log] = str(error).removeprefix(f"{log}: ")
    return Survey(folder, tuple(episodes), unreadable)


def survey_whole(folder: Path, progress: Progress = silent) -> tuple[EpisodeSummary, ...]:
    """The summaries of a session all of whose logs can be read; raises LogError naming the first that cannot."""
    if folder.is_file():
        raise LogError(f"{folder} is a file; a session is a folder of episode logs")
    found = survey(folder, progress)
    for log, reason in found.unreadable.items():
        count = len(found.unreadable)
        raise LogError(
            f"{log}: {reason} ({count} of {count + len(found.episodes)} logs of {folder} cannot be read; "
            "repair or delete them)"
        )
    return found.episodes


def limited_ticks(log: Path) -> int:
    """In how many ticks safety changed a command, which reads all of the log's safety reports."""
    reports = (message for _, message in EpisodeReader(log).messages(["/safety"]))
    return sum(isinstance(report, SafetyReport) and bool(report.interventions) for report in reports)


def overview(summaries: Sequence[EpisodeSummary]) -> dict[str, Any]:
    """JSON-ready figures of several logs together."""
    tasks = sorted({each.task for each in summaries})
    return {
        "episodes": len(summaries),
        "hours": sum(each.seconds for each in summaries) / 3600,
        "bytes": sum(each.size for each in summaries),
        "messages": sum(each.messages for each in summaries),
        "cut": sorted(str(each.log) for each in summaries if each.is_cut),
        "verdicts": verdicts(summaries),
        "tasks": {task: _group([each for each in summaries if each.task == task]) for task in tasks},
        "instructions": _counts(each.instruction for each in summaries),
        "policies": _counts(each.policy for each in summaries),
        "sources": _counts(source for each in summaries for source in each.sources),
        "takeovers": sum(each.takeovers for each in summaries),
        "robots": _counts(each.robot for each in summaries),
        "action_spaces": _counts(each.action_space for each in summaries),
        "limits": _counts(each.limits for each in summaries),
        "versions": _counts(
            f"{name} {version}" for each in summaries for name, version in sorted(each.versions.items())
        ),
        "cameras": _cameras(summaries),
    }


def verdicts(episodes: Iterable[EpisodeSummary]) -> dict[str, int]:
    """How many episodes succeeded, failed, or were judged by nobody."""
    counts = Counter(verdict(each.success) for each in episodes)
    return {name: counts[name] for name in ("true", "false", "unjudged")}


def verdict(success: bool | None) -> str:
    """The word for a success label."""
    return {True: "true", False: "false", None: "unjudged"}[success]


def _group(episodes: Sequence[EpisodeSummary]) -> dict[str, Any]:
    seconds = sum(each.seconds for each in episodes)
    return {"episodes": len(episodes), "hours": seconds / 3600, "verdicts": verdicts(episodes)}


def _cameras(summaries: Sequence[EpisodeSummary]) -> dict[str, dict[str, Any]]:
    """By camera: in how many episodes it is, its sizes, and its slowest and fastest mean rate."""
    found: dict[str, list[Camera]] = {}
    for each in summaries:
        for name, camera in each.cameras.items():
            found.setdefault(name, []).append(camera)
    return {
        name: {
            "episodes": len(cameras),
            "sizes": _counts(f"{camera.width}x{camera.height}" for camera in cameras),
            "rate_hz": [min(camera.rate_hz for camera in cameras), max(camera.rate_hz for camera in cameras)],
        }
        for name, cameras in sorted(found.items())
    }


def _camera(frame: object, count: int, span_s: float) -> Camera:
    if not isinstance(frame, CameraFrame):
        raise LogError(f"a camera's topic holds a {type(frame).__name__}")
    return Camera(frame.width, frame.height, (count - 1) / span_s if span_s > 0 else 0.0)


def _sources(reader: EpisodeReader) -> list[str]:
    """Who was in control, one after the other."""
    events = (message for _, message in reader.messages(["/event"]))
    named = [
        str(event.data.get("source", ""))
        for event in events
        if isinstance(event, Event) and event.kind == "control"
    ]
    return [name for index, name in enumerate(named) if name and (index == 0 or named[index - 1] != name)]


def _object(values: dict[str, Any], name: str) -> dict[str, Any]:
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def _counts(names: Iterable[str]) -> dict[str, int]:
    """How often each name occurs, the most frequent first; nameless ones as "unknown"."""
    return {name or "unknown": count for name, count in Counter(names).most_common()}
