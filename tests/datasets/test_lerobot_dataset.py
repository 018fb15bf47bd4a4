"""A session as a LeRobotDataset and back: loads and trains in lerobot itself, and comes back to the bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("lerobot")

from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.scripts.convert_dataset_v21_to_v30 import convert_dataset
from lerobot.scripts.lerobot_train import train

from contracts.episode_bench import METADATA, control, motion, picture, state, written
from reflexarc.cli import main
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.errors import LogError
from reflexarc.datasets import lerobot_export
from reflexarc.datasets.foreign_lerobot import open_lerobot
from reflexarc.datasets.lerobot_export import ACTION, BY_PERSON, LABEL, STATE, TIME, export, pixels, read_page
from reflexarc.datasets.lerobot_import import import_dataset
from reflexarc.datasets.lerobot_reader import LeRobotReader
from reflexarc.datasets.lerobot_v2 import write_v2
from reflexarc.datasets.session import EpisodeEntry, Session
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.wire.geometry import exp
from reflexarc.wire.images import encode_image

SPEC = tcp_delta_spec(8, 0.1)
CAMERAS = ("front", "wrist")
SIZE = 64
MS = 1_000_000


def pose(t_s: float, bend: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A hand that moves and turns, so that every number of a label is one that rounding can change."""
    place = [0.4 + 0.05 * np.sin(1.7 * t_s), bend * t_s, 0.3 - 0.02 * t_s**2]
    return np.array([*place, *exp(np.array([np.pi, 0.1 * t_s, 0.05 * np.sin(t_s)]))])


