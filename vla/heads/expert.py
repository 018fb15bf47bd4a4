"""The action expert: a narrow decoder beside the trunk that reads the trunk's cached keys and values (π0, Black et al.
2024, appendix B).

It has the trunk's layers and heads, of its own width. In layer l the action tokens attend to what layer l of the trunk
made of pictures, words and state, and to one another without a mask. The trunk never sees them, so it runs once
however often the expert does. With a condition every norm is an adaptive RMS norm (π0.5, Physical Intelligence 2025):
scale, shift and the gate of what is added come from the condition and start at zero (adaLN-Zero, Peebles and Xie 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from reflexarc.configs.policy import LanguageConfig
from reflexarc.vla.trunk import Prefix, Trunk

EPSILON = 1e-6


class AdaptiveNorm(nn.Module):
    """RMS norm; with a condition, scaled and shifted by it."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width)) if not condition else None
        self.modulate = nn.Linear(condition, 3 * width) if condition else None
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | float]:
        """x (N, T, width), condition (N, E) to the normed x and the gate (N, 1, width) of what is made of it."""
        normed = F.rms_norm(x.float(), x.shape[-1:], self.scale, EPSILON)
        if self.modulate is None:
            return normed, 1.0
        scale, shift, gate = self.modulate(condition)[:, None].chunk(3, dim=-1)
        return normed * (1.0 + scale) + shift, gate


class ExpertLayer(nn.Module):
    """Attention over the trunk's and the own keys, then a gated MLP (SwiGLU)."""

    def __init__(self, width: int, mlp_width: int, language: LanguageConfig, condition: int) -> None:
        super().__init__()
        self.head_width = language.head_width
        queries, keys = (count * self.head_width for count in (language.heads, language.key_heads))
        self.attention_norm, self.mlp_norm = (AdaptiveNorm(width, condition) for _ in range(2))
        self.query, self.key = nn.Linear(width, queries, bias=False), nn.Linear(width, keys, bias=False)
        self.value, self.leave = nn.Linear(width, keys, bias=False), nn.Linear(queries, width, bias=False)
        self.gate_up, self.down = nn.Linear(width, 2 * mlp_width), nn.Linear(mlp_width, width)

    def forward(
        self,
        x: Tensor,
        cached: tuple[Tensor, Tensor],
        mask: Tensor,
        rotation: tuple[Tensor, Tensor],
        condition: Tensor | None,
    ) -> Tensor:
        """x (N, T, width) to the same. cached: keys and values (N, K, P, d). mask: (N, 1, T, P + T) bool."""
        normed, gate = self.attention_norm(x, condition)
        query, key, value = (
            project(normed).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        query, key = apply_rotary_pos_emb(query, key, *rotation)
        key = torch.cat([cached[0].to(value.dtype), key.to(value.dtype)], dim=2)
        value = torch.cat([cached[1].to(value.dtype), value], dim=2)
        seen = F.scaled_dot_product_attention(
            query.to(value.dtype), key, value, attn_mask=mask, enable_gqa=True
        )
        x = x + gate * self.leave(seen.transpose(1, 2).flatten(2))
        normed, gate = self.mlp_norm(x, condition)
        share, up = self.gate_up(normed).chunk(2, dim=-1)
        added: Tensor = gate * self.down(F.silu(share) * up)
        return x + added


class ActionExpert(nn.Module):
    """See the header. condition: width of what the norms adapt to, 0 for plain ones."""

    def __init__(self, width: int, mlp_width: int, language: LanguageConfig, condition: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            ExpertLayer(width, mlp_width, language, condition) for _ in range(language.layers)
        )
        self.norm = AdaptiveNorm(width, condition)

    def forward(self, x: Tensor, trunk: Trunk, prefix: Prefix, condition: Tensor | None = None) -> Tensor:
        """Tokens (N, T, width) behind a prefix of B rows to hidden states; N is B, or a multiple: each row's draws."""
        count, draws = x.shape[1], len(x) // len(prefix.keep)
        positions = torch.arange(prefix.next_position, prefix.next_position + count, device=x.device)
        rotation = trunk.rotation(x, positions)
        keep = prefix.keep.repeat_interleave(draws, dim=0)[:, None, None].expand(-1, 1, count, -1)
        mask = torch.cat([keep, keep.new_ones(len(x), 1, count, count)], dim=-1)
        for layer, (keys, values) in zip(self.layers, prefix.keys_and_values(), strict=True):
            if draws > 1:
                keys, values = (each.repeat_interleave(draws, dim=0) for each in (keys, values))
            x = layer(x, (keys, values), mask, rotation, condition)
        hidden: Tensor = self.norm(x, condition)[0]
        return hidden
