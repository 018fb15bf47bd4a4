"""From camera images to what each tower is given, step by step as OpenVLA and OpenVLA-OFT were trained.

`resize-naive` squeezes the image to the tower's square, whatever its shape (bicubic on 8-bit pixels with antialiasing,
as Pillow does it), then each tower subtracts its own mean and divides by its own spread (processing_prismatic.py). OFT
first brings the image to 224 as its training data was made, through JPEG and Lanczos, and crops the middle nine tenths
of the area, because training cropped nine tenths at random (openvla_utils.py: center_crop_image). The published code
does that with TensorFlow; here Pillow's Lanczos stands for it, whose pixels may differ by one step of 255.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reflexarc.configs.foreign import OpenVlaConfig
from reflexarc.vla.openvla.layout import Layout

Pixels = NDArray[np.uint8]

CROP_AREA = 0.9
_JPEG = {"quality": 95, "subsampling": "4:2:0"}
"""What tf.image.encode_jpeg does unless told otherwise."""


def prepare(image: Pixels, size: int, config: OpenVlaConfig) -> Pixels:
    """(H, W, 3) RGB to what the towers' own preprocessing is given: turned, resized and cropped as the settings say."""
    image = as_recorded(image, size, config)
    return center_crop(image, size) if config.center_crop else image


def as_recorded(image: Pixels, size: int, config: OpenVlaConfig) -> Pixels:
    """(H, W, 3) RGB as the training data holds it: turned, and brought to `size` where the settings ask for Lanczos."""
    if config.rotate_180:
        image = np.ascontiguousarray(image[::-1, ::-1])
    if config.resize == "lanczos3" and image.shape[:2] != (size, size):
        image = lanczos_by_jpeg(image, size)
    return image


def lanczos_by_jpeg(image: Pixels, size: int) -> Pixels:
    """(H, W, 3) to (size, size, 3) as the RLDS data sets of LIBERO were made."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", **_JPEG)
    with Image.open(buffer) as opened:
        return np.asarray(opened.convert("RGB").resize((size, size), Image.Resampling.LANCZOS))


def center_crop(image: Pixels, size: int) -> Pixels:
    """The middle √0.9 of each side, brought to (size, size, 3) by bilinear sampling with the corners aligned.

    That is tf.image.crop_and_resize with the box (1 ± √0.9)/2, and conversion to float and back by truncation of
    255.5·x.
    """
    height, width = image.shape[:2]
    side = math.sqrt(CROP_AREA)
    rows, columns = (
        np.linspace((1 - side) / 2, (1 + side) / 2, size) * (length - 1) for length in (height, width)
    )
    pixels = image.astype(np.float32) / np.float32(255)
    sampled = _bilinear(_bilinear(pixels, rows, axis=0), columns, axis=1)
    return (sampled.clip(0, 1) * 255.5).clip(0, 255).astype(np.uint8)


def to_towers(images: Sequence[Pixels], layout: Layout) -> list[Tensor]:
    """C images to one tensor (C, 3, S, S) float32 for each tower."""
    result = []
    for tower, (mean, spread) in zip(layout.towers, layout.normalise, strict=True):
        size = (tower.image, tower.image)
        squeezed = [
            np.asarray(Image.fromarray(each).resize(size, Image.Resampling.BICUBIC)) for each in images
        ]
        pixels = np.stack(squeezed).astype(np.float32) / 255
        normal = (pixels - mean.astype(np.float32)) / spread.astype(np.float32)
        result.append(torch.from_numpy(np.ascontiguousarray(normal.transpose(0, 3, 1, 2))))
    return result


def _bilinear(image: NDArray[np.float32], places: NDArray[np.floating], axis: int) -> NDArray[np.float32]:
    """Linear interpolation at fractional `places` along `axis`."""
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, image.shape[axis] - 1)
    share = (places - low).astype(np.float32).reshape([-1 if index == axis else 1 for index in range(3)])
    return np.asarray(image.take(low, axis) * (1 - share) + image.take(high, axis) * share)
