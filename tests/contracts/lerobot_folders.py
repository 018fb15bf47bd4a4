"""Folders of lerobot's policies with random weights, saved by lerobot itself; small, and without the hub.

The names of π0's and π0.5's sizes stand for billions of weights and those of SmolVLA for a model on the hub, so these
are patched while the folder is made and read: the classes that run are lerobot's own.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, SiglipVisionConfig

from reflexarc.vla.adapters.pi0_fast import LocalTokenizers
from reflexarc.vla.tokenizers import FastTokenizer

SIZE = 64
STATE = 8
KINDS = ("act", "diffusion", "pi0", "pi05", "smolvla")
PALIGEMMA_WORDS = 257152
"""Size of the vocabulary that π0-FAST counts its action ids down from, 128 below the last (lerobot)."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "act": {
        "chunk_size": 6,
        "n_action_steps": 4,
        "dim_model": 32,
        "n_heads": 2,
        "dim_feedforward": 64,
        "n_encoder_layers": 1,
        "n_vae_encoder_layers": 1,
        "pretrained_backbone_weights": None,
    },
    "diffusion": {
        "n_obs_steps": 2,
        "horizon": 8,
        "n_action_steps": 4,
        "down_dims": (16, 32),
        "diffusion_step_embed_dim": 16,
        "num_inference_steps": 3,
        "pretrained_backbone_weights": None,
        "crop_shape": None,
        "spatial_softmax_num_keypoints": 4,
    },
    "pi0": {"chunk_size": 5, "n_action_steps": 5, "num_inference_steps": 2, "image_resolution": (SIZE, SIZE)},
    "pi05": {
        "chunk_size": 5,
        "n_action_steps": 5,
        "num_inference_steps": 2,
        "image_resolution": (SIZE, SIZE),
    },
    "smolvla": {
        "chunk_size": 5,
        "n_action_steps": 5,
        "num_steps": 2,
        "num_vlm_layers": 2,
        "resize_imgs_with_padding": (SIZE, SIZE),
        "load_vlm_weights": False,
    },
}


def features(cameras: int = 2, state: int = STATE, actions: int = 7) -> dict[str, dict[str, PolicyFeature]]:
    """What goes in and comes out."""
    names = ("front", "wrist", "side")[:cameras]
    images = {
        f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE)) for name in names
    }
    return {
        "input_features": images | {"observation.state": PolicyFeature(FeatureType.STATE, (state,))},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (actions,))},
    }


def stats(state: int = STATE, actions: int = 7, cameras: int = 2) -> dict[str, dict[str, torch.Tensor]]:
    """Statistics as of a data set: each number its own mean and spread."""

    def of(size: int, scale: float) -> dict[str, torch.Tensor]:
        mean, std = torch.linspace(-1, 1, size) * scale, torch.linspace(0.5, 1.5, size) * scale
        low, high = mean - 2 * std, mean + 2 * std
        return {"mean": mean, "std": std, "min": low, "max": high, "q01": low, "q99": high}

    image = {
        "mean": torch.full((3, 1, 1), 0.5),
        "std": torch.full((3, 1, 1), 0.25),
        "min": torch.zeros(3, 1, 1),
        "max": torch.ones(3, 1, 1),
    }
    names = ("front", "wrist", "side")[:cameras]
    return {f"observation.images.{name}": image for name in names} | {
        "observation.state": of(state, 1.0),
        "action": of(actions, 0.02),
    }


