"""A picture that was seen before is not seen again, and the answer is the same to the bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from contracts.toy_policy import SIZE, toy_checkpoint, toy_config, toy_observation
from reflexarc.configs.policy import PolicyConfig
from reflexarc.vla.checkpoint import Checkpoint, build_model
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.wire.messages import ActionChunk, Observation

SMALL = {"width": 24, "layers": 1, "heads": 2, "patch": 8}
VISIONS: dict[str, dict[str, Any]] = {
    "siglip": {"kind": "siglip", **SMALL},
    "fused": {"kind": "fused", "parts": [{"kind": "dinov2", **SMALL}, {"kind": "siglip", **SMALL}]},
}


def checkpoint(kind: str, *, reuse: bool) -> Checkpoint:
    values = toy_config().model_dump(mode="json")
    values["model"] |= {"vision": VISIONS[kind], "reuse_vision": reuse}
    made, config = toy_checkpoint(), PolicyConfig.model_validate(values)
    torch.manual_seed(1)
    built = build_model(config, made.spec, made.actions, made.words, made.stats, made.fast)
    return dataclasses.replace(made, config=config, model=built)


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def observation(front: int, wrist: int, instruction: str = "go to the red square") -> Observation:
    return toy_observation(instruction=instruction, images={"front": picture(front), "wrist": picture(wrist)})


ASKED = (
    observation(1, 2),
    observation(1, 3),  # a slow camera beside a fast one
    observation(1, 3, "go to the blue square"),  # other words, the same pictures
    observation(2, 1),  # the pictures of one camera from the other
)


@pytest.mark.parametrize("kind", VISIONS)
def test_only_new_pictures_are_seen_and_answers_are_the_same_to_the_bit(kind: str) -> None:
    policy = VlaPolicy(checkpoint(kind, reuse=True))
    tower, looked = policy._model.tower, []
    assert isinstance(tower, torch.nn.Module)
    tower.register_forward_hook(lambda module, given, maps: looked.append(given[0].shape[:2].numel()))
    counts, chunks = [], []
    for each in ASKED:
        chunks.append(policy.act(each))
        counts.append(len(looked))
    assert counts == [2, 3, 3, 3]
    assert set(looked) == {1}
    for chunk, each in zip(chunks, ASKED, strict=True):
        fresh = VlaPolicy(checkpoint(kind, reuse=True)).act(each)
        assert np.array_equal(fresh.actions, chunk.actions)
    answers = policy.act_batch(list(ASKED))  # of several robots; nothing is new
    assert len(looked) == 3
    assert all(isinstance(each, ActionChunk) for each in answers)


@torch.inference_mode()
@pytest.mark.parametrize("kind", VISIONS)
def test_what_is_kept_is_what_a_tower_makes_of_all_pictures_at_once(kind: str) -> None:
    keeps, plain = VlaPolicy(checkpoint(kind, reuse=True))._model, checkpoint(kind, reuse=False).model.eval()
    images, condition = torch.rand(3, 2, 3, SIZE, SIZE), torch.zeros(3, 32)
    for _ in range(2):
        assert torch.allclose(keeps._look(images, condition), plain._look(images, condition), atol=1e-5)


def test_a_tower_that_hears_the_words_keeps_nothing() -> None:
    values = toy_config().model_dump(mode="json")
    values["model"]["reuse_vision"] = True
    with pytest.raises(
        ValueError, match="needs a tower that hears no words: vit, siglip, dinov2 or fused, not conv"
    ):
        PolicyConfig.model_validate(values)
    assert VlaPolicy(toy_checkpoint())._model.seen is None
