"""The small OpenVLA as a published folder: shards with their index, tokenizer, statistics, and OFT's PyTorch files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from contracts import openvla_small as small
from reflexarc.vla.openvla.vit import TowerShape

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vla/golden/openvla.json").read_text())
"""What the published code answered; see `make_openvla.py` beside it."""

SMALL_TOWERS = {
    small.DINO: TowerShape(48, 3, 3, 192, 14, 28, prefix=5, layer_scale=True, pooled=False),
    small.SIGLIP: TowerShape(40, 4, 2, 149, 14, 28, prefix=0, layer_scale=False, pooled=True),
}


def published(group: Mapping[str, list[int]], prefix: str = "") -> dict[str, Tensor]:
    """Tensors by published name, from the published shapes."""
    return {
        name: torch.from_numpy(small.weight(prefix + name, tuple(shape))) for name, shape in group.items()
    }


def write_folder(
    folder: Path,
    *,
    statistics: Mapping[str, Any] | None = None,
    settings: str = "",
    weights: Mapping[str, Tensor] | None = None,
) -> Path:
    """OpenVLA's folder. statistics: of a dataset_statistics.json, else those in config.json. settings:
    reflexarc.yaml.
    """
    small.write_json(folder)
    tensors = dict(published(GOLDEN["openvla"]["shapes"]) if weights is None else weights)
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, mine in shards.items():
        save_file({name: tensors[name].contiguous() for name in mine}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, mine in shards.items() for name in mine}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    if statistics is not None:
        (folder / "dataset_statistics.json").write_text(json.dumps(statistics))
    if settings:
        (folder / "reflexarc.yaml").write_text(settings)
    return folder


def add_oft(folder: Path, *, film: bool = False) -> Path:
    """OFT's action head and proprio projector beside it, saved as DDP training does, and the backbone with FiLM."""
    parts = {"action_head": "module.", "proprio_projector": "module."} | (
        {"vision_backbone": ""} if film else {}
    )
    for part, before in parts.items():
        seed = "film." if part == "vision_backbone" else f"{part}."
        tensors = published(GOLDEN["oft"][part], seed)
        torch.save(
            {before + name: tensor for name, tensor in tensors.items()},
            folder / f"{part}--150000_checkpoint.pt",
        )
    return folder


def tokenizer() -> dict[str, Any]:
    """A tokenizer.json that splits at blanks and punctuation and puts `<s>` in front, as Llama's does."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {
        word: 3 + place for place, word in enumerate(small.WORDS)
    }
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
