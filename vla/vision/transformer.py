"""Vision transformers of `transformers` (ViT, SigLIP, DINOv2), built from their configurations; one, or two fused.

Each tower gets the pixels as it was trained on: SigLIP and ViT in [-1, 1], DINOv2 by ImageNet's mean and spread.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reflexarc.configs.policy import FusedVisionConfig, TransformerVisionConfig

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of red, green and blue in 0..1."""


class TransformerTower(nn.Module):
    """All cameras share the weights; the last hidden states of the patches are the features."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: TransformerVisionConfig, image_size: int) -> None:
        super().__init__()
        self.width = config.width
        self.grid = (image_size // config.patch, image_size // config.patch)
        self.model = _build(config, image_size)
        mean, std = IMAGENET if config.kind == "dinov2" else ((0.5,) * 3, (0.5,) * 3)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None] * 2 - 1, persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None] * 2, persistent=False)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """images (B, C, 3, H, W) in [-1, 1] to maps (B, C, F, h, w); the condition is not used."""
        batch, cameras = images.shape[:2]
        pixels = (images.flatten(0, 1) - self.mean) / self.std
        hidden: Tensor = self.model(pixel_values=pixels).last_hidden_state
        # The class token and the registers, where there are any, stand in front of the patches.
        patches = hidden[:, -self.grid[0] * self.grid[1] :]
        maps = torch.unflatten(patches.transpose(1, 2), 2, self.grid)
        return torch.unflatten(maps, 0, (batch, cameras))


class FusedTower(nn.Module):
    """Towers look at the same patches; their features stand side by side (Prismatic, Karamcheti et al. 2024)."""

    def __init__(self, config: FusedVisionConfig, image_size: int) -> None:
        super().__init__()
        self.towers = nn.ModuleList(TransformerTower(part, image_size) for part in config.parts)
        self.width = sum(part.width for part in config.parts)
        patch = config.parts[0].patch
        self.grid = (image_size // patch, image_size // patch)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """images (B, C, 3, H, W) in [-1, 1] to maps (B, C, F, h, w); the condition is not used."""
        return torch.cat([tower(images, condition) for tower in self.towers], dim=2)


def _build(config: TransformerVisionConfig, image_size: int) -> nn.Module:
    import transformers

    sizes: dict[str, Any] = {
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "image_size": image_size,
        "patch_size": config.patch,
    }
    made: nn.Module
    if config.kind == "siglip":
        settings = transformers.SiglipVisionConfig(
            **sizes, intermediate_size=4 * config.width, vision_use_head=False
        )
        made = transformers.SiglipVisionModel(settings)
    elif config.kind == "vit":
        plain = transformers.ViTConfig(**sizes, intermediate_size=4 * config.width)
        made = transformers.ViTModel(plain, add_pooling_layer=False)
    elif config.registers:
        registers = transformers.Dinov2WithRegistersConfig(**sizes, num_register_tokens=config.registers)
        made = transformers.Dinov2WithRegistersModel(registers)
    else:
        made = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
    return made
