"""Weights in fewer bits, and image tokens left out: what each costs, against everything in full."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaModel

from reflexarc.configs.engine import WeightBits
from reflexarc.configs.errors import PolicyError
from reflexarc.vla.engine.actions import ActionDecoder
from reflexarc.vla.engine.decoder import Decoder
from reflexarc.vla.engine.products import product
from reflexarc.vla.engine.pruning import Pruning

ERRORS: dict[WeightBits, float] = {"full": 1e-6, "int8": 0.015, "int4": 0.12, "fp8": 0.05}
"""Of a product of noise, relative to its size: about what uniform steps of so many bits give."""
BYTES: dict[WeightBits, float] = {"full": 4.0, "int8": 1.02, "int4": 0.57, "fp8": 1.01}
"""A weight, from float32."""


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    return LlamaModel(LlamaConfig(vocab_size=50, **sizes, attn_implementation="sdpa")).eval()


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 5, 33])
@pytest.mark.parametrize("bits", list(ERRORS))
def test_a_product_is_as_good_as_its_bits(bits: WeightBits, rows: int) -> None:
    torch.manual_seed(0)
    weight, x = (
        torch.randn(64, 256),
        torch.randn(2, rows, 256)[:1] if rows == 1 else torch.randn(1, rows, 256),
    )
    made, expected = product(weight, bits, group=64), F.linear(x, weight)
    got = made(x)
    assert got.shape == expected.shape
    assert got.dtype == x.dtype
    error = float((got - expected).abs().mean() / expected.abs().mean())
    assert error < ERRORS[bits]
    assert made.bytes / weight.numel() <= BYTES[bits]


def test_groups_that_do_not_fit_are_refused() -> None:
    with pytest.raises(PolicyError, match="96 inputs is no whole number of groups of 64"):
        product(torch.randn(16, 96), "int4", group=64)


@torch.inference_mode()
@pytest.mark.parametrize("bits", ["int8", "int4", "fp8"])
def test_a_decoder_in_fewer_bits_is_near_the_full_one(model: Any, bits: WeightBits) -> None:
    x = torch.randn(1, 12, 64)
    full, small = Decoder(model), Decoder(model, weights=bits, group=32)
    expected, got = full.run(x), small.run(x)
    assert float((got - expected).abs().mean() / expected.abs().mean()) < 3 * ERRORS[bits]
    one = small.run(x[:, -1:], start=11)
    assert float((one - got[:, -1:]).abs().mean() / got.abs().mean()) < 3 * ERRORS[bits]
    assert sum(each.bytes for each in small.layers) < 0.35 * sum(each.bytes for each in full.layers)


# Image tokens left out


FIRST, COUNT, LENGTH, LAYER = 1, 12, 20, 2


def reference(model: Any, embeddings: torch.Tensor, keep: int, more: int) -> torch.Tensor:
    """FastV written out, without a cache: layers by themselves, the last token's attention in the layer before."""
    kept, attention = None, None
    positions = torch.arange(embeddings.shape[1])
    x = embeddings
    prompt = embeddings.shape[1] - more
    for index, layer in enumerate(model.layers):
        if index == LAYER:
            assert attention is not None
            seen = attention[FIRST : FIRST + COUNT]
            chosen = sorted((seen.topk(keep).indices + FIRST).tolist())
            kept = [*range(FIRST), *chosen, *range(FIRST + COUNT, embeddings.shape[1])]
            x, positions = x[:, kept], positions[kept]
        normed = layer.input_layernorm(x)
        attend = layer.self_attn
        heads = [
            project(normed).unflatten(-1, (4, 16)).transpose(1, 2)
            for project in (attend.q_proj, attend.k_proj, attend.v_proj)
        ]
        cos, sin = model.rotary_emb(x, positions[None])
        half = torch.cat([-sin[..., :8], sin[..., 8:]], dim=-1)
        query, key = (each * cos[:, None] + each.roll(8, -1) * half[:, None] for each in heads[:2])
        scores = query @ key.transpose(-1, -2) / 4.0
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf).softmax(-1)
        if index == LAYER - 1:
            attention = scores.mean(1)[0, prompt - 1]
        x = x + attend.o_proj((scores @ heads[2]).transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.norm(x)


@torch.inference_mode()
@pytest.mark.parametrize("keep", [1, 5, 11])
def test_pruning_is_fastv_written_out(model: Any, keep: int) -> None:
    torch.manual_seed(3)
    embeddings = torch.randn(1, LENGTH, 64)
    decoder = Decoder(model, max_length=64)
    hidden = decoder.run(embeddings, prune=Pruning(FIRST, COUNT, keep, LAYER))
    assert hidden.shape[1] == LENGTH - COUNT + keep
    torch.testing.assert_close(hidden, reference(model, embeddings, keep, 0), atol=1e-5, rtol=0)
    # Tokens behind it, one and several at a time, see what is left of it.
    more = torch.randn(1, 3, 64)
    expected = reference(model, torch.cat([embeddings, more], dim=1), keep, 3)[:, -3:]
    one = decoder.run(more[:, :1], start=LENGTH)
    rest = decoder.run(more[:, 1:], start=LENGTH + 1)
    torch.testing.assert_close(torch.cat([one, rest], dim=1), expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_with_all_kept_nothing_changes(model: Any) -> None:
    embeddings = torch.randn(2, LENGTH, 64)
    decoder = Decoder(model, batch=2, max_length=64)
    everything = decoder.run(embeddings, prune=Pruning(FIRST, COUNT, COUNT, LAYER))
    torch.testing.assert_close(everything, decoder.run(embeddings), atol=1e-6, rtol=0)


@torch.inference_mode()
def test_actions_are_read_where_they_are_after_pruning(model: Any) -> None:
    rows, inputs = torch.randn(256, 64), torch.randn(256, 64)
    engine = ActionDecoder(Decoder(model, batch=2, max_length=64), rows, inputs)
    whole = torch.randn(2, LENGTH, 64)
    prune = Pruning(FIRST, COUNT, COUNT, LAYER)
    torch.testing.assert_close(engine.parallel(whole, 15, 4, prune), engine.parallel(whole, 15, 4))
    assert engine.parallel(whole, 15, 4, Pruning(FIRST, COUNT, 3, LAYER)).shape == (2, 4, 64)
    chosen, pruned = engine.autoregressive(whole, 5, Pruning(FIRST, COUNT, 3, LAYER))
    _, full = engine.autoregressive(whole, 5)
    assert chosen.shape == (2, 5)
    assert not torch.allclose(pruned, full, atol=1e-2)
    _, again = engine.autoregressive(whole, 5)
    assert torch.equal(again, full)  # nothing of it is left behind
