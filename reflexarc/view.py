"""Make an episode visible: a video re-rendered from the log's own physics, and a Rerun recording.

A simulated log holds 96-pixel pictures, what the policy saw. Since its physics can be repeated to the bit, the video is
rendered afresh at a size that people like to look at. A log from a real arm shows the logged pictures.
"""

from __future__ import annotations

import bisect
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reflexarc.configs.errors import LogError, unknown
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.video import SheetRow, caption, contact_sheet, write_mp4
from reflexarc.replay import open_initial, resimulate
from reflexarc.wire.images import decode_image
from reflexarc.wire.messages import CameraFrame, State

Frame = NDArray[np.uint8]
FPS = 20.0
_SHEET = 8
"""Frames on the contact sheet."""


def is_simulated(reader: EpisodeReader) -> bool:
    """True if the log holds the simulator's initial state."""
    return next(iter(reader.messages(["/sim/initial"])), None) is not None


def simulated_frames(
    reader: EpisodeReader, *, camera: str = "front", size: int = 360, fps: float = FPS
) -> Iterator[tuple[int, Frame]]:
    """(time in ns of the log, frame (size, size, 3) uint8 RGB), re-rendered at `fps` of simulated time."""
    model, data, _ = open_initial(reader)
    cameras = [model.camera(index).name for index in range(model.ncam)]
    if camera not in cameras:
        raise LogError(f"{reader.path}: {unknown('camera', camera, cameras)}")
    model.vis.global_.offwidth = max(size, model.vis.global_.offwidth)
    model.vis.global_.offheight = max(size, model.vis.global_.offheight)
    renderer = mujoco.Renderer(model, size, size)
    try:
        for time_ns in _simulated(model, data, reader, fps):
            renderer.update_scene(data, camera)
            yield time_ns, renderer.render().copy()
    finally:
        renderer.close()


def _simulated(
    model: mujoco.MjModel, data: mujoco.MjData, reader: EpisodeReader, fps: float
) -> Iterator[int]:
    """The times in ns at which the simulation in `data` stands at a frame."""
    next_frame = 0.0
    for message in resimulate(model, data, reader):
        if data.time + 1e-9 >= next_frame:
            yield message.t_ns
            next_frame += 1.0 / fps


def logged_frames(
    reader: EpisodeReader, *, camera: str = "front", size: int = 360
) -> Iterator[tuple[int, Frame]]:
    """(capture time in ns, picture of the log scaled to a height of `size`, (size, W, 3))."""
    for _, message in reader.messages([f"/camera/{camera}"]):
        assert isinstance(message, CameraFrame)
        image = Image.fromarray(decode_image(message))
        shape = round(size * image.width / image.height), size
        enlarge = Image.Resampling.NEAREST if size >= image.height else Image.Resampling.BOX
        yield message.t_capture_ns, np.asarray(image.resize(shape, enlarge))


def timed_frames(
    reader: EpisodeReader, *, camera: str = "front", size: int = 360
) -> Iterator[tuple[int, Frame]]:
    """(ns, frame) of the episode at 20 Hz from the simulator, or at the camera's rate from the log, one by one."""
    if is_simulated(reader):
        return simulated_frames(reader, camera=camera, size=size)
    return logged_frames(reader, camera=camera, size=size)


def frame_times(reader: EpisodeReader, *, camera: str = "front") -> list[int]:
    """When the frames of `timed_frames` are, ns; physics are repeated for it, but nothing is drawn.

    Raises LogError naming the cameras of the log if it has no picture of `camera`.
    """
    if is_simulated(reader):
        model, data, _ = open_initial(reader)
        return list(_simulated(model, data, reader, FPS))
    times = [raw.content_ns for raw in reader.raw_messages([f"/camera/{camera}"])]
    if not times:
        raise LogError(f"{reader.path}: {unknown('camera', camera, reader.cameras)}")
    return times


def episode_frames(reader: EpisodeReader, *, camera: str = "front", size: int = 360) -> list[Frame]:
    """The frames of `timed_frames` alone."""
    return [frame for _, frame in timed_frames(reader, camera=camera, size=size)]


def captioned(reader: EpisodeReader, frames: Iterable[tuple[int, Frame]], begin_ns: int) -> Iterator[Frame]:
    """The frames with instruction, time since `begin_ns` and the state of safety written below them."""
    states = [state for _, state in reader.messages(["/state"]) if isinstance(state, State)]
    times = [state.t_state_ns for state in states]
    instruction = reader.instruction
    for time_ns, frame in frames:
        index = bisect.bisect_right(times, time_ns) - 1
        safety = states[index].safety if index >= 0 else ""
        yield caption(frame, instruction, (time_ns - begin_ns) * 1e-9, safety)


def frame_rate(times_ns: Sequence[int]) -> float:
    """Frames a second, by the median time between two of them."""
    if len(times_ns) < 2:
        return FPS
    return 1e9 / max(float(np.median(np.diff(times_ns))), 1e6)


def view_episode(
    path: Path, out: Path, *, camera: str = "", size: int = 360, at_s: float | None = None
) -> dict[str, str]:
    """Write `<name>.mp4`, `<name>.rrd` and thumbnails, `<name>.png`, of a log into `out`; their paths by kind.

    camera: that the video shows; default `front`, or the log's first where it has no such. at_s: only what is around
    this instant, s on the time line; the names then say which.
    """
    from reflexarc.datasets.rerun_view import AT_S, start_of, write_rrd

    reader = EpisodeReader(path)
    begin_ns, _ = start_of(reader)
    if not camera:
        others = reader.cameras if "front" not in reader.cameras and not is_simulated(reader) else ()
        camera = next(iter(others), "front")
    name = path.stem if at_s is None else f"{path.stem}-at-{at_s:g}"
    video, recording, sheet = (out / f"{name}.{kind}" for kind in ("mp4", "rrd", "png"))
    write_rrd(reader, recording, at_s)
    near = begin_ns + round((at_s or 0.0) * 1e9)

    def shown(time_ns: int) -> bool:
        return at_s is None or abs(time_ns - near) <= AT_S * 1e9

    times = [time_ns for time_ns in frame_times(reader, camera=camera) if shown(time_ns)]
    if not times and at_s is not None:
        raise LogError(f"{path}: no picture of camera {camera!r} within {AT_S} s of --at {at_s:g}")
    kept: list[Frame] = []
    frames = (each for each in timed_frames(reader, camera=camera, size=size) if shown(each[0]))
    write_mp4(captioned(reader, _keeping(frames, len(times), kept), begin_ns), video, frame_rate(times))
    success = (reader.outcome or {}).get("success")
    contact_sheet([SheetRow(reader.instruction, kept, success, path.name)], sheet, columns=_SHEET)
    return {"mp4": str(video), "rrd": str(recording), "png": str(sheet)}


def _keeping(
    frames: Iterable[tuple[int, Frame]], count: int, kept: list[Frame]
) -> Iterator[tuple[int, Frame]]:
    """The frames, `count` of them; those that the contact sheet shows go into `kept` on their way."""
    places = set(np.linspace(0, count - 1, _SHEET).round().astype(int).tolist())
    for number, each in enumerate(frames):
        if number in places:
            kept.append(each[1])
        yield each


def open_viewer(*recordings: Path) -> None:
    """Show recordings in Rerun's viewer until it is closed; LogError with its reason if it does not start."""
    command = [sys.executable, "-m", "rerun", *map(str, recordings)]
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if ended.returncode != 0:
        lines = ended.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit code {ended.returncode}"
        written = ", ".join(map(str, recordings))
        raise LogError(f"Rerun's viewer does not start here ({reason}); recorded: {written}")
