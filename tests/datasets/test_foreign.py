"""Data sets of others become logs whose labels are theirs; what is missing or contradicts itself is said."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from numpy.typing import NDArray
from PIL import Image

from reflexarc.cli import main
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.errors import LogError
from reflexarc.datasets.foreign import ACTION_FIELDS, STATE_FIELDS, Meaning, deal, import_foreign
from reflexarc.datasets.lerobot_export import export
from reflexarc.datasets.lerobot_reader import LeRobotReader
from reflexarc.datasets.lint.signals import read_signals
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.sampling import Samples, sample_episode
from reflexarc.datasets.session import Session
from reflexarc.datasets.video import write_mp4
from reflexarc.foreign import named_arm, open_foreign
from reflexarc.wire.geometry import exp
from reflexarc.wire.messages import F64, Setpoint

FPS = 10
ROWS = 12
SIZE = 32
PANDA = named_arm("panda")
assert PANDA is not None
HOME = np.array(PANDA.config["home"])
SPEC = tcp_delta_spec(1, 1 / FPS)
JOINTS = Meaning(
    state=("observation.state=joint_position,gripper",),
    action=("action=joint_position,gripper",),
    cameras=("top",),
)


def wave(episode: int) -> F64:
    """(ROWS + 1, 8): joints of a Panda that turns about its base, and a gripper that closes half-way."""
    t = np.arange(ROWS + 1)[:, None] / FPS
    joints = HOME + np.array([0.2 + 0.1 * episode, 0, 0, 0, 0, 0, 0]) * t
    return np.concatenate([joints, (t < 0.6).astype(float)], axis=1).astype(np.float32).astype(np.float64)


def level(episode: int, row: int) -> int:
    """Grey of a picture that tells which it is."""
    return 20 + 60 * episode + 10 * row


def grey(episode: int, row: int) -> Any:
    return np.full((SIZE, SIZE, 3), level(episode, row), dtype=np.uint8)


def lerobot_v3(folder: Path, use_videos: bool = True) -> Path:
    """Written by lerobot itself."""
    names = [*(f"j{index}" for index in range(7)), "grip"]
    features = {
        "observation.state": {"dtype": "float32", "shape": (8,), "names": names},
        "action": {"dtype": "float32", "shape": (8,), "names": names},
        "observation.images.top": {
            "dtype": "video" if use_videos else "image",
            "shape": (SIZE, SIZE, 3),
            "names": ["height", "width", "channels"],
        },
    }
    dataset = LeRobotDataset.create("somebody/else", FPS, features, root=folder, use_videos=use_videos)
    for episode in range(2):
        way = wave(episode).astype(np.float32)
        for row in range(ROWS):
            dataset.add_frame(
                {
                    "observation.state": way[row],
                    "action": way[row + 1],
                    "observation.images.top": grey(episode, row),
                    "task": f"turn {episode}",
                }
            )
        dataset.save_episode()
    dataset.finalize()
    return folder


def lerobot_v2(folder: Path, version: str = "v2.1") -> Path:
    """By hand, as the format of v2.1 is published: a parquet file an episode, a video an episode and camera."""
    names = {"motors": [*(f"j{index}" for index in range(7)), "grip"]}
    info = {
        "codebase_version": version,
        "robot_type": "panda",
        "total_episodes": 2,
        "total_frames": 2 * ROWS,
        "chunks_size": 1000,
        "fps": FPS,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "observation.state": {"dtype": "float32", "shape": [8], "names": names},
            "action": {"dtype": "float32", "shape": [8], "names": names},
            "observation.images.top": {"dtype": "video", "shape": [SIZE, SIZE, 3], "names": None},
            **{
                name: {"dtype": "int64", "shape": [1]}
                for name in ("frame_index", "episode_index", "task_index")
            },
            "timestamp": {"dtype": "float32", "shape": [1]},
        },
    }
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(info))
    episodes = [{"episode_index": k, "tasks": [f"turn {k}"], "length": ROWS} for k in range(2)]
    tasks = [{"task_index": k, "task": f"turn {k}"} for k in range(2)]
    for name, lines in (("episodes", episodes), ("tasks", tasks)):
        (folder / f"meta/{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for episode in range(2):
        way = wave(episode)
        table = pa.table(
            {
                "observation.state": pa.array(list(way[:-1]), pa.list_(pa.float32(), 8)),
                "action": pa.array(list(way[1:]), pa.list_(pa.float32(), 8)),
                "timestamp": pa.array(np.arange(ROWS) / FPS, pa.float32()),
                "frame_index": pa.array(range(ROWS)),
                "episode_index": pa.array([episode] * ROWS),
                "index": pa.array(range(episode * ROWS, (episode + 1) * ROWS)),
                "task_index": pa.array([episode] * ROWS),
            }
        )
        path = folder / str(info["data_path"]).format(episode_chunk=0, episode_index=episode)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        video = str(info["video_path"]).format(
            episode_chunk=0, episode_index=episode, video_key="observation.images.top"
        )
        write_mp4((grey(episode, row) for row in range(ROWS)), folder / video, FPS)
    return folder


def samples(log: Path, camera: str = "top") -> Samples:
    return sample_episode(EpisodeReader(log), SPEC, [camera])


def fingerprint(folder: Path) -> dict[str, str]:
    files = [each for each in sorted(folder.rglob("*")) if each.is_file()]
    return {str(each.relative_to(folder)): hashlib.sha256(each.read_bytes()).hexdigest() for each in files}


def poses(joints: F64) -> F64:
    assert PANDA is not None
    return np.stack([PANDA.pose_of(each) for each in joints])


@pytest.fixture(scope="module", params=["v3", "v3-images", "v2.1", "v2.0"])
def lerobot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lerobot") / "set"
    if request.param.startswith("v3"):
        return lerobot_v3(folder, use_videos=request.param == "v3")
    return lerobot_v2(folder, request.param)


def test_a_lerobot_dataset_becomes_logs_that_sample_to_its_own_numbers(lerobot: Path, tmp_path: Path) -> None:
    before = fingerprint(lerobot)
    logs = import_foreign(open_foreign(lerobot), JOINTS, tmp_path / "logs", PANDA)
    assert fingerprint(lerobot) == before
    assert [entry.success for entry in Session(tmp_path / "logs").episodes] == [True, True]
    for episode, log in enumerate(logs):
        way = wave(episode)
        got = samples(log)
        assert got.instruction == f"turn {episode}"
        np.testing.assert_array_equal(got.joint_position, way[:-1, :7])
        np.testing.assert_array_equal(got.gripper, way[:-1, 7])
        np.testing.assert_allclose(got.pose_base_tcp, poses(way[:-1, :7]), atol=1e-12)
        np.testing.assert_allclose(got.pose_base_tcp_commanded_next, poses(way[1:, :7]), atol=1e-12)
        assert got.mask.all()
        np.testing.assert_array_equal(got.actions[:, 0, 6], way[1:, 7])
        turned = np.linalg.norm(got.actions[1:, 0, 3:6], axis=1)
        np.testing.assert_allclose(turned, (0.2 + 0.1 * episode) / FPS, rtol=1e-3)
        levels = got.images["top"].mean(axis=(1, 2, 3))
        np.testing.assert_allclose(levels, [level(episode, row) for row in range(ROWS)], atol=4)
        reader = EpisodeReader(log)
        assert reader.metadata["imported_from"] == str(lerobot)
        asked = [m.joint_position for _, m in reader.messages(["/setpoint"]) if isinstance(m, Setpoint)]
        np.testing.assert_array_equal(np.stack(asked), way[1:, :7])


def robomimic(path: Path, episodes: int = 11) -> Path:
    """TCP deltas of 0.2 m/s and a turn, scaled as OSC_POSE of robosuite scales them; the gripper -1 open, 1 closed."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": FPS}})
        for episode in range(episodes):
            demo = data.create_group(f"demo_{episode}")
            demo.attrs["num_samples"] = ROWS
            actions = np.zeros((ROWS, 7))
            actions[:, 0], actions[:, 5] = 0.4, 0.1 * (episode % 3)
            actions[:, 6] = np.where(np.arange(ROWS) < 6, -1, 1)
            demo["actions"] = actions
            demo["states"] = np.zeros((ROWS, 40))
            t = np.arange(ROWS) / FPS
            demo["obs/robot0_eef_pos"] = np.stack(
                [0.4 + 0.2 * t, 0.01 * episode + 0 * t, 0.3 + 0 * t], axis=1
            )
            demo["obs/robot0_eef_quat"] = np.tile([1.0, 0.0, 0.0, 0.0], (ROWS, 1))
            demo["obs/robot0_gripper_qpos"] = np.tile([0.02, -0.02], (ROWS, 1))
            demo["obs/agentview_image"] = np.stack([grey(episode % 2, row) for row in range(ROWS)])
            demo["next_obs/robot0_eef_pos"] = np.zeros((ROWS, 3))
    return path


