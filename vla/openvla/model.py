"""OpenVLA's network: towers, projector, Llama, and OpenVLA-OFT's additions. It knows tensors only.

One sequence: `<s>`, the image tokens of every image in order, one token of the state (OFT), the rest of the prompt,
actions. OpenVLA emits one action token after another (causal attention). OpenVLA-OFT puts one empty embedding for each
number of the chunk after the prompt, then `</s>`, lets every position see every other, and reads the answer of each
number at the position before it, as a language model's shifted output; either as tokens or, by an MLP over the hidden
states of an action's numbers, as values in [-1, 1].

The ids of actions are the last 256 below 32000; only those rows of the LM head are kept and computed. Where the
published code would have chosen another word and clipped it, this chooses the best action.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from reflexarc.configs.engine import EngineConfig
from reflexarc.configs.policy import ACTION_BINS
from reflexarc.vla.engine.actions import ActionDecoder
from reflexarc.vla.engine.decoder import Decoder, Layer
from reflexarc.vla.engine.graphs import Graphs
from reflexarc.vla.engine.pruning import Pruning
from reflexarc.vla.openvla.layout import Layout
from reflexarc.vla.openvla.vit import TowerShape, VisionTransformer

END = 2
"""Llama's `</s>`."""

PROMPT_ROOM = 64
"""Positions of the cache beyond the first prompt seen: a longer one later finds room."""


class Projector(nn.Module):
    """Image features into the language model: two layers for one tower, three for fused ones, exact GELU between."""

    def __init__(self, features: int, width: int, *, fused: bool) -> None:
        super().__init__()
        sizes = [features, 4 * features, width, width] if fused else [features, width, width]
        for index, (inner, outer) in enumerate(itertools.pairwise(sizes), start=1):
            self.add_module(f"fc{index}", nn.Linear(inner, outer))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, features) to (B, N, width)."""
        layers = list(self.children())
        for layer in layers[:-1]:
            x = F.gelu(layer(x))
        out: Tensor = layers[-1](x)
        return out


class ProprioProjector(nn.Module):
    """OFT: the normalised state (B, P) as one token (B, width)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, state: Tensor) -> Tensor:
        """See the class."""
        token: Tensor = self.fc2(F.gelu(self.fc1(state)))
        return token


class ResidualBlock(nn.Module):
    """x + ReLU(linear(norm(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        residual: Tensor = self.ffn(x)
        return x + residual


class ActionMlp(nn.Module):
    """OFT's L1 head: the hidden states of an action's D numbers, side by side, to these D numbers."""

    def __init__(self, width: int, dims: int, blocks: int = 2) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(width * dims)
        self.fc1 = nn.Linear(width * dims, width)
        self.mlp_resnet_blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.layer_norm2 = nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, dims)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, H, D·width) to (B, H, D) in about [-1, 1]."""
        x = F.relu(self.fc1(self.layer_norm1(hidden)))
        for block in self.mlp_resnet_blocks:
            x = block(x)
        values: Tensor = self.fc2(self.layer_norm2(x))
        return values


