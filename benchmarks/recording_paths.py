"""The same rows recorded by our recorder and by lerobot's own path: what it costs, what is lost, how long it ends.

A row is two pictures, a state and an action. Each path runs in a process of its own (call `run_path` in a fresh one):

- `ours`: pictures encoded (JPEG) and published with state and command; the recorder process logs them, synced to disk.
- `lerobot, images`: `add_frame` with four image writer threads a camera, as its record script's defaults; the PNG files
  become video in `save_episode`.
- `lerobot, streaming`: `add_frame` with its streaming encoder of two threads, as its record script recommends.

`paced` is real time at the cameras' rate; otherwise rows come as fast as the path takes them (ours then without
sockets, which would have to drop what comes too fast: encoded, packed, unpacked, written and synced in one process).
"""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("SVT_LOG", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
from numpy.typing import NDArray
from stack_runs import process_cpu_s

from reflexarc.datasets.format import topic_of
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.recorder import PEER
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.processes import Processes
from reflexarc.stack import READY_S, free_endpoints, start_recorder
from reflexarc.wire.clock import Rate, monotonic_ns
from reflexarc.wire.codec import decode, encode
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import CameraFrame, EpisodeStart, EpisodeStop, Event, Message, Setpoint, State
from reflexarc.wire.sockets import PeerWatch, Publisher, Subscriber

PATHS = ("ours", "lerobot, images", "lerobot, streaming")
JOINTS = 7
Pictures = Mapping[str, NDArray[np.uint8]]
Numbers = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Recorded:
    """One recording of `rows` rows. wall_s: from the first row until the last was given. finish_s: until the episode is
    whole on disk after that. lost: pictures. cpu_s: of all processes and threads of the path."""

    rows: int
    pictures: int
    wall_s: float
    finish_s: float
    lost: int
    cpu_s: float
    size: int


def run_path(path: str, taken: Pictures, rows: int, rate_hz: float, folder: Path, *, paced: bool) -> Recorded:
    """Record `rows` rows of the pictures (N, H, W, 3), which are gone through again and again."""
    logging.disable(logging.WARNING)
    pace = Rate(round(1e9 / rate_hz)).sleep if paced else lambda: 0
    if path != "ours":
        return _theirs(taken, rows, rate_hz, folder, pace, streaming="streaming" in path, paced=paced)
    return _ours_published(taken, rows, folder, pace) if paced else _ours_written(taken, rows, folder)


def _numbers(row: int) -> Numbers:
    """Joints and gripper of a row, smooth."""
    values: Numbers = np.sin(row / 30 + np.arange(JOINTS + 1))
    return values


def _messages(taken: Pictures, row: int) -> list[Message]:
    """The row as it goes over the wire."""
    now, values = monotonic_ns(), _numbers(row)
    joints, pose = values[:JOINTS], np.array([0.4, 0.0, 0.3, 0.0, 1.0, 0.0, 0.0])
    state = State(
        t_ns=now,
        seq=row,
        t_state_ns=now,
        joint_position=joints,
        joint_velocity=joints,
        joint_effort=joints,
        joint_position_commanded=joints,
        joint_velocity_commanded=joints,
        pose_base_tcp=pose,
        pose_base_tcp_commanded=pose,
        wrench_tcp=np.zeros(6),
        gripper=float(values[-1]),
        gripper_commanded=1.0,
        safety="active",
    )
    setpoint = Setpoint(
        t_ns=now,
        seq=row,
        t_due_ns=now,
        joint_position=joints,
        joint_velocity=joints,
        gripper=1.0,
        source="teleop",
    )
    frames = [
        encode_image(pictures[row % len(pictures)], camera=camera, seq=row, t_capture_ns=now, encoding="jpeg")
        for camera, pictures in taken.items()
    ]
    return [*frames, state, setpoint]


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _start() -> EpisodeStart:
    return EpisodeStart(t_ns=monotonic_ns(), episode="e", instruction="", session="", metadata="{}")


def _ours_published(taken: Pictures, rows: int, folder: Path, pace: Callable[[], object]) -> Recorded:
    endpoints = free_endpoints()
    with Processes(folder / "processes") as processes:
        start_recorder(processes, endpoints, folder / "episodes")
        told: Subscriber[Event] = Subscriber(endpoints.recorder, Event)
        watch = PeerWatch(endpoints.heartbeat, [PEER])
        where = {CameraFrame: endpoints.frames, State: endpoints.state, Setpoint: endpoints.controller}
        publishers = {kind: Publisher(address) for kind, address in where.items()}
        runner = Publisher(endpoints.runner)
        deadline = time.monotonic() + READY_S
        while watch.waiting and time.monotonic() < deadline:
            processes.check()
            watch.update(monotonic_ns())
            time.sleep(0.05)
        time.sleep(0.5)  # its subscriptions reach the publishers
        runner.send(_start())
        time.sleep(0.2)
        used, begun = _cpu_s() + process_cpu_s(processes.pid("recorder")), time.perf_counter()
        for row in range(rows):
            pace()
            for message in _messages(taken, row):
                publishers[type(message)].send(message)
        given = time.perf_counter()
        runner.send(EpisodeStop(t_ns=monotonic_ns(), episode="e", outcome="{}"))
        while not any(event.kind == "recorded" for event in told.drain()):
            processes.check()
            time.sleep(0.005)
        finished = time.perf_counter()
        used = _cpu_s() + process_cpu_s(processes.pid("recorder")) - used
        for socket in (*publishers.values(), runner, told):
            socket.close()
        watch.close()
    (log,) = (folder / "episodes").glob("*.mcap")
    kept = sum(number for topic, number in EpisodeReader(log).topics.items() if topic.startswith("/camera/"))
    pictures = rows * len(taken)
    return Recorded(
        rows, pictures, given - begun, finished - given, pictures - kept, used, _size(folder / "episodes")
    )


def _ours_written(taken: Pictures, rows: int, folder: Path) -> Recorded:
    used, begun = _cpu_s(), time.perf_counter()
    with EpisodeWriter(folder / "episodes" / "e.mcap", {}) as writer:
        for row in range(rows):
            for message in _messages(taken, row):
                received = decode(encode(message))
                topic = topic_of(received)
                assert topic is not None
                writer.write(topic, received)
        given = time.perf_counter()
    finished = time.perf_counter()
    pictures = rows * len(taken)
    size = _size(folder / "episodes")
    return Recorded(rows, pictures, given - begun, finished - given, 0, _cpu_s() - used, size)


def _theirs(
    taken: Pictures,
    rows: int,
    rate_hz: float,
    folder: Path,
    pace: Callable[[], object],
    *,
    streaming: bool,
    paced: bool,
) -> Recorded:
    import av
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.datasets.video_utils import VideoEncodingManager

    from reflexarc.datasets.video_frames import index_frames

    av.logging.set_libav_level(av.logging.ERROR)
    multiprocessing.set_start_method("fork", force=True)  # of its encoders' processes, as in its own program
    names = [f"joint{index + 1}" for index in range(JOINTS)] + ["gripper"]
    features: dict[str, Any] = {
        f"observation.images.{camera}": {
            "dtype": "video",
            "shape": pictures.shape[1:],
            "names": ["height", "width", "channels"],
        }
        for camera, pictures in taken.items()
    }
    for name in ("observation.state", "action"):
        features[name] = {"dtype": "float32", "shape": (JOINTS + 1,), "names": names}
    dataset = LeRobotDataset.create(
        "x/y",
        fps=round(rate_hz),
        features=features,
        root=folder / "dataset",
        image_writer_threads=0 if streaming else 4 * len(taken),
        streaming_encoding=streaming,
        encoder_threads=2 if streaming else None,
        encoder_queue_maxsize=30
        if paced
        else rows,  # unpaced nothing may be lost, or it would not be all the work
    )
    used = _cpu_s()
    with VideoEncodingManager(dataset):
        begun = time.perf_counter()
        for row in range(rows):
            pace()
            values = _numbers(row).astype(np.float32)
            pictures = {
                f"observation.images.{camera}": each[row % len(each)] for camera, each in taken.items()
            }
            dataset.add_frame({**pictures, "observation.state": values, "action": values, "task": "t"})
        given = time.perf_counter()
        dataset.save_episode()
        finished = time.perf_counter()
    kept = sum(len(index_frames(video).pts) for video in (folder / "dataset").rglob("*.mp4"))
    count = rows * len(taken)
    size = _size(folder / "dataset")
    return Recorded(rows, count, given - begun, finished - given, count - kept, _cpu_s() - used, size)
