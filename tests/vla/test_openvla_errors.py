"""What is wrong with a published folder is said with the file, the tensor or field, and what there is instead."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts import openvla_small as small
from contracts.openvla_folder import SMALL_TOWERS, add_oft, write_folder
from contracts.toy_policy import toy_observation
from reflexarc.configs.errors import PolicyError
from reflexarc.vla.checkpoint import load_policy
from reflexarc.vla.openvla import layout as layouts

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"
FC1 = "projector.fc1.weight"


@pytest.fixture(scope="module", autouse=True)
def _small_towers() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, shape in SMALL_TOWERS.items():
            patch.setitem(layouts.TOWERS, name, shape)
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("good") / "checkpoint", settings="statistics: bridge_orig\n")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "checkpoint"))


def shard_of(folder: Path, name: str) -> Path:
    return folder / str(json.loads((folder / INDEX).read_text())["weight_map"][name])


def change(folder: Path, name: str, edit: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """Rewrite the shard that holds a tensor, and the index with it."""
    path = shard_of(folder, name)
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    index = json.loads((folder / INDEX).read_text())
    places = {key: file for key, file in index["weight_map"].items() if file != path.name} | dict.fromkeys(
        tensors, path.name
    )
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return path


def refusal(folder: Path) -> str:
    with pytest.raises(PolicyError) as caught:
        load_policy(str(folder))
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_good_folder_loads(folder: Path) -> None:
    policy = load_policy(str(folder))
    assert policy.info.model_id == "openvla/checkpoint/bridge_orig"


def test_a_missing_tensor_is_named_with_what_could_have_taken_its_place(folder: Path) -> None:
    def rename(tensors: dict[str, torch.Tensor]) -> None:
        tensors["projector.fc_1.weight"] = tensors.pop(FC1)

    change(folder, FC1, rename)
    text = refusal(folder)
    assert f"tensor {FC1} of shape (352, 88) is in none" in text
    assert "did projector.fc_1.weight take its place?" in text


def test_an_extra_tensor_is_named_with_its_file(folder: Path) -> None:
    path = change(folder, FC1, lambda tensors: tensors.update({"projector.fc4.weight": torch.zeros(2, 2)}))
    text = refusal(folder)
    assert str(path) in text
    assert "tensor projector.fc4.weight is not one of OpenVLA's" in text


def test_a_wrong_shape_is_named_with_both_shapes(folder: Path) -> None:
    path = change(folder, FC1, lambda tensors: tensors.update({FC1: torch.zeros(352, 87)}))
    assert f"{path}: tensor {FC1} has shape (352, 87), config.json makes it (352, 88)" in refusal(folder)


def test_a_tensor_that_is_not_finite_is_refused(folder: Path) -> None:
    path = change(folder, FC1, lambda tensors: tensors[FC1].fill_(float("nan")))
    assert f"{path}: tensor {FC1} holds values that are not finite" in refusal(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / SHARDS[1]).unlink()
    text = refusal(folder)
    assert f"has no {SHARDS[1]}, which {INDEX} names; there is {SHARDS[0]}" in text


def test_a_torn_shard_is_named(folder: Path) -> None:
    (folder / SHARDS[0]).write_bytes((folder / SHARDS[0]).read_bytes()[:-100])
    assert f"{SHARDS[0]}: not a whole safetensors file" in refusal(folder)


def test_a_tensor_that_is_not_where_the_index_says_is_named(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    other = next(each for each in SHARDS if each != index["weight_map"][FC1])
    index["weight_map"][FC1] = other
    (folder / INDEX).write_text(json.dumps(index))
    assert f"{other}: tensor {FC1} is not in it, though {INDEX} says so" in refusal(folder)


def test_a_folder_without_weights_says_what_it_has(folder: Path) -> None:
    (folder / INDEX).unlink()
    assert "has neither model.safetensors.index.json nor model.safetensors; there is config.json" in refusal(
        folder
    )


def test_names_of_timm_are_read_too(folder: Path) -> None:
    """LayerScale is `gamma` in timm, `scale_factor` in what OpenVLA published."""
    name = "vision_backbone.featurizer.blocks.0.ls1.scale_factor"
    change(
        folder,
        name,
        lambda tensors: tensors.update({name.replace("scale_factor", "gamma"): tensors.pop(name)}),
    )
    load_policy(str(folder))


def test_what_never_runs_may_be_absent(folder: Path) -> None:
    for name in (
        "vision_backbone.fused_featurizer.attn_pool.latent",
        "vision_backbone.featurizer.blocks.2.mlp.fc1.weight",
    ):
        change(folder, name, lambda tensors, name=name: tensors.pop(name))  # type: ignore[misc]
    load_policy(str(folder))


def test_a_wrong_statistics_key_lists_those_there_are(folder: Path) -> None:
    (folder / "reflexarc.yaml").write_text("statistics: bridge\n")
    assert "norm_stats of config.json: unknown statistics 'bridge'; known: bridge_orig, kuka" in refusal(
        folder
    )


def test_no_statistics_key_where_there_are_several_lists_them(folder: Path) -> None:
    (folder / "reflexarc.yaml").unlink()
    assert "names 2 data sets; set `statistics` to one of: bridge_orig, kuka" in refusal(folder)


def test_a_statistics_file_takes_the_place_of_the_base_models(folder: Path) -> None:
    (folder / "dataset_statistics.json").write_text(json.dumps({"mine": small.STATISTICS["kuka"]}))
    assert "dataset_statistics.json: unknown statistics 'bridge_orig'; known: mine" in refusal(folder)
    (folder / "reflexarc.yaml").unlink()
    assert load_policy(str(folder)).info.model_id.endswith("/mine")


def test_statistics_without_percentiles_say_what_they_have(folder: Path) -> None:
    (folder / "dataset_statistics.json").write_text(
        json.dumps({"bridge_orig": {"action": {"mean": [0.0], "std": [1.0]}}})
    )
    assert "statistics 'bridge_orig': action needs q01 and q99; there is mean, std" in refusal(folder)


def test_no_tokenizer_is_said(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer.json, which turns the prompt into ids; there is config.json" in refusal(folder)


def test_a_damaged_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer.json: not a tokenizer file" in refusal(folder)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("timm_model_ids", ["vit_huge"], "unknown vision tower 'vit_huge'; known: "),
        (
            "image_resize_strategy",
            "letterbox",
            "unknown image_resize_strategy 'letterbox'; known: resize-naive",
        ),
        ("model_type", "llava", "model_type 'llava'; known checkpoints: "),
    ],
)
def test_a_configuration_that_is_not_known_is_refused(
    folder: Path, field: str, value: Any, text: str
) -> None:
    config = json.loads((folder / "config.json").read_text()) | {field: value}
    (folder / "config.json").write_text(json.dumps(config))
    assert text in refusal(folder)


def test_an_instruction_without_end_is_refused(folder: Path) -> None:
    """It would have a cache of any size made for it."""
    policy = load_policy(str(folder))
    endless = msgspec.structs.replace(toy_observation(), instruction="on and " * 2000)
    with pytest.raises(PolicyError, match=r"the prompt has \d+ tokens; .* there is room for 2\d\d\d of them"):
        policy.act(endless)


def test_pictures_that_were_squeezed_otherwise_are_refused(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    data = (
        json.loads(path.read_text())
        if path.is_file()
        else {"means": [[0.5] * 3] * 2, "stds": [[0.5] * 3] * 2}
    )
    path.write_text(json.dumps(data | {"interpolations": ["bicubic", "bilinear"]}))
    assert f"{path}: interpolations: unknown kernel 'bilinear'; known: bicubic" in refusal(folder)


def test_settings_that_are_not_known_list_those_that_are(folder: Path) -> None:
    (folder / "reflexarc.yaml").write_text("unnorm_key: bridge_orig\n")
    text = refusal(folder)
    assert "reflexarc.yaml: unnorm_key: " in text
    assert "known: action, bounds, cameras, " in text


def test_two_cameras_are_too_many_for_openvla(folder: Path) -> None:
    (folder / "reflexarc.yaml").write_text("statistics: bridge_orig\ncameras: [front, wrist]\n")
    assert "2 cameras (front, wrist); OpenVLA sees one image" in refusal(folder)


def test_settings_may_stand_in_a_file_of_their_own(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("checkpoint: checkpoint\nstatistics: kuka\n")
    assert load_policy(str(file)).info.model_id == "openvla/checkpoint/kuka"
    file.write_text("checkpoint: nowhere\n")
    with pytest.raises(PolicyError, match="needs `checkpoint: FOLDER`, a folder that exists; it has nowhere"):
        load_policy(str(file))


def test_oft_files_are_checked_too(folder: Path) -> None:
    add_oft(folder)
    path = folder / "action_head--150000_checkpoint.pt"
    state = torch.load(path, weights_only=True)
    torch.save({name: each for name, each in state.items() if "fc2" not in name}, path)
    assert f"{path}: no tensor for action_mlp.fc2.bias of shape (7,)" in refusal(folder)
    torch.save(state | {"module.model.fc2.bias": torch.zeros(8)}, path)
    assert f"{path}: tensor for action_mlp.fc2.bias has shape (8,), the model needs (7,)" in refusal(folder)
    shutil.copy(path, folder / "action_head--200000_checkpoint.pt")
    assert "several action_head files, keep one of: action_head--150000" in refusal(folder)


def test_a_pytorch_file_that_would_run_code_is_refused(folder: Path) -> None:
    add_oft(folder)
    path = folder / "proprio_projector--150000_checkpoint.pt"
    torch.save({"fc1.weight": Path("/")}, path)
    assert f"{path}: not a PyTorch file of tensors alone" in refusal(folder)


def test_a_diffusion_head_is_refused_by_name(folder: Path) -> None:
    torch.save({"fc1.weight": torch.zeros(1)}, folder / "noisy_action_projector--1_checkpoint.pt")
    assert "OFT's diffusion head; known: its L1 head, and tokens" in refusal(folder)
