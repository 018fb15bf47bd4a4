"""FAST tokens, one after another until the chunk ends (π0-FAST, Pertsch et al. 2025).

The vocabulary is the FAST tokenizer's and one more, which ends a chunk. Its rows are the head's own; they serve as
embeddings and as the rows of the LM head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reflexarc.configs.policy import FastHeadConfig
from reflexarc.vla.commitment import Commitment
from reflexarc.vla.heads.shape import HeadShape
from reflexarc.vla.labels import Answer, Labels
from reflexarc.vla.trunk import Prefix, Trunk


class FastHead(nn.Module):
    """See the header. most: tokens after which a chunk ends whatever the model says."""

    def __init__(self, config: FastHeadConfig, shape: HeadShape) -> None:
        super().__init__()
        width, self.end = shape.language.width, shape.fast_tokens
        self.most = (
            2 * shape.horizon * len(shape.varies)
        )  # the published ones write a coefficient in up to two
        self.begin = nn.Parameter(torch.randn(width) * 0.3)
        self.rows = nn.Parameter(torch.randn(self.end + 1, width) * 0.3)
        self.bias = nn.Parameter(torch.zeros(self.end + 1))

    def forward(self, trunk: Trunk, prefix: Prefix, plan: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B, T + 1, vocabulary + 1) of the true tokens (B, T) and of what follows them."""
        start = self.begin.expand(len(tokens), 1, -1)
        given = torch.cat([start, self.rows[tokens.clamp_min(0)]], dim=1) + plan[:, None]
        return self._logits(trunk.extend(given, prefix, causal=True))

    def loss(self, trunk: Trunk, prefix: Prefix, plan: Tensor, labels: Labels) -> Tensor:
        """See `Head`. A chunk counts by the share of its actions that are labels: its tokens belong to all of them."""
        tokens = labels.tokens
        wanted = F.pad(tokens, (0, 1), value=-1)
        lengths = (tokens >= 0).sum(1)
        wanted[torch.arange(len(tokens)), lengths] = self.end
        logits = self(trunk, prefix, plan, tokens).float()
        each = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-1, reduction="none")
        chunk = each.unflatten(0, wanted.shape).sum(1) / (lengths + 1)
        weight = labels.mask.float().mean(1)
        total: Tensor = (chunk * weight).sum() / weight.sum().clamp_min(1e-6)
        return total

    def decode(
        self, trunk: Trunk, prefix: Prefix, plan: Tensor, committed: Commitment | None = None
    ) -> Answer:
        """See `Head`. What is committed changes nothing: a token is no action's own."""
        token = self.begin.expand(len(plan), 1, -1)
        chosen: list[Tensor] = []
        ended = torch.zeros(len(plan), dtype=torch.bool, device=plan.device)
        while len(chosen) < self.most:
            logits = self._logits(trunk.extend(token + plan[:, None], prefix, causal=True))[:, -1]
            best = logits.argmax(-1)
            ended = ended | (best == self.end)
            if bool(ended.all()):
                break
            chosen.append(torch.where(ended, -1, best))
            token = self.rows[best][:, None]
        if not chosen:
            return Answer(tokens=torch.empty(len(plan), 0, dtype=torch.int64, device=plan.device))
        return Answer(tokens=torch.stack(chosen, dim=1))

    def _logits(self, hidden: Tensor) -> Tensor:
        return hidden @ (self.rows.T / math.sqrt(hidden.shape[-1])) + self.bias
