"""Single tokens behind a prefix on the engine are as `transformers` runs them, whatever stands before them."""

from __future__ import annotations

import pytest
import torch

from contracts.toy_policy import toy_checkpoint, toy_observation
from reflexarc.configs.policy import LanguageConfig
from reflexarc.vla.engine.steps import Steps
from reflexarc.vla.runtime import VlaPolicy
from reflexarc.vla.trunk import Trunk
from reflexarc.wire.messages import ActionChunk


def trunk(kind: str = "llama") -> Trunk:
    torch.manual_seed(0)
    sizes = {"width": 48, "layers": 2, "heads": 4, "key_value_heads": 2, "mlp_width": 96, "max_words": 8}
    return Trunk(LanguageConfig.model_validate({"kind": kind, **sizes}), 60).eval()


@torch.inference_mode()
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gemma", "qwen"])
def test_single_tokens_are_as_transformers_runs_them(kind: str, padded: bool) -> None:
    model = trunk(kind)
    before, tokens, block = torch.randn(2, 12, 48), torch.randn(2, 6, 48), torch.randn(2, 3, 48)
    keep = torch.ones(2, 12, dtype=torch.bool)
    if padded:
        keep[1, 3:5] = False

    def answer() -> torch.Tensor:
        _, prefix = model.prefix(before, keep, 5)
        first = model.extend(block, prefix, causal=True)
        rest = [model.extend(tokens[:, k : k + 1], prefix, causal=True) for k in range(6)]
        return torch.cat([first, *rest], dim=1)

    expected = answer()
    model.steps = Steps(model.llama)
    torch.testing.assert_close(answer(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        answer(), expected, atol=1e-5, rtol=0
    )  # and with what is left of the one before


@torch.inference_mode()
@pytest.mark.parametrize("head", ["autoregressive", "fast"])
def test_a_policy_says_the_same_with_and_without(head: str) -> None:
    policy = VlaPolicy(toy_checkpoint(head))
    assert policy._model.trunk.steps is not None
    asked = [
        toy_observation(seq=seq, instruction=told)
        for seq, told in enumerate(("go to the red square", "go", "go to the blue square"))
    ]
    with_steps = policy.act_batch(asked)
    policy._model.trunk.steps = None
    for one, other in zip(with_steps, policy.act_batch(asked), strict=True):
        assert isinstance(one, ActionChunk)
        assert isinstance(other, ActionChunk)
        assert abs(one.bins.astype(int) - other.bins).max() <= 1


def test_the_models_own_weights_stay_as_they_were() -> None:
    """They may be saved, and a file of weights takes no tensors that share memory."""
    model = trunk()
    _, prefix = model.prefix(torch.randn(1, 4, 48), torch.ones(1, 4, dtype=torch.bool), 2)
    model.steps = Steps(model.llama)
    model.extend(torch.randn(1, 1, 48), prefix, causal=True)
    places = [each.untyped_storage().data_ptr() for each in model.llama.parameters()]
    assert len(set(places)) == len(places)
    assert not any(name.startswith("steps") for name, _ in model.named_parameters())
