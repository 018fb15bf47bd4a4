"""Other people's data sets as episode logs: what their columns mean is said by whoever imports them, never guessed.

A column is told as `NAME=FIELD,FIELD,…`, its numbers dealt out to the fields in their order. Fields of a state are what
the arm did, fields of an action what was asked of it; from both a log like any other is made:

- the state at row k: joints, gripper and TCP as measured, and as they were commanded by then;
- what was commanded at row k+1 is action k. Absolute actions are that target itself. Deltas are put one upon the other
  from the first measured pose on, so that the labels of the log are the data set's own deltas; the commanded pose
  drifts away from the measured one where the arm did not follow;
- a setpoint in the middle of each step, with the opening that the action asks for; pictures at their rows.

What a data set does not hold (efforts, wrenches, safety, physics) is zero or missing, as for any imported log.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.errors import LogError, unknown
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.wire.geometry import apply_delta, exp, multiply, normalize
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import (
    F64,
    EpisodeStart,
    EpisodeStop,
    Event,
    ImageEncoding,
    Message,
    Setpoint,
    State,
)

CLOCK = "imported"
_ASKED = "asked-2.json"
"""In the folder of an unfinished import: what it is of. Folders before the 2 hold halves under the names of logs."""
REST = 0
"""Width of a field that takes what the others leave."""
_ROTATIONS = {"quat_wxyz": 4, "quat_xyzw": 4, "rotvec": 3, "rpy": 3}
STATE_FIELDS = {"joint_position": REST, "joint_velocity": REST, "gripper": 1, "position": 3, **_ROTATIONS}
ACTION_FIELDS = {
    "joint_position": REST,
    "gripper": 1,
    "position": 3,
    **_ROTATIONS,
    "delta_position": 3,
    "delta_rotvec": 3,
}
SKIP = "skip"
"""A field of either that means nothing here."""
OPENING_SLACK = 0.1
"""An opening further outside 0..1 was told with other values for closed and open."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """One episode. times_ns: (T,) int64 from 0. columns: by name (T, W) float64. name: where it is in its data set."""

    name: str
    instruction: str
    times_ns: NDArray[np.int64]
    columns: Mapping[str, F64]


def grid(count: int, fps: float) -> NDArray[np.int64]:
    """(count,) ns from 0, a whole number of ns apart, so that a step from a row is at the next one and not just before.

    Rows of these formats are on their grid by their rate; stored times, where there are some, are its float32 copy.
    """
    return np.arange(count, dtype=np.int64) * round(1e9 / fps)


class ForeignDataset(Protocol):
    """What an importer of one format gives; it checks that everything is there before it gives anything."""

    @property
    def path(self) -> Path:
        """The file or folder, which is only read."""

    @property
    def fps(self) -> float:
        """Rows a second."""

    @property
    def columns(self) -> dict[str, str]:
        """Columns of numbers, with their widths and, where there are some, the names of their numbers, for messages."""

    @property
    def cameras(self) -> dict[str, str]:
        """Names of the cameras, with their columns."""

    def __len__(self) -> int:
        """How many episodes."""

    def rows(self, episode: int) -> Rows:
        """The numbers of an episode. Raises LogError if some are missing, or do not fit each other."""

    def pictures(self, episode: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        """(H, W, 3) uint8 RGB of every row. Raises LogError if there are not as many as rows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Arm:
    """Whose joints they are. pose_of: (n,) rad to the TCP's pose (7,) in the base frame. config: for the log."""

    name: str
    joints: int
    pose_of: Callable[[F64], F64]
    config: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Meaning:
    """What the columns mean. state, action: `NAME=FIELD,…` each.

    state_gripper, action_gripper: the values that mean closed and open. delta_scale: m and rad that a delta of 1 means.
    cameras: which to take; all if none is named. success: whether the episodes are demonstrations to learn from.
    """

    state: tuple[str, ...]
    action: tuple[str, ...]
    state_gripper: tuple[float, float] = (0.0, 1.0)
    action_gripper: tuple[float, float] = (0.0, 1.0)
    delta_scale: tuple[float, float] = (1.0, 1.0)
    cameras: tuple[str, ...] = ()
    task: str = ""
    instruction: str = ""
    success: bool = True
    encoding: ImageEncoding = "png"


