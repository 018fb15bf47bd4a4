"""Videos, contact sheets and Rerun recordings open and show what they were given; a failure leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from rerun.chunk import RrdReader

from contracts.episode_bench import METADATA, every_message, motion, written
from reflexarc.configs.errors import LogError
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.rerun_view import write_rrd
from reflexarc.datasets.video import Frame, SheetRow, contact_sheet, write_mp4
from reflexarc.datasets.writer import EpisodeWriter

HERE = np.array([0.45, 0.0, 0.25, 0.0, 1.0, 0.0, 0.0])
BACKGROUND = (247, 247, 248)


def frames(count: int, height: int = 96, width: int = 96) -> list[Frame]:
    """A grey level for each frame."""
    return [np.full((height, width, 3), 20 + 10 * number, dtype=np.uint8) for number in range(count)]


@pytest.mark.parametrize("size", [(96, 96), (95, 97)])
def test_a_video_has_the_frames_the_rate_and_an_even_size(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "new" / "e.mp4"
    write_mp4(iter(frames(12, *size)), path, 20.0)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == 20
        assert (stream.height, stream.width) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
        levels = [image.to_ndarray(format="rgb24").mean() for image in container.decode(video=0)]
    np.testing.assert_allclose(levels, [20 + 10 * number for number in range(12)], atol=4)


def test_a_video_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "e.mp4"
    with pytest.raises(LogError, match="no frame to write a video of"):
        write_mp4([], path, 10)
    with pytest.raises(LogError, match=r"a frame is \(64, 64\) after frames of \(96, 96\)"):
        write_mp4([*frames(2), *frames(1, 64, 64)], path, 10)
    with pytest.raises(LogError, match="fps is 0; must be above 0"):
        write_mp4(frames(2), path, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_contact_sheet_shows_first_and_last_frame_and_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    rows = [
        SheetRow("lift the red cube", frames(20), True, "lift · 3.4 s"),
        SheetRow("press the yellow button " * 20, frames(3), False),
        SheetRow("", frames(8)),
    ]
    contact_sheet(rows, path, columns=8, tile=100, heading="three episodes")
    with Image.open(path) as opened:
        assert opened.format == "PNG"
        sheet = np.asarray(opened.convert("RGB")).astype(int)
    middles = [row for row in range(sheet.shape[0]) if tuple(sheet[row, 74]) == (20, 20, 20)]
    assert middles
    first_row = middles[40]
    assert sheet[first_row, 74].tolist() == [20] * 3
    assert sheet[first_row, 24 + 7 * 106 + 50].tolist() == [20 + 10 * 19] * 3
    badge = {tuple(colour) for colour in sheet[:, 24 + 2].tolist()}
    assert {(31, 145, 78), (200, 50, 47), (140, 144, 150)} <= badge
    right = sheet[:, -24:].reshape(-1, 3)
    assert np.all(right == BACKGROUND)  # a long instruction does not run over the edge


def test_a_contact_sheet_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no episode to draw"):
        contact_sheet([], tmp_path / "sheet.png")
    with pytest.raises(LogError, match="the episode 'lift' has no frame"):
        contact_sheet([SheetRow("lift", [])], tmp_path / "sheet.png")
    assert list(tmp_path.iterdir()) == []


def entities(path: Path) -> set[str]:
    return {column.entity_path for column in RrdReader(str(path)).store().schema().component_columns()}


def test_a_recording_holds_every_part_of_the_episode(tmp_path: Path) -> None:
    messages = [*every_message(), *motion(lambda t: HERE + [0.1 * t, 0, 0, 0, 0, 0, 0], 0.5)]
    reader = written(tmp_path / "e.mcap", messages)
    path = tmp_path / "e.rrd"
    write_rrd(reader, path)
    shown = entities(path)
    for name in (
        "about",
        "camera/front",
        "camera/wrist",
        "world/tcp_measured/path",
        "world/tcp_commanded/now",
        "world/plan",
        "world/focus/object",
        "joints/position",
        "gripper",
        "policy/bins",
        "policy/bins_history",
        "latency/vision",
        "timing/host_period",
        "lanes/safety",
        "log/safety",
        "log/event",
    ):
        assert f"/{name}" in shown, name


def test_a_cut_or_bare_log_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    writer = EpisodeWriter(tmp_path / "cut.mcap", METADATA, fsync=False)
    for topic, message in every_message()[:4]:
        writer.write(topic, message)
    writer.sync()
    writer.abandon()
    write_rrd(EpisodeReader(writer.path), tmp_path / "cut.rrd")
    assert "/camera/front" in entities(tmp_path / "cut.rrd")
    empty = written(tmp_path / "empty.mcap", [])
    with pytest.raises(LogError, match=r"empty\.mcap: the log holds no message to show"):
        write_rrd(empty, tmp_path / "empty.rrd")
    assert not (tmp_path / "empty.rrd").exists()
