"""Words that stand first and see words only are read once for an instruction, and the answers are the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from contracts.toy_policy import toy_checkpoint, toy_observation
from reflexarc.vla.checkpoint import Checkpoint, build_model
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.wire.images import encode_image
from reflexarc.wire.messages import ActionChunk, Observation

TOLD = ("go to the red square", "go to the blue square", "go")


def checkpoint(kind: str = "llama", *, words_first: bool = True) -> Checkpoint:
    made = toy_checkpoint()
    model = made.config.model
    language = model.language.model_copy(update={"words_first": words_first, "kind": kind})
    config = made.config.model_copy(update={"model": model.model_copy(update={"language": language})})
    torch.manual_seed(1)
    built = build_model(config, made.spec, made.actions, made.words, made.stats, made.fast)
    return dataclasses.replace(made, config=config, model=built)


def observation(seq: int, instruction: str) -> Observation:
    pictures = {
        camera: np.random.default_rng([seq, index]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        for index, camera in enumerate(("front", "wrist"))
    }
    template = toy_observation(seq=seq, instruction=instruction)
    images = {
        name: encode_image(each, camera=name, seq=seq, t_capture_ns=0) for name, each in pictures.items()
    }
    return msgspec.structs.replace(template, images=images)


@pytest.mark.parametrize("kind", ["llama", "gemma", "qwen"])
def test_answers_are_the_same_whether_words_are_kept_or_read_anew(kind: str) -> None:
    made = checkpoint(kind)
    keeps = VlaPolicy(made)
    asked = [observation(seq, TOLD[seq % 3]) for seq in range(6)]
    kept = [keeps.act_batch(asked[:4]), keeps.act_batch(asked[2:])]
    keeps._model.trunk.kept = None
    for batch, some in zip(kept, (asked[:4], asked[2:]), strict=True):
        for one, other in zip(batch, keeps.act_batch(some), strict=True):
            assert isinstance(one, ActionChunk)
            assert isinstance(other, ActionChunk)
            assert np.abs(one.bins.astype(int) - other.bins).max() <= 1


@torch.inference_mode()
def test_an_instruction_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = VlaPolicy(checkpoint())
    trunk, read = policy._model.trunk, []
    before = trunk._read
    monkeypatch.setattr(trunk, "_read", lambda words: read.append(words.shape[1]) or before(words))
    for seq in range(4):
        policy.act(observation(seq, TOLD[0]))
    assert len(read) == 1
    policy.act_batch([observation(5, TOLD[0]), observation(6, TOLD[1]), observation(7, TOLD[1])])
    assert len(read) == 2


@torch.inference_mode()
@pytest.mark.parametrize("words_first", [True, False])
def test_words_see_no_picture_only_where_they_stand_first(words_first: bool) -> None:
    trunk: Any = checkpoint(words_first=words_first).model.eval().trunk
    words, rest = torch.randn(1, 4, trunk.width), torch.randn(2, 6, trunk.width)
    keep = torch.ones(1, 10, dtype=torch.bool)
    one, other = (trunk.prefix(torch.cat([words, each[None]], dim=1), keep, 4)[0] for each in rest)
    assert torch.allclose(one[:, :4], other[:, :4], atol=1e-6) == words_first
    assert not torch.allclose(one[:, 4:], other[:, 4:], atol=1e-3)
