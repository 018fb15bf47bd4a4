"""`doctor tokenizer`: figures per data set, from episodes that were not fitted to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.demonstrations import record_demonstrations
from reflexarc.configs.errors import LogError, PolicyError
from reflexarc.tokenizer_report import run_report


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_demonstrations(tmp_path_factory.mktemp("episodes"), ("lift", "button"), 3)


def test_each_place_gets_its_figures(episodes: Path, tmp_path: Path) -> None:
    places = [episodes / "lift", episodes / "button"]
    assert run_report(places, fast=None, horizon=8, json_path=tmp_path / "figures.json") == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert list(figures) == [str(place) for place in places]
    for rows in figures.values():
        assert rows["uniform"]["mean_tokens"] == 56
        assert rows["fast"]["mean_tokens"] < 28
        assert rows["uniform"]["worst_error"]["dx"] < 1e-3
        assert rows["fast"]["worst_error"]["dx"] < 1e-2
        assert rows["uniform"]["chunks"] == rows["fast"]["chunks"] > 0


def test_one_episode_is_too_few_and_a_folder_without_a_tokenizer_is_named(
    episodes: Path, tmp_path: Path
) -> None:
    one = sorted(episodes.rglob("*.mcap"))[0]
    with pytest.raises(LogError, match="two at least"):
        run_report([one], fast=None, horizon=8, json_path=None)
    with pytest.raises(LogError, match=r"no episode logs \(\.mcap\) in nowhere"):
        run_report([], fast=None, horizon=8, json_path=None)
    with pytest.raises(PolicyError, match=r"has no processor_config\.json"):
        run_report([episodes / "lift"], fast=tmp_path, horizon=8, json_path=None)
