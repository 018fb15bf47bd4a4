"""What a published OpenVLA folder holds: sizes, statistics, and the name and shape of every tensor.

    config.json               sizes by name of the parts; text_config: the Llama, where it is not transformers' default
    model-*.safetensors       with model.safetensors.index.json, or one model.safetensors
    tokenizer.json            Llama 2's, with which `<s>` is put in front
    preprocessor_config.json  mean and spread of each tower
    dataset_statistics.json   of a fine-tuned model; else `norm_stats` in config.json
    *--N_checkpoint.pt        OpenVLA-OFT: action head, proprio projector, vision backbone with FiLM

A fused model's first tower, `featurizer`, is DINOv2 and its second, `fused_featurizer`, SigLIP: 1024 + 1152 = 2176
features. The sums over this table are those that the published weights have: 7,541,237,184 numbers, 15,082,474,368
bytes in bfloat16.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reflexarc.configs.errors import PolicyError, unknown
from reflexarc.vla.openvla.vit import TowerShape
from reflexarc.wire.messages import F64

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
STATISTICS = "dataset_statistics.json"
TOWER_NAMES = ("featurizer", "fused_featurizer")

_DINO = TowerShape(1024, 24, 16, 4096, 14, 224, prefix=5, layer_scale=True, pooled=False)
_SIGLIP = TowerShape(1152, 27, 16, 4304, 14, 224, prefix=0, layer_scale=False, pooled=True)
TOWERS: dict[str, TowerShape] = {
    "vit_large_patch14_reg4_dinov2.lvd142m": _DINO,
    "vit_so400m_patch14_siglip_224": _SIGLIP,
    "vit_so400m_patch14_siglip_384": dataclasses.replace(_SIGLIP, image=384),
}
"""Towers by their name in timm, with the sizes that timm 0.9.16 gives them."""

BACKBONES: dict[str, tuple[tuple[str, ...], int]] = {
    "dinosiglip-vit-so-224px": (
        ("vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"),
        224,
    ),
    "dinosiglip-vit-so-384px": (
        ("vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_384"),
        384,
    ),
    "siglip-vit-so400m": (("vit_so400m_patch14_siglip_224",), 224),
    "siglip-vit-so400m-384px": (("vit_so400m_patch14_siglip_384",), 384),
    "dinov2-vit-l": (("vit_large_patch14_reg4_dinov2.lvd142m",), 224),
}
"""`vision_backbone_id` to towers and image size (configuration_prismatic.py)."""

LLAMA_DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
"""What `text_config` leaves out: the defaults of transformers 4.40.1, with which OpenVLA was published."""

_MEANS = {True: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), False: ((0.5,) * 3, (0.5,) * 3)}
"""Mean and spread of DINOv2 (ImageNet's) and of SigLIP, where the folder has no preprocessor_config.json."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What the folder's JSON files say.

    towers: one, or DINOv2 and SigLIP. normalise: (mean, spread) of each, RGB in 0..1. llama: sizes. vocabulary:
    without the padding to a multiple: action ids count down from it. statistics: by data set, as published. prompt:
    with `{}`.
    """

    folder: Path
    towers: tuple[TowerShape, ...]
    normalise: tuple[tuple[F64, F64], ...]
    llama: dict[str, Any]
    vocabulary: int
    action_bins: int
    statistics: dict[str, Any]
    prompt: str

    @property
    def width(self) -> int:
        """Of the language model."""
        return int(self.llama["hidden_size"])


def read_layout(folder: Path) -> Layout:
    """Read the JSON files. Raises PolicyError naming the file, the field and what is known."""
    path = folder / CONFIG
    config = read_json(path)
    try:
        towers = _towers(config)
        llama = {
            name: config.get("text_config", {}).get(name, value) for name, value in LLAMA_DEFAULTS.items()
        }
        padded, multiple = int(llama["vocab_size"]), int(config.get("pad_to_multiple_of", 64))
        strategy = config.get("image_resize_strategy", "letterbox")
        if strategy != "resize-naive":
            raise PolicyError(unknown("image_resize_strategy", str(strategy), ["resize-naive"]))
        bins = int(config.get("n_action_bins", 256))
    except (PolicyError, KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"{path}: {error}") from error
    return Layout(
        folder=folder,
        towers=towers,
        normalise=_normalisation(folder, towers),
        llama=llama,
        vocabulary=padded - multiple,
        action_bins=bins,
        statistics=_statistics(folder, config),
        prompt=VICUNA_PROMPT if "vicuna" in str(config.get("llm_backbone_id")) else PURE_PROMPT,
    )


PURE_PROMPT = "In: What action should the robot take to {}?\nOut:"
VICUNA_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
    "USER: What action should the robot take to {}? ASSISTANT:"
)
"""What the models were trained with (get_vla_action): the first of OpenVLA, the second of openvla-v01 on Vicuna."""


def model_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Every tensor of a published checkpoint by name, the ones that never run too (`unused` says which)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tower in zip(TOWER_NAMES, layout.towers, strict=False):
        shapes |= {f"vision_backbone.{name}.{key}": shape for key, shape in _tower_shapes(tower)}
    vision, width, llama = sum(tower.width for tower in layout.towers), layout.width, layout.llama
    sizes = [vision, 4 * vision, width, width] if len(layout.towers) > 1 else [vision, width, width]
    for index, (inner, outer) in enumerate(itertools.pairwise(sizes), start=1):
        shapes |= _linear(f"projector.fc{index}", inner, outer)
    inner, vocabulary = int(llama["intermediate_size"]), int(llama["vocab_size"])
    text = "language_model.model"
    shapes[f"{text}.embed_tokens.weight"] = (vocabulary, width)
    for layer in range(int(llama["num_hidden_layers"])):
        here = f"{text}.layers.{layer}"
        shapes |= {f"{here}.self_attn.{part}_proj.weight": (width, width) for part in "qkvo"}
        shapes |= {f"{here}.mlp.{part}_proj.weight": (inner, width) for part in ("gate", "up")}
        shapes[f"{here}.mlp.down_proj.weight"] = (width, inner)
        shapes |= {
            f"{here}.{norm}.weight": (width,) for norm in ("input_layernorm", "post_attention_layernorm")
        }
    shapes[f"{text}.norm.weight"] = (width,)
    shapes["language_model.lm_head.weight"] = (vocabulary, width)
    return shapes


def unused(name: str, layout: Layout) -> bool:
    """Whether a published tensor never takes part: the last block, the norm and the pooling of a tower."""
    for tower_name, tower in zip(TOWER_NAMES, layout.towers, strict=False):
        prefix = f"vision_backbone.{tower_name}."
        if name.startswith((f"{prefix}blocks.{tower.depth - 1}.", f"{prefix}norm.", f"{prefix}attn_pool.")):
            return True
    return name.endswith("rotary_emb.inv_freq")


def choose_statistics(layout: Layout, key: str | None) -> tuple[str, dict[str, Any]]:
    """The statistics that turn outputs into actions. Raises PolicyError listing the data sets there are."""
    known = layout.statistics
    if key is None and len(known) == 1:
        key = next(iter(known))
    if key in known:
        return str(key), known[str(key)]
    where = STATISTICS if (layout.folder / STATISTICS).is_file() else f"norm_stats of {CONFIG}"
    if not known:
        raise PolicyError(
            f"{layout.folder}: no {STATISTICS} and no norm_stats in {CONFIG}; actions need one of them"
        )
    if key is None:
        raise PolicyError(
            f"{layout.folder}: {where} names {len(known)} data sets; set `statistics` to one of: {_list(known)}"
        )
    raise PolicyError(f"{layout.folder}: {where}: {unknown('statistics', key, known)}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping. Raises PolicyError naming it."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise PolicyError(
            f"{path.parent} has no {path.name}; there is {_list(each.name for each in path.parent.iterdir())}"
        ) from error
    except (OSError, ValueError) as error:
        raise PolicyError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise PolicyError(f"{path}: must hold a mapping, not a {type(data).__name__}")
    return data


def _list(names: Any) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _towers(config: dict[str, Any]) -> tuple[TowerShape, ...]:
    """`timm_model_ids` and `image_sizes` where the file states them, as a saved one does; else by
    `vision_backbone_id`.
    """
    backbone = str(config.get("vision_backbone_id"))
    names, image = config.get("timm_model_ids"), config.get("image_sizes")
    if names is None:
        if backbone not in BACKBONES:
            raise PolicyError(unknown("vision_backbone_id", backbone, BACKBONES))
        names, size = BACKBONES[backbone]
        image = [size] * len(names)
    absent = [name for name in names if name not in TOWERS]
    if absent:
        raise PolicyError(unknown("vision tower", absent[0], TOWERS))
    sizes = image or [TOWERS[name].image for name in names]
    return tuple(
        dataclasses.replace(TOWERS[name], image=int(size)) for name, size in zip(names, sizes, strict=True)
    )


def _normalisation(folder: Path, towers: tuple[TowerShape, ...]) -> tuple[tuple[F64, F64], ...]:
    """Those that the published processor applies: `tvf_normalize_params` wins over `means`, and may be rounded to
    bfloat16.
    """
    path = folder / PREPROCESSOR
    if not path.is_file():
        pairs = [_MEANS[tower.prefix > 0] for tower in towers]
    else:
        data = read_json(path)
        for kernel in data.get("interpolations", ()):
            if kernel != "bicubic":
                raise PolicyError(f"{path}: interpolations: {unknown('kernel', str(kernel), ['bicubic'])}")
        applied = data.get("tvf_normalize_params")
        pairs = (
            [(each["mean"], each["std"]) for each in applied]
            if applied
            else list(zip(data.get("means", ()), data.get("stds", ()), strict=False))
        )
    if len(pairs) != len(towers):
        raise PolicyError(f"{path}: means and stds of {len(pairs)} towers; {CONFIG} has {len(towers)}")
    return tuple((np.array(mean, dtype=np.float64), np.array(std, dtype=np.float64)) for mean, std in pairs)


def _statistics(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Those of the fine-tuning data where the folder has them: they replace the base model's."""
    path = folder / STATISTICS
    return read_json(path) if path.is_file() else dict(config.get("norm_stats") or {})


def _linear(name: str, inner: int, outer: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outer, inner), f"{name}.bias": (outer,)}