def import_foreign(
    dataset: ForeignDataset,
    meaning: Meaning,
    out: Path,
    arm: Arm | None = None,
    *,
    progress: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> list[Path]:
    """The episodes of `dataset` as logs in the new folder `out`.

    One that was interrupted is gone on with, if the same is asked for again: logs that are whole are not written anew.
    Raises LogError, with nothing at `out` and the source untouched, for columns that are not there or are not told,
    for numbers that contradict what was told, and for whatever the data set lacks.
    """
    if out.exists():
        raise LogError(f"{out} exists already; an import never writes over a session")
    _check_told(dataset, meaning)
    cameras = meaning.cameras or tuple(dataset.cameras)
    for name in cameras:
        if name not in dataset.cameras:
            raise LogError(f"{dataset.path}: {unknown('camera', name, tuple(dataset.cameras))}")
    aside = out.with_name(f".{out.name}.unfinished")
    asked = json.dumps(
        [str(dataset.path), len(dataset), dataset.fps, dataclasses.asdict(meaning), arm and arm.config]
    )
    try:
        _begin(aside, asked)
        logs = [
            _write(dataset, episode, meaning, cameras, arm, aside / f"{out.name}-{episode:06d}.mcap")
            for episode in progress(range(len(dataset)))
        ]
        (aside / _ASKED).unlink()
        aside.rename(out)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise LogError(f"{out}: the import cannot be written: {error.strerror or error}") from error
    except LogError:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return [out / log.name for log in logs]


def _begin(aside: Path, asked: str) -> None:
    """Make the folder of an unfinished import; one that was for something else is emptied first."""
    if aside.exists() and not ((aside / _ASKED).exists() and (aside / _ASKED).read_text() == asked):
        shutil.rmtree(aside)
    aside.mkdir(parents=True, exist_ok=True)
    (aside / _ASKED).write_text(asked)


def deal(
    parts: Sequence[str], fields: Mapping[str, int], columns: Mapping[str, F64], where: str
) -> dict[str, F64]:
    """The columns of an episode, dealt out: by field (T, width).

    parts: `NAME=FIELD,…`, a field with its width where that is not its own, as `joint_position:7` or `skip:2`.
    Raises LogError naming the column or field that is not there, told twice, or does not fit the column's width.
    """
    found: dict[str, F64] = {}
    for part in parts:
        name, equals, told = part.partition("=")
        if not equals or not told:
            raise LogError(
                f"{part!r} must look like COLUMN=FIELD,FIELD; fields: {', '.join([*fields, SKIP])}"
            )
        if name not in columns:
            raise LogError(f"{where}: {unknown('column', name, tuple(columns))}")
        values = columns[name]
        begin = 0
        for field, width in _widths(told.split(","), fields, values.shape[1], f"{where}: {part}"):
            if field != SKIP:
                if field in found:
                    raise LogError(f"{where}: {field} is told twice, again by {part}")
                found[field] = values[:, begin : begin + width]
            begin += width
    return found


def _widths(told: Sequence[str], fields: Mapping[str, int], total: int, where: str) -> list[tuple[str, int]]:
    """Fields with their widths, which make up `total`."""
    widths: list[tuple[str, int]] = []
    for each in told:
        field, colon, width = each.partition(":")
        if field not in fields and field != SKIP:
            raise LogError(f"{where}: {unknown('field', field, [*fields, SKIP])}")
        if colon and not width.isdecimal():
            raise LogError(f"{where}: the width of {field} is {width!r}, it must be a number")
        widths.append((field, int(width) if colon else fields.get(field, 1)))
    taken = sum(width for _, width in widths)
    open_ = [field for field, width in widths if width == REST]
    if len(open_) > 1:
        raise LogError(f"{where}: {' and '.join(open_)} need their widths, as {open_[0]}:7")
    if (taken != total and not open_) or (open_ and taken >= total):
        raise LogError(
            f"{where}: the column has {total} numbers, the fields take {taken}{'+' if open_ else ''}"
        )
    return [(field, width or total - taken) for field, width in widths]


def _check_told(dataset: ForeignDataset, meaning: Meaning) -> None:
    """LogError listing the columns, if nobody said what they mean."""
    columns = "; ".join(f"{name} ({text})" for name, text in dataset.columns.items())
    for option, told in (("--state", meaning.state), ("--action", meaning.action)):
        if not told:
            raise LogError(
                f"{dataset.path}: say what its columns mean, as {option} COLUMN=joint_position,gripper; "
                f"it has: {columns}"
            )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Episode:
    """One episode in our terms. Arrays of T rows, those commanded of T + 1: the last is where the last action leads.

    joints, joints_commanded: (·, n) rad; rates: (T, n) rad/s. pose, pose_commanded: (·, 7). gripper: (T,), asked: (T,)
    opening 0..1.
    """

    joints: F64
    rates: F64
    joints_commanded: F64
    pose: F64
    pose_commanded: F64
    gripper: F64
    asked: F64


def _understand(rows: Rows, meaning: Meaning, arm: Arm | None, where: str) -> _Episode:
    state = deal(meaning.state, STATE_FIELDS, rows.columns, where)
    action = deal(meaning.action, ACTION_FIELDS, rows.columns, where)
    for name, values in (*state.items(), *action.items()):
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values).all(axis=1)))
            raise LogError(f"{where}: {name} is not finite in row {row}")
    joints = state.get("joint_position", np.zeros((len(rows.times_ns), 0)))
    if arm is not None and joints.shape[1] not in (0, arm.joints):
        raise LogError(
            f"{where}: joint_position takes {joints.shape[1]} numbers; {arm.name} has {arm.joints} joints"
        )
    rates = state.get("joint_velocity", np.zeros_like(joints))
    if rates.shape != joints.shape:
        raise LogError(f"{where}: {rates.shape[1]} joint velocities for {joints.shape[1]} joints")
    targets = action.get("joint_position", joints)
    if targets.shape != joints.shape:
        raise LogError(
            f"{where}: {targets.shape[1]} joint targets for {joints.shape[1]} joints; tell joint_position of the "
            "state and of the action alike"
        )
    pose = _poses(state, arm, where)
    gripper = _opening(state, meaning.state_gripper, "--state-gripper", where)
    asked = _opening(action, meaning.action_gripper, "--action-gripper", where)
    told = asked if gripper is None else gripper
    if told is None:  # no gripper at all
        told = np.ones(len(rows.times_ns))
    commanded = _commanded(action, pose, meaning.delta_scale, arm, where)
    return _Episode(
        joints=joints,
        rates=rates,
        joints_commanded=np.concatenate([joints[:1], targets]),
        pose=pose,
        pose_commanded=commanded,
        gripper=told,
        asked=told if asked is None else asked,
    )


