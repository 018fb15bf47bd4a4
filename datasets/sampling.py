"""The one label function: an episode log on a fixed step grid, for training and for export alike.

Row k stands at a capture time t_k of the first camera; it holds the latest images and state at or before t_k. Its
action j is the motion of the *commanded* TCP pose over the policy step j after it, from t_k + j·step to
t_k + (j+1)·step, with `R_next = exp(dr)·R`, base frame. Those are the instants at which a controller plays the actions
of a chunk that answers the observation of t_k. The gripper is the opening asked for in the middle of that step: a
controller holds it for the whole step, the setpoints near its ends may already be the next one's, and what the host
commands lags behind, as a gripper takes time to get there. A row whose picture of any camera is too old has no label.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import LogError, WireError, unknown
from reflexarc.datasets.format import CAMERA_PREFIX, HUMAN
from reflexarc.datasets.reader import Column, EpisodeReader
from reflexarc.wire.geometry import delta_between
from reflexarc.wire.images import decode_image
from reflexarc.wire.messages import CameraFrame, Event, Setpoint, SimTruth, State

SAMPLER_VERSION = 3
"""Raised whenever the same log would give other numbers; caches are keyed by it."""

DISTURBING_SOURCES = frozenset({"perturb"})
"""Sources in control that are never a demonstration."""
TCP_DIMS = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
_GRID_SLACK = 0.25
"""A capture may come this share of a step early and still be the next row: cameras jitter."""
_STALE_INTERVALS = 1.5
"""A picture older than this many steps, and this many of its camera's usual intervals, does not show the row's instant:
half-way to a whole picture that is missing."""
_STALE_STEPS = 0.5
"""A state older than this many steps does not tell where the arm was commanded to be."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """One episode on its grid of T rows; H actions a row; float64 unless said otherwise.

    t_ns: (T,) int64. images: by camera (T, height, width, 3) uint8. joint_position: (T, n) rad.
    gripper, gripper_commanded: (T,) opening 0..1. pose_base_tcp, pose_base_tcp_commanded: (T, 7) `[x y z w x y z]`;
    pose_base_tcp_commanded_next: (T, 7) the same one step later, where the first action leads.
    wrench: (T, 6) N and N·m, TCP frame. actions: (T, H, 7) `[dx dy dz drx dry drz gripper]`, m and rad, base frame.
    mask: (T, H) bool, false where an action is no label. by_person: (T,) bool, whether a person had the arm.
    focus: (T, 2, 3) m, NaN where it is not on record.
    """

    t_ns: NDArray[np.int64]
    images: dict[str, NDArray[np.uint8]]
    instruction: str
    joint_position: NDArray[np.float64]
    gripper: NDArray[np.float64]
    gripper_commanded: NDArray[np.float64]
    pose_base_tcp: NDArray[np.float64]
    pose_base_tcp_commanded: NDArray[np.float64]
    pose_base_tcp_commanded_next: NDArray[np.float64]
    wrench: NDArray[np.float64]
    actions: NDArray[np.float64]
    mask: NDArray[np.bool_]
    by_person: NDArray[np.bool_]
    focus: NDArray[np.float64]

    @property
    def rows_to_learn(self) -> int:
        """Rows up to the last one whose first action is a label: after it nothing was commanded any more."""
        labels = np.flatnonzero(self.mask[:, 0])
        return int(labels[-1]) + 1 if len(labels) else 0


def sample_episode(
    reader: EpisodeReader,
    spec: ActionSpec,
    cameras: Sequence[str],
    *,
    sources: Collection[str] | None = None,
    pictures: bool = True,
) -> Samples:
    """Sample a log on the grid of `spec`; pure: the same log gives the same samples.

    sources: who may have been in control for an action to count; default everybody but a perturbation. From the first
    action of a row that does not count on, none of the row's does: what follows answers something the row's picture
    does not show. Past the end of the log an action is a hold, and does not count.
    pictures: False leaves `images` empty, which saves decoding and memory; all else is the same, and `row_pictures`
    gives them one by one.
    Raises LogError naming what is missing: a camera, the states, or any row with all of them.
    """
    if tuple(dim.name for dim in spec.dims) != TCP_DIMS:
        raise LogError(
            f"action spec {spec.id!r} cannot be sampled; its dimensions must be {', '.join(TCP_DIMS)}"
        )
    columns = _columns(reader, cameras)
    states, first = columns["/state"], columns[CAMERA_PREFIX + cameras[0]]
    t_ns = _grid(first.times_ns, spec.step_ns)
    views = [columns[CAMERA_PREFIX + name] for name in cameras]
    seen = [column.latest(t_ns) for column in (states, *views)]
    t_ns = t_ns[np.all(np.stack(seen) >= 0, axis=0)]
    if t_ns.size == 0:
        raise LogError(
            f"{reader.path}: no instant has an image of every camera ({', '.join(cameras)}) and a state"
        )

    edges = t_ns[:, None] + spec.step_ns * np.arange(spec.horizon + 1)  # (T, H+1) edges of the steps
    edge_states = states.latest(edges)
    table, place = _state_table(reader, states, edge_states)
    now = table.take(place[:, 0])
    gripper = _asked_gripper(
        reader,
        columns["/setpoint"],
        edges[:, :-1] + spec.step_ns // 2,
        table.gripper_commanded[place[:, 1:]],
    )
    fresh = edges - states.times_ns[edge_states] <= _STALE_STEPS * spec.step_ns
    reached = edges <= states.times_ns[-1]
    counts = (fresh & reached)[:, :-1] & (fresh & reached)[:, 1:]
    changes_ns, names = _controls(columns["/event"])
    counts &= _allowed(changes_ns, names, edges, sources)
    counts &= np.all([_shown(column, t_ns, spec.step_ns) for column in views], axis=0)[:, None]
    return Samples(
        t_ns=t_ns,
        images={
            name: np.stack(list(_images(columns[CAMERA_PREFIX + name], t_ns))) for name in cameras if pictures
        },
        instruction=reader.instruction,
        joint_position=now.joint_position,
        gripper=now.gripper,
        gripper_commanded=now.gripper_commanded,
        pose_base_tcp=now.pose,
        pose_base_tcp_commanded=now.pose_commanded,
        pose_base_tcp_commanded_next=table.pose_commanded[place[:, 1]],
        wrench=now.wrench,
        actions=_actions(table, place, gripper),
        mask=np.logical_and.accumulate(counts, axis=1),
        by_person=np.array([name == HUMAN for name in names])[_in_control(changes_ns, t_ns)],
        focus=_focus(columns["/sim/truth"], t_ns),
    )


def row_pictures(
    reader: EpisodeReader, cameras: Sequence[str], t_ns: NDArray[np.int64]
) -> Iterator[dict[str, NDArray[np.uint8]]]:
    """The images of rows (T,) of a `sample_episode`, by camera (height, width, 3) uint8, decoded as they are asked for.

    Raises LogError at one that cannot be decoded or is of another size.
    """
    topics = [CAMERA_PREFIX + name for name in cameras]
    columns = reader.columns(topics)
    for images in zip(*(_images(columns[topic], t_ns) for topic in topics), strict=True):
        yield dict(zip(cameras, images, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class _StateTable:
    """The decoded states that the grid needs, one a row, ordered by time."""

    joint_position: NDArray[np.float64]
    gripper: NDArray[np.float64]
    gripper_commanded: NDArray[np.float64]
    pose: NDArray[np.float64]
    pose_commanded: NDArray[np.float64]
    wrench: NDArray[np.float64]

    def take(self, rows: NDArray[np.int64]) -> _StateTable:
        """The same states, one for each of `rows`."""
        return _StateTable(
            self.joint_position[rows],
            self.gripper[rows],
            self.gripper_commanded[rows],
            self.pose[rows],
            self.pose_commanded[rows],
            self.wrench[rows],
        )


def _columns(reader: EpisodeReader, cameras: Sequence[str]) -> dict[str, Column]:
    if not cameras:
        raise LogError("no camera to sample; the grid stands at the first camera's capture times")
    for name in cameras:
        if name not in reader.cameras:
            raise LogError(f"{reader.path}: {unknown('camera', name, reader.cameras)}")
    if not reader.topics.get("/state"):
        raise LogError(f"{reader.path}: no /state in the log")
    topics = [
        "/state",
        "/setpoint",
        "/event",
        "/sim/truth",
        *(CAMERA_PREFIX + name for name in cameras),
    ]
    return reader.columns(topics)


def _grid(captures_ns: NDArray[np.int64], step_ns: int) -> NDArray[np.int64]:
    """Capture times about one step apart: after each row that nearest to a step later, early by the slack at most."""
    least = round((1.0 - _GRID_SLACK) * step_ns)
    captures = captures_ns.tolist()
    rows = [captures[0]]
    while (place := bisect.bisect_left(captures, rows[-1] + least)) < len(captures):
        wanted = rows[-1] + step_ns
        later = min(bisect.bisect_left(captures, wanted), len(captures) - 1)
        rows.append(min(captures[place : later + 1], key=lambda capture: abs(capture - wanted)))
    return np.array(rows, dtype=np.int64)


def _shown(column: Column, t_ns: NDArray[np.int64], step_ns: int) -> NDArray[np.bool_]:
    """(T,): whether the camera's latest picture still shows what is there at each time."""
    usual = float(np.median(np.diff(column.times_ns))) if len(column) > 1 else 0.0
    age = t_ns - column.times_ns[column.latest(t_ns)]
    return np.asarray(age <= _STALE_INTERVALS * max(step_ns, usual))