def _tower_shapes(tower: TowerShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = tower.width
    if tower.prefix:
        yield "cls_token", (1, 1, width)
        yield "reg_token", (1, tower.prefix - 1, width)
    yield "pos_embed", (1, tower.patches, width)
    yield "patch_embed.proj.weight", (width, 3, tower.patch, tower.patch)
    yield "patch_embed.proj.bias", (width,)
    parts: dict[str, tuple[int, ...]] = {}
    for block in range(tower.depth):
        here = f"blocks.{block}"
        for index, (layer, inner, outer) in enumerate(
            (("attn", width, width), ("mlp", width, tower.mlp_width)), start=1
        ):
            parts |= {f"{here}.norm{index}.weight": (width,), f"{here}.norm{index}.bias": (width,)}
            names = ("qkv", "proj") if layer == "attn" else ("fc1", "fc2")
            parts |= _linear(f"{here}.{layer}.{names[0]}", inner, 3 * width if layer == "attn" else outer)
            parts |= _linear(f"{here}.{layer}.{names[1]}", outer, width)
            if tower.layer_scale:
                parts[f"{here}.ls{index}.scale_factor"] = (width,)
    parts |= {"norm.weight": (width,), "norm.bias": (width,)}
    if tower.pooled:
        parts["attn_pool.latent"] = (1, 1, width)
        parts |= _linear("attn_pool.q", width, width) | _linear("attn_pool.kv", width, 2 * width)
        parts |= _linear("attn_pool.proj", width, width)
        parts |= {"attn_pool.norm.weight": (width,), "attn_pool.norm.bias": (width,)}
        parts |= _linear("attn_pool.mlp.fc1", width, tower.mlp_width) | _linear(
            "attn_pool.mlp.fc2", tower.mlp_width, width
        )
    yield from parts.items()
