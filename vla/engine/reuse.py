"""What was computed of a picture is kept for as long as the camera shows the same one.

A policy that is asked more often than a camera takes pictures, or that has a slow camera beside a fast one, would
otherwise run its vision tower on what it has seen already. A picture is known by a digest of its bytes.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable

from torch import Tensor

from reflexarc.wire.messages import CameraFrame

KEPT = 32
"""Pictures remembered: a few cameras of a few robots. Of OpenVLA's, 2 MB each."""


def digest(frame: CameraFrame) -> bytes:
    """Of a picture as it came: bytes, size and encoding."""
    head = f"{frame.encoding} {frame.height} {frame.width} ".encode()
    return hashlib.blake2b(head + frame.data, digest_size=16).digest()


def digest_pixels(image: Tensor) -> bytes:
    """Of a picture as a model is given it."""
    return hashlib.blake2b(image.contiguous().cpu().numpy().data, digest_size=16).digest()


class Features:
    """Features by picture. enabled: False remembers nothing."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._enabled = enabled
        self.hits = 0

    def get(self, key: Hashable) -> Tensor | None:
        """What was put there, if it is still kept."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            self.hits += 1
        return found

    def put(self, key: Hashable, features: Tensor) -> None:
        """Keep `features`, and forget what was not asked for the longest."""
        if not self._enabled:
            return
        self._kept[key] = features
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
