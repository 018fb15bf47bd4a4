"""Our reader of LeRobotDatasets against lerobot's own on the same files: the same numbers, the same pictures."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lerobot")

import av
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from reflexarc.configs.errors import LogError
from reflexarc.datasets import lerobot_reader
from reflexarc.datasets.lerobot_reader import LeRobotReader
from reflexarc.datasets.video_frames import VideoFrames, index_frames

FPS, ROWS = 10, (13, 7, 22)
"""Rows of each episode; odd, so that groups of pictures end within them."""
SHAPES = {"observation.images.front": (48, 64, 3), "observation.images.wrist": (32, 32, 3)}
CODECS = ("libsvtav1", "h264", "png")


def moving(shape: tuple[int, ...], step: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture that is another one at every step."""
    down, across = np.mgrid[: shape[0], : shape[1]]
    planes = [down * 3 + step * 5, across * 2 + step * 3, (down + across) + step * 7]
    return np.stack(planes, axis=2).astype(np.uint8)


def write(root: Path, codec: str) -> Path:
    """Three episodes of two tasks by lerobot's own writer; every episode's videos in files of their own."""
    kind = "image" if codec == "png" else "video"
    features: dict[str, Any] = {
        name: {"dtype": kind, "shape": shape, "names": ["height", "width", "channels"]}
        for name, shape in SHAPES.items()
    }
    features["observation.state"] = {"dtype": "float32", "shape": (3,), "names": None}
    features["action"] = {"dtype": "float32", "shape": (2,), "names": None}
    features["exact"] = {"dtype": "float64", "shape": (2,), "names": None}
    features["time"] = {"dtype": "int64", "shape": (1,), "names": None}
    dataset = LeRobotDataset.create(
        "x/y",
        fps=FPS,
        features=features,
        root=root,
        use_videos=codec != "png",
        rgb_encoder=None if codec == "png" else RGBEncoderConfig(vcodec=codec),
        video_backend="pyav",
        video_files_size_in_mb=1 if codec == "h264" else None,
    )
    random, step = np.random.default_rng(0), 0
    for episode, rows in enumerate(ROWS):
        for _ in range(rows):
            step += 1
            dataset.add_frame(
                {
                    **{name: moving(shape, step) for name, shape in SHAPES.items()},
                    "observation.state": random.normal(size=3).astype(np.float32),
                    "action": random.normal(size=2).astype(np.float32),
                    "exact": random.normal(size=2),
                    "time": np.array([10**18 + step]),
                    "task": f"task {episode % 2}",
                }
            )
        dataset.save_episode(parallel_encoding=False)
    dataset.finalize()
    return root


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("datasets")
    return {codec: write(folder / codec, codec) for codec in CODECS}


def theirs(folder: Path, **kwargs: Any) -> LeRobotDataset:
    return LeRobotDataset("x/y", root=folder, video_backend="pyav", **kwargs)


