"""Preparing pictures where the model runs: bytes travel to the device, and are resized, cropped and normalised there.

The resize is Pillow's bicubic on 8-bit pixels, as the published models were trained (`images.py` does the same on the
processor): fixed-point weights of 22 bits, one pass along the columns, rounded to 8 bits, one along the rows. Each
pass is a product with a matrix of whole numbers, exact in double precision, so the pixels are Pillow's to the bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reflexarc.vla.openvla.images import CROP_AREA
from reflexarc.vla.openvla.layout import Layout

FIXED_BITS = 22
"""Pillow's precision of a weight (Resample.c: 32 - 8 - 2)."""
SUPPORT, SHARPNESS = 2.0, -0.5
"""Of the bicubic kernel (Keys 1981): its reach in pixels, and Pillow's a."""


def on_device(pictures: Tensor, layout: Layout, *, crop: bool) -> list[Tensor]:
    """(N, H, W, 3) uint8 on any device to one (N, 3, S, S) float32 for each tower, as `images.to_towers` gives.

    crop: the middle nine tenths of the area first, as `images.center_crop`.
    """
    planes = pictures.permute(0, 3, 1, 2)
    first = layout.towers[0].image
    if crop:
        planes = center_crop(planes, first)
    result, sizes = [], {}
    for tower, (mean, spread) in zip(layout.towers, layout.normalise, strict=True):
        if tower.image not in sizes:
            sizes[tower.image] = resize(planes, tower.image).float() / 255
        middle, width = (_column(each, pictures.device) for each in (mean, spread))
        result.append((sizes[tower.image] - middle) / width)
    return result


def resize(planes: Tensor, size: int) -> Tensor:
    """(..., H, W) uint8 to (..., size, size) uint8."""
    height, width = planes.shape[-2:]
    if (height, width) == (size, size):
        return planes
    columns, rows = (weights(length, size, planes.device) for length in (width, height))
    squeezed = _rounded(planes.double() @ columns.T)
    return _rounded(rows @ squeezed.double())


def center_crop(planes: Tensor, size: int) -> Tensor:
    """(..., H, W) uint8: the middle √0.9 of each side to (..., size, size) uint8, bilinear, corners aligned."""
    side = math.sqrt(CROP_AREA)
    x = planes.float() / 255
    for axis in (-2, -1):
        length = planes.shape[axis]
        places = np.linspace((1 - side) / 2, (1 + side) / 2, size) * (length - 1)
        low = np.floor(places).astype(np.int64)
        share = torch.from_numpy((places - low).astype(np.float32)).to(planes.device)
        share = share[:, None] if axis == -2 else share
        before, after = (
            torch.from_numpy(each).to(planes.device) for each in (low, np.minimum(low + 1, length - 1))
        )
        x = x.index_select(axis, before) * (1 - share) + x.index_select(axis, after) * share
    return (x.clamp(0, 1) * 255.5).clamp(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=16)
def weights(length: int, size: int, device: torch.device) -> Tensor:
    """(size, length) float64 whole numbers: Pillow's weight of each pixel in each of the new ones, times 2²²."""
    scale = length / size
    wide = max(scale, 1.0)
    support = SUPPORT * wide
    matrix = np.zeros((size, length))
    for index in range(size):
        center = (index + 0.5) * scale
        low, high = max(int(center - support + 0.5), 0), min(int(center + support + 0.5), length)
        row = np.array([_bicubic((place - center + 0.5) / wide) for place in range(low, high)])
        row /= row.sum()
        matrix[index, low:high] = np.trunc(row * 2**FIXED_BITS + np.copysign(0.5, row))
    return torch.from_numpy(matrix).to(device)


def _bicubic(x: float) -> float:
    x = abs(x)
    if x < 1.0:
        return ((SHARPNESS + 2.0) * x - (SHARPNESS + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * SHARPNESS
    return 0.0


def _rounded(sums: Tensor) -> Tensor:
    """Fixed-point sums to 8 bits."""
    whole = torch.floor((sums + 2.0 ** (FIXED_BITS - 1)) / 2.0**FIXED_BITS)
    return whole.clamp(0, 255).to(torch.uint8)


def _column(values: Sequence[float] | np.ndarray, device: torch.device) -> Tensor:  # type: ignore[type-arg]
    column: Tensor = torch.tensor(np.asarray(values, dtype=np.float32), device=device)
    return column[:, None, None]
