"""A session as a LeRobotDataset v3, through lerobot's own writer: what lerobot, openpi and others train on.

Rows are those of the one label function (`sampling.py`), on its grid. lerobot's `timestamp` is the row number over the
frame rate; the true capture times stand beside it in `reflexarc.t_ns`. What else is needed to make a log of a row again
(`lerobot_import.py`) stands in further features named `reflexarc.*`, which no policy of lerobot's looks at.

Episodes are written in parts of their own, each verified by reading every frame back, and joined at the end, where all
frames are compared with the parts': whatever interrupts an export, the parts that are whole are not written again, and
the folder asked for is there only once it is complete.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from numpy.typing import NDArray

from reflexarc.configs.action import ActionSpec
from reflexarc.configs.errors import LogError
from reflexarc.datasets.format import CAMERA_PREFIX
from reflexarc.datasets.lerobot_reader import LeRobotReader
from reflexarc.datasets.lerobot_v2 import VERSION as V2
from reflexarc.datasets.lerobot_v2 import write_v2
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.sampling import SAMPLER_VERSION, TCP_DIMS, Samples, row_pictures, sample_episode
from reflexarc.datasets.session import EpisodeEntry, Session
from reflexarc.datasets.statistics import statistics

REPO = "reflexarc/export"
"""lerobot wants a name of the hub's; nothing is looked up there."""
DECODER = "pyav"
"""It brings its own FFmpeg; lerobot's default looks for one on the machine."""
Version = Literal["v3", "v2.1"]
PART_EPISODES = 20
_BATCH = 16
"""Rows whose pictures are compared at once."""
_OFF_RATE = 0.05
"""How far rows may be from a step apart, as a share of it: lerobot counts time by rows, and cuts chunks from them."""
_GAP_STEPS = 1.5
"""Rows further apart than this many steps have one missing between them: half-way."""
OURS = "meta/reflexarc.json"
"""Our own page of the data set: action space, exact quantiles, where each episode came from."""
IMAGE = "observation.images."
STATE, ACTION = "observation.state", "action"
EXACT: dict[str, int] = {
    "reflexarc.pose_base_tcp": 7,
    "reflexarc.pose_base_tcp_commanded": 7,
    "reflexarc.pose_base_tcp_commanded_next": 7,
    "reflexarc.wrench_tcp": 6,
    "reflexarc.gripper_commanded": 1,
}
"""float64, so that a log made from them gives the same labels to the bit. Poses `[x y z w x y z]` m, base frame."""
TIME, LABEL, BY_PERSON = "reflexarc.t_ns", "reflexarc.is_label", "reflexarc.by_person"
FORMAT = 2
"""Of our own features and page. 1 had no `reflexarc.by_person`."""
WORST_PSNR_DB = 22.0
"""A frame that comes back further from what was written than this is a wrong frame, not a lossy one: halved colour
alone leaves 24 dB of small, colourful pictures, and pictures of two episodes of one task are 8 to 20 dB apart."""


@dataclasses.dataclass(frozen=True, slots=True)
class Exported:
    """What was written. worst_psnr_db: of all frames read back; inf where images are lossless.

    left_out: how many logs of the session are not in it, by reason.
    """

    folder: Path
    episodes: int
    frames: int
    worst_psnr_db: float
    left_out: dict[str, int]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """One export. key: whatever changes what is written; parts of another key are not taken up."""

    session: Path
    spec: ActionSpec
    cameras: tuple[str, ...]
    codec: str
    robot: str
    key: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Episode:
    """A log and its rows, without their pictures: twenty episodes of those would fill the memory."""

    reader: EpisodeReader
    samples: Samples


