"""A LeRobotDataset that was exported from here, as episode logs again: labels and states come back to the bit.

Every row becomes a picture of each camera, a state, and what was commanded over its step. What no data set holds (joint
velocities, safety reports, physics) is not made up: such a log trains and exports like the first one, but cannot be
re-simulated.
"""

from __future__ import annotations

import heapq
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from numpy.typing import NDArray

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import LogError, unknown
from reflexarc.datasets.format import HUMAN
from reflexarc.datasets.lerobot_export import (
    ACTION,
    BY_PERSON,
    DECODER,
    EXACT,
    IMAGE,
    LABEL,
    OURS,
    REPO,
    STATE,
    TIME,
    pixels,
    read_page,
)
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import EpisodeStart, EpisodeStop, Event, Message, Setpoint, State

CLOCK = "imported"


def import_dataset(
    folder: Path,
    out: Path,
    *,
    progress: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> list[Path]:
    """The episodes of the data set in `folder` as logs in the new folder `out`.

    Raises LogError naming what is missing or does not fit, with nothing at `out` and the source untouched.
    """
    if out.exists():
        raise LogError(f"{out} exists already; an import never writes over a session")
    page = read_page(folder)
    try:
        spec = ActionSpec.model_validate(page["key"]["spec"])
    except (KeyError, TypeError, ValueError) as error:
        raise LogError(
            f"{folder / OURS} is damaged: it tells no action space ({type(error).__name__})"
        ) from error
    dataset = _open(folder, spec)
    origins = page["episodes"]
    if len(origins) != dataset.num_episodes:
        raise LogError(f"{folder}: it names {len(origins)} episodes and holds {dataset.num_episodes}")
    aside = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    starts = np.cumsum([0, *(int(length) for length in dataset.meta.episodes["length"])])
    logs = []
    try:
        for episode in progress(range(len(origins))):
            rows = range(int(starts[episode]), int(starts[episode + 1]))
            logs.append(_write(dataset, rows, origins[episode], spec, aside))
        aside.rename(out)
    except LogError:
        raise
    except Exception as error:  # whatever what lerobot reads with raises
        raise LogError(f"{folder}: lerobot cannot read it: {' '.join(str(error).split())}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return [out / log.relative_to(aside) for log in logs]


def _open(folder: Path, spec: ActionSpec) -> LeRobotDataset:
    try:
        dataset = LeRobotDataset(REPO, root=folder, video_backend=DECODER)
    except Exception as error:  # as above
        raise LogError(f"{folder}: lerobot cannot open it: {' '.join(str(error).split())}") from error
    if dataset.fps != round(1.0 / spec.step_s):
        raise LogError(f"{folder}: fps is {dataset.fps}, its action space has steps of {spec.step_s} s")
    for name in (STATE, ACTION, *EXACT, TIME, LABEL):
        if name not in dataset.features:
            raise LogError(f"{folder}: {unknown('feature', name, tuple(dataset.features))}")
    return dataset


def _write(
    dataset: LeRobotDataset, rows: range, origin: dict[str, Any], spec: ActionSpec, folder: Path
) -> Path:
    """One episode as a log."""
    numbers = dataset.hf_dataset.with_format(None)  # as they are stored: other formats make float32 of them
    cameras = [name for name in dataset.features if name.startswith(IMAGE)]
    table = numbers.remove_columns([name for name in cameras if name in numbers.column_names])
    items = [table[index] for index in rows]
    first, last = items[0], items[-1]
    path = folder / _name(dataset.root, origin)
    begun = int(first[TIME])
    metadata = {name: origin[name] for name in ("task", "seed", "policy", "instruction")}
    start = EpisodeStart(
        t_ns=begun,
        clock=CLOCK,
        episode=path.stem,
        instruction=str(origin["instruction"]),
        session="",
        metadata=json.dumps(metadata),
    )
    outcome = {"success": origin["success"], "time_s": (int(last[TIME]) - begun) * 1e-9 + spec.step_s}
    with EpisodeWriter(path, metadata | {"imported_from": str(dataset.root)}, fsync=False) as writer:
        writer.write("/episode", start)
        told = sorted(_messages(items, spec), key=_time)
        pictures = _pictures(dataset, rows, [int(item[TIME]) for item in items], cameras)
        for topic, message in heapq.merge(pictures, told, key=_time):
            writer.write(topic, message)
        end_ns = int(last[TIME]) + spec.step_ns
        stop = EpisodeStop(t_ns=end_ns, clock=CLOCK, episode=path.stem, outcome=json.dumps(outcome))
        writer.write("/episode", stop)
        writer.close(outcome)
    return path


def _name(root: Path, origin: dict[str, Any]) -> str:
    """The log's path below its session; LogError for one that leads out of it."""
    name = PurePosixPath(str(origin["log"]))
    if name.is_absolute() or ".." in name.parts or name.suffix != ".mcap":
        raise LogError(f"{root}: it names an episode {str(name)!r}, which is no log below a session")
    return str(name)


def _time(pair: tuple[str, Message]) -> int:
    return pair[1].t_ns


def _pictures(
    dataset: LeRobotDataset, rows: range, t_ns: Sequence[int], cameras: Sequence[str]
) -> Iterator[tuple[str, Message]]:
    """The pictures of the rows, in their order; one row is decoded at a time."""
    for seq, (index, at_ns) in enumerate(zip(rows, t_ns, strict=True)):
        item = dataset[index]
        for camera in cameras:
            image, name = pixels(item[camera].numpy()), camera.removeprefix(IMAGE)
            frame = encode_image(image, camera=name, seq=seq, t_capture_ns=at_ns, encoding="png", clock=CLOCK)
            yield f"/camera/{name}", frame


def _messages(items: Sequence[dict[str, Any]], spec: ActionSpec) -> Iterator[tuple[str, Message]]:
    """What each row says happened beside its pictures, in no order."""
    for row, item in enumerate(items):
        t_ns, before = int(item[TIME]), items[row - 1] if row else None
        if before is None or not bool(before[LABEL]) or _source(before) != _source(item):
            yield "/event", _control(t_ns, _source(item))
        yield "/state", _state(item, row, t_ns, "reflexarc.pose_base_tcp_commanded")
        follows = int(items[row + 1][TIME]) if row + 1 < len(items) else None
        if follows != t_ns + spec.step_ns:
            # The next picture was not taken just one step later: what was commanded then stands by itself.
            yield "/state", _state(item, row, t_ns + spec.step_ns, "reflexarc.pose_base_tcp_commanded_next")
        yield "/setpoint", _setpoint(item, row, t_ns + spec.step_ns // 2)
        if not bool(item[LABEL]):
            # Steps overlap where cameras jitter: somebody disturbs this one, and none that is a label. Not from the
            # row's own instant on, at which another may have had the arm.
            begin = t_ns + 1
            if before is not None and bool(before[LABEL]):
                begin = max(begin, int(before[TIME]) + spec.step_ns)
            yield "/event", _control(begin, "perturb")


def _source(item: dict[str, Any]) -> str:
    """Who had the arm at a row; exports of format 1 do not tell."""
    return HUMAN if bool(item.get(BY_PERSON, False)) else "import"


def _control(t_ns: int, source: str) -> Event:
    return Event(t_ns=t_ns, clock=CLOCK, kind="control", source=CLOCK, data={"source": source})


def _state(item: dict[str, Any], seq: int, t_ns: int, commanded: str) -> State:
    felt = _float64(item[STATE])
    joints, gripper = felt[:-1], float(felt[-1])
    unknown_rates = np.zeros_like(joints)
    return State(
        t_ns=t_ns,
        clock=CLOCK,
        seq=seq,
        t_state_ns=t_ns,
        joint_position=joints,
        joint_velocity=unknown_rates,
        joint_effort=unknown_rates,
        joint_position_commanded=joints,
        joint_velocity_commanded=unknown_rates,
        pose_base_tcp=_float64(item["reflexarc.pose_base_tcp"]),
        pose_base_tcp_commanded=_float64(item[commanded]),
        wrench_tcp=_float64(item["reflexarc.wrench_tcp"]),
        gripper=gripper,
        gripper_commanded=float(item["reflexarc.gripper_commanded"]),
        safety="active",
    )


def _setpoint(item: dict[str, Any], seq: int, t_ns: int) -> Setpoint:
    joints = _float64(item[STATE])[:-1]
    return Setpoint(
        t_ns=t_ns,
        clock=CLOCK,
        seq=seq,
        t_due_ns=t_ns,
        joint_position=joints,
        joint_velocity=np.zeros_like(joints),
        gripper=float(item[ACTION][-1]),
        source="replay",
    )


def _float64(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(-1)
