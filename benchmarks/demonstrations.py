"""What the benchmarks of data read and record: demonstrations by the scripted expert, with pictures of any size."""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.load import load_controller, load_robot, load_safety
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.policies import open_policy
from reflexarc.sim.lockstep import LockstepSession
from reflexarc.sim.tasks import get_task
from reflexarc.sim.world import World
from reflexarc.wire.images import decode_image, encode_image
from reflexarc.wire.messages import CameraFrame, Message

CAMERAS = ("front", "wrist")
VGA = (480, 640)
"""Height and width of the usual webcam's pictures, which most data sets hold."""


def open_session(task: str, size: tuple[int, int]) -> LockstepSession:
    """The expert at a task, on the virtual clock, with pictures of `size` (height, width)."""
    robot = load_robot("panda")
    world = World(task, robot, size)
    expert = open_policy("expert", world)
    return LockstepSession(world, robot, load_safety("panda"), load_controller("default"), expert)


def sensed(picture: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """With noise of one grey level, as a sensor has it: without any, pictures compress better than a camera's do."""
    noisy = picture + random.normal(0.0, 1.0, picture.shape).round()
    return noisy.clip(0, 255).astype(np.uint8)


def write_demonstrations(folder: Path, task: str, count: int, size: tuple[int, int]) -> None:
    """`count` logs of a task in `folder`; those that are there from before are kept.

    Pictures of a camera's size have its noise; those that are smaller were scaled down, which averages it away.
    """
    session, random = open_session(task, size), np.random.default_rng(0)
    for seed in range(count):
        path = folder / task / f"{seed}.mcap"
        if path.exists():
            continue
        aside = path.with_suffix(".unfinished")
        aside.unlink(missing_ok=True)
        metadata = {"task": task, "seed": seed, "policy": "expert"}
        with EpisodeWriter(aside, metadata, fsync=False) as writer:

            def record(topic: str, message: Message, writer: EpisodeWriter = writer) -> None:
                if isinstance(message, CameraFrame) and size == VGA:
                    message = encode_image(
                        sensed(decode_image(message), random),
                        camera=message.camera,
                        seq=message.seq,
                        t_capture_ns=message.t_capture_ns,
                        encoding="jpeg",
                        clock=message.clock,
                    )
                writer.write(topic, message)

            session.subscribers[:] = [record]
            done = session.run(seed, time_limit_s=get_task(task).time_limit_s, metadata=json.dumps(metadata))
            writer.close({"success": done.success, "time_s": done.time_s})
        aside.rename(path)
    session.close()


def moving_pictures(
    task: str, count: int, rate_hz: float, size: tuple[int, int]
) -> dict[str, NDArray[np.uint8]]:
    """`count` pictures (N, H, W, 3) of each camera, `rate_hz` of them a second, of an arm at its task."""
    session, random = open_session(task, size), np.random.default_rng(0)
    taken: dict[str, list[NDArray[np.uint8]]] = {camera: [] for camera in CAMERAS}
    session.reset(0)
    limit_s, due, seed = get_task(task).time_limit_s, 0, 0
    while len(taken[CAMERAS[0]]) < count:
        if session.world.success() or session.now_ns * 1e-9 > limit_s:
            seed, due = seed + 1, 0
            session.reset(seed)
        if session.now_ns * 1e-9 * rate_hz >= due:
            due += 1
            for camera, pictures in taken.items():
                pictures.append(sensed(session.world.render(camera), random))
        session.tick()
    session.close()
    return {camera: np.stack(pictures) for camera, pictures in taken.items()}
