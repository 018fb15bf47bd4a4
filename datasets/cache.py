"""A compact training cache: many episode logs sampled once, then read at the speed of memory.

Images stand in memory-mapped uint8 arrays, labels in float32. The folder's name is a key of everything that decides the
numbers (action spec, cameras, sources, sampler version): another choice never reads stale ones. Shards are
written aside and renamed when whole, so building can be interrupted, goes on where it was, and two builders at once
do no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import LogError, unknown
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.sampling import SAMPLER_VERSION, Samples, row_pictures, sample_episode
from reflexarc.datasets.session import episode_logs

CACHE_VERSION = 2
SHARD_EPISODES = 64
_SHARD_PREFIX = "shard-"
_ASIDE_PREFIX = "building-"
_LEFTOVER_S = 24 * 3600
"""A shard that has been in the making for a day was left by a builder that was killed."""
_END_BYTES = 4096
"""So much of a log's end tells it from another: the index there holds the times and places of its chunks."""
_LABELS = (
    "joint_position",
    "gripper",
    "gripper_commanded",
    "pose_base_tcp",
    "pose_base_tcp_commanded",
    "wrench",
    "actions",
    "focus",
)
"""Fields of `Samples` kept as float32; `mask` stays bool, `t_ns` int64."""


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Everything that decides the numbers in a cache."""

    spec: ActionSpec
    cameras: tuple[str, ...]
    sources: tuple[str, ...] | None = None
    successes_only: bool = True

    def values(self) -> dict[str, Any]:
        """JSON-ready values, versions included."""
        return {
            "spec": self.spec.model_dump(mode="json"),
            "cameras": list(self.cameras),
            "sources": None if self.sources is None else sorted(self.sources),
            "successes_only": self.successes_only,
            "sampler_version": SAMPLER_VERSION,
            "cache_version": CACHE_VERSION,
        }

    @property
    def digest(self) -> str:
        """Name of the cache's folder."""
        return hashlib.sha256(json.dumps(self.values(), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class CachedEpisode:
    """One episode in the cache. `log` is its path below the logs' folder; `rows` may be 0 (nothing to learn).

    content: what tells the log from another that was put in its place.
    """

    log: str
    content: str
    task: str
    seed: int
    instruction: str
    rows: int


def build_cache(
    logs: Path,
    out: Path,
    spec: ActionSpec,
    cameras: Sequence[str],
    *,
    sources: Collection[str] | None = None,
    successes_only: bool = True,
    workers: int = 1,
    progress: bool = True,
) -> TrainingCache:
    """Sample every `*.mcap` below `logs` that the cache under `out` has not got yet, and open the cache.

    Rows that hold no label at all are left out, and so are episodes whose outcome is no success.
    Raises LogError if there is no log, or naming the first one that is cut, damaged or not to be read.
    """
    key = CacheKey(spec, tuple(cameras), None if sources is None else tuple(sorted(sources)), successes_only)
    folder = out / key.digest
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    _write_once(folder / "key.json", json.dumps(key.values(), indent=1, sort_keys=True))
    found = {path.relative_to(logs).as_posix(): path for path in episode_logs(logs)}
    if not found:
        raise LogError(f"{logs}: no episode log (*.mcap) below this folder")
    present = {
        (episode["log"], episode["content"])
        for shard in _shards(folder)
        for episode in _index(shard)["episodes"]
    }
    contents = {name: _content(path) for name, path in found.items()}
    pending = [each for each in contents.items() if each not in present]
    jobs = [
        _ShardJob(logs, tuple(pending[start : start + SHARD_EPISODES]), folder, key)
        for start in range(0, len(pending), SHARD_EPISODES)
    ]
    with _progress(progress) as bars:
        bar = bars.add_task("sampling episodes", total=len(pending))
        for done in _run(jobs, workers):
            bars.advance(bar, done)
    return TrainingCache(folder, only=contents)


class TrainingCache:
    """Rows of many episodes: labels in memory, images mapped from disk.

    labels: by field, float32, N rows, as in `Samples`. mask: (N, H) bool. t_ns: (N,) int64. episode: (N,) int32 index
    into `episodes`. An episode that was logged twice is there once. Raises LogError if `folder` is no cache.
    """

    def __init__(self, folder: Path, *, only: Mapping[str, str] | None = None) -> None:
        """`only`: the logs to read, with what is in them; default all that are in the cache."""
        self.folder = folder
        try:
            self.key: dict[str, Any] = json.loads((folder / "key.json").read_text())
        except OSError as error:
            raise LogError(f"{folder} is not a training cache: key.json is missing") from error
        self.cameras: tuple[str, ...] = tuple(self.key["cameras"])
        self.episodes: list[CachedEpisode] = []
        self._images: list[dict[str, NDArray[np.uint8]]] = []
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in (*_LABELS, "mask", "t_ns")}
        episode_parts: list[NDArray[np.int32]] = []
        place_parts: list[NDArray[np.int64]] = []
        seen: set[str] = set()
        for shard in _shards(folder):
            kept: list[NDArray[np.int64]] = []
            start = 0
            for values in _index(shard)["episodes"]:
                episode = CachedEpisode(**values)
                rows = np.arange(start, start + episode.rows)
                start += episode.rows
                if episode.log in seen or (only is not None and only.get(episode.log) != episode.content):
                    continue
                seen.add(episode.log)
                episode_parts.append(np.full(episode.rows, len(self.episodes), dtype=np.int32))
                self.episodes.append(episode)
                kept.append(rows)
            chosen = np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)
            if chosen.size == 0:
                continue
            for name, arrays in parts.items():
                arrays.append(np.load(shard / f"{name}.npy")[chosen])
            place_parts.append(np.stack([np.full(len(chosen), len(self._images)), chosen], axis=1))
            self._images.append(
                {name: np.load(shard / _image_file(name), mmap_mode="r") for name in self.cameras}
            )
        if not place_parts:
            raise LogError(
                f"{folder}: the training cache holds no row; no episode below it could be learned from"
            )
        self._place = np.concatenate(place_parts)  # (N, 2) shard, row in it
        self.labels: dict[str, NDArray[np.float32]] = {name: np.concatenate(parts[name]) for name in _LABELS}
        self.mask: NDArray[np.bool_] = np.concatenate(parts["mask"])
        self.t_ns: NDArray[np.int64] = np.concatenate(parts["t_ns"])
        self.episode: NDArray[np.int32] = np.concatenate(episode_parts)

    def __len__(self) -> int:
        return len(self._place)

    @property
    def spec(self) -> ActionSpec:
        """The action spec of the labels."""
        return ActionSpec.model_validate(self.key["spec"])

    @property
    def instructions(self) -> list[str]:
        """What the policy was told, by episode."""
        return [episode.instruction for episode in self.episodes]

    def images(self, camera: str, rows: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Copy the images (B, height, width, 3) uint8 of `rows` (B,) out of the maps."""
        if camera not in self.cameras:
            raise LogError(unknown("camera", camera, self.cameras))
        place = self._place[rows]
        first = self._images[place[0, 0]][camera] if len(place) else self._images[0][camera]
        out = np.empty((len(place), *first.shape[1:]), dtype=np.uint8)
        for shard in np.unique(place[:, 0]):
            mine = np.flatnonzero(place[:, 0] == shard)
            out[mine] = self._images[shard][camera][place[mine, 1]]
        return out


@dataclass(frozen=True, slots=True)
class _ShardJob:
    logs: Path
    entries: tuple[tuple[str, str], ...]
    """(name, content) of each log."""
    folder: Path
    key: CacheKey


def _run(jobs: Sequence[_ShardJob], workers: int) -> Iterator[int]:
    """Build the shards; yields the number of episodes done as each is finished."""
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield _build_shard(job)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_build_shard, jobs)


def _build_shard(job: _ShardJob) -> int:
    """Sample the logs of one shard, write it aside and rename it; returns the number of logs."""
    episodes: list[CachedEpisode] = []
    samples: list[tuple[Path, Samples]] = []
    for name, content in job.entries:
        episode, sampled = _sample(job, name, content)
        episodes.append(episode)
        if sampled is not None:
            samples.append((job.logs / name, sampled))
    identity = json.dumps([(episode.log, episode.content) for episode in episodes])
    final = job.folder / f"{_SHARD_PREFIX}{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    aside = Path(tempfile.mkdtemp(prefix=_ASIDE_PREFIX, dir=job.folder))
    try:
        _write_shard(aside, samples, job.key.cameras)
        index = {"episodes": [asdict(episode) for episode in episodes]}
        (aside / "index.json").write_text(json.dumps(index))
        with contextlib.suppress(OSError):  # another builder was first with the same shard
            aside.rename(final)
        if not final.is_dir():
            raise LogError(f"{final}: the shard of the training cache could not be put in place")
    except OSError as error:
        free = shutil.disk_usage(job.folder).free
        raise LogError(
            f"{job.folder}: writing the training cache failed: {error}; {free} bytes free"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return len(job.entries)


def _sample(job: _ShardJob, name: str, content: str) -> tuple[CachedEpisode, Samples | None]:
    """The episode and its rows without their pictures; None where there is nothing to learn."""
    path = job.logs / name
    reader = EpisodeReader(path)
    if reader.is_cut:
        raise LogError(f"{path} was cut short; it is not trained on (remove it, or record it again)")
    outcome, metadata = reader.outcome or {}, reader.metadata
    wanted = bool(outcome.get("success")) or not job.key.successes_only
    samples = None
    if wanted:
        samples = sample_episode(
            reader, job.key.spec, job.key.cameras, sources=job.key.sources, pictures=False
        )
    rows = 0 if samples is None else int(samples.mask.any(axis=1).sum())
    episode = CachedEpisode(
        log=name,
        content=content,
        task=str(metadata.get("task", "")),
        seed=int(metadata.get("seed", 0)),
        instruction="" if samples is None else samples.instruction,
        rows=rows,
    )
    return episode, samples if rows else None


def _content(path: Path) -> str:
    """The log's size and the hash of its end, as `CachedEpisode.content`. LogError if it cannot be read."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(size - _END_BYTES, 0))
            return f"{size}-{hashlib.sha256(log.read()).hexdigest()[:16]}"
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror}") from error


