"""A decoder language model for acting: the weights of a `transformers` model, packed, over a fixed cache.

Each layer is two large products in (queries, keys and values together; gate and up together) and two out, instead of
seven, and about a dozen operations instead of `transformers`' sixty: at one token a pass, calls are what takes time.
The arithmetic is that of Llama (Touvron et al. 2023), with what sets Qwen2 (biases of queries, keys and values), Qwen3
(a norm of each query and key) and Gemma (norms of 1 + weight, tanh GELU) apart; tests hold it to `transformers`' own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reflexarc.configs.engine import WeightBits
from reflexarc.configs.errors import PolicyError, unknown
from reflexarc.vla.engine.cache import StaticCache
from reflexarc.vla.engine.products import Product, product
from reflexarc.vla.engine.pruning import Pruning


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """Packed weights. qkv: (Q + 2·K, width). out: (width, Q). gate_up: (2·inner, width). down: (width, inner).

    qk_norm: (heads + key heads, 1, head width), factors of the norm of queries and keys, where there is one.
    """

    norm: Tensor
    qkv: Product
    qkv_bias: Tensor | None
    qk_norm: Tensor | None
    out: Product
    norm_mlp: Tensor
    gate_up: Product
    down: Product

    @property
    def bytes(self) -> int:
        """What its matrices take in memory."""
        return sum(each.bytes for each in (self.qkv, self.out, self.gate_up, self.down))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}

FAMILIES = ("llama", "qwen2", "qwen3", "gemma")


class Decoder:
    """Runs embeddings through the layers of `model`, a LlamaModel, Qwen2Model, Qwen3Model or GemmaModel.

    batch, max_length: of the cache. cache: another decoder's, whose keys and values this one is to see and to go on
    from, as an action expert sees its language model's (as many layers, and keys of the same shape). layers: of another
    decoder of the same model, shared. weights, group: in how many bits the layers are held otherwise, see `product`.
    In full the model's own parameters become views of the packed ones, so nothing is held twice; a model that is moved
    to another device or dtype afterwards needs a new decoder. Raises PolicyError if it is of another family, or does
    not fit `cache`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        batch: int = 1,
        max_length: int = 640,
        cache: StaticCache | None = None,
        layers: list[Layer] | None = None,
        weights: WeightBits = "full",
        group: int = 128,
    ) -> None:
        config: Any = model.config
        kind = config.model_type
        if kind not in FAMILIES:
            raise PolicyError(f"no fast decoder for this language model: {unknown('family', kind, FAMILIES)}")
        self.width: int = config.hidden_size
        self.heads: int = config.num_attention_heads
        self.key_heads: int = config.num_key_value_heads
        self.head_width: int = getattr(config, "head_dim", None) or self.width // self.heads
        self._eps: float = config.rms_norm_eps
        self._activation = ACTIVATIONS[getattr(config, "hidden_activation", None) or config.hidden_act]
        offset = 1.0 if kind == "gemma" else 0.0
        parts: Any = model
        self.layers = layers or [_pack(each, offset, weights, group) for each in parts.layers]
        weight = self.layers[0].norm
        self._norm = _scale(parts.norm, offset, weight)
        shape = (len(self.layers), batch, self.key_heads, max_length, self.head_width)
        self.cache = cache or StaticCache(*shape, dtype=weight.dtype, device=weight.device)
        self._cos, self._sin = _rotations(parts.rotary_emb, self.cache.max_length, weight)
        self._pruned: Pruning | None = None
        self.cache.require(layers=shape[0], heads=shape[2], head_width=shape[4])

    def run(
        self,
        embeddings: Tensor,
        *,
        start: int = 0,
        mask: Tensor | None = None,
        causal: bool = True,
        prune: Pruning | None = None,
        position: int | None = None,
    ) -> Tensor:
        """Hidden states (B, T, width) of embeddings (B, T, width) at places `start`, `start + 1`, ... of the cache.

        They see everything cached before `start`, and of each other what `causal` says; or what `mask` (B, 1, T,
        start + T), true where seen, says. Their keys and values are cached; what was cached from `start` on is lost.
        position: that of the first, by which it is rotated, where it is not `start`.
        prune: leave tokens out on the way, of a sequence that starts at 0 and has no mask; what is left is returned,
        and runs behind it go on without them. Raises PolicyError if the cache is too short.
        """
        count = embeddings.shape[1]
        if start == 0:
            self._pruned = prune
        self.cache.length = self.cache.reserve(start, count)
        if mask is None and causal and count > 1 and start > 0:
            mask = _causal_after(start, count, embeddings.device)
        first = start if position is None else position
        cos, sin = self._cos[first : first + count], self._sin[first : first + count]
        x, last = embeddings, embeddings[:, -1:]
        # SDPA's own causal mask is for squares, which is what a prefill is.
        square = mask is None and causal and count > 1
        for index, layer in enumerate(self.layers):
            if self._pruned is not None and index == self._pruned.layer:
                if prune is not None:
                    x, cos, sin = self._leave_out(prune, x, last, cos, sin)
                start -= 0 if prune is not None else self._pruned.removed
                mask = _causal_after(start, count, x.device) if mask is not None else None
            last = x[:, -1:]
            x = x + self._attend(index, layer, x, start, (cos, sin), mask, square)
            inner = layer.gate_up(F.rms_norm(x, (self.width,), layer.norm_mlp, self._eps))
            gate, up = inner.chunk(2, dim=-1)
            x = x + layer.down(self._activation(gate) * up)
        return F.rms_norm(x, (self.width,), self._norm, self._eps)

    def _leave_out(
        self, prune: Pruning, x: Tensor, last: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What goes on of x (B, T, width), and its rotations. last: (B, 1, width), what entered the layer before."""
        index, length = prune.layer - 1, x.shape[1]
        layer = self.layers[index]
        query = self._heads(layer, last)[:, : self.heads]
        keys = self.cache.keys[index, : len(x), :, :length]
        places = prune.places(_rotate(query, cos[-1:], sin[-1:]), keys, length)
        x = x.gather(1, places[..., None].expand(-1, -1, x.shape[2]))
        return x, cos[places][:, None], sin[places][:, None]

    def _attend(
        self,
        index: int,
        layer: Layer,
        x: Tensor,
        start: int,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None,
        square: bool,
    ) -> Tensor:
        batch, count, _ = x.shape
        heads = self._heads(layer, x)
        turned = _rotate(heads[:, : self.heads + self.key_heads], *rotation)
        query, key = turned[:, : self.heads], turned[:, self.heads :]
        keys, values = self.cache.put(index, start, key, heads[:, self.heads + self.key_heads :])
        grouped = self.heads != self.key_heads
        mixed = F.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, is_causal=square, enable_gqa=grouped
        )
        return layer.out(mixed.transpose(1, 2).reshape(batch, count, -1))

    def _heads(self, layer: Layer, x: Tensor) -> Tensor:
        """(B, heads + 2 key heads, T, head_width): queries, keys and values of x (B, T, width), not yet rotated."""
        packed = layer.qkv(F.rms_norm(x, (self.width,), layer.norm, self._eps))
        if layer.qkv_bias is not None:
            packed = packed + layer.qkv_bias
        heads: Tensor = torch.unflatten(packed, -1, (-1, self.head_width)).transpose(1, 2)
        if layer.qk_norm is None:
            return heads
        asking, values = heads.split([self.heads + self.key_heads, self.key_heads], dim=1)
        normed = F.rms_norm(asking, (self.head_width,), None, self._eps) * layer.qk_norm
        return torch.cat([normed, values], dim=1)


def _pack(layer: Any, offset: float, weights: WeightBits, group: int) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    three = (attention.q_proj, attention.k_proj, attention.v_proj)
    packed = _joined(three, "weight")
    return Layer(
        norm=_scale(layer.input_layernorm, offset, packed),
        qkv=product(packed, weights, group),
        qkv_bias=None if attention.q_proj.bias is None else _joined(three, "bias"),
        qk_norm=_head_norms(attention, packed) if hasattr(attention, "q_norm") else None,
        out=product(attention.o_proj.weight.detach(), weights, group),
        norm_mlp=_scale(layer.post_attention_layernorm, offset, packed),
        gate_up=product(_joined((mlp.gate_proj, mlp.up_proj), "weight"), weights, group),
        down=product(mlp.down_proj.weight.detach(), weights, group),
    )


def _scale(norm: Any, offset: float, like: Tensor) -> Tensor:
    """A norm's factors; some models keep them in float32 beside matrices of bfloat16."""
    factors: Tensor = (norm.weight.detach().float() + offset).to(like.dtype)
    return factors


def _head_norms(attention: Any, like: Tensor) -> Tensor:
    """The factors for each query's head, then for each key's."""
    query, key = (_scale(norm, 0.0, like)[None] for norm in (attention.q_norm, attention.k_norm))
    width = query.shape[1]
    counts = (attention.q_proj.out_features // width, attention.k_proj.out_features // width)
    return torch.cat([query.expand(counts[0], -1), key.expand(counts[1], -1)])[:, None]


def _joined(linears: Sequence[nn.Linear], name: str) -> Tensor:
    """Their parameters below each other in one tensor, of which they become views; or that tensor, if they are."""
    parameters: list[nn.Parameter] = [getattr(each, name) for each in linears]
    held = _already_joined(parameters)
    if held is not None:
        return held
    joined = torch.cat([each.detach() for each in parameters])
    for parameter, view in zip(parameters, joined.split([len(each) for each in parameters]), strict=True):
        parameter.data = view
    return joined


def _already_joined(parameters: Sequence[nn.Parameter]) -> Tensor | None:
    """The tensor whose rows they are, one after another, if another decoder has packed them before."""
    first = parameters[0].detach()
    place, width = first.storage_offset(), first[0].numel()
    for each in parameters:
        same = each.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not (same and each.is_contiguous() and each.storage_offset() == place):
            return None
        place += each.numel()
    rows = sum(len(each) for each in parameters)
    return first.as_strided((rows, *first.shape[1:]), (*([width] if first.dim() > 1 else []), 1))


def _rotations(rotary: nn.Module, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (length, head_width) of rotary positions (Su et al. 2021), as the model itself has them."""
    positions = torch.arange(length, device=like.device)[None]
    with torch.no_grad():
        cos, sin = rotary(like.new_zeros(1, length, 1), positions)
    # The second half of a head's width turns against the first: its sign is kept in the sines.
    half = sin.shape[-1] // 2
    signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
    return cos[0], signed[0]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(B, heads, T, head_width), each pair (i, i + half) turned by its position's angle."""
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin


def _causal_after(start: int, count: int, device: torch.device) -> Tensor:
    """(1, 1, count, start + count): all that came before, and of themselves what is not later."""
    seen = torch.ones(count, start + count, dtype=torch.bool, device=device)
    return seen.tril(diagonal=start)[None, None]
