"""Leaving out image tokens that nobody looks at.

FastV (Chen et al. 2024, "An Image is Worth 1/2 Tokens After Layer 2"): in the first layers all are there. Then those go
on that the sequence's last token, which is to answer, attends to most in the layer before, on average over the heads;
the others' keys and values stay in the layers they have passed. What it costs in accuracy depends on the model: compare
answers on recorded episodes before using it.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Pruning:
    """first, count: where the image tokens stand in the sequence. keep: how many go on. layer: the first without the
    others, from 1.
    """

    first: int
    count: int
    keep: int
    layer: int

    @property
    def removed(self) -> int:
        """How many do not go on."""
        return self.count - self.keep

    def places(self, query: Tensor, keys: Tensor, length: int) -> Tensor:
        """(B, length - removed) int64, ascending: the places that go on.

        query: (B, heads, 1, d) of the last token and keys (B, K, length, d) in the layer before, both rotated.
        """
        keys = keys.repeat_interleave(query.shape[1] // keys.shape[1], dim=1)
        attention = (query @ keys.transpose(-1, -2) / query.shape[-1] ** 0.5).float().softmax(-1)
        seen = attention.mean(dim=1)[:, 0, self.first : self.first + self.count]
        kept = seen.topk(self.keep, dim=-1).indices.sort(dim=-1).values + self.first
        everything = torch.arange(length, device=query.device).expand(len(kept), -1)
        before, after = everything[:, : self.first], everything[:, self.first + self.count :]
        return torch.cat([before, kept, after], dim=1)
