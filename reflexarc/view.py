"""Make an episode visible: a video re-rendered from the log's own physics, and a Rerun recording.

A simulated log holds 96-pixel pictures, what the policy saw. Since its physics can be repeated to the bit, the video is
rendered afresh at a size that people like to look at. A log from a real arm shows the logged pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reflexarc.configs.errors import LogError, unknown
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.video import write_mp4
from reflexarc.replay import open_initial, resimulate
from reflexarc.wire.images import decode_image
from reflexarc.wire.messages import CameraFrame

Frame = NDArray[np.uint8]


def is_simulated(reader: EpisodeReader) -> bool:
    """True if the log holds the simulator's initial state."""
    return next(iter(reader.messages(["/sim/initial"])), None) is not None


def simulated_frames(
    reader: EpisodeReader, *, camera: str = "front", size: int = 360, fps: float = 20.0
) -> Iterator[Frame]:
    """Re-rendered frames (size, size, 3) uint8 RGB at `fps` of simulated time."""
    model, data, _ = open_initial(reader)
    cameras = [model.camera(index).name for index in range(model.ncam)]
    if camera not in cameras:
        raise LogError(f"{reader.path}: {unknown('camera', camera, cameras)}")
    model.vis.global_.offwidth = max(size, model.vis.global_.offwidth)
    model.vis.global_.offheight = max(size, model.vis.global_.offheight)
    renderer = mujoco.Renderer(model, size, size)
    try:
        next_frame = 0.0
        for _ in resimulate(model, data, reader):
            if data.time + 1e-9 >= next_frame:
                renderer.update_scene(data, camera)
                yield renderer.render().copy()
                next_frame += 1.0 / fps
    finally:
        renderer.close()


def logged_frames(reader: EpisodeReader, *, camera: str = "front", size: int = 360) -> Iterator[Frame]:
    """The pictures of the log, enlarged to (size, size, 3)."""
    for _, message in reader.messages([f"/camera/{camera}"]):
        assert isinstance(message, CameraFrame)
        image = Image.fromarray(decode_image(message)).resize((size, size), Image.Resampling.NEAREST)
        yield np.asarray(image)


def episode_frames(reader: EpisodeReader, *, camera: str = "front", size: int = 360) -> list[Frame]:
    """Frames of the episode at 20 Hz from the simulator, or at the camera's rate from the log.

    Raises LogError naming the cameras of the log if it has no picture of `camera`.
    """
    if is_simulated(reader):
        return list(simulated_frames(reader, camera=camera, size=size))
    frames = list(logged_frames(reader, camera=camera, size=size))
    if not frames:
        topics = sorted({topic for topic, _ in reader.messages() if topic.startswith("/camera/")})
        raise LogError(
            f"{reader.path}: no picture of camera {camera!r}; the log has {', '.join(topics) or 'none'}"
        )
    return frames


def view_episode(path: Path, out: Path, *, camera: str = "front", size: int = 360) -> dict[str, str]:
    """Write `<name>.mp4` and `<name>.rrd` of a log into `out`; returns their paths by kind."""
    from reflexarc.datasets.rerun_view import write_rrd

    reader = EpisodeReader(path)
    out.mkdir(parents=True, exist_ok=True)
    video, recording = out / f"{path.stem}.mp4", out / f"{path.stem}.rrd"
    fps = 20.0 if is_simulated(reader) else 10.0
    write_mp4(episode_frames(reader, camera=camera, size=size), video, fps)
    write_rrd(reader, recording)
    return {"mp4": str(video), "rrd": str(recording)}


def outcome_of(reader: EpisodeReader) -> dict[str, object]:
    """The outcome the runner wrote, or an empty dictionary for a cut episode."""
    outcome = reader.outcome
    return dict(json.loads(outcome)) if isinstance(outcome, str) else dict(outcome or {})
