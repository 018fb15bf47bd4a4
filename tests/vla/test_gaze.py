"""Where the simulator's places are in its pictures, and where the attention is told to look."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reflexarc.configs.errors import PolicyError
from reflexarc.configs.load import load_policy, load_robot
from reflexarc.configs.policy import ModelConfig
from reflexarc.sim.world import World
from reflexarc.vla.train.gaze import Gaze


def test_the_preset_knows_where_the_cameras_stand() -> None:
    """The thing asked for is projected onto pixels of its own colour, in both cameras and many scenes."""
    config = load_policy("reflexarc-tiny")
    gaze = Gaze(config.train.gaze, config.model)
    world = World("lift", load_robot("panda"))
    looked = hits = 0
    for seed in range(12):
        world.reset(seed)
        focus = torch.tensor(world.truth(0).focus[None], dtype=torch.float32)
        tcp = torch.tensor(world.data.site_xpos[world.arm.tcp][None], dtype=torch.float32)
        places, seen = gaze.places(focus, tcp)
        color = next(word for word in world.instruction.split() if word in COLOURS)
        for index, camera in enumerate(config.model.cameras):
            if not seen[0, index, 0]:
                continue
            image = world.render(camera).astype(int)
            x, y = ((places[0, index, 0].numpy() + 1) / 2 * 96).astype(int)
            patch = image[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].reshape(-1, 3)
            looked += 1
            hits += any(COLOURS[color](*pixel) for pixel in patch)
    world.close()
    assert looked >= 16
    assert hits >= looked - 1  # the hand may stand in the way


COLOURS = {
    "red": lambda r, g, b: r > 90 and g < 0.4 * r and b < 0.4 * r,
    "green": lambda r, g, b: g > 70 and r < 0.5 * g and b < 0.5 * g,
    "blue": lambda r, g, b: b > 90 and r < 0.5 * b and g < 0.5 * b,
    "yellow": lambda r, g, b: r > 90 and g > 0.6 * r and b < 0.4 * r,
    "purple": lambda r, g, b: b > 60 and r > 0.5 * b and g < 0.5 * b,
}


def test_a_place_behind_the_camera_or_outside_the_picture_is_not_seen() -> None:
    config = load_policy("reflexarc-tiny")
    gaze = Gaze(config.train.gaze, config.model)
    behind = torch.tensor([[[2.0, 0.0, 1.5], [0.5, 3.0, 0.0]]])
    _, seen = gaze.places(behind, torch.tensor([[0.45, 0.0, 0.25]]))
    assert not seen.any()


def test_an_unknown_camera_is_named() -> None:
    views = load_policy("reflexarc-tiny").train.gaze
    with pytest.raises(PolicyError, match=r"unknown camera 'wrist'; known: front"):
        Gaze(views, ModelConfig(cameras=("front",)))


def test_the_middle_of_the_picture_is_where_the_camera_looks() -> None:
    config = load_policy("reflexarc-tiny")
    gaze = Gaze(config.train.gaze, config.model)
    target = torch.tensor([[[0.495, 0.0, 0.01], [0.495, 0.1, 0.01]]])
    places, seen = gaze.places(target, torch.tensor([[0.45, 0.0, 0.25]]))
    assert seen[0, 0].all()
    np.testing.assert_allclose(places[0, 0, 0], [0.0, 0.0], atol=0.01)
    assert places[0, 0, 1, 0] != 0.0