def _poses(fields: Mapping[str, F64], arm: Arm | None, where: str) -> F64:
    """(T, 7) from a position and a rotation, or from the joints of a known arm."""
    rotations = [name for name in _ROTATIONS if name in fields]
    if "position" in fields and len(rotations) == 1:
        turns = np.stack([_quaternion(rotations[0], each, where) for each in fields[rotations[0]]])
        return np.concatenate([fields["position"], turns], axis=1)
    if "joint_position" in fields and not rotations and "position" not in fields:
        if arm is None:
            raise LogError(
                f"{where}: joints alone do not tell where the TCP is; name the arm they are of, as --arm panda"
            )
        if fields["joint_position"].shape[1] != arm.joints:
            count = fields["joint_position"].shape[1]
            raise LogError(
                f"{where}: joint_position takes {count} numbers; {arm.name} has {arm.joints} joints"
            )
        return np.stack([arm.pose_of(joints) for joints in fields["joint_position"]])
    raise LogError(
        f"{where}: tell the TCP by position and one of {', '.join(_ROTATIONS)}, or by joint_position; "
        f"told: {', '.join(fields) or 'nothing'}"
    )


def _commanded(
    action: Mapping[str, F64], pose: F64, scale: tuple[float, float], arm: Arm | None, where: str
) -> F64:
    """(T + 1, 7): the first measured pose, then what each action leads to."""
    if "delta_position" not in action:
        return np.concatenate([pose[:1], _poses(action, arm, f"{where}: the action")])
    if {"position", "joint_position", *_ROTATIONS} & set(action):
        raise LogError(f"{where}: an action is a delta or a target, not both; told: {', '.join(action)}")
    moves = scale[0] * action["delta_position"]
    turns = scale[1] * action.get("delta_rotvec", np.zeros_like(moves))
    poses = [pose[0]]
    for delta in np.concatenate([moves, turns], axis=1):
        poses.append(apply_delta(poses[-1], delta))
    return np.stack(poses)


def _quaternion(kind: str, values: F64, where: str) -> F64:
    """[w x y z] of a rotation as it is told; rpy: about the fixed axes x, y, z in that order."""
    if kind.startswith("quat"):
        turned = values if kind == "quat_wxyz" else values[[3, 0, 1, 2]]
        length = float(np.linalg.norm(turned))
        if abs(length - 1.0) > 0.01:
            raise LogError(f"{where}: {kind} has length {length:.3f}; it must be 1, or it is no quaternion")
        return normalize(turned)
    if kind == "rotvec":
        return exp(np.asarray(values))
    roll, pitch, yaw = (exp(axis * angle) for axis, angle in zip(np.eye(3), values, strict=True))
    return multiply(yaw, multiply(pitch, roll))


def _opening(
    fields: Mapping[str, F64], closed_open: tuple[float, float], option: str, where: str
) -> F64 | None:
    """(T,) 0 closed .. 1 open; None if the gripper is not told."""
    if "gripper" not in fields:
        return None
    closed, open_ = closed_open
    if closed == open_:
        raise LogError(f"{option} {closed:g} {open_:g}: closed and open must differ")
    opening = (fields["gripper"][:, 0] - closed) / (open_ - closed)
    row = int(np.argmax(np.abs(opening - 0.5)))
    if abs(opening[row] - 0.5) > 0.5 + OPENING_SLACK:
        raise LogError(
            f"{where}: the gripper is {fields['gripper'][row, 0]:.4g} in row {row}, beyond {closed:g} (closed) .. "
            f"{open_:g} (open); say what they are by {option} CLOSED OPEN"
        )
    return np.asarray(np.clip(opening, 0.0, 1.0))


