"""A LeRobotDataset v3 as one of v2.1, for tools that pin an older lerobot and read nothing else, as openpi does.

v2.1 has a parquet file an episode, a video an episode and camera, and its episodes, tasks and statistics as lines of
JSON (huggingface/lerobot at v0.3, `datasets/utils.py`). The numbers are copied, and videos are cut between episodes
without being encoded again: what is read from one is read from the other, which is checked.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reflexarc.configs.errors import LogError
from reflexarc.datasets.foreign_lerobot import open_lerobot
from reflexarc.datasets.lerobot_reader import LeRobotReader, read_table

VERSION = "v2.1"
CHUNK = 1000
"""Episodes of a folder."""
DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_STATISTICS = ("min", "max", "mean", "std", "count")
_BATCH = 64
"""Pictures that are compared at once."""


def write_v2(source: Path, out: Path) -> None:
    """The data set of version 3 in `source` once more in the new folder `out`.

    Raises LogError if a file cannot be read or written, or if what is read back differs anywhere.
    """
    info = json.loads((source / "meta" / "info.json").read_text())
    episodes = read_table(source / "meta" / "episodes").to_pylist()
    tasks = read_table(source / "meta" / "tasks.parquet").to_pydict()
    names = tasks.get("task") or tasks["__index_level_0__"]
    films = [name for name, feature in info["features"].items() if feature["dtype"] == "video"]
    try:
        _write_data(read_table(source / "data"), episodes, out)
        for camera in films:
            for episode in episodes:
                _cut(source, info, camera, episode, out)
        (out / "meta").mkdir()
        _write_lines(out / "meta" / "episodes.jsonl", map(_episode, episodes))
        _write_lines(out / "meta" / "episodes_stats.jsonl", map(_statistics, episodes))
        told = zip(tasks["task_index"], names, strict=True)
        _write_lines(
            out / "meta" / "tasks.jsonl", ({"task_index": index, "task": name} for index, name in told)
        )
        page = json.dumps(_info(info, len(episodes), len(names), len(films)), indent=4)
        (out / "meta" / "info.json").write_text(page)
    except (OSError, av.FFmpegError, pa.ArrowException) as error:
        raise LogError(f"{out}: version 2.1 cannot be written: {error}") from error
    _verify(source, out)


def _write_data(table: pa.Table, episodes: list[dict[str, Any]], out: Path) -> None:
    for episode in episodes:
        path = out / _place(DATA, episode)
        path.parent.mkdir(parents=True, exist_ok=True)
        begin = int(episode["dataset_from_index"])
        pq.write_table(table.slice(begin, int(episode["length"])), path)


def _cut(source: Path, info: dict[str, Any], camera: str, episode: dict[str, Any], out: Path) -> None:
    """The frames of one episode out of the video in which they stand, as they are stored."""
    place = {
        name: episode[f"videos/{camera}/{name}"] for name in ("chunk_index", "file_index", "from_timestamp")
    }
    stored = source / info["video_path"].format(
        video_key=camera, chunk_index=place["chunk_index"], file_index=place["file_index"]
    )
    path = out / _place(VIDEO, episode, video_key=camera)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(stored)) as opened, av.open(str(path), "w") as written:
        stream = opened.streams.video[0]
        assert stream.time_base is not None
        target = written.add_stream_from_template(stream, opaque=True)  # nothing is encoded
        begin = place["from_timestamp"] - 0.5 / float(info["fps"])
        end = begin + int(episode["length"]) / float(info["fps"])
        opened.seek(round(begin / stream.time_base), backward=True, any_frame=False, stream=stream)
        packets = [
            packet
            for packet in opened.demux(stream)
            if packet.pts is not None
            and packet.dts is not None
            and begin <= packet.pts * stream.time_base < end
        ]
        first = min((packet.pts for packet in packets if packet.pts is not None), default=0)
        for packet in packets:
            assert packet.pts is not None
            assert packet.dts is not None
            packet.stream = target
            packet.pts -= first
            packet.dts -= first
            written.mux(packet)


def _place(pattern: str, episode: dict[str, Any], **more: str) -> str:
    number = int(episode["episode_index"])
    return pattern.format(episode_chunk=number // CHUNK, episode_index=number, **more)


def _episode(episode: dict[str, Any]) -> dict[str, Any]:
    return {name: episode[name] for name in ("episode_index", "tasks", "length")}


def _statistics(episode: dict[str, Any]) -> dict[str, Any]:
    """Of one episode; its columns are named `stats/FEATURE/WHICH`."""
    found: dict[str, dict[str, Any]] = {}
    for column, value in episode.items():
        kind, _, rest = column.partition("/")
        feature, _, which = rest.rpartition("/")
        if kind == "stats" and which in _STATISTICS:
            found.setdefault(feature, {})[which] = value
    return {"episode_index": episode["episode_index"], "stats": found}


def _info(info: dict[str, Any], episodes: int, tasks: int, films: int) -> dict[str, Any]:
    kept = ("dtype", "shape", "names", "info")
    features = {
        name: {field: feature[field] for field in kept if field in feature}
        for name, feature in info["features"].items()
    }
    return {
        "codebase_version": VERSION,
        "robot_type": info.get("robot_type"),
        "total_episodes": episodes,
        "total_frames": info["total_frames"],
        "total_tasks": tasks,
        "total_videos": episodes * films,
        "total_chunks": -(-episodes // CHUNK),
        "chunks_size": CHUNK,
        "fps": info["fps"],
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA,
        "video_path": VIDEO if films else None,
        "features": features,
    }


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _verify(source: Path, out: Path) -> None:
    """Every number and every pixel, read from both."""
    before, after = LeRobotReader(source), open_lerobot(out)
    if len(after) != len(np.unique(before.episode)):
        raise LogError(f"{out}: {len(after)} episodes of {len(np.unique(before.episode))} came back")
    for episode in range(len(after)):
        rows = np.flatnonzero(before.episode == episode)
        got = after.rows(episode)
        if got.instruction != before.task(int(rows[0])):
            raise LogError(f"{out}: the instruction of episode {episode} did not come back as written")
        for name, values in got.columns.items():
            expected = before.columns[name][rows].reshape(len(rows), -1)
            if not np.array_equal(values, expected.astype(np.float64)):
                raise LogError(f"{out}: {name} of episode {episode} did not come back as written")
        for camera, column in after.cameras.items():
            pictures = after.pictures(episode, camera)
            for begin in range(0, len(rows), _BATCH):
                stored = before.images(column, rows[begin : begin + _BATCH])
                mine = np.stack(list(itertools.islice(pictures, len(stored))))
                if not np.array_equal(mine, stored):
                    raise LogError(f"{out}: pictures {column} of episode {episode} are not those of {source}")
    before.close()