def _write_shard(folder: Path, samples: Sequence[tuple[Path, Samples]], cameras: Sequence[str]) -> None:
    """Write the rows of logs that hold a label, episode after episode; nothing at all for an empty shard."""
    if not samples:
        return
    keep = [sample.mask.any(axis=1) for _, sample in samples]
    total = sum(int(mask.sum()) for mask in keep)
    stored: dict[str, NDArray[np.uint8]] = {}
    row = 0
    for (path, sample), mask in zip(samples, keep, strict=True):
        for images in row_pictures(EpisodeReader(path), cameras, sample.t_ns[mask]):
            for name, image in images.items():
                if name not in stored:
                    stored[name] = open_memmap(  # type: ignore[no-untyped-call]
                        folder / _image_file(name), mode="w+", dtype=np.uint8, shape=(total, *image.shape)
                    )
                if image.shape != stored[name].shape[1:]:
                    raise LogError(
                        f"{path}: camera {name} has images of {image.shape}, in logs before it "
                        f"{stored[name].shape[1:]}; train on logs of one size"
                    )
                stored[name][row] = image
            row += 1
    kinds: dict[str, type] = dict.fromkeys(_LABELS, np.float32) | {"mask": np.bool_, "t_ns": np.int64}
    for name, kind in kinds.items():
        parts = [getattr(sample, name)[mask] for (_, sample), mask in zip(samples, keep, strict=True)]
        np.save(folder / f"{name}.npy", np.concatenate(parts).astype(kind))


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(f"{_ASIDE_PREFIX}*"):
        if path.is_dir() and time.time() - path.stat().st_mtime > _LEFTOVER_S:
            shutil.rmtree(path, ignore_errors=True)


def _image_file(camera: str) -> str:
    return f"images-{camera}.npy"


def _shards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{_SHARD_PREFIX}*") if path.is_dir())


def _index(shard: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((shard / "index.json").read_text())
    return values


def _write_once(path: Path, text: str) -> None:
    """Write a small file whole; every builder writes the same text."""
    handle, aside = tempfile.mkstemp(prefix=_ASIDE_PREFIX, dir=path.parent)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(aside).replace(path)


def _progress(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
        disable=not shown,
    )
