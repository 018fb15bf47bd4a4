"""A session as a LeRobotDataset and back: loads and trains in lerobot itself, and comes back to the bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lerobot")

from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.scripts.lerobot_train import train

from contracts.episode_bench import METADATA, state
from reflexarc.cli import main
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.errors import LogError
from reflexarc.datasets import lerobot_export
from reflexarc.datasets.lerobot_export import ACTION, LABEL, STATE, TIME, export, read_page
from reflexarc.datasets.lerobot_import import import_dataset
from reflexarc.datasets.session import EpisodeEntry
from reflexarc.datasets.writer import EpisodeWriter
from reflexarc.wire.geometry import exp
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import Event

SPEC = tcp_delta_spec(8, 0.1)
CAMERAS = ("front", "wrist")
SIZE = 64
MS = 1_000_000


def pose(t_s: float, bend: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A hand that moves and turns, so that every number of a label is one that rounding can change."""
    place = [0.4 + 0.05 * np.sin(1.7 * t_s), bend * t_s, 0.3 - 0.02 * t_s**2]
    return np.array([*place, *exp(np.array([np.pi, 0.1 * t_s, 0.05 * np.sin(t_s)]))])


def write_episode(path: Path, seed: int, *, jitter: bool, success: bool = True) -> None:
    """1.5 s at 200 Hz and 10 Hz of smooth pictures; cameras may jitter, and somebody disturbs in the middle."""
    random = np.random.default_rng(seed)
    outcome = {"success": success, "time_s": 1.5}
    with EpisodeWriter(path, METADATA | {"seed": seed, "task": "lift"}, fsync=False) as writer:
        for tick in range(300):
            t_ns = tick * 5 * MS
            gripper = 1.0 if tick < 150 else 0.0
            message = state(t_ns, commanded=pose(t_ns * 1e-9, 0.01 * (seed + 1)), gripper=gripper, seq=tick)
            writer.write("/state", message)
            if tick == 200:
                event = Event(
                    t_ns=t_ns, clock="virtual", kind="control", source="t", data={"source": "perturb"}
                )
                writer.write("/event", event)
            if tick == 230:
                event = Event(
                    t_ns=t_ns, clock="virtual", kind="control", source="t", data={"source": "policy"}
                )
                writer.write("/event", event)
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
    assert main(["dataset", "export", str(session), "--out", str(out)]) == 0
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


def test_lossless_pictures_come_back_equal(session: Path, tmp_path: Path) -> None:
    done = export(session, tmp_path / "png", SPEC, CAMERAS, codec="png", all_episodes=True)
    assert done.episodes == 4
    assert done.worst_psnr_db == np.inf


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


def test_an_interrupted_export_goes_on(
    session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    export(session, tmp_path / "data", SPEC, CAMERAS)
    assert written == ["00000", "00001", "00002"]
    at_once = tmp_path.parent / f"{tmp_path.name}-at-once"
    monkeypatch.setattr(lerobot_export, "PART_EPISODES", 20)
    export(session, at_once, SPEC, CAMERAS)
    assert table(at_once) == table(tmp_path / "data")  # joined from parts, or written as one
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
    ],
)
def test_half_a_data_set_is_refused(exported: Path, tmp_path: Path, harm: Any, text: str) -> None:
    shutil.copytree(exported, tmp_path / "half")
    harm(tmp_path / "half")
    with pytest.raises(LogError, match=text):
        import_dataset(tmp_path / "half", tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def rewrite(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
