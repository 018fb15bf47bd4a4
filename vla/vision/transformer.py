"""Vision transformers of `transformers` (SigLIP, DINOv2), built from their configurations, no hub."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reflexarc.configs.policy import TransformerVisionConfig


class TransformerTower(nn.Module):
    """All cameras share the weights; the last hidden states of the patches are the features."""

    def __init__(self, config: TransformerVisionConfig, image_size: int) -> None:
        super().__init__()
        self.width = config.width
        self.grid = (image_size // config.patch, image_size // config.patch)
        self.model = _build(config, image_size)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """images (B, C, 3, H, W) in [-1, 1] to maps (B, C, F, h, w); the condition is not used."""
        batch, cameras = images.shape[:2]
        hidden: Tensor = self.model(pixel_values=images.flatten(0, 1)).last_hidden_state
        patches = hidden[:, -self.grid[0] * self.grid[1] :]
        maps = torch.unflatten(patches.transpose(1, 2), 2, self.grid)
        return torch.unflatten(maps, 0, (batch, cameras))


def _build(config: TransformerVisionConfig, image_size: int) -> nn.Module:
    from transformers import Dinov2Config, Dinov2Model, SiglipVisionConfig, SiglipVisionModel

    sizes = {
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "image_size": image_size,
        "patch_size": config.patch,
    }
    if config.kind == "dinov2":
        model: nn.Module = Dinov2Model(Dinov2Config(**sizes, mlp_ratio=4))
    else:
        width = 4 * config.width
        model = SiglipVisionModel(SiglipVisionConfig(**sizes, intermediate_size=width, vision_use_head=False))
    return model
