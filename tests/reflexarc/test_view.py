"""`reflexarc view`: videos with captions, instants to look at, and a running robot forwarded to Rerun."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pytest
from PIL import Image
from rerun.chunk import RrdReader

from contracts.episode_bench import motion, picture, state, written
from reflexarc import view
from reflexarc.configs.errors import LogError, RobotError
from reflexarc.configs.load import load_robot
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.video import Frame, SheetRow, caption, contact_sheet
from reflexarc.live_view import LiveView, Sink
from reflexarc.stack import free_endpoints
from reflexarc.view import episode_frames, frame_rate, frame_times, timed_frames, view_episode
from reflexarc.wire.clock import monotonic_ns
from reflexarc.wire.endpoints import Endpoints
from reflexarc.wire.images import encode_image
from reflexarc.wire.sockets import Publisher

HERE = np.array([0.45, 0.0, 0.25, 0.0, 1.0, 0.0, 0.0])


@pytest.fixture
def log(tmp_path: Path) -> EpisodeReader:
    return written(tmp_path / "e.mcap", [*motion(lambda t: HERE + [0.05 * t, 0, 0, 0, 0, 0, 0], 4.0)])


def video_frames(path: Path) -> tuple[float, list[Frame]]:
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        assert rate is not None
        return float(rate), [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_video_has_the_cameras_rate_and_a_caption_below_each_picture(
    log: EpisodeReader, tmp_path: Path
) -> None:
    made = view_episode(log.path, tmp_path / "out", size=240)
    rate, shown = video_frames(Path(made["mp4"]))
    assert rate == pytest.approx(10.0)
    assert len(shown) == 41
    assert shown[0].shape == (240 + 40, 240, 3)
    with Image.open(made["png"]) as sheet:
        assert sheet.width > 8 * 160  # eight of the pictures in a row
    captions = [frame[240:].astype(int) for frame in shown]
    assert captions[0].max() > 200  # white words on a dark bar
    assert np.abs(captions[0] - captions[20]).max() > 100  # the time goes on
    with pytest.raises(LogError, match=r"unknown camera 'top'.*front, wrist"):
        view_episode(log.path, tmp_path / "other", camera="top")


@pytest.mark.parametrize("shape", [(24, 32), (480, 640)])
def test_a_video_keeps_the_shape_of_the_pictures(tmp_path: Path, shape: tuple[int, int]) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, shape[1]).astype(np.uint8)[None, :, None], (*shape, 3))
    frames = [
        encode_image(ramp, camera="agentview", seq=seq, t_capture_ns=seq * 100_000_000, clock="virtual")
        for seq in range(3)
    ]
    log = written(tmp_path / "e.mcap", [("/camera/agentview", frame) for frame in frames])
    made = view_episode(log.path, tmp_path / "out", size=240)
    _, shown = video_frames(Path(made["mp4"]))
    assert shown[0].shape == (240 + 48, 320, 3)
    middle = shown[0][120].astype(int)
    np.testing.assert_allclose(middle[:, 0], np.linspace(0, 255, 320), atol=16)


def test_a_caption_tells_instruction_time_and_safety() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    active, stopped, plain = (
        caption(image, "lift it", 1.5, safety) for safety in ("active", "protective_stop", "")
    )
    assert np.array_equal(active[:100], image)
    right = [each[100:, 100:].reshape(-1, 3).astype(int) for each in (active, stopped, plain)]
    assert (right[0][:, 1] - right[0][:, 0]).max() > 20  # green
    assert (right[1][:, 0] - right[1][:, 2]).max() > 100  # orange
    assert np.ptp(right[2], axis=0).max() < 10
    long = caption(image, "lift it " * 50, 1.5, "")
    assert np.array_equal(long[100:, -4:], np.broadcast_to(long[100, -1], long[100:, -4:].shape))


def test_an_instant_is_cut_out_and_named(log: EpisodeReader, tmp_path: Path) -> None:
    made = view_episode(log.path, tmp_path / "out", at_s=2.0)
    assert Path(made["rrd"]).name == "e-at-2.rrd"
    assert len(video_frames(Path(made["mp4"]))[1]) == 31  # 1.5 s to either side at 10 Hz
    assert frame_rate(frame_times(log)) == pytest.approx(10.0)


def test_frames_come_one_by_one_and_only_those_of_the_sheet_are_kept(
    log: EpisodeReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive, most = [], 0

    def watched(reader: EpisodeReader, **options: Any) -> Iterator[tuple[int, Frame]]:
        nonlocal most
        for time_ns, frame in timed_frames(reader, **options):
            frame = frame.copy()
            alive.append(weakref.ref(frame))
            most = max(most, sum(each() is not None for each in alive))
            yield time_ns, frame

    monkeypatch.setattr(view, "timed_frames", watched)
    made = view_episode(log.path, tmp_path / "out", size=64)
    assert (len(alive), len(video_frames(Path(made["mp4"]))[1])) == (41, 41)
    assert most <= 8 + 3
    whole = SheetRow(log.instruction, episode_frames(log, size=64), True, log.path.name)
    contact_sheet([whole], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes() == Path(made["png"]).read_bytes()


def test_a_viewer_that_does_not_start_is_said_and_the_recording_stays(
    log: EpisodeReader, tmp_path: Path
) -> None:
    no_display = {
        key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")
    }
    ended = subprocess.run(
        [sys.executable, "-m", "reflexarc.cli", "view", str(log.path), "--out", str(tmp_path), "--spawn"]
        + ["--at", "1.25"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=no_display,
    )
    assert ended.returncode == 1
    assert "look at 1.25 s on the time line" in ended.stdout
    assert ended.stderr.startswith("reflexarc: Rerun's viewer does not start here")
    assert len(ended.stderr.strip().splitlines()) == 1
    assert (tmp_path / "e-at-1.25.rrd").exists()


@pytest.fixture
def robot() -> Iterator[Endpoints]:
    """Somebody who publishes states at 100 Hz and pictures at 10 Hz, as a robot does."""
    endpoints = free_endpoints()
    ended = threading.Event()

    def publish() -> None:
        with Publisher(endpoints.state) as states, Publisher(endpoints.frames) as frames:
            tick = 0
            while not ended.wait(0.01):
                now = monotonic_ns()
                message = state(now, commanded=HERE, seq=tick)
                states.send(
                    msgspec.structs.replace(
                        message, clock="monotonic", joint_position=np.array(load_robot("panda").home)
                    )
                )
                if tick % 10 == 0:
                    frames.send(msgspec.structs.replace(picture(now, "wrist", tick), clock="monotonic"))
                tick += 1

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    yield endpoints
    ended.set()
    thread.join(5)


def shown_in(path: Path) -> dict[str, int]:
    """Rows by entity."""
    rows: dict[str, int] = {}
    for chunk in RrdReader(str(path)).stream():
        name = str(chunk.entity_path)
        rows[name] = rows.get(name, 0) + chunk.num_rows
    return rows


def test_a_running_robot_is_recorded_as_it_moves(robot: Endpoints, tmp_path: Path) -> None:
    with LiveView(robot, load_robot("panda"), Sink(file=tmp_path / "live.rrd")) as live:
        assert live.run(2.0) > 10
    rows = shown_in(tmp_path / "live.rrd")
    assert rows["/tcp/measured"] > 10
    assert rows["/camera/wrist"] > 1
    assert rows["/world/scene/hand"] > 5
    done = subprocess.run(
        [sys.executable, "-m", "rerun", "rrd", "verify", str(tmp_path / "live.rrd")],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_running_robot_is_shown_elsewhere(robot: Endpoints, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "rerun", "--port", str(port), "--save", str(tmp_path / "there.rrd")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # it starts the server itself as a child, which would outlive it
    )
    try:
        assert server.stderr is not None
        while "Listening" not in (line := server.stderr.readline()):
            assert line, "the server ended"
        sink = Sink(connect=f"rerun+http://127.0.0.1:{port}/proxy")
        with LiveView(robot, load_robot("panda"), sink) as live:
            live.run(2.0)
        time.sleep(1.0)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(10)
    assert shown_in(tmp_path / "there.rrd")["/tcp/measured"] > 10


def test_mistakes_of_a_live_view_are_said(
    robot: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reflexarc.live_view.READY_S", 0.3)
    nobody = free_endpoints()
    with (
        LiveView(nobody, load_robot("panda"), Sink(file=tmp_path / "no.rrd")) as live,
        pytest.raises(RobotError, match=r"no robot host publishes at tcp://127\.0\.0\.1:"),
    ):
        live.run(1.0)
    assert not (tmp_path / "no.rrd").exists()
    sink = Sink(connect="http://somewhere")
    with (
        LiveView(robot, load_robot("panda"), sink) as live,
        pytest.raises(LogError, match="cannot show the robot at http://somewhere"),
    ):
        live.run(1.0)