ROBOMIMIC = Meaning(
    state=(
        "obs/robot0_eef_pos=position",
        "obs/robot0_eef_quat=quat_xyzw",
        "obs/robot0_gripper_qpos=gripper,skip",
    ),
    action=("actions=delta_position,delta_rotvec,gripper",),
    state_gripper=(0.0, 0.04),
    action_gripper=(1.0, -1.0),
    delta_scale=(0.05, 0.5),
    instruction="lift the cube",
)


def test_a_robomimic_file_becomes_logs_whose_labels_are_its_deltas(tmp_path: Path) -> None:
    source = robomimic(tmp_path / "demo.hdf5")
    before = source.read_bytes()
    logs = import_foreign(open_foreign(source), ROBOMIMIC, tmp_path / "logs")
    assert source.read_bytes() == before
    assert len(logs) == 11
    assert EpisodeReader(logs[10]).metadata["imported_episode"] == "demo.hdf5/data/demo_10"
    for episode in (1, 10):
        got = samples(logs[episode], "agentview")
        expected = [0.02, 0, 0, 0, 0, 0.05 * (episode % 3)]
        np.testing.assert_allclose(got.actions[:, 0, :6], np.tile(expected, (ROWS, 1)), atol=1e-9)
        np.testing.assert_array_equal(got.actions[:, 0, 6], np.arange(ROWS) < 6)
        np.testing.assert_allclose(got.pose_base_tcp[:, 1], 0.01 * episode)
        np.testing.assert_allclose(got.pose_base_tcp[0, 3:], [0, 1, 0, 0])
        np.testing.assert_allclose(got.gripper, 0.5)
        np.testing.assert_array_equal(got.images["agentview"][3], grey(episode % 2, 3))
    signals = read_signals(EpisodeReader(logs[1]))  # the lint judges an arm without joints by its TCP
    np.testing.assert_allclose(np.ptp(signals.states.joints, axis=0), [0.22, 0, 0], atol=1e-9)


