"""The training cache: the numbers of the label function, in float32, built once and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.episode_bench import MS, OUTCOME, control, motion, written
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.errors import LogError
from reflexarc.datasets import cache as cache_module
from reflexarc.datasets.cache import TrainingCache, build_cache
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.sampling import Samples, sample_episode
from reflexarc.wire.messages import F64

SPEC = tcp_delta_spec(4, 0.1)
CAMERAS = ("front", "wrist")


def along(speed: float) -> F64:
    return np.array([speed, 0.0, 0.2, 0.0, 1.0, 0.0, 0.0])


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Three successes of different lengths, one of them disturbed, and a failure."""
    folder = tmp_path / "logs"
    for number, seconds in enumerate((0.5, 0.9, 0.7)):
        events = [("/event", control(200 * MS, "perturb")), ("/event", control(400 * MS, "expert"))]
        messages = [
            *motion(lambda t, v=number: along(0.1 * v * t), seconds),
            *(events if number == 1 else []),
        ]
        written(folder / "lift" / f"{number}.mcap", messages)
    written(folder / "push" / "3.mcap", motion(lambda _: along(0), 0.5), outcome=OUTCOME | {"success": False})
    return folder


def build(logs: Path, out: Path, **options: object) -> TrainingCache:
    return build_cache(logs, out, SPEC, CAMERAS, progress=False, **options)  # type: ignore[arg-type]


def check_equal_to_sampling(cache: TrainingCache, logs: Path) -> None:
    for number, episode in enumerate(cache.episodes):
        rows = np.flatnonzero(cache.episode == number)
        assert len(rows) == episode.rows
        if not episode.rows:
            continue
        samples = sample_episode(EpisodeReader(logs / episode.log), SPEC, CAMERAS)
        keep = samples.mask.any(axis=1)
        np.testing.assert_array_equal(cache.mask[rows], samples.mask[keep])
        np.testing.assert_array_equal(cache.t_ns[rows], samples.t_ns[keep])
        for name, values in cache.labels.items():
            np.testing.assert_array_equal(values[rows], getattr(samples, name)[keep].astype(np.float32))
        for camera in CAMERAS:
            np.testing.assert_array_equal(cache.images(camera, rows), samples.images[camera][keep])
        assert episode.instruction == samples.instruction


def test_the_cache_holds_what_sampling_gives(tmp_path: Path, logs: Path) -> None:
    cache = build(logs, tmp_path / "cache")
    check_equal_to_sampling(cache, logs)
    assert [episode.rows for episode in cache.episodes] == [5, 7, 7, 0]  # the failure teaches nothing
    assert len(cache) == 19
    assert cache.spec == SPEC
    assert cache.labels["actions"].shape == (19, 4, 7)
    shuffled = np.random.default_rng(0).permutation(19)
    np.testing.assert_array_equal(
        cache.images("front", shuffled), cache.images("front", np.arange(19))[shuffled]
    )
    with pytest.raises(LogError, match="unknown camera 'side'; known: front, wrist"):
        cache.images("side", np.arange(2))