def export(
    session: Path,
    out: Path,
    spec: ActionSpec,
    cameras: Sequence[str],
    *,
    codec: str = "auto",
    robot: str = "",
    all_episodes: bool = False,
    version: Version = "v3",
    progress: Callable[[Sequence[EpisodeEntry]], Iterator[EpisodeEntry]] = iter,
) -> Exported:
    """Export the successful episodes below `session` (all_episodes: every whole one) to the new folder `out`.

    spec: its step is the rate of the rows, its first action the label; the horizon is lerobot's business. codec:
    `auto` (AV1 where this machine encodes it, else H.264), an encoder of FFmpeg's, or `png` for lossless pictures.
    version: of LeRobot's format; what is in v2.1 is the same, for others to read: only v3 is imported again as it was.
    Raises LogError, with nothing at `out`, if that exists, a log cannot be read or sampled, or a frame does not come
    back.
    """
    if out.exists():
        raise LogError(f"{out} exists already; an export is never written over")
    _fps(spec)
    entries, left_out = _chosen(Session(session), all_episodes)
    if not entries:
        which = "whole" if all_episodes else "successful"
        raise LogError(f"{session}: no {which} episode to export")
    codec = _encoder() if codec == "auto" else codec
    key = {
        "format": FORMAT,
        "sampler": SAMPLER_VERSION,
        "spec": spec.model_dump(mode="json"),
        "cameras": list(cameras),
        "codec": codec,
        "robot": robot,
    }
    job = _Job(session, spec, tuple(cameras), codec, robot, key)
    parts_folder = out.with_name(f".{out.name}.parts")
    parts = list(_parts(job, entries, parts_folder, progress))
    pages = [json.loads((part / OURS).read_text()) for part in parts]
    try:
        _join(parts, parts_folder / "whole")
        page = _page(job, pages, parts_folder / "whole")
        _verify_joined(parts, parts_folder / "whole")
        made = parts_folder / "whole"
        if version == V2:
            made = parts_folder / V2
            shutil.rmtree(made, ignore_errors=True)
            write_v2(parts_folder / "whole", made)
        (made / OURS).write_text(json.dumps(page, indent=1))
        made.rename(out)
    except OSError as error:
        raise LogError(f"{out}: joining the export failed: {error.strerror or error}") from error
    shutil.rmtree(parts_folder)
    frames = sum(page["frames"] for page in pages)
    worst = min((value for page in pages for value in page["psnr_db"]), default=math.inf)
    return Exported(out, len(entries), frames, worst, left_out)


def read_page(folder: Path) -> dict[str, Any]:
    """Our own page of an exported data set; LogError naming what is missing if it is none."""
    try:
        page = json.loads((folder / OURS).read_text())
    except FileNotFoundError as error:
        raise LogError(f"{folder}: no {OURS} in it: it was not exported by reflexarc") from error
    except ValueError as error:
        raise LogError(f"{folder / OURS} is damaged: {error}") from error
    if not isinstance(page, dict) or "episodes" not in page:
        raise LogError(f"{folder / OURS} is damaged: it names no episodes")
    return page


def _chosen(session: Session, all_episodes: bool) -> tuple[list[EpisodeEntry], dict[str, int]]:
    """The episodes to export, and how many are not, by reason. LogError naming a log that cannot be read."""
    chosen: list[EpisodeEntry] = []
    left_out: Counter[str] = Counter()
    for entry in session.episodes:
        if entry.error:
            raise LogError(f"{entry.error}; repair the log, or take it out by `reflexarc dataset delete`")
        if entry.is_cut:
            left_out["cut short"] += 1
        elif not all_episodes and entry.success is not True:
            left_out["not judged" if entry.success is None else "failed"] += 1
        else:
            chosen.append(entry)
    return chosen, dict(left_out)


def _encoder() -> str:
    """AV1 is a third of H.264's size at the same quality, where the machine has an encoder."""
    for name in ("libsvtav1", "h264"):
        try:
            RGBEncoderConfig(vcodec=name)
        except ValueError:
            continue
        return name
    raise LogError("this machine has no encoder for AV1 or H.264; export with --codec png")