def _write(
    dataset: ForeignDataset,
    index: int,
    meaning: Meaning,
    cameras: Sequence[str],
    arm: Arm | None,
    path: Path,
) -> Path:
    """One episode as a log, unless it is there; only one that is whole, and on disk, gets the name."""
    if path.exists():
        return path
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    rows = dataset.rows(index)
    where = f"{dataset.path}: {rows.name}"
    episode = _understand(rows, meaning, arm, where)
    instruction = meaning.instruction or rows.instruction
    if not instruction:
        raise LogError(f"{where}: it tells no instruction; give one by --instruction")
    step_ns = round(1e9 / dataset.fps)
    metadata: dict[str, Any] = {
        "task": meaning.task,
        "seed": -1,
        "policy": "imported",
        "instruction": instruction,
        "clock": CLOCK,
        "imported_from": str(dataset.path),
        "imported_episode": rows.name,
        "columns": {"state": list(meaning.state), "action": list(meaning.action)},
        "configs": {} if arm is None else {"robot": arm.config},
    }
    end_ns = int(rows.times_ns[-1]) + step_ns
    outcome = {"success": meaning.success, "time_s": end_ns * 1e-9}
    start = EpisodeStart(
        t_ns=0,
        clock=CLOCK,
        episode=path.stem,
        instruction=instruction,
        session="",
        metadata=json.dumps(metadata),
    )
    writer = EpisodeWriter(part, metadata, fsync=False)
    try:
        writer.write("/episode", start)
        writer.write("/event", _control())
        films = {camera: dataset.pictures(index, camera) for camera in cameras}
        for topic, message in _messages(rows, episode, films, step_ns, meaning.encoding, where):
            writer.write(topic, message)
        stop = EpisodeStop(t_ns=end_ns, clock=CLOCK, episode=path.stem, outcome=json.dumps(outcome))
        writer.write("/episode", stop)
        writer.close(outcome)
    finally:
        writer.abandon()
    return part.rename(path)


def _messages(
    rows: Rows,
    episode: _Episode,
    films: Mapping[str, Iterator[NDArray[np.uint8]]],
    step_ns: int,
    encoding: ImageEncoding,
    where: str,
) -> Iterator[tuple[str, Message]]:
    """What each row says happened, in the order of time."""
    count = len(rows.times_ns)
    for row, t_ns in enumerate(rows.times_ns.tolist()):
        yield "/state", _state(episode, row, row, t_ns)
        for camera, film in films.items():
            image = next(film, None)
            if image is None:
                raise LogError(f"{where}: camera {camera} has {row} pictures for {count} rows")
            frame = encode_image(
                image, camera=camera, seq=row, t_capture_ns=t_ns, encoding=encoding, clock=CLOCK
            )
            yield f"/camera/{camera}", frame
        yield "/setpoint", _setpoint(episode, row, t_ns + step_ns // 2)
    yield "/state", _state(episode, count - 1, count, int(rows.times_ns[-1]) + step_ns)


def _control() -> Event:
    return Event(t_ns=0, clock=CLOCK, kind="control", source=CLOCK, data={"source": "import"})


def _state(episode: _Episode, row: int, commanded: int, t_ns: int) -> State:
    """What was measured in `row`, and what was commanded by row `commanded`."""
    nothing = np.zeros(episode.joints.shape[1])
    return State(
        t_ns=t_ns,
        clock=CLOCK,
        seq=commanded,
        t_state_ns=t_ns,
        joint_position=episode.joints[row],
        joint_velocity=episode.rates[row],
        joint_effort=nothing,
        joint_position_commanded=episode.joints_commanded[commanded],
        joint_velocity_commanded=nothing,
        pose_base_tcp=episode.pose[row],
        pose_base_tcp_commanded=episode.pose_commanded[commanded],
        wrench_tcp=np.zeros(6),
        gripper=float(episode.gripper[row]),
        gripper_commanded=float(episode.asked[max(commanded - 1, 0)]),
        safety="active",
    )


def _setpoint(episode: _Episode, row: int, t_ns: int) -> Setpoint:
    return Setpoint(
        t_ns=t_ns,
        clock=CLOCK,
        seq=row,
        t_due_ns=t_ns,
        joint_position=episode.joints_commanded[row + 1],
        joint_velocity=np.zeros(episode.joints.shape[1]),
        gripper=float(episode.asked[row]),
        source="replay",
    )
