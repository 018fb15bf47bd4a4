"""Augmentations that must give true rows: other colours, left for right."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from contracts.toy_policy import toy_checkpoint, toy_data
from reflexarc.configs.errors import PolicyError
from reflexarc.configs.load import load_policy
from reflexarc.configs.policy import AugmentConfig
from reflexarc.vla.preprocess import Raw, proprio_features
from reflexarc.vla.tokenizers import WordTokenizer
from reflexarc.vla.train.batch import Batches
from reflexarc.vla.train.symmetry import Mirror, Recolour
from reflexarc.wire import geometry

WORDS = WordTokenizer.fit(["push the red cube into the blue bin left right", "green purple"], 10)
PAINT = {"red": (0.9, 0.05, 0.05), "green": (0.05, 0.6, 0.1), "blue": (0.05, 0.15, 0.9)}
FEATURES = load_policy("reflexarc-tiny").model.proprio


def scene(colors: tuple[str, ...], light: float) -> np.ndarray:
    """(12, 4·n, 3) uint8: squares of these colours, lit so brightly, on grey."""
    image = np.full((12, 4 * len(colors), 3), 210, dtype=np.float64)
    for index, color in enumerate(colors):
        image[4:8, 4 * index : 4 * index + 3] = np.array(PAINT[color]) * 255 * light
    return image.astype(np.uint8)


@pytest.mark.parametrize("light", [0.3, 0.8, 1.0])
def test_recoloured_pixels_are_those_of_a_scene_painted_so(light: float) -> None:
    images = np.stack([scene(("red", "green", "blue"), light)[None]] * 40)
    words = np.stack([WORDS.encode("the red cube")] * 40)
    new, renamed = Recolour([PAINT], WORDS)(images, words, np.random.default_rng(0))
    seen = set()
    for picture, row in zip(new, renamed, strict=True):
        name = WORDS.words[row[2] - 3]
        seen.add(name)
        assert np.abs(picture[0, 4:8, :3].astype(int) - 255 * light * np.array(PAINT[name])).max() <= 4
        assert np.array_equal(picture[0, :4], images[0, 0, :4])
        shown = {tuple(picture[0, 5, column]) for column in (1, 5, 9)}
        assert len(shown) == 3
    assert seen == set(PAINT)
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(renamed[:, [0, 1, 3, 4]], words[:, [0, 1, 3, 4]])


def test_groups_do_not_mix() -> None:
    groups = [{"red": PAINT["red"], "blue": PAINT["blue"]}, {"green": PAINT["green"]}]
    images = np.stack([scene(("green",), 0.8)[None]] * 20)
    words = np.stack([WORDS.encode("green")] * 20)
    new, renamed = Recolour(groups, WORDS)(images, words, np.random.default_rng(0))
    assert np.abs(new.astype(int) - images).max() <= 2
    assert np.array_equal(renamed, words)


def test_a_colour_without_a_word_stays_what_it_is() -> None:
    words = WordTokenizer.fit(["push the red or blue cube"], 10)
    images = np.stack([scene(("green",), 0.8)[None]] * 20)
    row = np.stack([words.encode("red mauve cube")] * 20)
    new, renamed = Recolour([PAINT], words)(images, row, np.random.default_rng(0))
    assert np.abs(new.astype(int) - images).max() <= 2
    assert {words.words[index - 3] for index in renamed[:, 1]} == {"red", "blue"}
    assert np.array_equal(renamed[:, 2:], row[:, 2:])


def reflected(pose: np.ndarray) -> np.ndarray:
    """The pose (7,) mirrored in y = 0, from the definition: M T M with M = diag(1, -1, 1)."""
    flip = np.diag([1.0, -1.0, 1.0])
    quat = geometry.from_matrix(flip @ geometry.to_matrix(pose[3:]) @ flip)
    return np.concatenate([flip @ pose[:3], quat])


def test_a_mirrored_row_is_the_row_of_the_mirrored_world() -> None:
    rng = np.random.default_rng(0)
    start = np.concatenate([rng.normal(size=3), geometry.exp(rng.normal(size=3))])
    end = np.concatenate([rng.normal(size=3), geometry.exp(rng.normal(size=3))])
    force, torque = rng.normal(size=3), rng.normal(size=3)

    def row(a: np.ndarray, b: np.ndarray, wrench: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        one = np.ones(1)
        proprio = proprio_features(
            FEATURES,
            pose=a[None],
            pose_commanded=b[None],
            gripper=one,
            gripper_commanded=one,
            wrench=wrench[None],
        )
        return proprio, np.append(geometry.delta_between(a, b), 1.0)[None, None]

    flip = np.array([1.0, -1.0, 1.0])
    proprio, action = row(start, end, np.concatenate([force, torque]))
    wrench = np.concatenate([flip * force, -flip * torque])
    expected, expected_action = row(reflected(start), reflected(end), wrench)
    raw = Raw(
        np.zeros((1, 1, 2, 2, 3), np.uint8),
        np.ones((1, 1), dtype=bool),
        WORDS.encode("push the red cube left")[None],
        proprio,
        end[None, :3],
    )
    mirror = Mirror(AugmentConfig(), FEATURES, WORDS)
    focus = rng.normal(size=(1, 2, 3))
    new, actions, points = mirror(raw, action, focus, np.array([True]))
    assert np.allclose(new.proprio, expected)
    assert np.allclose(actions, expected_action)
    assert np.allclose(new.tcp, reflected(end)[:3])
    assert np.allclose(points, focus * flip)
    assert np.array_equal(new.words[0], WORDS.encode("push the red cube right"))


def test_mirrored_images_are_flipped_and_the_rest_of_the_batch_is_not() -> None:
    checkpoint, data = toy_checkpoint(), toy_data()
    batches = Batches(
        data,
        checkpoint.config.model,
        actions=checkpoint.codec,
        words=checkpoint.words,
        stats=checkpoint.stats,
    )
    quiet = {"gain": 0, "channel_gain": 0, "position_noise": 0, "opening_noise": 0, "wrench_dropout": 0}
    augment = AugmentConfig.model_validate(quiet | {"word_dropout": 0, "blank": 0, "mirror": 0.5})
    rows = np.arange(32)
    plain, changed = batches.make(rows), batches.make(rows, augment, np.random.default_rng(1))
    mirrored = ~np.isclose(changed.focus[:, 0, 1], plain.focus[:, 0, 1])
    assert 4 < mirrored.sum() < 28
    for row in rows:
        expected = plain.inputs.images[row].flip(-1) if mirrored[row] else plain.inputs.images[row]
        assert np.allclose(changed.inputs.images[row], expected)
        sign = -1 if mirrored[row] else 1
        assert np.allclose(changed.actions[row, :, 1], sign * plain.actions[row, :, 1])


def test_only_tcp_deltas_can_be_mirrored() -> None:
    checkpoint, data = toy_checkpoint(), toy_data()
    dims = tuple(dim.model_copy(update={"name": f"joint{i}"}) for i, dim in enumerate(data.spec.dims))
    other = dataclasses.replace(data, spec=data.spec.model_copy(update={"dims": dims}))
    batches = Batches(
        other,
        checkpoint.config.model,
        actions=checkpoint.codec,
        words=checkpoint.words,
        stats=checkpoint.stats,
    )
    with pytest.raises(PolicyError, match=r"mirror needs actions dx, dy, .*; the data have joint0"):
        batches.make(np.arange(8), AugmentConfig(mirror=1.0), np.random.default_rng(0))
