"""A LeRobotDataset v3 (an export, or anybody's) read for training: rows at random, in batches, or in order.

Numbers stand in memory as they are stored, float64 stays float64. Pictures are decoded when asked for, by decoders
that stay open (`video_frames.py`), the cameras side by side. It is a map-style data set as torch's DataLoader takes
them, yet it needs no torch: an index gives one row, a list of indices a batch.

    reader = LeRobotReader(folder, windows={"action": 8})
    loader = DataLoader(reader, sampler=BatchSampler(RandomSampler(reader), 32, False), batch_size=None, num_workers=2)
"""

from __future__ import annotations

import io
import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from reflexarc.configs.errors import LogError, unknown
from reflexarc.datasets.video_frames import FrameIndex, VideoFrames, index_frames

VERSION = "v3."
OPEN_VIDEOS = 32
"""Of one camera: a decoder holds a few MB."""
TOLERANCE_S = 1e-3
"""A frame further from its row's time is another one. lerobot's `timestamp` is float32: 0.5 ms off after two hours."""
_INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")

Row = dict[str, Any]
"""By feature: its numbers, or (H, W, 3) uint8; a batch has one more dimension in front. `task`: what it was told."""


class LeRobotReader:
    """Rows of the data set in `folder`.

    columns: by feature, (N, *shape) as it is stored, (N,) for one number; strings are left out. episode: (N,) int64.
    Raises LogError naming what is missing, damaged or not of version 3.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cameras: Sequence[str] | None = None,
        windows: Mapping[str, int] | None = None,
    ) -> None:
        """`cameras`: image features to read, default all. `windows`: rows of a feature from the row on, by its name.

        A window that reaches beyond its episode repeats the last row, and `<feature>_is_pad` says where.
        """
        self.folder = folder
        info = _info(folder)
        features: dict[str, Any] = info["features"]
        pictures = [name for name, each in features.items() if each["dtype"] in ("image", "video")]
        for camera in cameras or ():
            if camera not in pictures:
                raise LogError(f"{folder}: {unknown('camera', camera, pictures)}")
        self.cameras = tuple(pictures if cameras is None else cameras)
        self._shapes = {name: tuple(features[name]["shape"]) for name in self.cameras}
        table = read_table(folder / "data")
        episodes = read_table(folder / "meta" / "episodes")
        self.columns: dict[str, NDArray[Any]] = {
            name: _numbers(table, name, tuple(features.get(name, {}).get("shape", (1,))), folder)
            for name in (*features, *_INDEX_COLUMNS)
            if name not in pictures and features.get(name, {}).get("dtype") != "string"
        }
        if len(table) != info["total_frames"] or len(episodes) != info["total_episodes"]:
            raise LogError(
                f"{folder}: {len(table)} rows of {len(episodes)} episodes are there, "
                f"info.json says {info['total_frames']} and {info['total_episodes']}"
            )
        if not np.array_equal(self.columns["index"], np.arange(len(table))):
            raise LogError(f"{folder}: the rows of its data are not in order (column index)")
        self.episode = self.columns["episode_index"]
        self.windows = dict(windows or {})
        for name in self.windows:
            if name not in self.columns:
                raise LogError(f"{folder}: {unknown('feature', name, tuple(self.columns))}")
        self._end = np.asarray(episodes["dataset_to_index"].to_numpy())[self.episode]
        self._tasks = _tasks(folder)
        self._pictures: dict[str, _Stored | _Videos] = {
            name: _Videos(folder, name, str(info["video_path"]), episodes, self.columns)
            if features[name]["dtype"] == "video"
            else _Stored(folder, name, table)
            for name in self.cameras
        }
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def __len__(self) -> int:
        return len(self.episode)

    def __getitem__(self, rows: int | Sequence[int] | NDArray[np.integer[Any]]) -> Row:
        """One row, or a batch of them in the order given. Raises IndexError beyond the last row."""
        if isinstance(rows, int | np.integer):
            batch = self._batch(np.array([rows]))
            return {name: values[0] for name, values in batch.items()}
        return self._batch(np.asarray(rows, dtype=np.int64))

    def batches(self, size: int) -> Iterator[Row]:
        """All rows in order, `size` at a time; each video is decoded once."""
        for first in range(0, len(self), size):
            yield self._batch(np.arange(first, min(first + size, len(self))))

    def images(self, camera: str, rows: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """The pictures (B, H, W, 3) uint8 RGB of `rows` (B,)."""
        if camera not in self.cameras:
            raise LogError(unknown("camera", camera, self.cameras))
        out = np.empty((len(rows), *self._shapes[camera]), dtype=np.uint8)
        self._pictures[camera].fill(rows, out)
        return out

    def task(self, row: int) -> str:
        """What the robot was told in a row."""
        return self._tasks[int(self.columns["task_index"][row])]

    def close(self) -> None:
        """Release the decoders; reading opens them again."""
        for pictures in self._pictures.values():
            pictures.close()
        if self._pool is not None and self._pool[0] == os.getpid():
            self._pool[1].shutdown()
        self._pool = None

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process: everything but the threads."""
        return self.__dict__ | {"_pool": None}

    def _batch(self, rows: NDArray[np.int64]) -> Row:
        rows = np.where(rows < 0, rows + len(self), rows)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"{self.folder}: rows {rows.min()} to {rows.max()} of {len(self)}")
        batch: Row = dict(zip(self.cameras, self._all_images(rows), strict=True))
        for name, values in self.columns.items():
            if name in self.windows:
                steps = rows[:, None] + np.arange(self.windows[name])
                end = self._end[rows][:, None]
                batch[name] = values[np.minimum(steps, end - 1)]
                batch[f"{name}_is_pad"] = steps >= end
            else:
                batch[name] = values[rows]
        batch["task"] = [self._tasks[index] for index in batch["task_index"]]
        return batch

    def _all_images(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Of every camera; decoding lets go of the interpreter, so the cameras are decoded side by side."""
        if len(self.cameras) < 2:
            return [self.images(camera, rows) for camera in self.cameras]
        if self._pool is None or self._pool[0] != os.getpid():  # threads do not outlive a fork
            self._pool = os.getpid(), ThreadPoolExecutor(len(self.cameras), "decode")
        return list(self._pool[1].map(lambda camera: self.images(camera, rows), self.cameras))


class _Videos:
    """The pictures of one camera, in video files."""

    def __init__(
        self, folder: Path, name: str, pattern: str, episodes: pa.Table, columns: Mapping[str, NDArray[Any]]
    ) -> None:
        place = [f"videos/{name}/{field}" for field in ("chunk_index", "file_index", "from_timestamp")]
        chunk, file, begin = (_numbers(episodes, column, (1,), folder) for column in place)
        files = list(zip(chunk.tolist(), file.tolist(), strict=True))
        known = {each: number for number, each in enumerate(dict.fromkeys(files))}
        self._paths = [
            folder / pattern.format(video_key=name, chunk_index=chunk, file_index=file)
            for chunk, file in known
        ]
        for path in self._paths:
            if not path.is_file():
                raise LogError(f"{folder}: the video {path.relative_to(folder)} is missing")
        episode = columns["episode_index"]
        self._file = np.array([known[each] for each in files])[episode]
        self._time_s = begin[episode] + columns["timestamp"].astype(np.float64)
        self._indexes: dict[int, FrameIndex] = {}
        self._open: OrderedDict[int, VideoFrames] = OrderedDict()
        self._process = os.getpid()

    def fill(self, rows: NDArray[np.integer[Any]], out: NDArray[np.uint8]) -> None:
        """Decode in the order of the files, whatever the order of the rows."""
        order = np.lexsort((self._time_s[rows], self._file[rows]))
        for file in np.unique(self._file[rows]):
            mine = order[self._file[rows][order] == file]
            video = self._video(int(file))
            for place, number in zip(mine, self._numbers(video, rows[mine]), strict=True):
                video.read(int(number), out[place])

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process: decoders are opened there."""
        return self.__dict__ | {"_open": OrderedDict()}

    def _video(self, file: int) -> VideoFrames:
        if self._process != os.getpid():  # the position in a file is shared with the process forked from
            self._open, self._process = OrderedDict(), os.getpid()
        if file not in self._open:
            if file not in self._indexes:
                self._indexes[file] = index_frames(self._paths[file])
            while len(self._open) >= OPEN_VIDEOS:
                self._open.popitem(last=False)[1].close()
            self._open[file] = VideoFrames(self._paths[file], self._indexes[file])
        self._open.move_to_end(file)
        return self._open[file]

    def _numbers(self, video: VideoFrames, rows: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Which frames of the video those of the rows are."""
        wanted = self._time_s[rows]
        numbers = video.index.nearest(wanted)
        off = np.abs(video.index.time_s[numbers] - wanted)
        if off.max() > TOLERANCE_S:
            row = int(np.argmax(off))
            raise LogError(
                f"{video.path}: no frame at {wanted[row]:.4f} s for row {rows[row]}; the nearest is "
                f"{off[row] * 1e3:.1f} ms away, limit {TOLERANCE_S * 1e3:.0f} ms"
            )
        return numbers


class _Stored:
    """The pictures of one camera that stand in the table, compressed one by one."""

    def __init__(self, folder: Path, name: str, table: pa.Table) -> None:
        if name not in table.column_names:
            raise LogError(f"{folder}: {unknown('feature', name, tuple(table.column_names))}")
        self._folder, self._name = folder, name
        self._files = table.column(name)

    def fill(self, rows: NDArray[np.integer[Any]], out: NDArray[np.uint8]) -> None:
        for place, row in enumerate(rows):
            data = self._files[int(row)]["bytes"].as_py()
            try:
                picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            except (OSError, TypeError) as error:
                raise LogError(f"{self._folder}: {self._name} of row {row} is no picture: {error}") from error
            if picture.shape != out.shape[1:]:
                raise LogError(
                    f"{self._folder}: {self._name} of row {row} is {picture.shape}, not {out.shape[1:]}"
                )
            out[place] = picture

    def close(self) -> None:
        """Nothing is open."""


def _info(folder: Path) -> dict[str, Any]:
    path = folder / "meta" / "info.json"
    try:
        info = json.loads(path.read_text())
        version = str(info["codebase_version"])
        fields = ("features", "total_frames", "total_episodes")
        missing = [name for name in fields if name not in info]
    except OSError as error:
        raise LogError(
            f"{folder}: no LeRobotDataset: meta/info.json cannot be read: {error.strerror}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise LogError(f"{path} is damaged: {error!r}") from error
    if not version.startswith(VERSION):
        raise LogError(f"{folder}: LeRobotDataset {version}; only {VERSION}x is read")
    if missing:
        raise LogError(f"{path} is damaged: it has no {missing[0]}")
    return dict(info)


def read_table(folder: Path) -> pa.Table:
    """All parquet files below a folder (or one file), in the order of their names, as one table."""
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.parquet"))
    if not files:
        raise LogError(f"{folder}: no parquet file in it; the data set is incomplete")
    try:
        return pa.concat_tables([pq.read_table(file) for file in files])
    except (OSError, pa.ArrowException) as error:
        raise LogError(f"{folder}: its parquet files cannot be read: {error}") from error


def _numbers(table: pa.Table, name: str, shape: tuple[int, ...], folder: Path) -> NDArray[Any]:
    """A column (N, *shape) in the type that it is stored in; (N,) for a shape of one number."""
    if name not in table.column_names:
        raise LogError(f"{folder}: {unknown('column', name, tuple(table.column_names))}")
    values = table.column(name).combine_chunks()
    try:
        while not pa.types.is_primitive(values.type):
            values = values.storage if isinstance(values, pa.ExtensionArray) else values.flatten()
        numbers = np.asarray(values.to_numpy(zero_copy_only=False))
        return numbers.reshape(len(table), *(() if shape == (1,) else shape))
    except (AttributeError, ValueError, pa.ArrowException) as error:
        raise LogError(f"{folder}: {name} is not numbers of shape {shape}: {error}") from error


def _tasks(folder: Path) -> dict[int, str]:
    path = folder / "meta" / "tasks.parquet"
    try:
        stored = pq.read_table(path).to_pydict()
        names = stored["task"] if "task" in stored else stored["__index_level_0__"]
        return dict(zip(stored["task_index"], names, strict=True))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise LogError(f"{path} cannot be read: {error}") from error