def libero(path: Path, instruction: Any) -> Path:
    """One demonstration as LIBERO's `create_dataset.py` stores it: names, widths, attributes; the gripper as above."""
    turn = np.array([0.0, np.pi / 2, 0.0])
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        problem = {
            "problem_name": "tabletop",
            "domain_name": "robosuite",
            "language_instruction": instruction,
        }
        data.attrs["problem_info"] = json.dumps(problem)
        data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 20}, "problem_name": "tabletop"})
        data.attrs["num_demos"] = 1
        demo = data.create_group("demo_0")
        demo.attrs["num_samples"] = ROWS
        demo["actions"] = np.tile([0.4, 0, 0, 0, 0, 0.1, -1.0], (ROWS, 1))
        demo["states"], demo["robot_states"] = np.zeros((ROWS, 92)), np.zeros((ROWS, 9))
        demo["rewards"], demo["dones"] = np.zeros(ROWS, np.uint8), np.zeros(ROWS, np.uint8)
        place = np.stack(
            [0.4 + 0.01 * np.arange(ROWS), 0 * np.arange(ROWS), 0.3 + 0 * np.arange(ROWS)], axis=1
        )
        demo["obs/ee_pos"], demo["obs/ee_ori"] = place, np.tile(turn, (ROWS, 1))
        demo["obs/ee_states"] = np.concatenate([place, np.tile(turn, (ROWS, 1))], axis=1)
        demo["obs/gripper_states"] = np.tile([0.03, -0.03], (ROWS, 1))
        demo["obs/joint_states"] = wave(0)[:-1, :7]
        for camera in ("agentview_rgb", "eye_in_hand_rgb"):
            demo[f"obs/{camera}"] = np.stack([grey(0, row) for row in range(ROWS)])
    return path


