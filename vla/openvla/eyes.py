"""From the camera frames of several robots to OpenVLA's image tokens, in one pass of the towers.

A picture that was seen before (`engine/reuse.py`) is neither decoded nor seen again. On a GPU its bytes are prepared
there (`pixels.py`), but for JPEG and Lanczos where the settings ask for them and the picture has another size: only the
processor does these as training did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from reflexarc.configs.errors import PolicyError, WireError
from reflexarc.configs.foreign import OpenVlaConfig
from reflexarc.vla.engine.reuse import Features, digest
from reflexarc.vla.openvla.images import Pixels, as_recorded, prepare, to_towers
from reflexarc.vla.openvla.layout import Layout
from reflexarc.vla.openvla.model import OpenVlaModel
from reflexarc.vla.openvla.pixels import on_device
from reflexarc.wire.images import decode_image
from reflexarc.wire.messages import CameraFrame, Observation


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Glance:
    """One picture: its tokens (patches, width) where they are known, else its pixels; and the words it is seen with.

    words: (width,) the average of the instruction's embeddings, where towers see them (FiLM).
    """

    key: Hashable
    tokens: Tensor | None
    pixels: Pixels | None
    words: Tensor | None


class Eyes:
    """device, dtype: where and in what the towers run. on_gpu: prepare pictures there, and see a power of two of them
    at a time, so that few graphs do.
    """

    def __init__(
        self,
        model: OpenVlaModel,
        layout: Layout,
        config: OpenVlaConfig,
        *,
        device: torch.device,
        dtype: torch.dtype,
        on_gpu: bool,
    ) -> None:
        self._model, self._layout, self._config = model, layout, config
        self._device, self._dtype = device, dtype
        self._on_gpu = on_gpu
        self.features = Features(enabled=config.engine.reuse_vision)

    def glances(self, observation: Observation, ids: list[int], *, end: bool) -> list[Glance]:
        """One for each camera. Raises PolicyError on a missing camera or a damaged image."""
        frames = []
        for camera in self._config.cameras:
            frame = observation.images.get(camera)
            if frame is None:
                there = ", ".join(sorted(observation.images)) or "none"
                raise PolicyError(f"the observation has no image of camera {camera!r}; it has: {there}")
            frames.append(frame)
        return [self.glance(frame, ids, end=end) for frame in frames]

    def see(self, rows: Sequence[list[Glance]]) -> Tensor:
        """The glances of B robots to image tokens (B, C·patches, width); only what is new is computed."""
        fresh = {each.key: each for row in rows for each in row if each.tokens is None}
        known = {each.key: each.tokens for row in rows for each in row if each.tokens is not None}
        if fresh:
            seen = self._compute(list(fresh.values()))
            for key, tokens in zip(fresh, seen[: len(fresh)], strict=True):
                known[key] = tokens
                self.features.put(key, tokens)
        return torch.stack([torch.cat([known[each.key] for each in row]) for row in rows])

    def glance(self, frame: CameraFrame, ids: list[int], *, end: bool) -> Glance:
        """Of one picture; see `glances`. ids: of the prompt; end: as in `OpenVlaModel.words`."""
        key = (digest(frame), tuple(ids)) if self._model.film else digest(frame)
        tokens = self.features.get(key)
        if tokens is not None:
            return Glance(key, tokens, None, None)
        try:
            image = decode_image(frame)
        except WireError as error:
            raise PolicyError(str(error)) from error
        words = None
        if self._model.film:
            told = torch.tensor([ids], device=self._device)
            words = self._model.words(told, end=end).mean(dim=1)[0]
        bring = as_recorded if self._on_gpu else prepare
        pixels = bring(image, self._layout.towers[0].image, self._config)
        return Glance(key, None, pixels, words)

    def _compute(self, glances: list[Glance]) -> Tensor:
        """(N, patches, width) for N glances or more."""
        while self._on_gpu and len(glances) & (len(glances) - 1):
            glances = [*glances, glances[-1]]
        towers = [each.to(self._device, self._dtype) for each in self._towers(glances)]
        words = [each.words for each in glances if each.words is not None]
        return self._model.features(towers, torch.stack(words) if words else None)

    def _towers(self, glances: list[Glance]) -> list[Tensor]:
        pictures = [each.pixels for each in glances if each.pixels is not None]
        if not self._on_gpu:
            return to_towers(pictures, self._layout)
        alike = len({each.shape for each in pictures}) == 1
        groups = [pictures] if alike else [[each] for each in pictures]
        prepared = [
            on_device(
                torch.from_numpy(np.stack(group)).to(self._device),
                self._layout,
                crop=self._config.center_crop,
            )
            for group in groups
        ]
        return [torch.cat(towers) for towers in zip(*prepared, strict=True)]
