"""Episodes made by hand for tests of the log: one message of every kind, and an arm that moves as a formula says."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reflexarc.datasets.format import topic_of
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.wire.codec import encode
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import (
    F64,
    ActionChunk,
    CameraFrame,
    EpisodeStart,
    EpisodeStop,
    Event,
    Intervention,
    Message,
    Observation,
    SafetyReport,
    Setpoint,
    SimInitial,
    SimSteps,
    SimTruth,
    State,
    TeleopCommand,
)

MS = 1_000_000
TICK_NS = 5 * MS
CAMERA_NS = 100 * MS
SIZE = 16
METADATA = {
    "task": "lift",
    "seed": 7,
    "policy": "expert",
    "versions": {"mujoco": "4.0"},
    "instruction": "lift it",
}
OUTCOME = {"success": True, "time_s": 1.25}


def state(
    t_ns: int, *, commanded: F64, measured: F64 | None = None, gripper: float = 1.0, seq: int = 0
) -> State:
    """A state of a seven-joint arm at rest, with these poses (7,)."""
    zeros = np.zeros(7)
    return State(
        t_ns=t_ns,
        clock="virtual",
        seq=seq,
        t_state_ns=t_ns,
        joint_position=np.full(7, t_ns * 1e-9),
        joint_velocity=zeros,
        joint_effort=zeros,
        joint_position_commanded=zeros,
        joint_velocity_commanded=zeros,
        pose_base_tcp=commanded if measured is None else measured,
        pose_base_tcp_commanded=commanded,
        wrench_tcp=np.arange(6.0),
        gripper=gripper,
        gripper_commanded=gripper,
        safety="active",
    )


def picture(t_ns: int, camera: str = "front", value: int = 0) -> CameraFrame:
    """A small picture of one colour; `value` tells which."""
    image = np.full((SIZE, SIZE, 3), value % 256, dtype=np.uint8)
    return encode_image(image, camera=camera, seq=value, t_capture_ns=t_ns, clock="virtual")


def control(t_ns: int, source: str) -> Event:
    """The record that `source` is in control from now on."""
    return Event(t_ns=t_ns, clock="virtual", kind="control", source="runner", data={"source": source})


def every_message(seed: int = 0) -> list[tuple[str, Message]]:
    """At least one message on every topic of the log, with arrays that no compressor can shrink."""
    random = np.random.default_rng(seed)
    here = np.array([0.45, 0.0, 0.25, 0.0, 1.0, 0.0, 0.0])
    now = state(20 * MS, commanded=here + random.normal(0, 1e-3, 7))
    pixels = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    frames = {
        name: encode_image(
            pixels, camera=name, seq=1, t_capture_ns=20 * MS, encoding=encoding, clock="virtual"
        )
        for name, encoding in (("front", "raw"), ("wrist", "png"))
    }
    common: dict[str, Any] = {"t_ns": 20 * MS, "clock": "virtual"}
    limited = Intervention(rule="joint_velocity", field="joint3", asked=3.0, allowed=2.0, margin=0.0)
    messages: list[Message] = [
        EpisodeStart(**common, episode="e", instruction="lift the red cube", session="s", metadata="{}"),
        SimInitial(
            **common,
            model_xml="<mujoco/>",
            integration_state=random.normal(size=40),
            geom_rgba=random.random((9, 4)),
            task="lift",
            seed=7,
            mujoco_version="4.0.0",
        ),
        now,
        *frames.values(),
        Observation(
            **common, seq=1, t_obs_ns=20 * MS, state=now, images=frames, instruction="lift the red cube"
        ),
        ActionChunk(
            **common,
            obs_seq=1,
            t_obs_ns=20 * MS,
            actions=random.normal(0, 0.01, (8, 7)),
            bins=random.integers(0, 256, (8, 7)).astype(np.int16),
            policy_tokens=[5, 6, 7],
            tokenizer_id="uniform",
            step_ns=100 * MS,
            spec_id="tcp-delta-7/h8/100ms",
            model_id="test",
            latency_ns={"vision": 3 * MS, "decode": 5 * MS},
        ),
        Setpoint(
            **common,
            seq=1,
            t_due_ns=30 * MS,
            joint_position=random.normal(size=7),
            joint_velocity=random.normal(size=7),
            gripper=0.5,
            source="policy",
        ),
        SafetyReport(
            **common,
            seq=1,
            state="protective_stop",
            previous_state="active",
            interventions=[limited],
            reason="force 80 N is above 60 N",
        ),
        Event(
            **common, kind="underrun", source="controller", text="the chunk ran out", data={"age_ms": 12.5}
        ),
        TeleopCommand(
            **common,
            seq=1,
            device="keyboard",
            engaged=True,
            kind="twist",
            motion=random.normal(size=6),
            keys=["start"],
        ),
        SimSteps(
            **common,
            first_step=0,
            control=random.normal(size=(2, 8)),
            qpos=random.normal(size=30),
            qvel=random.normal(size=28),
        ),
        SimTruth(**common, focus=random.normal(size=(2, 3))),
        EpisodeStop(**common, episode="e", outcome='{"success": true}'),
    ]
    return [(str(topic_of(message)), message) for message in messages]


def written(path: Path, messages: Iterable[tuple[str, Message]], **options: Any) -> EpisodeReader:
    """Write a whole episode and open it."""
    writer = EpisodeWriter(path, METADATA, fsync=False)
    for topic, message in messages:
        writer.write(topic, message)
    writer.close(options.get("outcome", OUTCOME))
    return EpisodeReader(path)


def motion(
    pose_at: Callable[[float], F64],
    seconds: float,
    *,
    gripper_at: Callable[[float], float] = lambda _: 1.0,
    cameras: tuple[str, ...] = ("front", "wrist"),
) -> Iterator[tuple[str, Message]]:
    """An episode in virtual time: states at 200 Hz, setpoints at 100 Hz, pictures at 10 Hz.

    pose_at: commanded TCP pose (7,) at a time in seconds; the arm stays 1 mm off it in y. gripper_at: what setpoints
    ask for at the time they are due.
    """
    start = EpisodeStart(
        t_ns=0, clock="virtual", episode="e", instruction="lift the red cube", session="s", metadata="{}"
    )
    yield "/episode", start
    for tick in range(round(seconds * 1e9) // TICK_NS + 1):
        now = tick * TICK_NS
        pose = pose_at(now * 1e-9)
        measured = pose - np.array([0, 1e-3, 0, 0, 0, 0, 0])
        yield "/state", state(now, commanded=pose, measured=measured, seq=tick)
        if now % CAMERA_NS == 0:
            for camera in cameras:
                yield f"/camera/{camera}", picture(now, camera, now // CAMERA_NS)
            focus = np.full((2, 3), now * 1e-9)
            yield "/sim/truth", SimTruth(t_ns=now, clock="virtual", focus=focus)
        if tick % 2 == 0:
            zeros = np.zeros(7)
            setpoint = Setpoint(
                t_ns=now,
                clock="virtual",
                seq=tick // 2,
                t_due_ns=now + 2 * TICK_NS,
                joint_position=zeros,
                joint_velocity=zeros,
                gripper=gripper_at((now + 2 * TICK_NS) * 1e-9),
                source="expert",
            )
            yield "/setpoint", setpoint


def same(left: Message, right: Message) -> bool:
    """Whether two messages are equal to the last bit."""
    return type(left) is type(right) and encode(left) == encode(right)


def motion_log(path: Path) -> Path:
    """A successful second of an arm that drifts along x."""
    written(path, motion(lambda t: np.array([0.4 + 0.1 * t, 0.0, 0.25, 0.0, 1.0, 0.0, 0.0]), 1.0))
    return path


def write_many_chunks(path: Path, *, close: bool) -> None:
    """A log of a hundred messages of every kind in small chunks: closed, or left as a crash would."""
    here = np.array([0.45, 0.0, 0.25, 0.0, 1.0, 0.0, 0.0])
    writer = EpisodeWriter(path, METADATA, fsync=False)
    parts = [every_message(seed) for seed in range(3)] + [list(motion(lambda _: here, 0.3))]
    for number, (topic, message) in enumerate(itertools.chain(*parts)):
        writer.write(topic, message)
        if number % 12 == 11:
            writer.sync()
    writer.sync()
    if close:
        writer.close(OUTCOME)
    else:
        writer.abandon()
