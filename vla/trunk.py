"""The decoder LM: a Llama, Gemma or Qwen of `transformers`, run over embeddings in segments that share a cache.

First the prefix (words, image tokens, state, focus queries) in which everything sees everything; then a head's block of
action tokens, which sees the prefix and of itself what its mask allows. The last 256 rows of the vocabulary are the
action ids; they serve as input embeddings and as the only rows of the LM head that are ever computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    DynamicCache,
    GemmaConfig,
    GemmaModel,
    LlamaConfig,
    LlamaModel,
    Qwen3Config,
    Qwen3Model,
)

from reflexarc.configs.policy import ACTION_BINS, LanguageConfig
from reflexarc.vla.engine.steps import Steps
from reflexarc.vla.engine.words import KeptWords, Read
from reflexarc.vla.gates import GatedCrossAttention

DECODERS: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaModel),
    "gemma": (GemmaConfig, GemmaModel),
    "qwen": (Qwen3Config, Qwen3Model),
}
"""Configuration and model by `language.kind`."""

WORD_SCALE = 0.3
"""Initial standard deviation of word embeddings, comparable to that of the image tokens."""


class Prefix:
    """The cached keys and values of a prefix, and who may be looked at.

    keep: (B, P) bool, false at padding. next_position: of what follows. picture: what the gates look at.
    """

    def __init__(
        self,
        cache: DynamicCache,
        keep: Tensor,
        next_position: int,
        picture: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.cache = cache
        self.keep = keep
        self.next_position = next_position
        self.picture = picture
        self.stepped = 0  # tokens behind it that the cache does not hold, since `Steps` does

    def keys_and_values(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each layer (B, K, P, d), for K heads; keys are rotated by their positions."""
        for layer in self.cache.layers:
            yield layer.keys, layer.values


