"""Action tokens from a decoder: one after another, or all in one pass. Only the 256 action rows are ever computed."""

from __future__ import annotations

import torch
from torch import Tensor

from reflexarc.vla.engine.decoder import Decoder
from reflexarc.vla.engine.graphs import Graphs
from reflexarc.vla.engine.pruning import Pruning


class ActionDecoder:
    """decoder: with room for prefix and actions. rows: (256, width) of the LM head, in the order of the action ids.

    inputs: (256, width), the embeddings of these ids. graphs: how passes are run. The whole of an answer, all tokens of
    it, is one graph on a GPU.
    """

    def __init__(
        self, decoder: Decoder, rows: Tensor, inputs: Tensor, *, graphs: Graphs | None = None
    ) -> None:
        self._decoder = decoder
        self._rows = rows
        self._inputs = inputs
        self._graphs = graphs or Graphs()

    def autoregressive(
        self, prefix: Tensor, count: int, prune: Pruning | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, count) int64, places of the chosen rows, and all logits (B, count, 256). prefix: (B, P, width)."""
        key = ("tokens", count, prune)
        return self._graphs.run(key, lambda x: self._one_by_one(x, count, prune), prefix)  # type: ignore[return-value]

    def parallel(self, whole: Tensor, start: int, count: int, prune: Pruning | None = None) -> Tensor:
        """Hidden states (B, count, width) at positions from `start` of a sequence in which all see all."""
        key = ("parallel", start, count, prune)
        return self._graphs.run(key, lambda x: (self._at_once(x, start, count, prune),), whole)[0]

    def _one_by_one(self, prefix: Tensor, count: int, prune: Pruning | None) -> tuple[Tensor, Tensor]:
        embeddings, start = prefix, 0
        chosen, logits = [], []
        for _ in range(count):
            hidden = self._decoder.run(embeddings, start=start, prune=None if start else prune)
            start += embeddings.shape[1]
            logits.append(hidden[:, -1] @ self._rows.T)
            chosen.append(logits[-1].argmax(-1))
            embeddings = self._inputs[chosen[-1]][:, None]
        return torch.stack(chosen, dim=1), torch.stack(logits, dim=1)

    def _at_once(self, whole: Tensor, start: int, count: int, prune: Pruning | None) -> Tensor:
        hidden = self._decoder.run(whole, causal=False, prune=prune)
        start -= whole.shape[1] - hidden.shape[1]  # of the tokens that were left out, all stood before
        return hidden[:, start : start + count]
