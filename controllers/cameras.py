"""Cameras that stall: no new picture for too long, or the same picture again and again while the arm moves.

A policy must not be asked about a picture that is not of now. A camera that sends nothing keeps it from being asked
anyway, because every question needs new pictures of all cameras; one that repeats itself with new times would not.
Where nothing moves, pictures may be equal (a simulated camera has no noise), so that says nothing.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from reflexarc.configs.watch import CameraWatchConfig
from reflexarc.wire.messages import F64, CameraFrame


@dataclasses.dataclass(slots=True)
class _Seen:
    """The newest different picture: its checksum, when it came, and where the arm was, (n,) rad."""

    checksum: int
    arrived_ns: int
    position: F64 | None
    stalled: str = ""


class CameraWatch:
    """Judges the pictures of some cameras as they come."""

    def __init__(self, config: CameraWatchConfig) -> None:
        self._silence_ns = round(config.silence_s * 1e9)
        self._moved_rad = config.moved_rad
        self._seen: dict[str, _Seen] = {}
        self._changed: list[tuple[str, str]] = []

    def take(self, frame: CameraFrame, position: F64 | None, now_ns: int) -> bool:
        """Whether a picture may be shown to a policy; position: (n,) rad of the arm, None while it is not known."""
        checksum = zlib.crc32(frame.data)
        seen = self._seen.get(frame.camera)
        if seen is None or checksum != seen.checksum or seen.position is None or position is None:
            stalled = "" if seen is None else seen.stalled
            self._seen[frame.camera] = _Seen(checksum, now_ns, position, stalled)
            self._tell(frame.camera, "")
            return True
        seen.arrived_ns = now_ns
        moved = float(np.max(np.abs(position - seen.position)))
        if moved <= self._moved_rad:
            return True
        self._tell(frame.camera, f"it sends the same picture, though a joint has moved by {moved:.2f} rad")
        return False

    def events(self, now_ns: int) -> list[tuple[str, str]]:
        """(kind, text) for each camera since last asked: `camera_stalled`, or `camera_returned`."""
        for camera, seen in self._seen.items():
            silent = now_ns - seen.arrived_ns
            if silent > self._silence_ns and not seen.stalled:
                self._tell(camera, f"it has sent no picture for {silent * 1e-9:.1f} s")
        changed, self._changed = self._changed, []
        return changed

    def _tell(self, camera: str, reason: str) -> None:
        seen = self._seen[camera]
        if bool(reason) == bool(seen.stalled):
            return
        seen.stalled = reason
        kind = "camera_stalled" if reason else "camera_returned"
        self._changed.append((kind, f"camera {camera}: {reason or 'it sends new pictures again'}"))
