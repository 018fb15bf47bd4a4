"""A fixed number of tokens whatever the number of patches: learned queries that attend to the picture.

`perceiver` (Flamingo's resampler, Alayrac et al. 2022): the queries attend to patches and queries alike. `qformer`
(BLIP-2, Li et al. 2023; instructed as in InstructBLIP, Dai et al. 2023): they attend to one another and to the
instruction's summary first, then to the patches. Each camera has queries of its own; layers are shared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reflexarc.configs.policy import QueriesConfig


class QueryLayer(nn.Module):
    """One round of attention and an MLP, each with a skip."""

    def __init__(self, width: int, heads: int, *, apart: bool) -> None:
        super().__init__()
        self.norm, self.mlp_norm, self.seen_norm = (nn.LayerNorm(width) for _ in range(3))
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.talk = nn.MultiheadAttention(width, heads, batch_first=True) if apart else None
        self.talk_norm = nn.LayerNorm(width) if apart else None
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, queries: Tensor, seen: Tensor, told: Tensor) -> Tensor:
        """queries (N, Q, width), seen (N, P, width), told (N, 1, width) to queries."""
        seen = self.seen_norm(seen)
        if self.talk is not None and self.talk_norm is not None:
            y = self.talk_norm(queries)
            heard = torch.cat([y, told], dim=1)
            queries = queries + self.talk(y, heard, heard, need_weights=False)[0]
            y = self.norm(queries)
        else:
            y = self.norm(queries)
            seen = torch.cat([seen, y], dim=1)
        queries = queries + self.look(y, seen, seen, need_weights=False)[0]
        out: Tensor = queries + self.mlp(self.mlp_norm(queries))
        return out


class QueryConnector(nn.Module):
    """See the header; `tokens` of each camera."""

    def __init__(
        self,
        config: QueriesConfig,
        *,
        cameras: int,
        features: int,
        grid: tuple[int, int],
        condition: int,
        width: int,
    ) -> None:
        super().__init__()
        self.tokens = cameras * config.tokens
        self.enter = nn.Linear(features, width)
        self.place = nn.Parameter(torch.randn(grid[0] * grid[1], width) * 0.02)
        self.queries = nn.Parameter(torch.randn(cameras, config.tokens, width) * 0.3)
        self.told = nn.Linear(condition, width)
        apart = config.kind == "qformer"
        self.layers = nn.ModuleList(
            QueryLayer(width, config.heads, apart=apart) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """maps (B, C, F, h, w), condition (B, E) to tokens (B, C·Q, width)."""
        batch, cameras = maps.shape[:2]
        seen = (self.enter(maps.flatten(3).transpose(2, 3)) + self.place).flatten(0, 1)
        told = self.told(condition).repeat_interleave(cameras, dim=0)[:, None]
        # The perceiver's queries start from the instruction; the Q-Former's hear it in every layer.
        queries = self.queries.repeat(batch, 1, 1) + told
        for layer in self.layers:
            queries = layer(queries, seen, told)
        return torch.unflatten(self.norm(queries), 0, (batch, cameras)).flatten(1, 2)
