"""Pictures prepared on the device are those that training prepared with Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contracts import openvla_small as small
from contracts.openvla_folder import SMALL_TOWERS
from reflexarc.vla.openvla import images
from reflexarc.vla.openvla.layout import Layout
from reflexarc.vla.openvla.pixels import center_crop, on_device, resize


def noise(height: int, width: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width"), [(480, 640), (224, 224), (96, 96), (225, 223), (1080, 33), (40, 60)]
)
@pytest.mark.parametrize("size", [224, 28])
def test_the_resize_is_pillows_to_the_bit(height: int, width: int, size: int) -> None:
    picture = noise(height, width)
    expected = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))
    got = resize(torch.from_numpy(picture).permute(2, 0, 1), size)
    np.testing.assert_array_equal(got.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (480, 640), (31, 77)])
def test_the_crop_is_within_one_step_of_the_trained_one(height: int, width: int) -> None:
    picture = noise(height, width)
    expected = images.center_crop(picture, 224).astype(int)
    got = center_crop(torch.from_numpy(picture).permute(2, 0, 1), 224).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(got - expected).max() <= 1
    assert (got != expected).mean() < 1e-3


@pytest.mark.parametrize("crop", [False, True])
def test_towers_are_given_what_the_processor_prepares(crop: bool) -> None:
    layout = Layout(
        folder=Path(),
        towers=tuple(SMALL_TOWERS.values()),
        normalise=(
            (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])),
            (np.full(3, 0.5),) * 2,
        ),
        llama={},
        vocabulary=32000,
        action_bins=256,
        statistics={},
        prompt="{}",
    )
    pictures = [small.image("front"), small.image("wrist")]
    prepared = [images.center_crop(each, small.IMAGE) for each in pictures] if crop else pictures
    expected = images.to_towers(prepared, layout)
    got = on_device(torch.from_numpy(np.stack(pictures)), layout, crop=crop)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-2 if crop else 1e-6)
        assert float((ours - theirs).abs().gt(1e-5).float().mean()) < 1e-2
