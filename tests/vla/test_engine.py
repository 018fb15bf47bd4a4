"""The engine's decoder gives what `transformers` gives, in pieces as at once, and its tokens are `generate`'s."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from transformers import (
    GemmaConfig,
    GemmaModel,
    LlamaConfig,
    LlamaModel,
    PhiConfig,
    PhiModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

from reflexarc.configs.errors import PolicyError
from reflexarc.vla.engine.actions import ActionDecoder
from reflexarc.vla.engine.decoder import Decoder
from reflexarc.vla.engine.products import Full

WIDTH, LENGTH = 96, 20
FAMILIES: dict[str, tuple[Any, Any, dict[str, int]]] = {
    "llama": (LlamaConfig, LlamaModel, {"num_key_value_heads": 6}),
    "llama, grouped": (LlamaConfig, LlamaModel, {"num_key_value_heads": 2}),
    "qwen2": (Qwen2Config, Qwen2Model, {"num_key_value_heads": 2}),
    "qwen3": (Qwen3Config, Qwen3Model, {"num_key_value_heads": 2, "head_dim": 16}),
    "gemma": (GemmaConfig, GemmaModel, {"num_key_value_heads": 1, "head_dim": 32}),
}


def config_of(kind: Any, **changes: int) -> Any:
    sizes = {
        "vocab_size": 300,
        "hidden_size": WIDTH,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
    }
    return kind(**{**sizes, **changes}, attn_implementation="sdpa", pad_token_id=0, eos_token_id=None)


def random_model(family: str) -> Any:
    """A model whose norms and biases are not those of initialisation, which would hide mistakes in them."""
    torch.manual_seed(0)
    config, model, changes = FAMILIES[family]
    built = model(config_of(config, **changes)).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return built


@pytest.fixture(params=list(FAMILIES))
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(request.param)


@torch.inference_mode()
def test_pieces_give_what_the_whole_gives(model: Any) -> None:
    embeddings = torch.randn(2, LENGTH, WIDTH)
    expected = model(inputs_embeds=embeddings).last_hidden_state
    decoder = Decoder(model, batch=2, max_length=LENGTH)
    cuts = [0, 11, 15, 16, 17, LENGTH]
    pieces = [decoder.run(embeddings[:, a:b], start=a) for a, b in itertools.pairwise(cuts)]
    assert torch.allclose(torch.cat(pieces, dim=1), expected, atol=1e-5)


@torch.inference_mode()
def test_without_causality_all_see_all(model: Any) -> None:
    embeddings = torch.randn(1, LENGTH, WIDTH)
    mask = torch.ones(1, 1, LENGTH, LENGTH, dtype=torch.bool)
    expected = model(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
    got = Decoder(model, max_length=LENGTH).run(embeddings, causal=False)
    assert torch.allclose(got, expected, atol=1e-5)
    assert not torch.allclose(got, model(inputs_embeds=embeddings).last_hidden_state, atol=1e-2)


@torch.inference_mode()
def test_a_pass_after_a_shorter_one_sees_nothing_of_it() -> None:
    decoder = Decoder(random_model("llama"), max_length=LENGTH)
    short, long = torch.randn(1, 5, WIDTH), torch.randn(1, LENGTH, WIDTH)
    fresh = decoder.run(short)
    decoder.run(long)
    assert torch.equal(decoder.run(short), fresh)


@torch.inference_mode()
def test_the_model_itself_still_works_on_the_packed_weights() -> None:
    model = random_model("llama")
    embeddings = torch.randn(1, LENGTH, WIDTH)
    before = model(inputs_embeds=embeddings).last_hidden_state
    Decoder(model, max_length=LENGTH)
    assert torch.equal(model(inputs_embeds=embeddings).last_hidden_state, before)
    attention = model.layers[0].self_attn
    stored = attention.q_proj.weight.untyped_storage().data_ptr()
    assert attention.k_proj.weight.untyped_storage().data_ptr() == stored


@torch.inference_mode()
def test_a_second_decoder_holds_the_same_weights(model: Any) -> None:
    first, second = Decoder(model, max_length=LENGTH), Decoder(model, max_length=LENGTH)
    embeddings = torch.randn(1, LENGTH, WIDTH)
    assert torch.equal(first.run(embeddings), second.run(embeddings))
    for one, other in zip(first.layers, second.layers, strict=True):
        for ours, theirs in ((one.qkv, other.qkv), (one.gate_up, other.gate_up)):
            assert isinstance(ours, Full)
            assert isinstance(theirs, Full)
            assert ours.weight.data_ptr() == theirs.weight.data_ptr()


@torch.inference_mode()
def test_tokens_are_the_likeliest_one_after_another() -> None:
    """Against `transformers` without any cache: the whole sequence anew for every token."""
    model = random_model("llama")
    rows, inputs = torch.randn(256, WIDTH), torch.randn(256, WIDTH)
    sequence = prefix = torch.randn(2, LENGTH, WIDTH)
    expected, expected_logits = [], []
    for _ in range(7):
        expected_logits.append(model(inputs_embeds=sequence).last_hidden_state[:, -1] @ rows.T)
        expected.append(expected_logits[-1].argmax(-1))
        sequence = torch.cat([sequence, inputs[expected[-1]][:, None]], dim=1)
    engine = ActionDecoder(Decoder(model, batch=2, max_length=64), rows, inputs)
    chosen, logits = engine.autoregressive(prefix, 7)
    assert torch.equal(chosen, torch.stack(expected, dim=1))
    assert torch.allclose(logits, torch.stack(expected_logits, dim=1), atol=1e-4)


def test_a_sequence_that_does_not_fit_is_refused() -> None:
    decoder = Decoder(random_model("llama"), max_length=8)
    with pytest.raises(PolicyError, match=r"9 positions does not fit the cache of 8; raise max_length"):
        decoder.run(torch.zeros(1, 9, WIDTH))


def test_an_unknown_family_is_named() -> None:
    config = PhiConfig(
        vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(PolicyError, match=r"unknown family 'phi'; known: gemma, llama, qwen2, qwen3"):
        Decoder(PhiModel(config))
