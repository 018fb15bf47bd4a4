"""Grounding: where the thing asked for is, and where it should go, as tokens of their own.

Two learned queries read the prefix; each is decoded to x, y, z by the shared 256 rows, over bins of its own. Trained on
the simulator's privileged truth where a log has it. The places, relative to the TCP, then inform the action tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reflexarc.vla.trunk import Trunk

POINTS = 2
AXES = 3
SCALES = (0.01, 0.03, 0.1, 0.3)
"""Distances in metres at which a relative place is resolved for the action tokens."""


class FocusHead(nn.Module):
    """`centers`: (6, 256) metres, the values of the bins, points before axes."""

    centers: Tensor

    def __init__(self, width: int, centers: Tensor) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(POINTS, width) * 0.3)
        self.expand = nn.Linear(width, AXES * width)
        self.register_buffer("centers", centers.float().unflatten(0, (POINTS, AXES)), persistent=False)

    @property
    def features(self) -> int:
        """Width of what `describe` returns."""
        return AXES * (len(SCALES) * (POINTS + 1) + POINTS)

    def logits(self, trunk: Trunk, hidden: Tensor) -> Tensor:
        """Hidden states of the queries (B, 2, width) to (B, 2, 3, 256)."""
        return trunk.action_logits(self.expand(hidden).unflatten(-1, (AXES, -1)))

    def points(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2, 3, 256) to mean and standard deviation (B, 2, 3), m, float32."""
        share = logits.float().softmax(-1)
        mean = (share * self.centers).sum(-1)
        variance = (share * (self.centers - mean[..., None]).square()).sum(-1)
        return mean, variance.clamp_min(1e-8).sqrt()

    def describe(self, logits: Tensor, tcp: Tensor) -> Tensor:
        """(B, 2, 3, 256) and the TCP (B, 3) m to features (B, features); no gradient flows back to the logits."""
        mean, spread = self.points(logits.detach())
        relative = mean - tcp[:, None]
        between = mean[:, 1:] - mean[:, :1]
        distances = torch.cat([relative, between], dim=1)
        scaled = [torch.tanh(distances / scale).flatten(1) for scale in SCALES]
        return torch.cat([*scaled, (spread / 0.02).clamp_max(5.0).flatten(1)], dim=-1)
