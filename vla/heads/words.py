"""Words, one after another: what a planner says (the high level of π0.5). The padding's id ends a sentence."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reflexarc.configs.policy import WordsHeadConfig
from reflexarc.vla.commitment import Commitment
from reflexarc.vla.heads.shape import HeadShape
from reflexarc.vla.labels import Answer, Labels
from reflexarc.vla.tokenizers.text import PAD
from reflexarc.vla.trunk import Prefix, Trunk


class WordsHead(nn.Module):
    """The vocabulary's own rows serve as embeddings and as the rows of the LM head."""

    def __init__(self, config: WordsHeadConfig, shape: HeadShape) -> None:
        super().__init__()
        self.most = shape.language.max_words
        self.begin = nn.Parameter(torch.randn(shape.language.width) * 0.3)

    def forward(self, trunk: Trunk, prefix: Prefix, plan: Tensor, words: Tensor) -> Tensor:
        """Logits (B, L + 1, vocabulary) of the true words (B, L) and of what follows them."""
        start = self.begin.expand(len(words), 1, -1)
        given = torch.cat([start, trunk.embed(words)], dim=1) + plan[:, None]
        return trunk.word_logits(trunk.extend(given, prefix, causal=True))

    def loss(self, trunk: Trunk, prefix: Prefix, plan: Tensor, labels: Labels) -> Tensor:
        """See `Head`. Up to the first padding, which ends the sentence."""
        assert labels.words is not None
        wanted = F.pad(labels.words, (0, 1), value=PAD)
        counts = torch.arange(wanted.shape[1], device=wanted.device) <= (labels.words != PAD).sum(1)[:, None]
        logits = self(trunk, prefix, plan, labels.words).float()
        each = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        return (each * counts.flatten()).sum() / counts.sum()

    def decode(
        self, trunk: Trunk, prefix: Prefix, plan: Tensor, committed: Commitment | None = None
    ) -> Answer:
        """See `Head`."""
        token = self.begin.expand(len(plan), 1, -1)
        said = torch.full((len(plan), self.most), PAD, device=plan.device)
        ended = torch.zeros(len(plan), dtype=torch.bool, device=plan.device)
        for place in range(self.most):
            logits = trunk.word_logits(trunk.extend(token + plan[:, None], prefix, causal=True))[:, -1]
            best = logits.argmax(-1)
            ended = ended | (best == PAD)
            if bool(ended.all()):
                break
            said[:, place] = torch.where(ended, PAD, best)
            token = trunk.embed(best)[:, None]
        return Answer(words=said)
