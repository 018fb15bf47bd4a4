"""The vision transformer of OpenVLA's towers, with the parameter names of `timm`.

Pre-norm blocks (Dosovitskiy et al. 2021). Both towers of OpenVLA are this one with other sizes: DINOv2 with class
token, four registers and LayerScale (Oquab et al. 2024; Darcet et al. 2024), SigLIP with none of them (Zhai et al.
2023). Positions are added to the patches before class token and registers are put in front (`no_embed_class`). The
features are the patches after the second-to-last block, without a final norm and without prefix tokens:
`get_intermediate_layers(n={depth - 2})` in OpenVLA's `PrismaticVisionBackbone`. So the last block, the norm and
SigLIP's pooling never run, and are not built. The GELU is the exact one and norms have ε = 1e-6, as in timm 0.9.16,
the version OpenVLA names.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclasses.dataclass(frozen=True, slots=True)
class TowerShape:
    """Sizes of one tower. image: pixels of a side. prefix: class token and registers. pooled: has SigLIP's unused
    pooling.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    patch: int
    image: int
    prefix: int
    layer_scale: bool
    pooled: bool

    @property
    def patches(self) -> int:
        """Number of image tokens."""
        return (self.image // self.patch) ** 2


class Attention(nn.Module):
    """Multi-head self-attention over everything."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) to the same."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.proj(
            F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        )
        return mixed


class Mlp(nn.Module):
    """Two layers with an exact GELU between them."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Attention and MLP, each with its norm and LayerScale; between them FiLM by the words where `condition` is given.

    FiLM (Perez et al. 2018) as OpenVLA-OFT puts it: `x·(1 + scale(words)) + shift(words)` after the attention.
    """

    def __init__(self, shape: TowerShape, condition: int | None) -> None:
        super().__init__()
        width = shape.width
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, shape.heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, shape.mlp_width)
        self.ls1 = nn.Parameter(torch.ones(width)) if shape.layer_scale else None
        self.ls2 = nn.Parameter(torch.ones(width)) if shape.layer_scale else None
        self.scale = nn.Linear(condition, width) if condition else None
        self.shift = nn.Linear(condition, width) if condition else None

    def forward(self, x: Tensor, words: Tensor | None) -> Tensor:
        """x (B, N, width), words (B, E) or None."""
        x = x + _scaled(self.attn(self.norm1(x)), self.ls1)
        if self.scale is not None and self.shift is not None:
            x = x * (1 + self.scale(words)[:, None]) + self.shift(words)[:, None]
        return x + _scaled(self.mlp(self.norm2(x)), self.ls2)


class VisionTransformer(nn.Module):
    """See the header. condition: width of the words' average for FiLM, None without."""

    def __init__(self, shape: TowerShape, condition: int | None = None) -> None:
        super().__init__()
        width = shape.width
        self.shape = shape
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, shape.patch, shape.patch)})
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.patches, width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if shape.prefix else None
        self.reg_token = nn.Parameter(torch.zeros(1, shape.prefix - 1, width)) if shape.prefix > 1 else None
        self.blocks = nn.ModuleList(Block(shape, condition) for _ in range(shape.depth - 1))

    def forward(self, images: Tensor, words: Tensor | None = None) -> Tensor:
        """images (B, 3, S, S), normalised for this tower, to features (B, patches, width)."""
        x: Tensor = self.patch_embed["proj"](images).flatten(2).transpose(1, 2) + self.pos_embed
        before = [
            token.expand(len(x), -1, -1) for token in (self.cls_token, self.reg_token) if token is not None
        ]
        x = torch.cat([*before, x], dim=1)
        for block in self.blocks:
            x = block(x, words)
        return x[:, self.shape.prefix :]


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale
