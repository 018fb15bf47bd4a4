"""Checkpoint folders: what is written is what is read, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.toy_policy import toy_checkpoint, toy_observation
from reflexarc.configs.errors import PolicyError
from reflexarc.vla.checkpoint import embedded, load_checkpoint, load_policy, save_checkpoint
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.vla.tokenizers import FastTokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint = toy_checkpoint()
    save_checkpoint(tmp_path / "toy", checkpoint, checkpoint.model.state_dict(), "# toy\n")
    return tmp_path / "toy"


def edit(path: Path, change: dict[str, object]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_a_loaded_policy_acts_like_the_saved_one(folder: Path) -> None:
    loaded = load_checkpoint(folder)
    original = toy_checkpoint()
    half = {name: each.half().float() for name, each in loaded.model.state_dict().items()}
    original.model.load_state_dict(half)
    observation = toy_observation()
    ours, theirs = VlaPolicy(original).act(observation), load_policy(str(folder)).act(observation)
    assert np.array_equal(ours.bins, theirs.bins)
    assert np.array_equal(ours.actions, theirs.actions)
    assert ours.tokenizer_id == theirs.tokenizer_id


def test_saving_again_replaces_the_folder_and_leaves_nothing_else(folder: Path) -> None:
    (folder / "stray").write_text("")
    checkpoint = toy_checkpoint()
    save_checkpoint(folder, checkpoint, checkpoint.model.state_dict(), "# toy\n")
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]
    assert not (folder / "stray").exists()


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "vocabulary.json", "stats.json"]
)
def test_a_missing_or_damaged_file_is_named(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(PolicyError, match=name.replace(".", r"\.")):
        load_checkpoint(folder)
    (folder / name).unlink()
    with pytest.raises(PolicyError, match=rf"has no {name}; a checkpoint needs it, there is .*README\.md"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.pop("focus.queries"), r"tensor focus\.queries is missing"),
        (lambda t: t.update(stranger=torch.zeros(1)), "tensor stranger is not one of the model's"),
        (
            lambda t: t.update({"focus.queries": torch.zeros(3, 48)}),
            r"focus\.queries has shape \(3, 48\), the model needs \(2, 48\)",
        ),
        (
            lambda t: t.update({"focus.queries": torch.full((2, 48), torch.nan)}),
            "focus.queries holds values that are not finite",
        ),
    ],
)
def test_wrong_tensors_are_named(folder: Path, change: object, text: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)  # type: ignore[operator]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(PolicyError, match=text) as caught:
        load_checkpoint(folder)
    assert "model.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("file", "change", "text"),
    [
        ("config.json", {"format": 2}, "this version reads format 1"),
        ("config.json", {"action_spec": {}}, "id: Field required"),
        ("stats.json", {"proprio": []}, "the model feels x, y, z"),
        ("tokenizer.json", {"dims": []}, "differ from those of the action spec"),
    ],
)
def test_files_that_do_not_fit_each_other_are_refused(
    folder: Path, file: str, change: dict[str, object], text: str
) -> None:
    edit(folder / file, change)
    with pytest.raises(PolicyError, match=text) as caught:
        load_checkpoint(folder)
    assert file in str(caught.value)


def test_fast_tokens_need_their_tokenizer(tmp_path: Path) -> None:
    """Its folder is part of the checkpoint; another vocabulary does not fit the weights."""
    checkpoint, folder = toy_checkpoint("fast"), tmp_path / "toy"
    save_checkpoint(folder, checkpoint, checkpoint.model.state_dict(), "# toy\n")
    assert load_checkpoint(folder).codec.id == checkpoint.codec.id
    other = FastTokenizer.fit(np.zeros((4, 4, 3)), vocabulary=64)
    other.save(folder / "fast")
    with pytest.raises(
        PolicyError, match=r"model\.safetensors: tensor head\.bias has shape .* or fast/ is of another"
    ):
        load_checkpoint(folder)
    (folder / "fast" / "tokenizer.json").unlink()
    with pytest.raises(PolicyError, match=r"fast has no tokenizer\.json; .* there is processor_config\.json"):
        load_checkpoint(folder)


def test_weights_of_another_head_are_refused_by_name(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["policy"]["model"]["head"] = {"kind": "regression"}
    edit(folder / "config.json", config)
    with pytest.raises(
        PolicyError, match=r"head\.read\.\S+ is missing \(and \d+ more\); the file has head\.bias"
    ):
        load_checkpoint(folder)
    config["policy"]["model"]["head"] = {"kind": "regresion"}
    edit(folder / "config.json", config)
    with pytest.raises(PolicyError, match=r"config\.json: model\.head: .*'parallel', 'autoregressive'"):
        load_checkpoint(folder)


def test_an_unknown_name_lists_the_embedded_ones() -> None:
    with pytest.raises(
        PolicyError, match=r"unknown policy 'reflexarc-tinny'; known: .*; or name a"
    ) as caught:
        load_policy("reflexarc-tinny")
    assert all(name in str(caught.value) for name in embedded())