def make_folder(folder: Path, kind: str, **options: Any) -> Path:
    """A policy of `kind` with random weights and its processors, saved as lerobot saves them."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = small_tokenizer()
    if kind == "smolvla":
        save_small_vlm(folder / "vlm")
    if kind == "pi0_fast":
        return _make_pi0_fast(folder, **options)
    with small_sizes(), pytest.MonkeyPatch.context() as patch:
        from lerobot.processor import tokenizer_processor

        patch.setattr(tokenizer_processor.AutoTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
        settings = _OPTIONS[kind] | options
        if kind == "smolvla":
            settings |= {"vlm_model_name": str(folder / "vlm")}
        config = make_policy_config(kind, device="cpu", push_to_hub=False, **features(), **settings)
        policy = get_policy_class(kind)(config)
        before, after = make_pre_post_processors(config, dataset_stats=stats())
        policy.save_pretrained(folder)
        before.save_pretrained(folder)
        after.save_pretrained(folder)
    if kind in ("pi0", "pi05", "smolvla"):
        tokenizer.save_pretrained(folder)
    return folder


def _make_pi0_fast(folder: Path, **options: Any) -> Path:
    """π0-FAST, with both tokenizers in the folder. Action ids are likelier than words: what it says is a chunk."""
    from lerobot.processor import tokenizer_processor

    small_tokenizer(PALIGEMMA_WORDS).save_pretrained(folder)
    chunks = np.cumsum(np.random.default_rng(0).normal(0, 0.2, (64, 5, 7)), axis=1).clip(-1, 1)
    fast = FastTokenizer.fit(chunks, vocabulary=256)
    fast.save(folder / "fast")
    local = LocalTokenizers(folder)
    settings = {
        "chunk_size": 5,
        "n_action_steps": 5,
        "max_decoding_steps": 12,
        "image_resolution": (SIZE, SIZE),
        "tokenizer_max_length": 32,
        "validate_action_token_prefix": False,
    }
    with small_sizes(), local.given(), pytest.MonkeyPatch.context() as patch:
        for name, answer in (("AutoProcessor", local.actions), ("AutoTokenizer", local.text)):
            patch.setattr(
                getattr(tokenizer_processor, name), "from_pretrained", lambda *_, _is=answer, **__: _is
            )
        config = make_policy_config(
            "pi0_fast", device="cpu", push_to_hub=False, **features(), **settings | options
        )
        policy = get_policy_class("pi0_fast")(config)
        rows = policy.model.paligemma_with_expert.paligemma.lm_head.weight
        with torch.no_grad():
            last = PALIGEMMA_WORDS - 1 - config.fast_skip_tokens
            rows[8 : last - fast.size + 1] = 0
            rows[last + 1 :] = 0
        before, after = make_pre_post_processors(config, dataset_stats=stats())
        for each in (policy, before, after):
            each.save_pretrained(folder)
    return folder


def small_tokenizer(size: int = 8) -> PreTrainedTokenizerFast:
    """Splits at blanks; every word it does not know is one id. size: of the vocabulary, most of it never read."""
    vocabulary = {"<pad>": 0, "<unk>": 1, "<bos>": 2, "<eos>": 3, "lift": 4, "the": 5, "red": 6, "cube": 7}
    more = ("Action", ":", "|", *(f"<{index}>" for index in range(size)))
    vocabulary |= {word: len(vocabulary) + index for index, word in enumerate(more[: size - len(vocabulary)])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>", eos_token="<eos>"
    )


_KEPT = {"projection_dim": 32, "intermediate_size": 64}
"""Sizes of the vision tower that lerobot's models would overwrite with SigLIP's."""


@contextlib.contextmanager
def small_sizes() -> Iterator[None]:
    """π0, π0.5 and SmolVLA of the same structure with a few thousand weights a layer."""
    from lerobot.policies.pi0 import modeling_pi0
    from lerobot.policies.pi0_fast import modeling_pi0_fast
    from lerobot.policies.pi05 import modeling_pi05
    from lerobot.policies.smolvla import smolvlm_with_expert
    from transformers import GemmaConfig, PaliGemmaConfig

    def gemma(variant: str) -> Any:
        return modeling_pi0.GemmaConfig(
            width=32, depth=2, mlp_dim=64, num_heads=2, num_kv_heads=1, head_dim=16
        )

    def paligemma() -> Any:
        config = PaliGemmaConfig()
        config.vision_config = SiglipVisionConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, patch_size=16, image_size=SIZE
        )
        config.projection_dim = 32
        return config

    as_given = SiglipVisionConfig.__setattr__

    def keep(config: Any, name: str, value: Any) -> None:
        as_given(config, name, _KEPT.get(name, value))

    ids = types.SimpleNamespace(fake_image_token_id=1, global_image_token_id=2)
    processor = types.SimpleNamespace(tokenizer=ids)
    with pytest.MonkeyPatch.context() as patch:
        for module in (modeling_pi0, modeling_pi05, modeling_pi0_fast):
            patch.setattr(module, "get_gemma_config", gemma)
            patch.setattr(module, "CONFIG_MAPPING", {"paligemma": paligemma, "gemma": GemmaConfig})
        patch.setattr(SiglipVisionConfig, "__setattr__", keep)
        patch.setattr(smolvlm_with_expert.AutoProcessor, "from_pretrained", lambda *_, **__: processor)
        yield


def save_small_vlm(folder: Path) -> None:
    """The configuration of SmolVLA's language model; its weights stand in the policy's own file."""
    from transformers import SmolVLMConfig

    text = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "vocab_size": 64,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "patch_size": 16,
        "image_size": SIZE,
    }
    SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=2, image_token_id=3).save_pretrained(
        folder
    )