def _state_table(
    reader: EpisodeReader, states: Column, indexes: NDArray[np.int64]
) -> tuple[_StateTable, NDArray[np.int64]]:
    """(decoded states, row of each of `indexes`); each state is decoded once."""
    needed, place = np.unique(indexes, return_inverse=True)
    decoded = []
    for index in needed.tolist():
        state = states.message(index)
        if not isinstance(state, State):
            raise LogError(f"{reader.path}: /state holds a {type(state).__name__}")
        decoded.append(state)
    table = _StateTable(
        joint_position=np.stack([state.joint_position for state in decoded]),
        gripper=np.array([state.gripper for state in decoded], dtype=np.float64),
        gripper_commanded=np.array([state.gripper_commanded for state in decoded], dtype=np.float64),
        pose=np.stack([state.pose_base_tcp for state in decoded]),
        pose_commanded=np.stack([state.pose_base_tcp_commanded for state in decoded]),
        wrench=np.stack([state.wrench_tcp for state in decoded]),
    )
    return table, place.reshape(indexes.shape)


def _asked_gripper(
    reader: EpisodeReader, setpoints: Column, instants: NDArray[np.int64], otherwise: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(T, H) opening asked for by the latest setpoint at `instants` (T, H); `otherwise` (T, H) where there is none."""
    needed, place = np.unique(setpoints.latest(instants), return_inverse=True)
    asked = []
    for index in needed.tolist():
        setpoint = setpoints.message(index) if index >= 0 else None
        if not isinstance(setpoint, Setpoint | None):
            raise LogError(f"{reader.path}: /setpoint holds a {type(setpoint).__name__}")
        asked.append(np.nan if setpoint is None else setpoint.gripper)
    values = np.array(asked)[place.reshape(instants.shape)]
    return np.where(np.isnan(values), otherwise, values)


def _actions(
    table: _StateTable, place: NDArray[np.int64], gripper: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Actions (T, H, 7) from the rows `place` (T, H+1) of the states at the edges of the steps, and `gripper` (T, H).

    Neighbouring rows share their steps: each distinct one is computed once.
    """
    pairs = np.stack([place[:, :-1], place[:, 1:]], axis=-1)  # (T, H, 2)
    distinct, which = np.unique(pairs.reshape(-1, 2), axis=0, return_inverse=True)
    motions = np.stack(
        [delta_between(table.pose_commanded[a], table.pose_commanded[b]) for a, b in distinct.tolist()]
    )
    moved = motions[which].reshape(*pairs.shape[:2], 6)
    return np.concatenate([moved, gripper[..., None]], axis=-1)


def _controls(events: Column) -> tuple[NDArray[np.int64], list[str]]:
    """(C,) ns and C names: who was in control from when on. Before the first record nobody is named."""
    times, names = [np.iinfo(np.int64).min], [""]
    for index in range(len(events)):
        event = events.message(index)
        if isinstance(event, Event) and event.kind == "control":
            times.append(int(events.times_ns[index]))
            names.append(str(event.data.get("source", "")))
    return np.array(times, dtype=np.int64), names


def _in_control(changes_ns: NDArray[np.int64], t_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of the changes of control is the latest at or before each time."""
    return np.asarray(np.searchsorted(changes_ns, t_ns, side="right") - 1)


def _allowed(
    changes_ns: NDArray[np.int64],
    names: Sequence[str],
    edges: NDArray[np.int64],
    sources: Collection[str] | None,
) -> NDArray[np.bool_]:
    """(T, H): whether everyone who was in control during a step may be."""
    good = [name not in DISTURBING_SOURCES if sources is None else name in sources for name in names]
    bad_before = np.concatenate([[0], np.cumsum(~np.array(good))])
    first = _in_control(changes_ns, edges[:, :-1])
    last = (
        np.searchsorted(changes_ns, edges[:, 1:], side="left") - 1
    )  # who takes over at the end is not in it
    return np.asarray(bad_before[last + 1] == bad_before[first])


def _images(column: Column, t_ns: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """The latest image (height, width, 3) uint8 at or before each time."""
    shape: tuple[int, ...] | None = None
    for index in column.latest(t_ns).tolist():
        frame = column.message(index)
        if not isinstance(frame, CameraFrame):
            raise LogError(f"{column.topic} holds a {type(frame).__name__}")
        try:
            image = decode_image(frame)
        except WireError as error:
            raise LogError(f"{column.topic} at {frame.t_capture_ns} ns: {error}") from error
        shape = image.shape if shape is None else shape
        if image.shape != shape:
            raise LogError(
                f"{column.topic} changes its image size within the episode: {shape}, then {image.shape}"
            )
        yield image


def _focus(truths: Column, t_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """(T, 2, 3) m: the latest privileged focus at or before each time, NaN where there is none."""
    focus = np.full((len(t_ns), 2, 3), np.nan)
    for row, index in enumerate(truths.latest(t_ns).tolist()):
        if index >= 0:
            truth = truths.message(index)
            if isinstance(truth, SimTruth):
                focus[row] = truth.focus
    return focus
