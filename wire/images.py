"""Images to camera frames and back: raw, JPEG or PNG. What is in the data must be what the header says."""

from __future__ import annotations

import io
from typing import Any, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reflexarc.configs.errors import WireError, unknown
from reflexarc.wire.messages import CameraFrame, ImageEncoding

MAX_SIDE = 4096
"""Pixels: a frame with a longer side is refused before anything is decoded."""

# 4:4:4 (subsampling 0): at 96 pixels, half-resolution colour would smear the objects that words name by colour.
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "jpeg": {"quality": 95, "subsampling": 0},
    "png": {"compress_level": 1},
}


def encode_image(
    image: NDArray[np.uint8],
    *,
    camera: str,
    seq: int,
    t_capture_ns: int,
    encoding: ImageEncoding = "raw",
    clock: str = "monotonic",
) -> CameraFrame:
    """A frame of `image` (H, W, 3) uint8 RGB; raises WireError naming the shape, dtype or encoding that is wrong."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise WireError(f"camera {camera}: image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    height, width, _ = image.shape
    _check_size(camera, height, width)
    if encoding == "raw":
        data = image.tobytes()
    elif encoding in _SAVE_OPTIONS:
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(buffer, encoding, **_SAVE_OPTIONS[encoding])
        data = buffer.getvalue()
    else:
        raise WireError(f"camera {camera}: {unknown('image encoding', encoding, get_args(ImageEncoding))}")
    return CameraFrame(
        t_ns=t_capture_ns,
        clock=clock,
        camera=camera,
        seq=seq,
        t_capture_ns=t_capture_ns,
        height=height,
        width=width,
        encoding=encoding,
        data=data,
    )


def packed_frame(frame: CameraFrame, encoding: ImageEncoding, quality: int) -> CameraFrame:
    """`frame` with its data in another encoding if it came raw, else itself. quality: of JPEG."""
    if frame.encoding != "raw" or encoding == "raw":
        return frame
    options = _SAVE_OPTIONS[encoding] | ({"quality": quality} if encoding == "jpeg" else {})
    buffer = io.BytesIO()
    Image.fromarray(decode_image(frame)).save(buffer, encoding, **options)
    return msgspec.structs.replace(frame, encoding=encoding, data=buffer.getvalue())


def decode_image(frame: CameraFrame) -> NDArray[np.uint8]:
    """The image (H, W, 3) uint8 RGB, read-only; raises WireError if the data does not match its header."""
    _check_size(frame.camera, frame.height, frame.width)
    if frame.encoding == "raw":
        if len(frame.data) != frame.height * frame.width * 3:
            raise WireError(
                f"camera {frame.camera}: {len(frame.data)} bytes for a {frame.height}x{frame.width} RGB image"
            )
        return np.frombuffer(frame.data, dtype=np.uint8).reshape(frame.height, frame.width, 3)
    try:
        with Image.open(io.BytesIO(frame.data), formats=(frame.encoding.upper(),)) as opened:
            width, height = opened.size  # known from the header: nothing is decoded yet
            fits = (height, width) == (frame.height, frame.width)
            image = np.asarray(opened.convert("RGB")) if fits else None
    except Exception as error:  # Pillow's parsers raise a dozen unrelated types on foreign bytes
        raise WireError(f"camera {frame.camera}: cannot decode {frame.encoding}: {error}") from error
    if image is None:
        raise WireError(
            f"camera {frame.camera}: header says {frame.height}x{frame.width}, the image is {height}x{width}"
        )
    image.flags.writeable = False
    return image


def _check_size(camera: str, height: int, width: int) -> None:
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise WireError(f"camera {camera}: size {height}x{width} is not within 1..{MAX_SIDE} pixels a side")