class OpenVlaModel(nn.Module):
    """See the header.

    dims: numbers of an action. film: towers see the words. state: numbers felt, 0 for none. regress: has the L1 head.
    """

    def __init__(
        self, layout: Layout, *, dims: int, film: bool = False, state: int = 0, regress: bool = False
    ) -> None:
        super().__init__()
        width = layout.width
        self.dims, self.film, self.vocabulary = dims, film, layout.vocabulary
        self.towers = nn.ModuleList(
            VisionTransformer(each, width if film else None) for each in layout.towers
        )
        self._patches = layout.towers[0].patches
        features = sum(each.width for each in layout.towers)
        self.projector = Projector(features, width, fused=len(layout.towers) > 1)
        self.llama_config = llama_config(layout)
        self.llama = LlamaModel(self.llama_config)
        self.action_rows = nn.Parameter(torch.zeros(ACTION_BINS, width))
        self.proprio = ProprioProjector(state, width) if state else None
        self.action_mlp = ActionMlp(width, dims) if regress else None
        self.engine = EngineConfig()
        self._graphs = Graphs()
        self._made: tuple[tuple[torch.dtype, torch.device], tuple[int, int], ActionDecoder] | None = None
        self._layers: list[Layer] | None = None

    def set_engine(self, engine: EngineConfig) -> None:
        """How answers are computed from now on."""
        self.engine, self._made, self._layers = engine, None, None
        self._graphs = Graphs(enabled=engine.graphs, compiled=engine.compile)

    @property
    def warm_ups(self) -> int:
        """Answers to the same question until the next one is as fast as all that follow."""
        return self._graphs.until_ready(cuda=self.action_rows.is_cuda)

    @property
    def first_action(self) -> int:
        """The lowest action id: 31744."""
        return self.vocabulary - ACTION_BINS

    def release(self) -> None:
        """Give back the layers' weights in full, where the engine holds them in fewer bits: nothing reads them then."""
        if self.engine.weights != "full" and self._layers is not None:
            for layer in self.llama.layers:
                for module in layer.modules():
                    if isinstance(module, nn.Linear):
                        module.weight.data = module.weight.new_empty(0)

    def sharing_weights(self, engine: EngineConfig) -> OpenVlaModel:
        """The same weights, run in another way."""
        other = copy.copy(self)
        other.set_engine(engine)
        return other

    def see(self, images: Sequence[Tensor], words: Tensor | None = None) -> Tensor:
        """Image tokens (B, C·patches, width): all of the first image, then all of the next.

        images: for each tower (B, C, 3, S, S), normalised for it. words: (B, L, width) embeddings, for FiLM only.
        """
        count = images[0].shape[1]
        mean = words.mean(dim=1).repeat_interleave(count, 0) if self.film and words is not None else None
        tokens: Tensor = self.features([each.flatten(0, 1) for each in images], mean).unflatten(
            0, (-1, count)
        )
        return tokens.flatten(1, 2)

    def features(self, images: Sequence[Tensor], mean: Tensor | None = None) -> Tensor:
        """Of each tower (N, 3, S, S), and the words' mean (N, width) where there is FiLM: (N, patches, width)."""
        given = (*images, *([] if mean is None else [mean]))
        if torch.is_grad_enabled():
            return self._features(*given)[0]
        return self._graphs.run("see", self._features, *given)[0]

    def _features(self, *given: Tensor) -> tuple[Tensor]:
        count = len(self.towers)
        mean = given[count] if len(given) > count else None
        features = [tower(each, mean) for tower, each in zip(self.towers, given[:count], strict=True)]
        return (self.projector(torch.cat(features, dim=2)),)

    def patches(self, images: Sequence[Tensor]) -> int:
        """How many image tokens `see` makes of these pictures, of each robot."""
        return images[0].shape[1] * self._patches

    def embed(self, ids: Tensor) -> Tensor:
        """(B, L) ids to (B, L, width)."""
        embedded: Tensor = self.llama.embed_tokens(ids)
        return embedded

    def words(self, ids: Tensor, *, end: bool) -> Tensor:
        """(B, L, width) embeddings of the prompt (B, L); end: with the `</s>` that closes OFT's chunk behind it."""
        return self.embed(torch.cat([ids, torch.full_like(ids[:, :1], END)], dim=1) if end else ids)

    def sequence(self, images: Sequence[Tensor], ids: Tensor, state: Tensor | None, *, end: bool) -> Tensor:
        """(B, N, width) embeddings of everything before the actions. ids: (B, L), `<s>` first. state: (B, P).

        end: FiLM's average of the words counts the `</s>` that closes OFT's chunk.
        """
        return self.assemble(self.see(images, self.words(ids, end=end)), ids, state)

    def assemble(self, seen: Tensor, ids: Tensor, state: Tensor | None) -> Tensor:
        """`sequence` from the image tokens (B, M, width)."""
        words = self.embed(ids)
        parts = [words[:, :1], seen]
        if self.proprio is not None and state is not None:
            parts.append(self.proprio(state)[:, None])
        return torch.cat([*parts, words[:, 1:]], dim=1)

    def action_logits(self, hidden: Tensor) -> Tensor:
        """(..., width) to (..., 256), in the order of the ids."""
        return hidden @ self.action_rows.T

    @torch.inference_mode()
    def generate(self, images: Sequence[Tensor], ids: Tensor) -> tuple[Tensor, Tensor]:
        """OpenVLA: (B, D) action ids, each the likeliest after those before, and their logits (B, D, 256)."""
        return self.decode(self.sequence(images, ids, None, end=False), self.patches(images))

    @torch.inference_mode()
    def decode(self, prefix: Tensor, patches: int) -> tuple[Tensor, Tensor]:
        """`generate` from the embeddings (B, N, width) of everything before the actions, `patches` of them images'."""
        prune = self._pruning(patches)
        chosen, logits = self._engine(prefix, self.dims).autoregressive(prefix, self.dims, prune)
        return chosen + self.first_action, logits

    @torch.inference_mode()
    def parallel(
        self, images: Sequence[Tensor], ids: Tensor, state: Tensor | None, horizon: int
    ) -> tuple[Tensor, Tensor]:
        """OFT: the hidden states (B, H·D, width) that answer, and by them values (B, H, D) or ids (B, H, D) int64."""
        return self.decode_chunk(self.sequence(images, ids, state, end=True), horizon, self.patches(images))

    @torch.inference_mode()
    def decode_chunk(self, before: Tensor, horizon: int, patches: int) -> tuple[Tensor, Tensor]:
        """`parallel` from the embeddings (B, N, width) of everything before the actions, `patches` of them images'."""
        count = horizon * self.dims
        empty = before.new_zeros(len(before), count, before.shape[2])
        last = self.embed(torch.full((len(before), 1), END, device=before.device))
        whole = torch.cat([before, empty, last], dim=1)
        prune = self._pruning(patches)
        answer = self._engine(whole, 0).parallel(whole, before.shape[1] - 1, count, prune)
        if self.action_mlp is not None:
            return answer, self.action_mlp(answer.reshape(len(answer), horizon, -1))
        chosen = self.action_logits(answer).argmax(-1) + self.first_action
        return answer, chosen.unflatten(1, (horizon, self.dims))

    def _pruning(self, patches: int) -> Pruning | None:
        """Which of the image tokens, behind `<s>`, are left out on the way."""
        share = self.engine.visual_share
        keep = max(1, round(share * patches))
        return None if share == 1.0 else Pruning(1, patches, keep, self.engine.prune_layer)

    def _engine(self, embeddings: Tensor, more: int) -> ActionDecoder:
        """The engine, with room for these (B, N, width) and `more`; made anew where it has not."""
        place = (embeddings.dtype, embeddings.device)
        needed = (len(embeddings), embeddings.shape[1] + more)
        if (
            self._made is None
            or self._made[0] != place
            or any(a > b for a, b in zip(needed, self._made[1], strict=True))
        ):
            if self._made is not None and self._made[0] != place:
                self._layers = None
            room = (needed[0], needed[1] + PROMPT_ROOM)
            bits, group = self.engine.weights, self.engine.group
            decoder = Decoder(
                self.llama, batch=room[0], max_length=room[1], layers=self._layers, weights=bits, group=group
            )
            self._layers = decoder.layers
            inputs = self.llama.embed_tokens.weight[self.first_action : self.vocabulary]
            graphs = Graphs(enabled=self.engine.graphs, compiled=self.engine.compile)
            self._made = (place, room, ActionDecoder(decoder, self.action_rows, inputs, graphs=graphs))
        return self._made[2]


def llama_config(layout: Layout) -> LlamaConfig:
    """The language model of `transformers` with the published sizes; biases and tied weights Llama 2 has none."""
    sizes = dict(layout.llama)
    return LlamaConfig(
        **{name: value for name, value in sizes.items() if name != "rope_theta"},
        rope_parameters={"rope_type": "default", "rope_theta": float(sizes["rope_theta"])},
        num_key_value_heads=sizes["num_attention_heads"],
        hidden_act="silu",
        attn_implementation="sdpa",
        pad_token_id=None,
    )


def empty_model(layout: Layout, *, dims: int, film: bool, state: int, regress: bool) -> OpenVlaModel:
    """The model without memory for its weights: they are assigned as they are read."""
    with torch.device("meta"):
        return OpenVlaModel(layout, dims=dims, film=film, state=state, regress=regress)


def restore_tables(model: OpenVlaModel, device: torch.device) -> None:
    """Compute what no checkpoint stores: the frequencies of the rotary positions, in float32."""
    model.llama.rotary_emb = LlamaRotaryEmbedding(model.llama_config, device=device)


__all__ = ["OpenVlaModel", "TowerShape", "empty_model", "llama_config", "restore_tables"]