LIBERO = Meaning(
    state=(
        "obs/ee_states=position,rotvec",
        "obs/joint_states=joint_position",
        "obs/gripper_states=gripper,skip",
    ),
    action=("actions=delta_position,delta_rotvec,gripper",),
    state_gripper=(0.0, 0.04),
    action_gripper=(1.0, -1.0),
    delta_scale=(0.05, 0.5),
)


@pytest.mark.parametrize(
    "instruction",
    ["put the bowl on the plate", '"put the bowl on the plate"', ["put the bowl ", "on the plate"]],
)
def test_a_libero_file_tells_its_own_words_and_rate(tmp_path: Path, instruction: Any) -> None:
    source = libero(tmp_path / "put_the_bowl_on_the_plate_demo.hdf5", instruction)
    (log,) = import_foreign(open_foreign(source), LIBERO, tmp_path / "logs")
    reader = EpisodeReader(log)
    assert reader.instruction == "put the bowl on the plate"
    assert reader.cameras == ("agentview", "eye_in_hand")
    got = sample_episode(reader, tcp_delta_spec(1, 0.05), ["agentview", "eye_in_hand"])
    assert np.unique(np.diff(got.t_ns)).tolist() == [50_000_000]
    np.testing.assert_allclose(got.actions[:, 0], np.tile([0.02, 0, 0, 0, 0, 0.05, 1], (ROWS, 1)), atol=1e-9)
    np.testing.assert_allclose(got.pose_base_tcp[3], [0.43, 0, 0.3, *exp(np.array([0, np.pi / 2, 0]))])
    np.testing.assert_array_equal(got.joint_position, wave(0)[:-1, :7])
    np.testing.assert_allclose(got.gripper, 0.75)
    np.testing.assert_array_equal(got.images["eye_in_hand"][3], grey(0, 3))


def test_a_rate_that_contradicts_what_is_told_elsewhere_is_refused(tmp_path: Path, refused: Path) -> None:
    folder = tmp_path / "both"
    folder.mkdir()
    robomimic(folder / "a.hdf5", 1)
    libero(folder / "b.hdf5", "lift")
    with pytest.raises(
        LogError, match=r"b\.hdf5: 20 rows a second, .*a\.hdf5 has 10; import files of one rate"
    ):
        open_foreign(folder)
    with pytest.raises(LogError, match=r"its files tell 10 rows a second, --fps says 30; leave it out"):
        open_foreign(folder / "a.hdf5", 30)
    assert open_foreign(folder / "a.hdf5", 10).fps == 10
    with pytest.raises(LogError, match=r"info\.json says 10 rows a second, --fps 30; leave --fps out"):
        open_foreign(lerobot_v2(tmp_path / "set"), 30)


def aloha(folder: Path, compress: bool = False) -> Path:
    folder.mkdir()
    for episode in range(2):
        way = wave(episode)
        with h5py.File(folder / f"episode_{episode}.hdf5", "w") as file:
            file.attrs["sim"] = False
            file.attrs["compress"] = compress
            file["observations/qpos"] = np.concatenate([way[:-1], way[:-1]], axis=1)
            file["observations/qvel"] = np.ones((ROWS, 16))
            file["action"] = np.concatenate([way[1:], way[1:]], axis=1)
            pictures = [grey(episode, row) for row in range(ROWS)]
            file["observations/images/cam_high"] = packed(pictures) if compress else np.stack(pictures)
    return folder


