"""Gated cross-attention (Flamingo, Alayrac et al. 2022): the decoder looks at the picture between its layers.

Image tokens do not stand in the sequence then: before every layer each token of the sequence attends to them, and what
it finds is added through a gate, tanh of a learned number that starts at zero. The decoder begins as if it were blind.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class GatedCrossAttention(nn.Module):
    """Called before one layer of the decoder. picture: image tokens (B, N, width) and which are there (B, N)."""

    picture: tuple[Tensor, Tensor] | None = None

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.seen_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.gates = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to the same."""
        if self.picture is None:
            return x
        tokens, keep = self.picture
        seen, some = self.seen_norm(tokens), keep.any(1, keepdim=True)
        # A softmax over nothing is no number: where no camera is there, all are looked at and nothing is found.
        hidden = ~(keep | ~some)
        found = self.look(self.norm(x), seen, seen, key_padding_mask=hidden, need_weights=False)[0]
        x = x + self.gates[0].tanh() * torch.where(some[..., None], found, 0.0)
        out: Tensor = x + self.gates[1].tanh() * self.mlp(self.mlp_norm(x))
        return out

    def before(self, layer: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """As a forward hook of a decoder layer: its first argument is what this changes."""
        return (self(arguments[0]), *arguments[1:])
