"""Changes of a row that give another true row: other colours, and left for right.

`Recolour` gives the things of a scene other colours of the same group and changes the colour words with them; it needs
flat, vivid paint on a grey scene, which the simulator has. `mirror` reflects a scene in the plane y = 0 of the base
frame; it needs cameras that stand in that plane (or in the hand's own) and an action space of TCP deltas. Both multiply
what little a demonstration shows: without them a model learns by heart which episode wants which thing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reflexarc.configs.errors import PolicyError
from reflexarc.configs.policy import AugmentConfig, ProprioFeature
from reflexarc.datasets.sampling import TCP_DIMS
from reflexarc.vla.preprocess import Raw
from reflexarc.vla.stats import FEATURE_NAMES
from reflexarc.vla.tokenizers import WordTokenizer
from reflexarc.vla.tokenizers.text import UNKNOWN
from reflexarc.wire.messages import F64

DARKEST = 12
"""A pixel is paint if its smallest channel is below half its largest, and that is at least this, of 255."""

MIRRORED_NUMBERS = frozenset({"y", "y_commanded", "r10", "r01", "r21", "fy", "tx", "tz", "dy", "drx", "drz"})
"""What changes its sign: y of places and forces; x and z of torques and rotation vectors; the rotation matrix on both
sides."""


class Recolour:
    """Permutes the colours of each group at random, in images and in words."""

    def __init__(self, groups: Sequence[Mapping[str, Sequence[float]]], words: WordTokenizer) -> None:
        """groups: colours by their words, RGB in 0..1. A colour that the vocabulary cannot name stays what it is."""
        self._paint = np.array([rgb for group in groups for rgb in group.values()], dtype=np.float32).reshape(
            -1, 3
        )
        self._ids = np.array([words.id_of(name) for group in groups for name in group], dtype=np.int64)
        self._size = words.size
        ends = np.cumsum([len(group) for group in groups])
        self._groups = [
            np.array(
                [place for place in range(end - len(group), end) if self._ids[place] != UNKNOWN],
                dtype=np.int64,
            )
            for group, end in zip(groups, ends.tolist(), strict=True)
        ]

    def __call__(
        self, images: NDArray[np.uint8], words: NDArray[np.int64], generator: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """images (B, ..., 3) and words (B, L), both new, each row with a permutation of its own."""
        becomes = self._permutations(len(images), generator)
        return self._repaint(images, becomes), self._rename(words, becomes)

    def _permutations(self, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """(B, colours): what each colour becomes."""
        becomes = np.tile(np.arange(len(self._paint)), (count, 1))
        for places in self._groups:
            becomes[:, places] = generator.permuted(becomes[:, places], axis=1)
        return becomes

    def _repaint(self, images: NDArray[np.uint8], becomes: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Paint reflects each channel by its colour: the light is what is left when that is divided out."""
        flat = images.reshape(-1, 3)
        red, green, blue = (np.ascontiguousarray(flat[:, channel]) for channel in range(3))
        high = np.maximum(np.maximum(red, green), blue)
        low = np.minimum(np.minimum(red, green), blue)
        painted = np.flatnonzero((low < high >> 1) & (high >= DARKEST))
        pixels = flat[painted].astype(np.float32)
        along = pixels @ (self._paint / np.linalg.norm(self._paint, axis=1, keepdims=True)).T
        color = along.argmax(axis=1)
        light = along[np.arange(len(along)), color] / np.linalg.norm(self._paint, axis=1)[color]
        row = painted // (len(flat) // len(images))
        new = flat.copy()
        new[painted] = np.minimum(light[:, None] * self._paint[becomes[row, color]], 255)
        return new.reshape(images.shape)

    def _rename(self, words: NDArray[np.int64], becomes: NDArray[np.int64]) -> NDArray[np.int64]:
        table = np.tile(np.arange(self._size), (len(words), 1))
        for places in self._groups:
            table[:, self._ids[places]] = self._ids[becomes[:, places]]
        return np.take_along_axis(table, words, axis=1)


class Mirror:
    """Reflects some rows in the plane y = 0."""

    def __init__(
        self, config: AugmentConfig, features: tuple[ProprioFeature, ...], words: WordTokenizer
    ) -> None:
        self._proprio = _signs([name for feature in features for name in FEATURE_NAMES[feature]])
        self._actions = _signs(TCP_DIMS)
        self._rename = np.arange(words.size)
        for pair in config.mirror_words:
            ids = [words.id_of(word) for word in pair]
            if UNKNOWN not in ids:
                self._rename[ids] = ids[::-1]

    def images(self, images: Tensor, which: NDArray[np.bool_]) -> None:
        """Reflect the rows `which` (B,) of (B, C, 3, S, S) in place."""
        chosen = torch.from_numpy(which)
        images[chosen] = images[chosen].flip(-1)

    def __call__(self, raw: Raw, actions: F64, focus: F64, which: NDArray[np.bool_]) -> tuple[Raw, F64, F64]:
        """The batch with the rows `which` (B,) mirrored, but for its images.

        actions: (B, H, 7) TCP deltas. focus: (B, 2, 3) m.
        """
        y = _signs(["x", "y", "z"])
        mirrored = dataclasses.replace(
            raw,
            words=np.where(which[:, None], self._rename[raw.words], raw.words),
            proprio=np.where(which[:, None], self._proprio, 1.0) * raw.proprio,
            tcp=np.where(which[:, None], y, 1.0) * raw.tcp,
        )
        some = which[:, None, None]
        return mirrored, np.where(some, self._actions, 1.0) * actions, np.where(some, y, 1.0) * focus


def require_tcp_deltas(names: Sequence[str]) -> None:
    """Raise PolicyError unless these are the dimensions that can be mirrored."""
    if tuple(names) != TCP_DIMS:
        raise PolicyError(
            f"train.augment.mirror needs actions {', '.join(TCP_DIMS)}; the data have {', '.join(names)}"
        )


def _signs(names: Sequence[str]) -> F64:
    return np.array([-1.0 if name in MIRRORED_NUMBERS else 1.0 for name in names])