def packed(pictures: list[Any]) -> Any:
    """JPEG of each, padded with zeros to the longest."""
    encoded = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG")
        encoded.append(np.frombuffer(buffer.getvalue(), np.uint8))
    longest = max(map(len, encoded))
    return np.stack([np.pad(each, (0, longest - len(each))) for each in encoded])


@pytest.mark.parametrize("compress", [False, True])
def test_files_of_aloha_become_logs_of_one_of_its_arms(tmp_path: Path, compress: bool) -> None:
    source = aloha(tmp_path / "aloha", compress)
    meaning = Meaning(
        state=(
            "observations/qpos=joint_position:7,gripper,skip:8",
            "observations/qvel=joint_velocity:7,skip:9",
        ),
        action=("action=joint_position:7,gripper,skip:8",),
        instruction="turn",
    )
    logs = import_foreign(open_foreign(source, FPS), meaning, tmp_path / "logs", PANDA)
    got = samples(logs[1], "cam_high")
    np.testing.assert_array_equal(got.joint_position, wave(1)[:-1, :7])
    np.testing.assert_allclose(got.pose_base_tcp_commanded_next, poses(wave(1)[1:, :7]), atol=1e-12)
    np.testing.assert_allclose(got.images["cam_high"][3].mean(), level(1, 3), atol=1)
    with pytest.raises(LogError, match=r"tell no frame rate; give it by --fps"):
        open_foreign(source)


def test_fields_are_dealt_out_in_their_order() -> None:
    columns = {"a": np.arange(24.0).reshape(2, 12), "b": np.zeros((2, 1))}
    got = deal(["a=position,skip:2,quat_wxyz,rotvec:3", "b=gripper"], STATE_FIELDS, columns, "set")
    assert got["position"].tolist() == [[0, 1, 2], [12, 13, 14]]
    assert got["quat_wxyz"].tolist() == [[5, 6, 7, 8], [17, 18, 19, 20]]
    assert set(got) == {"position", "quat_wxyz", "rotvec", "gripper"}
    assert deal(["a=joint_position,gripper"], STATE_FIELDS, columns, "set")["joint_position"].shape == (2, 11)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (["c=gripper"], r"set: unknown column 'c'.*a, b"),
        (["a"], r"'a' must look like COLUMN=FIELD,FIELD; fields: joint_position, gripper"),
        (["b=torque"], r"unknown field 'torque'.*joint_position.*skip"),
        (["b=position"], r"set: b=position: the column has 1 numbers, the fields take 3"),
        (["b=joint_position,gripper"], r"the column has 1 numbers, the fields take 1\+"),
        (["a=joint_position,joint_position"], "need their widths, as joint_position:7"),
        (["a=skip:12", "b=gripper", "b=gripper"], "set: gripper is told twice"),
        (["a=skip:x"], "the width of skip is 'x'"),
    ],
)
def test_what_is_told_wrongly_is_said(parts: list[str], said: str) -> None:
    columns = {"a": np.zeros((2, 12)), "b": np.zeros((2, 1))}
    with pytest.raises(LogError, match=said):
        deal(parts, ACTION_FIELDS, columns, "set")


@pytest.mark.parametrize("kind", ["quat_wxyz", "quat_xyzw", "rotvec", "rpy"])
def test_rotations_are_understood_in_each_of_their_ways(tmp_path: Path, kind: str) -> None:
    values = {"quat_wxyz": [0.6, 0.8, 0, 0], "quat_xyzw": [0.8, 0, 0, 0.6]}
    about_x = 2 * np.arctan2(0.8, 0.6)
    source = tmp_path / "demo.hdf5"
    with h5py.File(source, "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"] = np.zeros((3, 3))
        demo["obs/pose"] = np.tile([0.4, 0, 0.3, *values.get(kind, [about_x, 0, 0])], (3, 1))
        demo["obs/front_image"] = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    meaning = Meaning(
        state=(f"obs/pose=position,{kind}",), action=("actions=delta_position",), instruction="hold"
    )
    (log,) = import_foreign(open_foreign(source, FPS), meaning, tmp_path / "logs")
    got = samples(log, "front").pose_base_tcp[0]
    np.testing.assert_allclose(got, [0.4, 0, 0.3, *exp(np.array([about_x, 0, 0]))], atol=1e-9)


