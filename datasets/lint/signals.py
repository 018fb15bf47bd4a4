"""What the rules of the lint look at: one episode's signals as arrays, read from its log in one pass.

Pictures are reduced to a few numbers each while they are read. Nothing is judged here, and nothing is resampled but the
`Outline`, the little that is kept of every episode to compare episodes with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.errors import LogError, WireError
from reflexarc.datasets.format import CAMERA_PREFIX
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.records import RawMessage
from reflexarc.wire.codec import decode
from reflexarc.wire.images import decode_image
from reflexarc.wire.messages import ActionChunk, CameraFrame, Event, Message, Setpoint, State

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

OUTLINE_HZ = 10.0
_THUMB = 24
"""Side, pixels, of the grey picture that motion is measured on: coarse, so that a sensor's noise averages out."""


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """`/state`, ordered by capture: N ticks.

    t: (N,) s since the log's first message. recorded: (N,) s when each was recorded.
    joints, joints_commanded: (N, n) rad. tcp, tcp_commanded: (N, 3) m, base frame. gripper, gripper_commanded: (N,)
    opening 0..1.
    """

    t: F64
    recorded: F64
    joints: F64
    joints_commanded: F64
    tcp: F64
    tcp_commanded: F64
    gripper: F64
    gripper_commanded: F64


@dataclass(frozen=True, slots=True, eq=False)
class Setpoints:
    """`/setpoint`, ordered by when they are due: M of them. t: (M,) s. joints: (M, n) rad. gripper: (M,) opening."""

    t: F64
    joints: F64
    gripper: F64


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """One camera's pictures, ordered by capture: K of them.

    t: (K,) s captured. recorded: (K,) s. seq: (K,) int64. mean, spread: (K,) grey level and its standard deviation over
    the picture, 0..255. change: (K,) mean absolute difference to the picture before, grey levels of a coarse picture;
    0 for the first.
    """

    name: str
    t: F64
    recorded: F64
    seq: I64
    mean: F64
    spread: F64
    change: F64


@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """`/chunk`: t: (C,) s made. actions: C arrays (H, D) as they execute. step_s: (C,)."""

    t: F64
    actions: tuple[F64, ...]
    step_s: F64


@dataclass(frozen=True, slots=True, eq=False)
class EpisodeSignals:
    """One episode. Times are seconds since `start_ns`, its first message: the time line that `reflexarc view` shows.

    duration: s from the first state to the last. disturbed: spells [begin, end) in s in which a perturbation was in
    control: what is asked there is no demonstration. robot: the robot's configuration as the log has it.
    """

    start_ns: int
    duration: float
    states: States
    setpoints: Setpoints
    chunks: Chunks
    cameras: tuple[Camera, ...]
    disturbed: tuple[tuple[float, float], ...]
    robot: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """What is kept of an episode to compare it with others, every 0.1 s: T rows.

    joints: (T, n) rad. tcp: (T, 3) m. gripper: (T,) opening. duration: s.
    """

    joints: F64
    tcp: F64
    gripper: F64
    duration: float


def read_signals(reader: EpisodeReader) -> EpisodeSignals:
    """Read a log; raises LogError if it holds no two states, or something that is not what its topic says."""
    topics = ("/state", "/setpoint", "/chunk", "/event", *(CAMERA_PREFIX + name for name in reader.cameras))
    raws: dict[str, list[RawMessage]] = {topic: [] for topic in topics}
    start = None
    for raw in reader.raw_messages():
        start = raw.log_time_ns if start is None else min(start, raw.log_time_ns)
        if raw.topic in raws:
            raws[raw.topic].append(raw)
    if start is None or len(raws["/state"]) < 2:
        raise LogError(
            f"{reader.path}: {len(raws['/state'])} states; at least 2 are needed to judge an episode"
        )
    found = _Log(reader, start, raws)
    states = found.states()
    return EpisodeSignals(
        start_ns=start,
        duration=float(states.t[-1] - states.t[0]),
        states=states,
        setpoints=found.setpoints(states.joints.shape[1]),
        chunks=found.chunks(),
        cameras=tuple(found.camera(name) for name in reader.cameras),
        disturbed=found.disturbed(),
        robot=dict(reader.metadata.get("configs", {}).get("robot", {})),
    )


def outline(signals: EpisodeSignals) -> Outline:
    """The episode every 0.1 s from its first state on, each row the latest state at or before it."""
    states = signals.states
    grid = np.arange(states.t[0], states.t[-1] + 1e-9, 1.0 / OUTLINE_HZ)
    rows = np.searchsorted(states.t, grid + 1e-9, side="right") - 1
    return Outline(
        joints=states.joints[rows],
        tcp=states.tcp[rows],
        gripper=states.gripper[rows],
        duration=signals.duration,
    )