class Trunk(nn.Module):
    """See the header. `words`: size of the text vocabulary; action ids start there. `gated`: see `gates.py`.

    kept: instructions that were read before, where `config.words_first` lets them be; only while weights stay.
    steps: runs single tokens behind a prefix, for acting; only while weights stay.
    """

    def __init__(self, config: LanguageConfig, words: int, *, gated: bool = False) -> None:
        super().__init__()
        self.words = words
        self.width = config.width
        self._max_length = 1 + config.max_words
        self._words_first = config.words_first and not gated
        self.kept: KeptWords | None = None
        self.steps: Steps | None = None
        configuration, decoder = DECODERS[config.kind]
        self._sizes = configuration(
            vocab_size=words + ACTION_BINS,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.key_heads,
            head_dim=config.head_width,
            max_position_embeddings=4096,
            pad_token_id=0,
            bos_token_id=1,
            attn_implementation="sdpa",
        )
        self.llama = decoder(
            self._sizes
        )  # whatever its kind: the name stands in the tensors of every checkpoint
        self._scale = float(getattr(self.llama.embed_tokens, "scalar_embed_scale", 1.0))  # Gemma's
        gates = config.layers if gated else 0
        self.gates = nn.ModuleList(GatedCrossAttention(config.width, config.heads) for _ in range(gates))
        for gate, layer in zip(self.gates, self.llama.layers, strict=False):
            layer.register_forward_pre_hook(gate.before)
        with torch.no_grad():
            table = self.llama.embed_tokens.weight
            table[:words].normal_(std=WORD_SCALE / self._scale)
            table[words:] = smooth_rows(config.width) / self._scale

    @property
    def action_rows(self) -> Tensor:
        """(256, width) the vocabulary rows of the action ids."""
        rows: Tensor = self.llama.embed_tokens.weight[self.words :]
        return rows if self._scale == 1.0 else rows * self._scale

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (..., width) of word or action ids."""
        embedded: Tensor = self.llama.embed_tokens(ids)
        return embedded

    def action_logits(self, hidden: Tensor) -> Tensor:
        """(..., width) to (..., 256)."""
        return hidden @ (self.action_rows.T / math.sqrt(self.width))

    def word_logits(self, hidden: Tensor) -> Tensor:
        """(..., width) to (..., words): the rows of the text vocabulary."""
        rows = self.llama.embed_tokens.weight[: self.words] * self._scale
        logits: Tensor = hidden @ (rows.T / math.sqrt(self.width))
        return logits

    def prefix(
        self,
        embeddings: Tensor,
        keep: Tensor,
        words: int,
        picture: tuple[Tensor, Tensor] | None = None,
        ids: Tensor | None = None,
    ) -> tuple[Tensor, Prefix]:
        """(B, P, width) with keep (B, P) to hidden states of the same shape, and the cache for what follows.

        The first `words` embeddings are words; what stands after them has the same positions however many they are.
        picture: for a gated trunk, image tokens (B, N, width) and which of them are there (B, N). ids: (B, words), by
        which `kept` knows the words.
        """
        cache = DynamicCache(config=self._sizes)
        mask = keep[:, None, None, :].expand(-1, 1, keep.shape[1], -1)
        positions = torch.arange(keep.shape[1], device=keep.device)
        positions[words:] += self._max_length - words
        if self._words_first:
            mask = mask.clone()
            mask[:, :, :words, words:] = False
        if self._words_first and self.kept is not None and ids is not None:
            before = self.kept.of(
                ids, keep[:, :words].sum(1).tolist(), lambda row, n: self._read(embeddings[row : row + 1, :n])
            )
            for layer, (key, value) in enumerate(before.layers):
                cache.update(key, value, layer)
            rest = self._run(embeddings[:, words:], mask[:, :, words:], positions[words:], cache, picture)
            hidden = torch.cat([before.hidden, rest], dim=1)
        else:
            hidden = self._run(embeddings, mask, positions, cache, picture)
        return hidden, Prefix(cache, keep, self._max_length + keep.shape[1] - words, picture)

    def extend(self, embeddings: Tensor, prefix: Prefix, *, causal: bool) -> Tensor:
        """Run (B, T, width) after everything the prefix's cache holds; the cache grows by T. Hidden (B, T, width)."""
        batch, count = embeddings.shape[:2]
        if self.steps is not None and causal and count == 1 and prefix.picture is None:
            return self._step(self.steps, embeddings, prefix)
        before = prefix.keep.new_ones(batch, prefix.cache.get_seq_length() - prefix.keep.shape[1])
        start = prefix.next_position + before.shape[1]
        seen = torch.cat([prefix.keep, before], dim=1)[:, None, None, :].expand(-1, 1, count, -1)
        block = torch.ones(count, count, dtype=torch.bool, device=embeddings.device)
        block = block.tril() if causal else block
        mask = torch.cat([seen, block.expand(batch, 1, -1, -1)], dim=-1)
        positions = torch.arange(start, start + count, device=embeddings.device)
        return self._run(embeddings, mask, positions, prefix.cache, prefix.picture)

    def _step(self, steps: Steps, token: Tensor, prefix: Prefix) -> Tensor:
        more = prefix.cache.get_seq_length() - prefix.keep.shape[1] + prefix.stepped
        position = prefix.next_position + more
        hidden = steps.run(token, prefix.cache, prefix.keep, prefix.stepped, position)
        prefix.stepped += 1
        return hidden

    def _read(self, words: Tensor) -> Read:
        """Words (1, L, width) by themselves."""
        cache, count = DynamicCache(config=self._sizes), words.shape[1]
        mask = torch.ones(1, 1, count, count, dtype=torch.bool, device=words.device)
        hidden = self._run(words, mask, torch.arange(count, device=words.device), cache, None)
        return Read(hidden, tuple((layer.keys, layer.values) for layer in cache.layers))

    def rotation(self, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (1, T, d) that rotate queries and keys at positions (T,), in the dtype of `like`."""
        turn: tuple[Tensor, Tensor] = self.llama.rotary_emb(like, positions[None])
        return turn

    def _run(
        self,
        embeddings: Tensor,
        mask: Tensor,
        positions: Tensor,
        cache: DynamicCache,
        picture: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        for gate in self.gates:
            assert isinstance(gate, GatedCrossAttention)
            gate.picture = picture
        out = self.llama(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions[None],
            past_key_values=cache,
            use_cache=True,
        )
        hidden: Tensor = out.last_hidden_state
        return hidden


def smooth_rows(width: int) -> Tensor:
    """(256, width) cosines of rising frequency: neighbouring bins begin as neighbours, which is what they are."""
    bins = (torch.arange(ACTION_BINS) + 0.5) / ACTION_BINS
    frequency = torch.arange(width) * (ACTION_BINS / (2.5 * width))
    return torch.cos(math.pi * bins[:, None] * frequency[None, :])