@pytest.fixture
def refused(tmp_path: Path) -> Iterator[Path]:
    """Where an import must leave nothing."""
    yield tmp_path / "logs"
    assert not [each for each in tmp_path.iterdir() if "logs" in each.name]


def damage_v2(folder: Path, what: str) -> str:
    """Damage a folder; what must be said."""
    info = json.loads((folder / "meta/info.json").read_text())
    video = folder / "videos/chunk-000/observation.images.top/episode_000001.mp4"
    data = folder / "data/chunk-000/episode_000001.parquet"
    if what == "no info":
        (folder / "meta/info.json").unlink()
        return r"no LeRobotDataset: .*info\.json cannot be read: No such file"
    if what == "torn info":
        (folder / "meta/info.json").write_text("{")
        return r"info\.json is damaged"
    if what == "version":
        info["codebase_version"] = "v4.0"
        said = r"LeRobotDataset v4\.0; v2\.0, v2\.1 and v3\.x can be imported"
    elif what == "fps":
        info["fps"] = 30
        said = r"row 1 is 0\.1000 s after the one before; fps 30 of info\.json says 0\.0333 s"
    elif what == "episodes":
        info["total_episodes"] = 5
        said = r"info\.json says 5 episodes, episodes\.jsonl lists 2"
    elif what == "no video":
        video.unlink()
        return (
            r"1 of 4 files are missing, first videos/chunk-000/observation\.images\.top/episode_000001\.mp4"
        )
    elif what == "no data":
        shutil.rmtree(folder / "data")
        return r"2 of 4 files are missing, first data/chunk-000/episode_000000\.parquet"
    elif what == "short video":
        write_mp4((grey(1, row) for row in range(ROWS - 3)), video, FPS)
        return r"the video has 9 frames for 12 rows"
    elif what == "slow video":
        write_mp4((grey(1, row) for row in range(ROWS)), video, 5)
        return r"the video has 5 frames a second; fps of info\.json is 10"
    elif what == "torn video":
        video.write_bytes(video.read_bytes()[:200])
        return r"episode_000001\.mp4: not a video that can be read"
    elif what == "torn data":
        data.write_bytes(data.read_bytes()[:-40])
        return r"episode_000001\.parquet: not a parquet file that can be read"
    elif what == "short data":
        pq.write_table(pq.read_table(data).slice(0, 5), data)
        return r"episode_000001\.parquet: 5 rows; episodes\.jsonl says 12"
    else:
        pq.write_table(pq.read_table(data).drop_columns(["action"]), data)
        return r"episode_000001\.parquet: no column 'action'; it has observation\.state"
    (folder / "meta/info.json").write_text(json.dumps(info))
    return said


@pytest.mark.parametrize(
    "what",
    [
        "no info",
        "torn info",
        "version",
        "fps",
        "episodes",
        "no video",
        "no data",
        "short video",
        "slow video",
        "torn video",
        "torn data",
        "short data",
        "no column",
    ],
)
def test_a_damaged_folder_is_refused_and_nothing_is_written(tmp_path: Path, refused: Path, what: str) -> None:
    folder = lerobot_v2(tmp_path / "set")
    said = damage_v2(folder, what)
    before = fingerprint(folder)
    with pytest.raises(LogError, match=said) as raised:
        import_foreign(open_foreign(folder), JOINTS, refused, PANDA)
    assert "\n" not in str(raised.value)
    assert fingerprint(folder) == before


def test_half_a_folder_of_version_3_is_refused(tmp_path: Path, refused: Path) -> None:
    folder = lerobot_v3(tmp_path / "set")
    for missing, said in (("videos", r"the video .* is missing"), ("data", "no parquet file in it")):
        half = tmp_path / f"half-{missing}"
        shutil.copytree(folder, half)
        shutil.rmtree(half / missing)
        with pytest.raises(LogError, match=said):
            import_foreign(open_foreign(half), JOINTS, refused, PANDA)