def write_episode(path: Path, seed: int, *, jitter: bool, success: bool = True) -> None:
    """1.5 s at 200 Hz and 10 Hz of smooth pictures; cameras may jitter. A person takes the arm after half a second,
    somebody disturbs, then it is the policy's."""
    random = np.random.default_rng(seed)
    outcome = {"success": success, "time_s": 1.5}
    with EpisodeWriter(path, METADATA | {"seed": seed, "task": "lift"}, fsync=False) as writer:
        for tick in range(300):
            t_ns = tick * 5 * MS
            gripper = 1.0 if tick < 150 else 0.0
            message = state(t_ns, commanded=pose(t_ns * 1e-9, 0.01 * (seed + 1)), gripper=gripper, seq=tick)
            writer.write("/state", message)
            who = {0: "policy", 103: "teleop", 200: "perturb", 230: "policy"}.get(tick)
            if who is not None:
                writer.write("/event", control(t_ns, who))
            if tick % 20 == 0:
                shift = int(random.integers(0, 12)) * MS if jitter and tick else 0
                for number, camera in enumerate(CAMERAS):
                    ramp = np.linspace(0, 200, SIZE)[:, None] + np.linspace(0, 40, SIZE) + tick / 10
                    image = np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8)
                    image[..., number] //= 2
                    writer.write(
                        f"/camera/{camera}",
                        encode_image(
                            image, camera=camera, seq=tick, t_capture_ns=t_ns + shift, clock="virtual"
                        ),
                    )
        writer.close(outcome)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three successful episodes, one of them with jittering cameras, and one that failed."""
    folder = tmp_path_factory.mktemp("session")
    for seed in range(3):
        write_episode(folder / "lift" / f"{seed}.mcap", seed, jitter=seed == 1)
    write_episode(folder / "lift" / "failed.mcap", 9, jitter=False, success=False)
    return folder


@pytest.fixture(scope="module")
def exported(session: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "data"
    figures = out.with_name("figures.json")
    assert main(["dataset", "export", str(session), "--out", str(out), "--json", str(figures)]) == 0
    assert json.loads(figures.read_text())["left_out"] == {"failed": 1}
    return out


def table(folder: Path) -> dict[str, list[Any]]:
    """Every stored number, exactly."""
    data = LeRobotDataset("x/y", root=folder).hf_dataset.with_format(None)
    return {name: data[name][:] for name in data.column_names}


def test_an_export_loads_in_lerobot_with_true_times_beside_its_own(exported: Path) -> None:
    dataset = LeRobotDataset("x/y", root=exported, delta_timestamps={ACTION: [0.0, 0.1]})
    assert (dataset.num_episodes, dataset.fps) == (3, 10)
    item = dataset[0]
    assert item["observation.images.front"].shape == (3, SIZE, SIZE)
    assert item[ACTION].shape == (2, 7)
    assert item["task"] == "lift it"
    times = np.array(table(exported)[TIME]).ravel()
    assert len(set(np.diff(times[16:28]))) > 1  # the second episode's cameras jitter
    page = read_page(exported)
    assert [episode["seed"] for episode in page["episodes"]] == [0, 1, 2]
    assert [episode["task"] for episode in page["episodes"]] == ["lift"] * 3


def test_rows_in_which_a_person_had_the_arm_are_marked(exported: Path) -> None:
    stored = table(exported)
    times, episode, by_person = (
        np.array(stored[name]).ravel() for name in (TIME, "episode_index", BY_PERSON)
    )
    assert {*episode[by_person]} == {0, 1, 2}
    np.testing.assert_array_equal(by_person, (times >= 103 * 5 * MS) & (times < 200 * 5 * MS))


def test_quantiles_are_exact_over_all_labels(exported: Path) -> None:
    stored = table(exported)
    labelled = np.array(stored[LABEL]).ravel()
    assert 0 < labelled.sum() < len(labelled)  # the disturbed rows are there, and marked
    actions = np.array(stored[ACTION], dtype=np.float64)[labelled]
    statistics = read_page(exported)["statistics"]
    assert statistics[ACTION]["q99"] == np.quantile(actions, 0.99, axis=0).tolist()
    assert statistics[ACTION]["count"] == labelled.sum()
    assert statistics[STATE]["min"] == np.min(np.array(stored[STATE]), axis=0).tolist()


def test_export_import_export_is_equal_to_the_bit(exported: Path, tmp_path: Path) -> None:
    assert main(["dataset", "import", str(exported), "--out", str(tmp_path / "back")]) == 0
    again = export(tmp_path / "back", tmp_path / "again", SPEC, CAMERAS, robot="panda")
    assert again.worst_psnr_db > lerobot_export.WORST_PSNR_DB
    assert table(exported) == table(tmp_path / "again")
    assert read_page(exported)["episodes"] != []
    assert read_page(exported)["statistics"] == read_page(tmp_path / "again")["statistics"]
    first, second = (LeRobotDataset("x/y", root=folder) for folder in (exported, tmp_path / "again"))
    for row in range(len(first)):  # the pictures were through the codec once more
        for camera in CAMERAS:
            one, other = (
                pixels(each[row][f"observation.images.{camera}"].numpy()) for each in (first, second)
            )
            error = np.mean((one.astype(float) - other) ** 2)
            assert 10 * np.log10(255**2 / max(error, 1e-9)) > lerobot_export.WORST_PSNR_DB


def test_what_is_exported_already_takes_no_further_options(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in (["--fps", "20"], ["--arm", "panda"], ["--task", "lift"], ["--cameras", "front"]):
        assert main(["dataset", "import", str(exported), "--out", str(tmp_path / "back"), *option]) == 1
        assert "leave out all options but --out" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_read_is_not_passed_over(
    session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(session, tmp_path / "session")
    (folder / "lift" / "rubbish.mcap").write_bytes(b"rubbish")
    with pytest.raises(LogError, match=r"rubbish\.mcap is not an episode log.*dataset delete"):
        export(folder, tmp_path / "data", SPEC, CAMERAS)
    assert not (tmp_path / "data").exists()


def test_without_av1_the_machine_encodes_h264_and_without_both_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    able = {"libsvtav1", "h264"}

    def config(vcodec: str) -> None:
        if vcodec not in able:
            raise ValueError(f"Unsupported video codec: {vcodec}")

    monkeypatch.setattr(lerobot_export, "RGBEncoderConfig", config)
    assert lerobot_export._encoder() == "libsvtav1"
    able.remove("libsvtav1")
    assert lerobot_export._encoder() == "h264"
    able.clear()
    with pytest.raises(LogError, match=r"no encoder for AV1 or H\.264; export with --codec png"):
        lerobot_export._encoder()


def test_version_2_1_is_what_lerobots_own_conversion_takes(
    session: Path, exported: Path, tmp_path: Path
) -> None:
    """Converted to v3 by lerobot, it is the export of version 3 again, to the bit."""
    out = tmp_path / "old"
    assert main(["dataset", "export", str(session), "--out", str(out), "--version", "v2.1"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    info = json.loads((out / "meta/info.json").read_text())
    assert (info["codebase_version"], info["total_episodes"], info["splits"]) == ("v2.1", 3, {"train": "0:3"})
    assert info["total_videos"] == len(list(out.rglob("*.mp4"))) == 6
    assert read_page(out)["statistics"] == read_page(exported)["statistics"]
    convert_dataset("x/y", root=out, push_to_hub=False)
    assert table(out) == table(exported)
    old, new = (LeRobotDataset("x/y", root=folder, video_backend="pyav") for folder in (out, exported))
    for row in (0, 5, 14, 15, 29, len(new) - 1):
        for camera in CAMERAS:
            one, other = (each[row][f"observation.images.{camera}"].numpy() for each in (old, new))
            np.testing.assert_array_equal(one, other)
    assert old.meta.stats[ACTION]["max"].tolist() == new.meta.stats[ACTION]["max"].tolist()


def test_lossless_pictures_come_back_equal(session: Path, tmp_path: Path) -> None:
    done = export(session, tmp_path / "png", SPEC, CAMERAS, codec="png", all_episodes=True)
    assert (done.episodes, done.left_out) == (4, {})
    assert done.worst_psnr_db == np.inf
    write_v2(done.folder, tmp_path / "old")  # in version 2.1 pictures stand in the tables too
    pictures = open_lerobot(tmp_path / "old").pictures(1, "wrist")
    stored = LeRobotReader(done.folder)
    rows = np.flatnonzero(stored.episode == 1)
    np.testing.assert_array_equal(np.stack(list(pictures)), stored.images("observation.images.wrist", rows))


def test_lerobots_own_training_takes_a_step_on_it(exported: Path, tmp_path: Path) -> None:
    policy = ACTConfig(
        device="cpu",
        push_to_hub=False,
        chunk_size=4,
        n_action_steps=4,
        dim_model=32,
        n_heads=2,
        dim_feedforward=32,
        n_encoder_layers=1,
        n_vae_encoder_layers=1,
        latent_dim=4,
        pretrained_backbone_weights=None,
    )
    config = TrainPipelineConfig(
        dataset=DatasetConfig(repo_id="x/y", root=str(exported), video_backend="pyav"),
        policy=policy,
        output_dir=tmp_path / "train",
        steps=1,
        batch_size=2,
        num_workers=0,
        save_checkpoint=True,
    )
    train(config)
    assert list((tmp_path / "train").rglob("model.safetensors"))


def camera_log(path: Path, captures_ms: Sequence[float]) -> EpisodeEntry:
    """Five seconds of an arm that goes 5 cm/s along x, seen at these times."""
    messages = [(t, m) for t, m in motion(lambda t: pose_along(0.05 * t), 5.0) if not t.startswith("/camera")]
    messages += [("/camera/front", picture(round(ms * MS), "front", n)) for n, ms in enumerate(captures_ms)]
    written(path, messages)
    return Session(path.parent).episodes[0]


def pose_along(x: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([x, 0.0, 0.3, 0.0, 1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("rate_hz", "step_s", "fits"),
    [(50, 0.1, None), (60, 0.1, None), (15, 0.1, 15), (25, 0.1, 25), (10, 0.05, 10), (25, 0.2, None)],
)
def test_a_rate_that_does_not_divide_the_cameras_is_refused_with_one_that_does(
    tmp_path: Path, rate_hz: int, step_s: float, fits: int | None
) -> None:
    """What fits has the actions of consecutive rows add up to the way that was gone."""
    log = camera_log(tmp_path / "logs" / "e.mcap", [1000 / rate_hz * n for n in range(4 * rate_hz + 1)])
    if fits is not None:
        spec = tcp_delta_spec(1, step_s)
        text = rf"\({rate_hz} Hz\) are [\d.]+ ms apart, not a step of {step_s * 1e3:g} ms.*step_s of {1 / fits:.9g} "
        with pytest.raises(LogError, match=text):
            export(tmp_path / "logs", tmp_path / "data", spec, ("front",))
        assert not (tmp_path / "data").exists()
        step_s = float(f"{1 / fits:.9g}")
    spec = tcp_delta_spec(1, step_s)
    samples = lerobot_export._sampled(
        lerobot_export._Job(tmp_path / "logs", spec, ("front",), "png", "", {}), log
    ).samples
    assert 1 / step_s == pytest.approx(lerobot_export._fps(spec))
    way = samples.actions[:-1, 0, 0].sum()
    assert way == pytest.approx(0.05 * (samples.t_ns[-1] - samples.t_ns[0]) * 1e-9, rel=0.02)
    assert samples.mask.all()


def test_a_row_before_a_gap_is_no_label(tmp_path: Path) -> None:
    """Chunks are cut from consecutive rows: what was commanded in the gap would be passed over."""
    log = camera_log(tmp_path / "e.mcap", [ms for ms in range(0, 2001, 100) if ms not in (700, 800, 1200)])
    job = lerobot_export._Job(tmp_path, tcp_delta_spec(1, 0.1), ("front",), "png", "", {})
    samples = lerobot_export._sampled(job, log).samples
    assert samples.t_ns[~samples.mask[:, 0]].tolist() == [600 * MS, 1100 * MS]


def test_an_interrupted_export_goes_on(
    session: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_export, "PART_EPISODES", 1)
    written = []
    write = lerobot_export._write_part

    def spy(job: Any, entries: Sequence[EpisodeEntry], part: Path, logs: list[list[Any]]) -> None:
        written.append(part.name)
        write(job, entries, part, logs)

    def interrupted(entries: Sequence[EpisodeEntry]) -> Iterator[EpisodeEntry]:
        yield from entries[:2]
        raise KeyboardInterrupt

    monkeypatch.setattr(lerobot_export, "_write_part", spy)
    with pytest.raises(KeyboardInterrupt):
        export(session, tmp_path / "data", SPEC, CAMERAS, progress=interrupted)
    assert not (tmp_path / "data").exists()
    join = lerobot_export._join

    def shifting(parts: Sequence[Path], whole: Path) -> None:
        join(parts, whole)
        (path,) = (whole / "meta" / "episodes").rglob("*.parquet")
        episodes = pq.read_table(path)
        name = "videos/observation.images.wrist/from_timestamp"
        shifted = np.array(episodes[name]) - [0.0, 0.1, 0.0]
        episodes = episodes.set_column(episodes.column_names.index(name), name, pa.array(shifted))
        pq.write_table(episodes, path)

    monkeypatch.setattr(lerobot_export, "_join", shifting)
    with pytest.raises(
        LogError, match=r"observation\.images\.wrist of rows 14 to \d+ is not that of .*00001"
    ):
        export(session, tmp_path / "data", SPEC, CAMERAS)
    assert not (tmp_path / "data").exists()
    monkeypatch.setattr(lerobot_export, "_join", join)
    export(session, tmp_path / "data", SPEC, CAMERAS)
    assert written == ["00000", "00001", "00002"]
    assert table(exported) == table(tmp_path / "data")  # joined from parts, or written as one
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_what_does_not_fit_is_named_and_leaves_nothing(session: Path, exported: Path, tmp_path: Path) -> None:
    for call, text in (
        (lambda: export(session, tmp_path / "a", SPEC, ("front", "left")), "unknown camera 'left'"),
        (lambda: export(tmp_path, tmp_path / "a", SPEC, CAMERAS), "no successful episode"),
        (lambda: export(session, exported, SPEC, CAMERAS), "exists already"),
        (lambda: export(session, tmp_path / "a", tcp_delta_spec(1, 0.15), CAMERAS), "whole numbers"),
        (lambda: import_dataset(tmp_path, tmp_path / "b"), "was not exported by reflexarc"),
    ):
        with pytest.raises(LogError, match=text):
            call()
        assert not (tmp_path / "a").exists()
        assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (lambda folder: shutil.rmtree(folder / "data"), "lerobot cannot open it"),
        (lambda folder: rewrite(folder, "meta/info.json", fps=20), "fps is 20"),
        (lambda folder: rewrite(folder, "meta/reflexarc.json", episodes=[]), "names 0 episodes"),
        (lambda folder: shutil.rmtree(folder / "videos"), "lerobot cannot (open|read) it"),
        (lambda folder: tear(folder / "videos"), "lerobot cannot (open|read) it"),
        (lambda folder: tear(folder / "data"), "lerobot cannot (open|read) it"),
        (lambda folder: (folder / "meta/reflexarc.json").write_text("{"), r"reflexarc\.json is damaged"),
        (lambda folder: rewrite(folder, "meta/reflexarc.json", key={}), "tells no action space"),
        (lambda folder: rename_episodes(folder), "names an episode '../../lift.mcap'"),
    ],
)
def test_half_a_data_set_is_refused(exported: Path, tmp_path: Path, harm: Any, text: str) -> None:
    shutil.copytree(exported, tmp_path / "half")
    harm(tmp_path / "half")
    before = {path: path.read_bytes() for path in (tmp_path / "half").rglob("*") if path.is_file()}
    with pytest.raises(LogError, match=text) as raised:
        import_dataset(tmp_path / "half", tmp_path / "logs")
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["half"]
    assert {path: path.read_bytes() for path in before} == before


def tear(folder: Path) -> None:
    """The last third of every file is missing."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def rename_episodes(folder: Path) -> None:
    episodes = read_page(folder)["episodes"]
    rewrite(folder, "meta/reflexarc.json", episodes=[each | {"log": "../../lift.mcap"} for each in episodes])


def rewrite(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