def as_float(image: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """As lerobot gives pictures: (3, H, W) in 0..1."""
    return image.transpose(2, 0, 1).astype(np.float32) / 255


@pytest.mark.parametrize("codec", CODECS)
def test_every_row_is_lerobots(written: dict[str, Path], codec: str) -> None:
    ours, expected = LeRobotReader(written[codec]), theirs(written[codec])
    stored = expected.hf_dataset.with_format(None)
    assert len(ours) == len(expected) == sum(ROWS)
    for number in np.random.default_rng(1).permutation(len(ours)):
        row, item, exact = ours[int(number)], expected[int(number)], stored[int(number)]
        assert row["task"] == item["task"]
        for name in SHAPES:
            assert row[name].dtype == np.uint8
            assert np.array_equal(as_float(row[name]), item[name].numpy())
        for name in ("observation.state", "action", "timestamp", "episode_index"):
            assert row[name].dtype == item[name].numpy().dtype
            assert np.array_equal(row[name], item[name].numpy())
        assert row["exact"].tolist() == exact["exact"]  # lerobot's items make float32 of it
        assert row["time"] == exact["time"]


@pytest.mark.parametrize("codec", CODECS)
def test_batches_are_their_rows_in_any_order(written: dict[str, Path], codec: str) -> None:
    reader = LeRobotReader(written[codec])
    one_by_one = [LeRobotReader(written[codec])[number] for number in range(len(reader))]
    in_order = list(reader.batches(8))
    assert [len(batch["task"]) for batch in in_order] == [8, 8, 8, 8, 8, 2]
    shuffled = np.random.default_rng(2).integers(0, len(reader), 60)  # some rows more than once
    for rows, batch in ((shuffled, reader[shuffled]), (range(8, 16), in_order[1]), ([-1], reader[[-1]])):
        for place, number in enumerate(rows):
            for name, value in one_by_one[number].items():
                assert np.array_equal(batch[name][place], value), name


def test_a_video_read_in_order_is_decoded_once(
    written: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeks = []
    seek = VideoFrames._seek
    monkeypatch.setattr(VideoFrames, "_seek", lambda self, key: (seeks.append(key), seek(self, key)))
    reader = LeRobotReader(written["libsvtav1"])
    list(reader.batches(5))
    assert seeks == [0] * len(SHAPES)


def test_windows_are_lerobots_and_end_with_the_episode(written: dict[str, Path]) -> None:
    times = {"action": [step / FPS for step in range(4)]}
    expected = theirs(written["libsvtav1"], delta_timestamps=times)
    reader = LeRobotReader(written["libsvtav1"], windows={"action": 4}, cameras=[])
    for number in range(len(reader)):
        row, item = reader[number], expected[number]
        assert np.array_equal(row["action"], item["action"].numpy())
        assert np.array_equal(row["action_is_pad"], item["action_is_pad"].numpy())
    assert reader[ROWS[0] - 1]["action_is_pad"].tolist() == [False, True, True, True]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_takes_it(written: dict[str, Path], workers: int) -> None:
    reader = LeRobotReader(written["h264"])
    reader[0]  # decoders and threads are there when the workers are forked
    sampler = BatchSampler(RandomSampler(reader), 8, drop_last=False)
    seen = []
    for batch in DataLoader(reader, sampler=sampler, batch_size=None, num_workers=workers):
        for place, number in enumerate(batch["index"]):
            seen.append(int(number))
            for name in SHAPES:
                assert np.array_equal(batch[name][place].numpy(), reader[int(number)][name])
    assert sorted(seen) == list(range(len(reader)))


def test_it_goes_to_another_process_and_opens_again_when_closed(written: dict[str, Path]) -> None:
    reader = LeRobotReader(written["libsvtav1"])
    first = reader[3]
    moved = pickle.loads(pickle.dumps(reader))
    reader.close()
    for again in (moved[3], reader[3]):
        assert all(np.array_equal(again[name], first[name]) for name in SHAPES)


def test_no_more_videos_stay_open_than_allowed(
    written: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_reader, "OPEN_VIDEOS", 1)
    opened = []
    open_video = VideoFrames.__init__
    monkeypatch.setattr(
        VideoFrames, "__init__", lambda self, *args: (opened.append(self), open_video(self, *args))[1]
    )
    folder = split(written["libsvtav1"], written["libsvtav1"].parent / "split")
    reader, whole = LeRobotReader(folder), LeRobotReader(written["libsvtav1"])
    for number in (0, 1, ROWS[0], 2):
        assert all(np.array_equal(reader[number][name], whole[number][name]) for name in SHAPES)
    still_open = [video for video in opened if video.path.is_relative_to(folder) and video._frame is not None]
    assert len(still_open) == len(SHAPES)


def split(source: Path, folder: Path) -> Path:
    """The same data set with the video of every episode after the first in a second file, a copy of the first."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.copytree(source, folder)
    (path,) = (folder / "meta" / "episodes").rglob("*.parquet")
    table = pq.read_table(path)
    for name in SHAPES:
        column = f"videos/{name}/file_index"
        place = table.column_names.index(column)
        table = table.set_column(place, column, pa.array([0] + [1] * (len(ROWS) - 1), pa.int64()))
        (video,) = (folder / "videos" / name).rglob("*.mp4")
        shutil.copy(video, video.with_name("file-001.mp4"))
    pq.write_table(table, path)
    return folder


@pytest.mark.parametrize(
    "options", [{"g": "12", "bf": "3"}, {"g": "250", "bf": "0"}, {"g": "9", "x264-params": "open-gop=1"}]
)
def test_frames_at_random_are_those_in_order_whatever_the_key_frames(
    tmp_path: Path, options: dict[str, str]
) -> None:
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for step in range(70):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moving((48, 64, 3), step))))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    index = index_frames(path)
    assert len(index.pts) == len(expected) == 70
    video, out = VideoFrames(path, index), np.empty((48, 64, 3), np.uint8)
    for number in [*range(70), *np.random.default_rng(3).integers(0, 70, 120), 69, 69, 0, 68]:
        video.read(int(number), out)
        assert np.array_equal(out, expected[number]), number
    video.close()


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (lambda folder: shutil.rmtree(folder / "meta"), "no LeRobotDataset: meta/info.json"),
        (lambda folder: shutil.rmtree(folder / "data"), "no parquet file in it"),
        (lambda folder: shutil.rmtree(folder / "videos"), "file-000.mp4 is missing"),
        (lambda folder: rewrite(folder, codebase_version="v2.1"), "LeRobotDataset v2.1; only v3"),
        (lambda folder: rewrite(folder, total_frames=99), "info.json says 99"),
        (lambda folder: (folder / "meta" / "info.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "meta" / "tasks.parquet").write_text("x"), "tasks.parquet cannot be read"),
    ],
)
def test_half_a_data_set_is_refused(
    written: dict[str, Path], tmp_path: Path, harm: Callable[[Path], object], text: str
) -> None:
    folder = Path(shutil.copytree(written["libsvtav1"], tmp_path / "half"))
    harm(folder)
    with pytest.raises(LogError, match=text):
        LeRobotReader(folder)


def test_what_is_not_there_is_named(written: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"unknown camera 'left'; known: observation\.images\.front"):
        LeRobotReader(written["h264"], cameras=["left"])
    with pytest.raises(LogError, match="unknown feature 'actions'; known: action"):
        LeRobotReader(written["h264"], windows={"actions": 2})
    with pytest.raises(IndexError, match="rows 42 to 42 of 42"):
        LeRobotReader(written["h264"])[42]
    folder = Path(shutil.copytree(written["h264"], tmp_path / "torn"))
    for video in folder.rglob("*.mp4"):
        video.write_bytes(video.read_bytes()[:2000])
    with pytest.raises(LogError, match=r"front.*the video is damaged after \d frames"):
        LeRobotReader(folder)[0]


def test_a_frame_that_is_not_where_its_row_says_is_no_frame(written: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written["libsvtav1"], tmp_path / "late"))
    reader = LeRobotReader(folder)
    reader._pictures["observation.images.front"]._time_s += 0.02
    with pytest.raises(LogError, match=r"no frame at 0\.0200 s for row 0; the nearest is 20\.0 ms away"):
        reader[0]


def rewrite(folder: Path, **values: Any) -> None:
    path = folder / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