def _features(job: _Job, episode: _Episode) -> dict[str, Any]:
    samples = episode.samples
    kind = "image" if job.codec == "png" else "video"
    joints = [f"joint{index + 1}" for index in range(samples.joint_position.shape[1])]
    features: dict[str, Any] = {
        IMAGE + camera: {"dtype": kind, "shape": image.shape, "names": ["height", "width", "channels"]}
        for camera, image in next(row_pictures(episode.reader, job.cameras, samples.t_ns)).items()
    }
    features[STATE] = {"dtype": "float32", "shape": (len(joints) + 1,), "names": [*joints, "gripper"]}
    features[ACTION] = {"dtype": "float32", "shape": (len(TCP_DIMS),), "names": list(TCP_DIMS)}
    for name, size in EXACT.items():
        features[name] = {"dtype": "float64", "shape": (size,), "names": None}
    features[TIME] = {"dtype": "int64", "shape": (1,), "names": None}
    for name in (LABEL, BY_PERSON):
        features[name] = {"dtype": "bool", "shape": (1,), "names": None}
    return features


def _parts(
    job: _Job,
    entries: Sequence[EpisodeEntry],
    folder: Path,
    progress: Callable[[Sequence[EpisodeEntry]], Iterator[EpisodeEntry]],
) -> Iterator[Path]:
    """The folders of the parts, each written unless it is there from before."""
    steps = progress(entries)
    for number, first in enumerate(range(0, len(entries), PART_EPISODES)):
        chosen = entries[first : first + PART_EPISODES]
        part = folder / f"{number:05d}"
        logs = [[entry.file, entry.size, entry.modified_ns] for entry in chosen]
        if _is_done(part, job.key, logs):
            for _ in chosen:
                next(steps)
        else:
            _write_part(job, [next(steps) for _ in chosen], part, logs)
        yield part
    next(steps, None)


def _is_done(part: Path, key: dict[str, Any], logs: list[list[Any]]) -> bool:
    try:
        page = json.loads((part / OURS).read_text())
    except (OSError, ValueError):
        return False
    return bool(page["key"] == key and page["logs"] == logs)


def _write_part(job: _Job, entries: Sequence[EpisodeEntry], part: Path, logs: list[list[Any]]) -> None:
    """Write, verify, then give it its name."""
    aside = part.with_name(f"{part.name}.unfinished")
    for folder in (aside, part):
        shutil.rmtree(folder, ignore_errors=True)
    aside.parent.mkdir(parents=True, exist_ok=True)
    episodes = [_sampled(job, entry) for entry in entries]
    try:
        dataset = _create(job, episodes[0], aside)
        for episode in episodes:
            for frame in _frames(job, episode):
                dataset.add_frame(frame)
            dataset.save_episode(parallel_encoding=False)
        dataset.finalize()
    except (OSError, RuntimeError, ValueError) as error:
        raise LogError(f"{part}: lerobot could not write the episodes: {error}") from error
    psnr = _verify(job, episodes, aside)
    page = {
        "key": job.key,
        "logs": logs,
        "frames": sum(episode.samples.rows_to_learn for episode in episodes),
        "psnr_db": psnr,
        "episodes": [_origin(entry) for entry in entries],
    }
    (aside / OURS).write_text(json.dumps(page))
    aside.rename(part)


def _create(job: _Job, first: _Episode, root: Path) -> LeRobotDataset:
    encoder = None if job.codec == "png" else RGBEncoderConfig(vcodec=job.codec)
    return LeRobotDataset.create(
        REPO,
        fps=_fps(job.spec),
        features=_features(job, first),
        root=root,
        robot_type=job.robot or None,
        use_videos=job.codec != "png",
        rgb_encoder=encoder,
        video_backend=DECODER,
    )


def _fps(spec: ActionSpec) -> int:
    fps = round(1.0 / spec.step_s)
    if abs(fps * spec.step_s - 1.0) > 1e-9:
        raise LogError(f"step_s of {spec.id} is {spec.step_s}; lerobot's frame rates are whole numbers")
    return fps