def test_numbers_that_contradict_what_was_told_are_refused(tmp_path: Path, refused: Path) -> None:
    folder = lerobot_v2(tmp_path / "set")
    told = {"state": JOINTS.state, "action": JOINTS.action}
    with pytest.raises(LogError, match=r"it has: observation\.state \(8: j0, .*, grip\); action \(8"):
        import_foreign(open_foreign(folder), Meaning(state=(), action=()), refused, PANDA)
    with pytest.raises(LogError, match="name the arm they are of, as --arm panda"):
        import_foreign(open_foreign(folder), JOINTS, refused)
    with pytest.raises(LogError, match="joint_position takes 7 numbers; ur5e has 6 joints"):
        import_foreign(open_foreign(folder), JOINTS, refused, named_arm("ur5e"))
    with pytest.raises(LogError, match="unknown camera 'side'"):
        import_foreign(open_foreign(folder), Meaning(**told, cameras=("side",)), refused, PANDA)
    with pytest.raises(LogError, match=r"the gripper is 1 in row 0, beyond 0 \(closed\) \.\. 0\.04 \(open\)"):
        import_foreign(open_foreign(folder), Meaning(**told, state_gripper=(0, 0.04)), refused, PANDA)
    source = robomimic(tmp_path / "demo.hdf5", 1)
    targets = Meaning(
        state=ROBOMIMIC.state, action=("actions=joint_position:6,skip",), state_gripper=(0, 0.04)
    )
    for arm in (None, named_arm("ur5e")):
        with pytest.raises(
            LogError, match="6 joint targets for 0 joints; tell joint_position of the state and"
        ):
            import_foreign(open_foreign(source), targets, refused, arm)
    silent = Meaning(state=ROBOMIMIC.state[:2], action=ROBOMIMIC.action, action_gripper=(1, -1))
    with pytest.raises(LogError, match="it tells no instruction; give one by --instruction"):
        import_foreign(open_foreign(source), silent, refused)
    wrong = Meaning(
        state=(ROBOMIMIC.state[0], "obs/robot0_gripper_qpos=skip:2", "obs/robot0_eef_pos=rpy"),
        action=("actions=delta_position,position,gripper",),
        action_gripper=(1, -1),
    )
    with pytest.raises(LogError, match="an action is a delta or a target, not both"):
        import_foreign(open_foreign(source), wrong, refused)


def test_hdf5_files_that_are_damaged_or_of_another_layout_are_refused(tmp_path: Path, refused: Path) -> None:
    source = robomimic(tmp_path / "demo.hdf5", 2)
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LogError, match=r"demo\.hdf5: not an HDF5 file that can be read"):
        open_foreign(source)
    source.write_bytes(whole)
    with h5py.File(source, "a") as file:
        del file["data/demo_1/obs/robot0_eef_quat"]
    with pytest.raises(LogError, match=r"/data/demo_1 has no 'obs/robot0_eef_quat'; it has actions"):
        import_foreign(open_foreign(source), ROBOMIMIC, refused)
    source.write_bytes(whole)
    with h5py.File(source, "a") as file:
        del file["data/demo_1/obs/robot0_eef_pos"]
        file["data/demo_1/obs/robot0_eef_pos"] = np.zeros((4, 3))
    with pytest.raises(LogError, match=r"demo_1/obs/robot0_eef_pos has 4 rows for 12 actions"):
        import_foreign(open_foreign(source), ROBOMIMIC, refused)
    source.write_bytes(whole)
    with h5py.File(source, "a") as file:
        del file["data/demo_1/obs/agentview_image"]
        file["data/demo_1/obs/agentview_image"] = np.zeros((ROWS + 2, SIZE, SIZE, 3), np.uint8)
    with pytest.raises(LogError, match=r"demo_1/obs/agentview_image has 14 pictures for 12 actions"):
        import_foreign(open_foreign(source), ROBOMIMIC, refused)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["trajectory"] = np.zeros(3)
    with pytest.raises(LogError, match=r"neither robomimic's layout .* nor ALOHA's .*; it has trajectory"):
        open_foreign(other, 10)
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(LogError, match=r"notes\.txt: neither a LeRobotDataset .* nor HDF5"):
        open_foreign(text)


