"""A small OpenVLA of the published structure: configuration, weights by name and inputs, from NumPy alone.

`tests/vla/golden/make_openvla.py` runs OpenVLA's own code on it in another environment; the tests build the same
folder. Each tensor's numbers follow from its name and shape, so nothing but results has to be stored.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

F32 = np.ndarray[Any, np.dtype[np.float32]]

DINO, SIGLIP = "reflexarc_small_dino", "reflexarc_small_siglip"
DINO_SIZES = {
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 3,
    "patch_size": 14,
    "init_values": 1e-5,
    "reg_tokens": 4,
    "no_embed_class": True,
}
SIGLIP_SIZES = {
    "embed_dim": 40,
    "depth": 4,
    "num_heads": 2,
    "patch_size": 14,
    "mlp_ratio": 3.7362,
    "class_token": False,
    "global_pool": "map",
}
"""Arguments of timm's VisionTransformer: those of the published towers, narrower and shallower."""

IMAGE = 28
WIDTH = 64
VOCABULARY, PADDED = 32000, 32064
ACTION_SIZE, STATE_SIZE, CHUNK = 7, 8, 8

STATISTICS = {
    "bridge_orig": {
        "action": {
            "q01": [-0.029, -0.042, -0.026, -0.08, -0.093, -0.21, 0.0],
            "q99": [0.028, 0.041, 0.04, 0.082, 0.078, 0.203, 1.0],
            "min": [-0.4, -0.14, -0.23, -0.55, -1.08, -3.1, 0.0],
            "max": [0.41, 0.24, 0.25, 3.1, 1.3, 3.1, 1.0],
            "mask": [True] * 6 + [False],
        },
        "proprio": {
            "q01": [0.17, -0.16, -0.06, -0.3, -0.4, -0.6, 0.0, -0.04],
            "q99": [0.45, 0.23, 0.21, 0.3, 0.3, 0.8, 0.04, 0.0],
            "min": [-0.05, -0.36, -0.17, -3.1, -1.8, -3.1, 0.0, -0.04],
            "max": [0.59, 0.36, 0.37, 3.1, 1.6, 3.1, 0.04, 0.0],
        },
    },
    "kuka": {
        "action": {
            "q01": [-0.16] * 3 + [-0.5] * 3 + [0.0],
            "q99": [0.16] * 3 + [0.5] * 3 + [1.0],
            "min": [-1.0] * 7,
            "max": [1.0] * 7,
            "mask": [True] * 6 + [False],
        },
        "proprio": {"q01": [0.0] * 8, "q99": [1.0] * 8, "min": [0.0] * 8, "max": [1.0] * 8},
    },
}

CONFIG: dict[str, Any] = {
    "model_type": "openvla",
    "vision_backbone_id": "dinosiglip-vit-so-224px",
    "llm_backbone_id": "llama2-7b-pure",
    "arch_specifier": "no-align+fused-gelu-mlp",
    "use_fused_vision_backbone": True,
    "timm_model_ids": [DINO, SIGLIP],
    "timm_override_act_layers": [None, None],
    "image_sizes": [IMAGE, IMAGE],
    "image_resize_strategy": "resize-naive",
    "pad_token_id": 32000,
    "pad_to_multiple_of": 64,
    "n_action_bins": 256,
    "text_config": {
        "model_type": "llama",
        "vocab_size": PADDED,
        "hidden_size": WIDTH,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "pad_token_id": 32000,
    },
    "norm_stats": STATISTICS,
}

PREPROCESSOR = {
    "use_fused_vision_backbone": True,
    "image_resize_strategy": "resize-naive",
    "input_sizes": [[3, IMAGE, IMAGE], [3, IMAGE, IMAGE]],
    "interpolations": ["bicubic", "bicubic"],
    "means": [[0.485, 0.456, 0.406], [0.5, 0.5, 0.5]],
    "stds": [[0.229, 0.224, 0.225], [0.5, 0.5, 0.5]],
}

WORDS = [
    "In",
    ":",
    "What",
    "action",
    "should",
    "the",
    "robot",
    "take",
    "to",
    "?",
    "Out",
    "lift",
    "red",
    "cube",
    "open",
    "drawer",
]
"""The small tokenizer's vocabulary, from id 3 on; `<s>` is 1."""

PROMPT_IDS = [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 8, 15, 16, 12, 13, 4, 29871]
"""What `lift the red cube` becomes; ids of words are 3 + their place in WORDS."""


def generator(name: str) -> np.random.Generator:
    """Seeded by a name."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def weight(name: str, shape: tuple[int, ...]) -> F32:
    """The numbers of a tensor: matrices keep the size of what they are given, norms stand near one, biases near
    nought.
    """
    values = generator(name).standard_normal(shape)
    leaf = name.rsplit(".", 1)[-1]
    if name.endswith(
        "lm_head.weight"
    ):  # actions must be what is chosen, or all that the published code shows is clipping
        values /= np.sqrt(shape[1])
        values[: VOCABULARY - 256] *= 0.01
        values[VOCABULARY:] *= 0.01
    elif ("embed" in name and "proj" not in name) or "token" in leaf or leaf == "latent":
        values *= 0.5
    elif leaf == "weight" and len(shape) > 1:
        values /= np.sqrt(np.prod(shape[1:]))
    elif leaf in ("weight", "scale_factor"):
        values = 1.0 + 0.2 * values
    else:
        values *= 0.1
    return values.astype(np.float32)


def image(name: str = "front", height: int = 40, width: int = 60) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(H, W, 3) RGB: a smooth gradient with blocks on it, different in every direction and colour."""
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack(
        [rows * 255 // height, columns * 255 // width, (rows + columns) * 255 // (height + width)], axis=-1
    )
    blocks = (
        generator(f"image {name}").integers(0, 256, (5, 5, 3)).repeat(height // 5, 0).repeat(width // 5, 1)
    )
    return ((picture + blocks) // 2).astype(np.uint8)


def pixels(name: str, images: int) -> F32:
    """(1, 6·images, S, S): what the published processor would hand to the model, here noise of unit size."""
    return generator(f"pixels {name}").standard_normal((1, 6 * images, IMAGE, IMAGE)).astype(np.float32)


def state() -> F32:
    """(8,) a state, already normalised."""
    return generator("state").uniform(-1, 1, STATE_SIZE).astype(np.float32)


def write_json(folder: Path) -> None:
    """The JSON files of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