def _sampled(job: _Job, entry: EpisodeEntry) -> _Episode:
    # One action a row: chunks are cut from consecutive rows by whoever trains.
    spec = job.spec.model_copy(update={"horizon": 1})
    reader = EpisodeReader(job.session / entry.file)
    samples = sample_episode(reader, spec, job.cameras, pictures=False)
    steps = np.diff(samples.t_ns)
    if steps.size and abs(np.median(steps) / spec.step_ns - 1.0) > _OFF_RATE:
        raise LogError(_off_rate(reader, job.cameras[0], float(np.median(steps)), spec.step_s))
    # What was commanded in a gap stands in no row: whoever cuts chunks from consecutive rows must not pass over it.
    gap = np.append(steps > _GAP_STEPS * spec.step_ns, False)
    samples = dataclasses.replace(samples, mask=samples.mask & ~gap[:, None])
    if samples.rows_to_learn < 1:
        raise LogError(f"{reader.path}: no row of it holds a label")
    return _Episode(reader, samples)


def _off_rate(reader: EpisodeReader, camera: str, apart_ns: float, step_s: float) -> str:
    """What is wrong with rows that far apart, and the step nearest to the one asked for that divides evenly."""
    topic = CAMERA_PREFIX + camera
    usual_s = float(np.median(np.diff(reader.columns([topic])[topic].times_ns))) * 1e-9
    off = {fps: abs(max(1, round(1 / fps / usual_s)) * usual_s * fps - 1.0) for fps in range(1, 201)}
    fits = [fps for fps, share in off.items() if share <= _OFF_RATE / 5] or [min(off, key=off.__getitem__)]
    best = min(fits, key=lambda fps: abs(1 / fps - step_s))
    return (
        f"{reader.path}: rows of camera {camera} ({1 / usual_s:.3g} Hz) are {apart_ns * 1e-6:.4g} ms apart, not a step "
        f"of {step_s * 1e3:.4g} ms; limit {_OFF_RATE:.0%}; a step_s of {1 / best:.9g} ({best} rows a second) fits"
    )


def _frames(job: _Job, episode: _Episode) -> Iterator[dict[str, Any]]:
    """The rows as lerobot takes them; pictures are decoded one by one."""
    samples = episode.samples
    t_ns = samples.t_ns[: samples.rows_to_learn]
    for row, images in enumerate(row_pictures(episode.reader, job.cameras, t_ns)):
        yield _numbers(samples, row) | {IMAGE + camera: image for camera, image in images.items()}


def _numbers(samples: Samples, row: int) -> dict[str, Any]:
    exact = (
        samples.pose_base_tcp[row],
        samples.pose_base_tcp_commanded[row],
        samples.pose_base_tcp_commanded_next[row],
        samples.wrench[row],
        samples.gripper_commanded[row : row + 1],
    )
    state, action = _state_and_action(samples, row)
    return {
        STATE: state,
        ACTION: action,
        **dict(zip(EXACT, exact, strict=True)),
        TIME: samples.t_ns[row : row + 1],
        LABEL: samples.mask[row, :1],
        BY_PERSON: samples.by_person[row : row + 1],
        "task": samples.instruction,
    }


