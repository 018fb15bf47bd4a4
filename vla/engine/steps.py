"""Tokens one after another behind a prefix that `transformers` has run: the passes of which an answer has dozens.

The prefix's keys and values are copied into a fixed cache once, and each token then takes the engine's few operations
instead of `transformers`' many: with small models on a processor, calls are what takes time.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from reflexarc.vla.engine.decoder import Decoder

ROOM, SLACK = 1024, 64
"""Positions beyond a prefix: for a chunk of 128 actions of 8 numbers, and for a longer instruction next time."""


class Steps:
    """Of a language model whose weights stay. It packs a copy of them: a model's own may be saved or trained on."""

    def __init__(self, model: nn.Module) -> None:
        self._model = copy.deepcopy(model)
        self._decoder: Decoder | None = None
        self._owner: DynamicCache | None = None
        self._padded = False

    @torch.inference_mode()
    def run(
        self, embeddings: Tensor, prefix: DynamicCache, keep: Tensor, passed: int, position: int
    ) -> Tensor:
        """Hidden state (B, 1, width) of one token (B, 1, width) behind a prefix, and `passed` tokens run here before.

        keep: (B, P) false at padding of what the prefix holds. position: of the token. The first token after another
        prefix starts anew.
        """
        length = prefix.get_seq_length()
        if passed == 0 or self._owner is not prefix:
            self._take(prefix, len(embeddings), max(length, position))
            self._padded = not bool(keep.all())
        assert self._decoder is not None
        mask = None
        if self._padded:
            more = keep.new_ones(len(keep), length + passed + 1 - keep.shape[1])
            mask = torch.cat([keep, more], dim=1)[:, None, None]
        token = embeddings.to(self._decoder.cache.keys.dtype)
        return self._decoder.run(token, start=length + passed, position=position, mask=mask)

    def _take(self, prefix: DynamicCache, batch: int, length: int) -> None:
        decoder = self._decoder
        if decoder is None or batch > decoder.cache.keys.shape[1] or length + ROOM > decoder.cache.max_length:
            layers = decoder.layers if decoder else None
            decoder = Decoder(self._model, batch=batch, max_length=length + ROOM + SLACK, layers=layers)
            self._decoder = decoder
        for index, layer in enumerate(prefix.layers):
            decoder.cache.put(index, 0, layer.keys, layer.values)
        self._owner = prefix
