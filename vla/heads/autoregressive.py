"""Action tokens one after the other, each seeing those before it (RT-2; OpenVLA, Kim et al. 2024).

In training the true tokens are given (teacher forcing) and all are predicted in one pass; when acting, H·D passes of
one token run on the key/value cache.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reflexarc.configs.policy import ACTION_BINS, BinsHeadConfig
from reflexarc.vla.commitment import Commitment
from reflexarc.vla.heads.readout import read_tokens
from reflexarc.vla.heads.shape import HeadShape
from reflexarc.vla.labels import Answer, Labels
from reflexarc.vla.loss import binned_loss
from reflexarc.vla.trunk import Prefix, Trunk


class AutoregressiveHead(nn.Module):
    """See the header. Token i is dimension i mod D of action i div D."""

    fixed: Tensor

    def __init__(self, config: BinsHeadConfig, shape: HeadShape) -> None:
        super().__init__()
        width, self.horizon, self.dims = shape.language.width, shape.horizon, shape.dims
        self.readout, self.scramble = config.readout, config.scramble
        self.register_buffer("fixed", shape.fixed, persistent=False)
        self.begin = nn.Parameter(torch.randn(width) * 0.3)
        self.slots = nn.Parameter(torch.randn(self.horizon * self.dims, width) * 0.3)
        self.bias = nn.Parameter(torch.zeros(self.dims, 256))

    def forward(self, trunk: Trunk, prefix: Prefix, plan: Tensor, bins: Tensor) -> Tensor:
        """Logits (B, H, D, 256) given the true bins (B, H, D). plan: (B, width)."""
        true = trunk.embed(bins.flatten(1)[:, :-1] + trunk.words)
        start = self.begin.expand(len(bins), 1, -1).to(true.dtype)
        tokens = torch.cat([start, true], dim=1) + self.slots + plan[:, None]
        logits = trunk.action_logits(trunk.extend(tokens, prefix, causal=True))
        return torch.unflatten(logits, 1, (self.horizon, self.dims)) + self.bias

    def loss(self, trunk: Trunk, prefix: Prefix, plan: Tensor, labels: Labels) -> Tensor:
        """See `Head`."""
        bins = labels.bins
        if self.training and self.scramble:
            wrong = torch.rand(bins.shape, device=bins.device) < self.scramble
            bins = torch.where(wrong, torch.randint_like(bins, ACTION_BINS), bins)
        return binned_loss(self(trunk, prefix, plan, bins), labels, self.fixed)

    def decode(
        self, trunk: Trunk, prefix: Prefix, plan: Tensor, committed: Commitment | None = None
    ) -> Answer:
        """See `Head`. Committed tokens stand for chosen ones, and all that are decided are passed at once."""
        decided = (
            self.fixed.expand(1, self.horizon, -1) if committed is None else committed.decided(self.fixed)
        )
        flat = decided.flatten(1)
        known = 0 if committed is None else committed.frozen * self.dims
        token = self.begin.expand(len(plan), 1, -1)
        chosen = [flat[:, :known]] if known else []
        if known:
            words = trunk.embed(flat[:, :known] + trunk.words)
            before = torch.cat([token, words[:, :-1]], dim=1)
            trunk.extend(before + self.slots[:known] + plan[:, None], prefix, causal=True)
            token = words[:, -1:]
        for index in range(known, self.horizon * self.dims):
            hidden = trunk.extend(token + self.slots[index] + plan[:, None], prefix, causal=True)
            logits = trunk.action_logits(hidden) + self.bias[index % self.dims]
            chosen.append(read_tokens(logits, self.readout, flat[:, index : index + 1]))
            token = trunk.embed(chosen[-1] + trunk.words)
        return Answer(bins=torch.unflatten(torch.cat(chosen, dim=1), 1, (self.horizon, self.dims)))
