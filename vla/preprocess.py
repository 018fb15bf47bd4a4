"""From what was measured to what a model is given: the same few lines in training and when acting."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reflexarc.configs.policy import ProprioFeature
from reflexarc.vla.inputs import Inputs
from reflexarc.vla.stats import Stats
from reflexarc.vla.tokenizers.text import PAD
from reflexarc.wire.messages import F64


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """A batch in units of the world.

    images: (B, C, S, S, 3) uint8 RGB. seen: (B, C) bool, false where a camera is missing. words: (B, L) int64.
    proprio: (B, P) m, rad, N, N·m, opening.
    tcp: (B, 3) m, the commanded TCP position.
    """

    images: NDArray[np.uint8]
    seen: NDArray[np.bool_]
    words: NDArray[np.int64]
    proprio: F64
    tcp: F64


def concatenate(rows: Sequence[Raw]) -> Raw:
    """Several batches as one, in order."""
    fields = [field.name for field in dataclasses.fields(Raw)]
    return Raw(**{name: np.concatenate([getattr(row, name) for row in rows]) for name in fields})


def proprio_features(
    features: tuple[ProprioFeature, ...],
    *,
    pose: F64,
    pose_commanded: F64,
    gripper: F64,
    gripper_commanded: F64,
    wrench: F64,
) -> F64:
    """(N, P) of the features asked for. pose, pose_commanded: (N, 7) base frame; gripper: (N,); wrench: (N, 6)."""
    columns: dict[ProprioFeature, F64] = {
        "position": pose[:, :3],
        "position_commanded": pose_commanded[:, :3],
        "rotation": _two_axes(pose[:, 3:]),
        "gripper": gripper[:, None],
        "gripper_commanded": gripper_commanded[:, None],
        "wrench": wrench,
    }
    return np.concatenate([columns[name] for name in features], axis=1).astype(np.float64)


def to_inputs(raw: Raw, stats: Stats, device: torch.device | None = None) -> Inputs:
    """The model's batch. Padding that no row of the batch needs is dropped; pictures travel to `device` as bytes."""
    length = max(1, int((raw.words != PAD).sum(axis=1).max()))
    inputs = Inputs(
        images=image_tensor(raw.images, device),
        seen=torch.from_numpy(raw.seen),
        words=torch.from_numpy(raw.words[:, :length].copy()),
        proprio=torch.from_numpy(stats.normalise(raw.proprio).astype(np.float32)),
        tcp=torch.from_numpy(raw.tcp.astype(np.float32)),
    )
    return inputs if device is None else inputs.to(device)


def image_tensor(images: NDArray[np.uint8], device: torch.device | None = None) -> Tensor:
    """(B, C, S, S, 3) uint8 to (B, C, 3, S, S) float32 in [-1, 1], computed where `device` says."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device).movedim(-1, 2)
    return tensor.to(torch.float32, memory_format=torch.contiguous_format).mul_(2.0 / 255.0).sub_(1.0)


def _two_axes(quat: F64) -> F64:
    """(N, 4) unit quaternions, w first, to the first two columns of their rotation matrices (N, 6)."""
    w, x, y, z = quat.T
    first = [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]
    second = [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)]
    return np.stack([*first, *second], axis=1)
