"""The instruction's summary: one vector that conditions tower and connector before the language model reads the words.

One transformer layer over the words, so that the order counts ("the red cube into the blue bin" is not "the blue cube
into the red bin"), then attention by one learned query.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class InstructionSummary(nn.Module):
    """Word embeddings (B, L, width) and which of them are words (B, L) to (B, condition)."""

    def __init__(self, width: int, condition: int, max_length: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, condition)
        self.place = nn.Parameter(torch.randn(max_length, condition) * 0.1)
        self.norm = nn.LayerNorm(condition)
        self.attention = nn.MultiheadAttention(condition, 4, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(condition),
            nn.Linear(condition, 2 * condition),
            nn.SiLU(),
            nn.Linear(2 * condition, condition),
        )
        self.query = nn.Parameter(torch.randn(condition))
        self.leave = nn.Sequential(nn.LayerNorm(condition), nn.Linear(condition, condition))

    def forward(self, words: Tensor, is_word: Tensor) -> Tensor:
        """See the class."""
        x = self.enter(words) + self.place[: words.shape[1]]
        y = self.norm(x)
        x = x + self.attention(y, y, y, key_padding_mask=~is_word, need_weights=False)[0]
        x = x + self.mlp(x)
        scores = (x @ self.query) / math.sqrt(x.shape[-1])
        weights = scores.masked_fill(~is_word, -torch.inf).softmax(-1)
        summary: Tensor = self.leave((weights[:, None] @ x)[:, 0])
        return summary
