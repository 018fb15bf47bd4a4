"""Frames of a video file, any of them in any order: the file stays open, and where its key frames are is known.

A frame that follows the one read last is decoded from there on; for any other the decoder is set to the last key frame
before it. So a video read in order is decoded once, and a frame at random costs what stands between it and its key
frame. Needs the extra `view` (PyAV).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from reflexarc.configs.errors import LogError


@dataclass(frozen=True, slots=True, eq=False)
class FrameIndex:
    """When the frames of a video are shown, in that order. pts: (N,) int64, of `time_base` seconds; is_key: (N,)."""

    pts: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    time_base: float

    @property
    def time_s(self) -> NDArray[np.float64]:
        """(N,) seconds."""
        return (self.pts * self.time_base).astype(np.float64)

    def nearest(self, time_s: NDArray[np.float64]) -> NDArray[np.int64]:
        """Numbers of the frames nearest to times (B,), s."""
        shown = self.time_s
        after = np.clip(np.searchsorted(shown, time_s), 1, max(1, len(shown) - 1))
        before = after - 1
        after = np.minimum(after, len(shown) - 1)
        return np.where(time_s - shown[before] <= shown[after] - time_s, before, after)


def index_frames(path: Path) -> FrameIndex:
    """Read through the file's packets, decoding none; raises LogError if it is no video, torn, or holds no frame."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            time_base = float(stream.time_base)
            packets: list[tuple[int, bool]] = []
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise LogError(f"{path}: the video is damaged after {len(packets)} frames")
                if packet.pts is not None and not packet.is_discard:
                    packets.append((packet.pts, packet.is_keyframe))
    except (OSError, IndexError, av.FFmpegError) as error:
        raise LogError(f"{path}: not a video that can be read: {error}") from error
    if not packets:
        raise LogError(f"{path}: the video holds no frame")
    packets.sort()
    pts, is_key = zip(*packets, strict=True)
    return FrameIndex(np.array(pts, dtype=np.int64), np.array(is_key, dtype=np.bool_), time_base)


class VideoFrames:
    """An open video, for one thread at a time."""

    def __init__(self, path: Path, index: FrameIndex) -> None:
        """Raises LogError if the file cannot be opened."""
        self.path = path
        self.index = index
        keys = np.where(index.is_key, np.arange(len(index.pts)), 0)
        self._key_before = np.maximum.accumulate(keys)
        try:
            self._container = av.open(str(path))
        except (OSError, av.FFmpegError) as error:
            raise LogError(f"{path}: the video cannot be opened: {error}") from error
        self._stream = self._container.streams.video[0]
        # A frame asked for alone gains nothing by threads; cameras and workers are what runs side by side.
        self._stream.thread_count = 1
        self._rgb = VideoReformatter()
        self._decoded: Iterator[Any] = iter(())
        self._last = -1
        self._frame: Any = None

    def read(self, number: int, out: NDArray[np.uint8]) -> None:
        """Decode frame `number` into `out`, (H, W, 3) uint8 RGB. Raises LogError if the file does not yield it."""
        if number != self._last:
            try:
                self._go_to(number)
            except av.FFmpegError as error:
                self._last = -1
                raise LogError(f"{self.path}: frame {number} cannot be decoded: {error}") from error
        picture = self._rgb.reformat(self._frame, format="rgb24").to_ndarray()
        if picture.shape != out.shape:
            raise LogError(f"{self.path}: frame {number} is {picture.shape}; the data set says {out.shape}")
        out[:] = picture

    def close(self) -> None:
        """Release file and decoder; safe to call twice."""
        self._decoded, self._frame, self._last = iter(()), None, -1
        self._container.close()

    def _go_to(self, number: int) -> None:
        wanted = int(self.index.pts[number])
        key = int(self._key_before[number])
        if not (0 <= self._last < number and key <= self._last + 1):
            self._seek(key)
        if self._advance(wanted):
            return
        # Where frames are stored in another order than shown, a container may seek past the key frame: from the start.
        self._seek(0)
        if not self._advance(wanted):
            self._last = -1
            raise LogError(f"{self.path}: frame {number} is in its index and was not decoded")

    def _seek(self, key: int) -> None:
        self._container.seek(int(self.index.pts[key]), backward=True, any_frame=False, stream=self._stream)
        self._decoded = self._container.decode(self._stream)

    def _advance(self, wanted: int) -> bool:
        """Decode up to the frame of that pts; False if it does not come."""
        for frame in self._decoded:
            if frame.pts is None or frame.pts < wanted:
                continue
            if frame.is_corrupt:
                raise LogError(
                    f"{self.path}: the frame at {frame.pts * self.index.time_base:.3f} s is damaged"
                )
            self._frame = frame
            self._last = int(np.searchsorted(self.index.pts, frame.pts))
            return bool(frame.pts == wanted)
        return False