def _state_and_action(samples: Samples, row: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    state = np.append(samples.joint_position[row], samples.gripper[row]).astype(np.float32)
    return state, samples.actions[row, 0].astype(np.float32)


def _verify(job: _Job, episodes: Sequence[_Episode], root: Path) -> list[float]:
    """Read every frame back; the worst PSNR of each episode's images, dB (none where they are lossless)."""
    dataset = LeRobotDataset(REPO, root=root, video_backend=DECODER)
    stored = dataset.hf_dataset.with_format(
        None
    )  # as they stand in the file: other formats make float32 of numbers
    index, worst = 0, []
    for episode in episodes:
        lowest = math.inf
        for row, frame in enumerate(_frames(job, episode)):
            item, numbers = dataset[index], stored[index]
            index += 1
            for name, value in frame.items():
                if name in numbers and not np.array_equal(np.ravel(numbers[name]), np.ravel(value)):
                    raise LogError(f"{root}: {name} of row {row} did not come back as written")
            for camera in job.cameras:
                lowest = min(lowest, _psnr(pixels(item[IMAGE + camera].numpy()), frame[IMAGE + camera]))
        if lowest < WORST_PSNR_DB:
            raise LogError(
                f"{root}: a frame came back with {lowest:.1f} dB; limit {WORST_PSNR_DB} dB; export with --codec png"
            )
        worst.append(lowest)
    if index != len(dataset):
        raise LogError(f"{root}: {len(dataset)} frames were written of {index}")
    return [value for value in worst if math.isfinite(value)]


def pixels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """lerobot's (3, H, W) in 0..1 as (H, W, 3) uint8."""
    return np.round(image.transpose(1, 2, 0) * 255).astype(np.uint8)


def _psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of 8-bit images, dB; inf where they are equal."""
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return math.inf if error == 0.0 else 10 * math.log10(255**2 / error)


def _origin(entry: EpisodeEntry) -> dict[str, Any]:
    return {
        "log": entry.file,
        "task": entry.task,
        "seed": entry.seed,
        "policy": entry.policy,
        "instruction": entry.instruction,
        "success": entry.success,
    }


def _join(parts: Sequence[Path], whole: Path) -> None:
    shutil.rmtree(whole, ignore_errors=True)
    names = [f"{REPO}-{part.name}" for part in parts]
    aggregate_datasets(names, REPO, roots=list(parts), aggr_root=whole)


def _verify_joined(parts: Sequence[Path], whole: Path) -> None:
    """Every number and every pixel of the parts, in order, read from both; LogError naming what differs."""
    windows = {ACTION: 2}  # so that the episodes' bounds are compared as well
    joined = LeRobotReader(whole, windows=windows)
    rows = episodes = 0
    for part in parts:
        reader = LeRobotReader(part, windows=windows)
        moved = {"index": rows, "episode_index": episodes, "task_index": None}
        for batch in reader.batches(_BATCH):
            first = rows + int(batch["index"][0])
            got = joined[range(first, first + len(batch["index"]))]
            for name, values in batch.items():
                offset = moved.get(name, 0)
                if offset is None:
                    continue  # tasks are numbered anew; what they say is compared
                expected = values + offset if offset else values
                if not np.array_equal(got[name], expected):
                    raise LogError(
                        f"{whole}: {name} of rows {first} to {first + len(batch['index']) - 1} is not that of {part}: "
                        "joining went wrong; try again, or another version of lerobot"
                    )
        rows, episodes = rows + len(reader), episodes + int(reader.episode[-1]) + 1
        reader.close()
    joined.close()


def _page(job: _Job, pages: Sequence[dict[str, Any]], whole: Path) -> dict[str, Any]:
    dataset = LeRobotDataset(REPO, root=whole, video_backend=DECODER)
    data = dataset.hf_dataset.with_format("numpy")
    expected = len([episode for page in pages for episode in page["episodes"]])
    frames = sum(page["frames"] for page in pages)
    if (dataset.num_episodes, len(dataset)) != (expected, frames):
        raise LogError(
            f"{whole}: joined to {dataset.num_episodes} episodes and {len(dataset)} frames, "
            f"the parts hold {expected} and {frames}"
        )
    labelled = np.asarray(data[LABEL]).reshape(-1)
    return {
        "format": FORMAT,
        "key": job.key,
        "frames": frames,
        "statistics": {
            # lerobot keeps bounds of quantiles of each episode only; these are exact, over all rows.
            STATE: statistics(np.asarray(data[STATE])),
            ACTION: statistics(np.asarray(data[ACTION])[labelled]),
        },
        "episodes": [episode for page in pages for episode in page["episodes"]],
    }