def test_building_again_samples_only_what_is_new(
    tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(logs, tmp_path / "cache")
    sampled: list[str] = []
    real = cache_module.sample_episode

    def counted(reader: EpisodeReader, *args: Any, **options: Any) -> Samples:
        sampled.append(reader.path.name)
        return real(reader, *args, **options)

    monkeypatch.setattr(cache_module, "sample_episode", counted)
    assert len(build(logs, tmp_path / "cache")) == 19
    assert sampled == []
    written(logs / "lift" / "9.mcap", motion(lambda t: along(t), 0.4))
    cache = build(logs, tmp_path / "cache")
    assert sampled == ["9.mcap"]
    assert len(cache) == 23
    check_equal_to_sampling(cache, logs)


def test_a_log_that_was_replaced_or_removed_is_not_remembered(tmp_path: Path, logs: Path) -> None:
    build(logs, tmp_path / "cache")
    (logs / "lift" / "0.mcap").unlink()
    written(logs / "lift" / "0.mcap", motion(lambda t: along(-t), 0.8))
    (logs / "lift" / "2.mcap").unlink()
    cache = build(logs, tmp_path / "cache")
    assert sorted(episode.log for episode in cache.episodes) == ["lift/0.mcap", "lift/1.mcap", "push/3.mcap"]
    check_equal_to_sampling(cache, logs)


def test_a_log_that_was_recorded_again_with_as_many_bytes_is_another(tmp_path: Path, logs: Path) -> None:
    seen: dict[int, Path] = {}
    for number in range(300):
        new = written(tmp_path / f"{number}.mcap", motion(lambda t, v=number: along(1e-3 * v * t), 0.5)).path
        old = seen.setdefault(new.stat().st_size, new)
        if old != new:
            break
    assert old != new
    assert old.stat().st_size == new.stat().st_size
    (logs / "lift" / "0.mcap").write_bytes(old.read_bytes())
    build(logs, tmp_path / "cache")
    (logs / "lift" / "0.mcap").write_bytes(new.read_bytes())
    check_equal_to_sampling(build(logs, tmp_path / "cache"), logs)


def test_another_choice_is_another_cache(tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {build(logs, tmp_path / "cache").folder}
    folders.add(build(logs, tmp_path / "cache", successes_only=False).folder)
    folders.add(build(logs, tmp_path / "cache", sources=("expert", "perturb")).folder)
    folders.add(build_cache(logs, tmp_path / "cache", SPEC, ("front",), progress=False).folder)
    folders.add(build_cache(logs, tmp_path / "cache", tcp_delta_spec(2, 0.1), CAMERAS, progress=False).folder)
    monkeypatch.setattr(cache_module, "SAMPLER_VERSION", 10_000)
    folders.add(build(logs, tmp_path / "cache").folder)
    assert len(folders) == 6
    for folder in folders:
        assert TrainingCache(folder).key == json.loads((folder / "key.json").read_text())


def test_an_interrupted_build_goes_on(tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "SHARD_EPISODES", 1)
    real = cache_module._write_shard

    def interrupted(folder: Path, samples: object, cameras: object) -> None:
        real(folder, samples, cameras)  # type: ignore[arg-type]
        if len(list(folder.parent.glob("shard-*"))) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(cache_module, "_write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(logs, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    assert len(list(folder.glob("shard-*"))) == 2
    assert not list(folder.glob("building-*"))
    leftover = folder / "building-killed"
    leftover.mkdir()
    os.utime(leftover, (time.time() - 10**6,) * 2)
    monkeypatch.setattr(cache_module, "_write_shard", real)
    check_equal_to_sampling(build(logs, tmp_path / "cache"), logs)
    assert not leftover.exists()


def test_several_builders_at_once_do_no_harm(tmp_path: Path, logs: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        builders = [pool.submit(build, logs, tmp_path / "cache") for _ in range(3)]
        assert [len(builder.result()) for builder in builders] == [19] * 3
    cache = build(logs, tmp_path / "cache")
    assert len(cache) == 19
    check_equal_to_sampling(cache, logs)


def test_spawned_workers_build_shards_too(
    tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "SHARD_EPISODES", 2)
    cache = build(logs, tmp_path / "cache", workers=2)
    assert len(list(cache.folder.glob("shard-*"))) == 2
    check_equal_to_sampling(cache, logs)


def test_bad_logs_and_folders_are_named(tmp_path: Path, logs: Path) -> None:
    with pytest.raises(LogError, match=r"no episode log \(\*\.mcap\) below"):
        build(tmp_path / "nowhere", tmp_path / "cache")
    with pytest.raises(LogError, match="is not a training cache"):
        TrainingCache(tmp_path)
    cut = logs / "lift" / "cut.mcap"
    cut.write_bytes((logs / "lift" / "0.mcap").read_bytes()[:-50])
    with pytest.raises(LogError, match=r"cut\.mcap was cut short"):
        build(logs, tmp_path / "cache")
    shutil.rmtree(logs / "lift")
    with pytest.raises(LogError, match="holds no row"):
        build(logs, tmp_path / "other")
