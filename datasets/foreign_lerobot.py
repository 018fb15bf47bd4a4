"""LeRobotDatasets of others, v2.0, v2.1 and v3: the folder is checked whole before a row of it is believed.

v3 is read by `lerobot_reader.py`. v2 has one parquet file an episode and one video an episode and camera, named by the
patterns of `meta/info.json`, and its episodes and tasks as lines of JSON (huggingface/lerobot, `meta/` of v2.1).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from reflexarc.configs.errors import LogError
from reflexarc.datasets.foreign import ForeignDataset, Rows, grid
from reflexarc.datasets.lerobot_reader import LeRobotReader
from reflexarc.datasets.video_frames import VideoFrames, index_frames
from reflexarc.wire.messages import F64

IMAGES = "observation.images."
_OWN = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns that are lerobot's bookkeeping."""
_V2 = ("v2.0", "v2.1")
_FPS_SLACK = 0.05
"""Share of a step by which a timestamp, or a video's frame, may be off its rate."""


def open_lerobot(folder: Path) -> ForeignDataset:
    """The data set in a folder. Raises LogError naming what is missing, damaged, or of an unknown version."""
    path = folder / "meta" / "info.json"
    try:
        info = json.loads(path.read_text())
        version, features, fps = str(info["codebase_version"]), dict(info["features"]), float(info["fps"])
    except OSError as error:
        raise LogError(f"{folder}: no LeRobotDataset: {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LogError(f"{path} is damaged: {error!r}") from error
    if not fps > 0:
        raise LogError(f"{path}: fps is {fps:g}; it must be above 0")
    if version.startswith("v3."):
        return _Version3(folder, features, fps)
    if version in _V2:
        return _Version2(folder, info, features, fps)
    raise LogError(f"{folder}: LeRobotDataset {version}; {', '.join(_V2)} and v3.x can be imported")


class _Folder:
    """What both versions share."""

    def __init__(self, folder: Path, features: dict[str, Any], fps: float) -> None:
        self.path = folder
        self.fps = fps
        pictures = [name for name, each in features.items() if each["dtype"] in ("video", "image")]
        self.cameras = {_camera(name): name for name in pictures}
        self.columns = {
            name: _describe(each)
            for name, each in features.items()
            if name not in (*pictures, *_OWN) and each["dtype"] != "string"
        }
        self._features = features

    def _times(self, timestamps: NDArray[np.float64], where: str) -> NDArray[np.int64]:
        """(T,) ns from 0. LogError if the rows are not as far apart as fps says."""
        steps = np.diff(timestamps) * self.fps
        off = np.abs(steps - 1.0) > _FPS_SLACK
        if off.any():
            row = int(np.argmax(off))
            raise LogError(
                f"{where}: row {row + 1} is {steps[row] / self.fps:.4f} s after the one before; fps {self.fps:g} of "
                f"info.json says {1 / self.fps:.4f} s"
            )
        return grid(len(timestamps), self.fps)


class _Version3(_Folder):
    """Several episodes to a file."""

    def __init__(self, folder: Path, features: dict[str, Any], fps: float) -> None:
        super().__init__(folder, features, fps)
        self._reader = LeRobotReader(folder)
        self._episodes = np.unique(self._reader.episode)

    def __len__(self) -> int:
        return len(self._episodes)

    def rows(self, episode: int) -> Rows:
        """As `ForeignDataset`."""
        rows = self._rows(episode)
        name = f"episode {int(self._episodes[episode])}"
        columns = {
            column: np.asarray(self._reader.columns[column][rows], dtype=np.float64).reshape(len(rows), -1)
            for column in self.columns
        }
        times = self._times(
            self._reader.columns["timestamp"][rows].astype(np.float64), f"{self.path}: {name}"
        )
        return Rows(name, self._reader.task(int(rows[0])), times, columns)

    def pictures(self, episode: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        """As `ForeignDataset`."""
        for row in self._rows(episode):
            yield self._reader.images(self.cameras[camera], np.array([row]))[0]

    def _rows(self, episode: int) -> NDArray[np.int64]:
        return np.flatnonzero(self._reader.episode == self._episodes[episode])


class _Version2(_Folder):
    """A file an episode."""

    def __init__(self, folder: Path, info: dict[str, Any], features: dict[str, Any], fps: float) -> None:
        super().__init__(folder, features, fps)
        self._episodes = _lines(folder / "meta" / "episodes.jsonl")
        self._tasks = {
            int(each["task_index"]): str(each["task"]) for each in _lines(folder / "meta" / "tasks.jsonl")
        }
        self._chunk = int(info.get("chunks_size", 1000))
        self._data = str(info.get("data_path", ""))
        self._video = str(info.get("video_path", ""))
        total = info.get("total_episodes")
        if total != len(self._episodes):
            raise LogError(
                f"{folder}: info.json says {total} episodes, episodes.jsonl lists {len(self._episodes)}"
            )
        wanted = [self._file(self._data, episode) for episode in range(len(self))]
        for column in self.cameras.values():
            if features[column]["dtype"] == "video":
                wanted += [self._file(self._video, episode, column) for episode in range(len(self))]
        missing = [path for path in wanted if not path.is_file()]
        if missing:
            raise LogError(
                f"{folder}: {len(missing)} of {len(wanted)} files are missing, first {missing[0].relative_to(folder)}"
            )

    def __len__(self) -> int:
        return len(self._episodes)

    def rows(self, episode: int) -> Rows:
        """As `ForeignDataset`."""
        path = self._file(self._data, episode)
        table = self._table(path)
        entry = self._episodes[episode]
        if len(table) != int(entry["length"]):
            raise LogError(f"{path}: {len(table)} rows; episodes.jsonl says {entry['length']}")
        columns = {column: _numbers(table, column, path) for column in self.columns}
        times = self._times(_numbers(table, "timestamp", path)[:, 0], str(path))
        task = self._tasks.get(int(_numbers(table, "task_index", path)[0, 0]), "")
        told = task or next(iter(entry.get("tasks", [])), "")
        return Rows(f"episode {entry['episode_index']}", str(told), times, columns)

    def pictures(self, episode: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        """As `ForeignDataset`."""
        column = self.cameras[camera]
        if self._features[column]["dtype"] == "image":
            path = self._file(self._data, episode)
            yield from (_decoded(cell, path) for cell in self._table(path).column(column).to_pylist())
            return
        path, expected = self._file(self._video, episode, column), int(self._episodes[episode]["length"])
        index = index_frames(path)
        if len(index.pts) != expected:
            raise LogError(f"{path}: the video has {len(index.pts)} frames for {expected} rows")
        rate = 1.0 / float(np.median(np.diff(index.time_s))) if expected > 1 else self.fps
        if abs(rate / self.fps - 1.0) > _FPS_SLACK:
            raise LogError(
                f"{path}: the video has {rate:.4g} frames a second; fps of info.json is {self.fps:g}"
            )
        height, width = _size(self._features[column])
        video = VideoFrames(path, index)
        try:
            for number in range(expected):
                image = np.empty((height, width, 3), np.uint8)
                video.read(number, image)
                yield image
        finally:
            video.close()

    def _file(self, pattern: str, episode: int, column: str = "") -> Path:
        number = int(self._episodes[episode]["episode_index"])
        try:
            name = pattern.format(episode_chunk=number // self._chunk, episode_index=number, video_key=column)
        except (KeyError, IndexError, ValueError) as error:
            raise LogError(f"{self.path}: info.json names its files {pattern!r}: {error!r}") from error
        return self.path / name

    def _table(self, path: Path) -> pa.Table:
        try:
            return pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise LogError(f"{path}: not a parquet file that can be read: {error}") from error


def _camera(column: str) -> str:
    """`top` of `observation.images.top`; the last part of any other name."""
    return column.removeprefix(IMAGES) if column.startswith(IMAGES) else column.rsplit(".", 1)[-1]


def _describe(feature: dict[str, Any]) -> str:
    """Its width, and the names of its numbers where they are told."""
    names = feature.get("names")
    if isinstance(names, dict):  # {"motors": [...]} of v2
        names = next(iter(names.values()), None)
    width = str(int(np.prod(feature.get("shape", [1]))))
    return f"{width}: {', '.join(map(str, names))}" if isinstance(names, list) else width


def _size(feature: dict[str, Any]) -> tuple[int, int]:
    """(height, width) of a picture, whose shape is told as (H, W, C) or (C, H, W)."""
    shape = [int(size) for size in feature["shape"]]
    return (shape[1], shape[2]) if shape[0] == 3 and shape[2] != 3 else (shape[0], shape[1])


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror}; the data set is incomplete") from error
    except ValueError as error:
        raise LogError(f"{path} is damaged: {error}") from error


def _numbers(table: pa.Table, column: str, path: Path) -> F64:
    """(T, W) float64."""
    if column not in table.column_names:
        raise LogError(f"{path}: no column {column!r}; it has {', '.join(table.column_names)}")
    try:
        return np.array(table.column(column).to_pylist(), dtype=np.float64).reshape(len(table), -1)
    except (ValueError, TypeError) as error:
        raise LogError(f"{path}: column {column!r} is not rows of as many numbers each: {error}") from error


def _decoded(cell: Any, path: Path) -> NDArray[np.uint8]:
    try:
        return np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB"))
    except (OSError, TypeError, KeyError) as error:
        raise LogError(f"{path}: a picture in it cannot be decoded: {error}") from error