def test_an_import_never_writes_over_a_session(tmp_path: Path) -> None:
    source = robomimic(tmp_path / "demo.hdf5", 1)
    (tmp_path / "there").mkdir()
    with pytest.raises(LogError, match="exists already"):
        import_foreign(open_foreign(source), ROBOMIMIC, tmp_path / "there")


def test_an_interrupted_import_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = robomimic(tmp_path / "demo.hdf5", 4)
    aside = tmp_path / ".logs.unfinished"
    dataset = open_foreign(source)
    pictures = dataset.pictures

    def interrupted(episode: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        for row, picture in enumerate(pictures(episode, camera)):
            if (episode, row) == (2, 5):
                raise KeyboardInterrupt
            yield picture

    monkeypatch.setattr(dataset, "pictures", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_foreign(dataset, ROBOMIMIC, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
    (half,) = aside.glob("logs-000002*")
    assert EpisodeReader(half).is_cut
    before = {name: (aside / name).stat().st_mtime_ns for name in ("logs-000000.mcap", "logs-000001.mcap")}
    logs = import_foreign(open_foreign(source), ROBOMIMIC, tmp_path / "logs")
    assert {log.name: log.stat().st_mtime_ns for log in logs[:2]} == before
    assert [each.name for each in sorted((tmp_path / "logs").iterdir())] == [log.name for log in logs]
    assert not any(EpisodeReader(log).is_cut for log in logs)
    for log in logs:
        assert EpisodeReader(log).outcome == {"success": True, "time_s": pytest.approx(ROWS / FPS)}
        assert EpisodeReader(log).topics["/camera/agentview"] == ROWS

    with pytest.raises(KeyboardInterrupt):
        import_foreign(open_foreign(source), ROBOMIMIC, tmp_path / "logs2", progress=interrupted_at_once)
    other = dataclasses.replace(ROBOMIMIC, instruction="lift the other cube")
    again = import_foreign(open_foreign(source), other, tmp_path / "logs2")
    assert {EpisodeReader(log).instruction for log in again} == {"lift the other cube"}


def interrupted_at_once(episodes: Sequence[int]) -> Iterator[int]:
    yield episodes[0]
    raise KeyboardInterrupt


def test_an_imported_session_is_exported_with_the_same_numbers(tmp_path: Path) -> None:
    source = lerobot_v2(tmp_path / "source")
    import_foreign(open_foreign(source), JOINTS, tmp_path / "logs", PANDA)
    export(tmp_path / "logs", tmp_path / "set", SPEC, ["top"], codec="png")
    again = LeRobotReader(tmp_path / "set")
    way = np.concatenate([wave(0)[:-1], wave(1)[:-1]])
    np.testing.assert_array_equal(again.columns["observation.state"], way.astype(np.float32))
    assert [again.task(row) for row in (0, ROWS)] == ["turn 0", "turn 1"]


def test_the_command_imports_and_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = robomimic(tmp_path / "demo.hdf5", 2)
    told = ["dataset", "import", str(source), "--out", str(tmp_path / "logs"), "--instruction", "lift"]
    assert main(told) == 1
    said = capsys.readouterr().err
    assert "say what its columns mean, as --state COLUMN=joint_position,gripper; it has: actions (7)" in said
    for part in ROBOMIMIC.state:
        told += ["--state", part]
    told += ["--action", ROBOMIMIC.action[0], "--state-gripper", "0", "0.04"]
    told += ["--action-gripper", "1", "-1", "--delta-scale", "0.05", "0.5", "--encoding", "jpeg"]
    assert main(told) == 0
    assert "2 episodes" in capsys.readouterr().out
    assert len(list((tmp_path / "logs").glob("*.mcap"))) == 2
