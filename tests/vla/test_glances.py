"""Glances beside demonstrations: every row keeps its own picture, words and labels."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from contracts.toy_policy import HORIZON, SIZE, toy_config, toy_data, toy_spec
from reflexarc.configs.action import tcp_delta_spec
from reflexarc.configs.errors import PolicyError
from reflexarc.vla.train.glances import from_glances, together

COUNTS = {"reach-000": 3, "lift-000": 5}


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards whose picture i shows the value of its row's x coordinate."""
    for offset, (name, count) in enumerate(sorted(COUNTS.items())):
        folder = tmp_path / name
        folder.mkdir()
        value = 100 * offset + np.arange(count)
        pose = np.zeros((count, 7), dtype=np.float32)
        pose[:, 3], pose[:, 0] = 1.0, value
        labels = {
            "gripper": np.ones(count),
            "gripper_commanded": np.zeros(count),
            "pose_base_tcp": pose,
            "pose_base_tcp_commanded": pose,
            "wrench": np.zeros((count, 6)),
            "focus": np.full((count, 2, 3), value[:, None, None], dtype=np.float32),
            "actions": np.zeros((count, HORIZON, 7)),
        }
        for key, values in labels.items():
            np.save(folder / f"{key}.npy", values.astype(np.float32))
        np.save(folder / "mask.npy", np.zeros((count, HORIZON), dtype=bool))
        for camera in ("front", "wrist"):
            picture = np.zeros((count, SIZE, SIZE, 3), dtype=np.uint8) + value[:, None, None, None].astype(
                np.uint8
            )
            np.save(folder / f"images-{camera}.npy", picture)
        words = {"task": name[:-4], "instructions": [f"{name[:-4]} number {i}" for i in range(count)]}
        (folder / "words.json").write_text(json.dumps(words))
    return tmp_path


def test_each_glance_is_an_episode_with_its_own_picture_and_words(shards: Path) -> None:
    data = from_glances(shards, toy_spec(), toy_config().model)
    rows = np.array([7, 0, 4, 5])
    assert len(data) == sum(COUNTS.values())
    assert data.images("wrist", rows)[:, 0, 0, 0].tolist() == data.tcp[rows, 0].tolist() == [102, 0, 4, 100]
    assert [data.instructions[data.episode[row]] for row in rows] == [
        "reach number 2",
        "lift number 0",
        "lift number 4",
        "reach number 0",
    ]
    assert [data.tasks[data.task[data.episode[row]]] for row in rows] == ["reach", "lift", "lift", "reach"]


def test_together_keeps_every_row_of_both(shards: Path) -> None:
    glances = from_glances(shards, toy_spec(), toy_config().model)
    demos = toy_data(episodes=6, rows=3)
    both = together(demos, glances)
    assert len(both) == len(demos) + len(glances)
    assert both.tasks == ("even", "lift", "odd", "reach")
    rows = np.array([len(demos) + 6, 2, len(demos), 17])
    for row, picture in zip(rows, both.images("front", rows), strict=True):
        source, place = (demos, row) if row < len(demos) else (glances, row - len(demos))
        assert np.array_equal(picture, source.images("front", np.array([place]))[0])
        assert np.array_equal(both.focus[row], source.focus[place])
        episode = source.episode[place]
        assert both.instructions[both.episode[row]] == source.instructions[episode]
        assert both.tasks[both.task[both.episode[row]]] == source.tasks[source.task[episode]]


def test_what_does_not_fit_is_refused(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(PolicyError, match="no shard of glances"):
        from_glances(tmp_path_factory.mktemp("empty"), toy_spec(), toy_config().model)
    with pytest.raises(PolicyError, match=r"actions of \(4, 7\); the policy needs \(8, 7\)"):
        from_glances(shards, tcp_delta_spec(8, 0.1), toy_config().model)
    other = dataclasses.replace(toy_data(), spec=tcp_delta_spec(8, 0.1))
    with pytest.raises(PolicyError, match="cannot be mixed"):
        together(toy_data(), other)
