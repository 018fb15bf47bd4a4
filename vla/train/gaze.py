"""Where to look: the resampler's first two slots learn to attend to the thing asked for and to its destination.

The simulator knows where they are, and the viewpoint of each camera says which pixels show them. Left to itself the
attention has to find out by trial that "red" is about red pixels; told where to look it learns that in minutes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from reflexarc.configs.errors import PolicyError, unknown
from reflexarc.configs.policy import ModelConfig, Viewpoint
from reflexarc.vla.connectors.resampler import Resampler
from reflexarc.vla.model import VlaModel
from reflexarc.vla.train.batch import Batch
from reflexarc.wire.geometry import to_matrix

SPREAD = 0.05
"""Standard deviation of the wanted attention in image coordinates (2 wide): half a cell of a 24-cell grid."""

NEAREST_M = 0.02
"""A place nearer to the camera's plane than this is not in the picture."""


class Gaze:
    """The viewpoints of a model's cameras, in their order. Raises PolicyError for a camera the model has not."""

    def __init__(self, viewpoints: dict[str, Viewpoint], config: ModelConfig) -> None:
        for name in viewpoints:
            if name not in config.cameras:
                raise PolicyError(f"train.gaze: {unknown('camera', name, config.cameras)}")
        self._views = [viewpoints.get(name) for name in config.cameras]

    def places(self, focus: Tensor, tcp: Tensor) -> tuple[Tensor, Tensor]:
        """focus (B, 2, 3) m and TCP (B, 3) m to image coordinates (B, C, 2, 2), x right and y down in [-1, 1], and
        whether they are in the picture (B, C, 2)."""
        found, seen = [], []
        for view in self._views:
            if view is None:
                found.append(torch.zeros_like(focus[..., :2]))
                seen.append(torch.zeros(focus.shape[:2], dtype=torch.bool))
                continue
            origin = torch.tensor(view.position, dtype=focus.dtype)
            ways = focus - (origin + tcp[:, None] if view.carried else origin)
            rotation = torch.from_numpy(to_matrix(np.array(view.quaternion))).to(focus.dtype)
            x, y, z = (ways @ rotation).unbind(-1)
            depth = (-z).clamp_min(NEAREST_M) * math.tan(math.radians(view.fovy_deg) / 2)
            place = torch.stack([x / depth, -y / depth], dim=-1)
            found.append(place)
            seen.append((place.abs() <= 1.0).all(-1) & (-z > NEAREST_M))
        return torch.stack(found, dim=1), torch.stack(seen, dim=1)

    def loss(self, model: VlaModel, batch: Batch) -> Tensor:
        """Cross entropy between where the first two slots of each camera look and where they should."""
        connector = model.connector
        if not isinstance(connector, Resampler) or connector.scores is None:
            raise PolicyError("train.gaze needs the resampler as the model's connector, in training")
        wanted, seen = self.places(batch.focus, batch.inputs.tcp.float())
        counted = seen & batch.focus_mask[:, None]
        distance = (connector.places - wanted[..., None, :]).square().sum(-1)
        target = (-distance / (2 * SPREAD**2)).softmax(-1)
        looks = connector.scores[:, :, :2].float().log_softmax(-1)
        each = -(target * looks).sum(-1)
        return (each * counted).sum() / counted.sum().clamp_min(1)