class _Log:
    """The messages of one log, to be turned into arrays."""

    def __init__(self, reader: EpisodeReader, start_ns: int, raws: dict[str, list[RawMessage]]) -> None:
        self._path = reader.path
        self._start_ns = start_ns
        self._raws = raws

    def states(self) -> States:
        raws = sorted(self._raws["/state"], key=lambda raw: raw.content_ns)
        found = [self._decoded(State, "/state", raw) for raw in raws]
        try:
            tcp = np.stack([state.pose_base_tcp[:3] for state in found])
            tcp_commanded = np.stack([state.pose_base_tcp_commanded[:3] for state in found])
            joints = np.stack([state.joint_position for state in found])
            joints_commanded = np.stack([state.joint_position_commanded for state in found])
            if joints.size == 0:  # imported by its poses alone: they tell of motion, in metres for radians
                joints, joints_commanded = tcp, tcp_commanded
            return States(
                t=self._s([state.t_state_ns for state in found]),
                recorded=self._s([raw.log_time_ns for raw in raws]),
                joints=joints,
                joints_commanded=joints_commanded,
                tcp=tcp,
                tcp_commanded=tcp_commanded,
                gripper=np.array([state.gripper for state in found], dtype=np.float64),
                gripper_commanded=np.array([state.gripper_commanded for state in found], dtype=np.float64),
            )
        except ValueError as error:
            raise LogError(f"{self._path}: the states change their number of joints") from error

    def setpoints(self, joints: int) -> Setpoints:
        found = sorted(self._all(Setpoint, "/setpoint"), key=lambda setpoint: setpoint.t_due_ns)
        found = [setpoint for setpoint in found if setpoint.joint_position.shape == (joints,)]
        return Setpoints(
            t=self._s([setpoint.t_due_ns for setpoint in found]),
            joints=np.array([setpoint.joint_position for setpoint in found]).reshape(-1, joints),
            gripper=np.array([setpoint.gripper for setpoint in found], dtype=np.float64),
        )

    def chunks(self) -> Chunks:
        found = self._all(ActionChunk, "/chunk")
        return Chunks(
            t=self._s([chunk.t_ns for chunk in found]),
            actions=tuple(np.atleast_2d(chunk.actions) for chunk in found),
            step_s=np.array([chunk.step_ns * 1e-9 for chunk in found]),
        )

    def camera(self, name: str) -> Camera:
        topic = CAMERA_PREFIX + name
        raws = sorted(self._raws[topic], key=lambda raw: raw.content_ns)
        frames: list[tuple[int, int, int]] = []
        looks: list[tuple[float, float, float]] = []
        before: F64 | None = None
        for raw in raws:
            frame = self._decoded(CameraFrame, topic, raw)
            grey = self._grey(frame)
            coarse = _coarse(grey)
            change = 0.0 if before is None or before.shape != coarse.shape else np.abs(coarse - before).mean()
            frames.append((frame.t_capture_ns, raw.log_time_ns, frame.seq))
            looks.append((float(grey.mean()), float(grey.std()), float(change)))
            before = coarse
        captured, recorded, seq = np.array(frames, dtype=np.int64).T
        mean, spread, changes = np.array(looks).T
        return Camera(name, self._s(captured), self._s(recorded), seq, mean, spread, changes)

    def disturbed(self) -> tuple[tuple[float, float], ...]:
        """Spells in which a perturbation was in control."""
        spells: list[tuple[float, float]] = []
        begin = None
        for event in sorted(self._all(Event, "/event"), key=lambda event: event.t_ns):
            if event.kind != "control":
                continue
            at = (event.t_ns - self._start_ns) * 1e-9
            if event.data.get("source") == "perturb":
                begin = at if begin is None else begin
            elif begin is not None:
                spells.append((begin, at))
                begin = None
        return (*spells, (begin, np.inf)) if begin is not None else tuple(spells)

    def _grey(self, frame: CameraFrame) -> F64:
        try:
            return np.asarray(decode_image(frame).mean(axis=2), dtype=np.float64)
        except WireError as error:
            raise LogError(f"{self._path}: picture {frame.seq}: {error}") from error

    def _all[M: Message](self, kind: type[M], topic: str) -> list[M]:
        return [self._decoded(kind, topic, raw) for raw in self._raws[topic]]

    def _decoded[M: Message](self, kind: type[M], topic: str, raw: RawMessage) -> M:
        try:
            message = decode(raw.data)
        except WireError as error:
            raise LogError(f"{self._path}: {topic}: {error}") from error
        if not isinstance(message, kind):
            raise LogError(f"{self._path}: {topic} holds a {type(message).__name__}, not a {kind.__name__}")
        return message

    def _s(self, times_ns: Sequence[int] | I64) -> F64:
        return np.asarray((np.asarray(times_ns, dtype=np.int64) - self._start_ns) * 1e-9, dtype=np.float64)


def _coarse(grey: F64) -> F64:
    """The picture in blocks, their mean each."""
    height, width = grey.shape
    down, across = max(1, height // _THUMB), max(1, width // _THUMB)
    cut = grey[: height // down * down, : width // across * across]
    return np.asarray(cut.reshape(height // down, down, width // across, across).mean(axis=(1, 3)))
