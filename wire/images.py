"""Images to camera frames and back: raw, JPEG or PNG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reflexarc.configs.errors import WireError
from reflexarc.wire.messages import CameraFrame, ImageEncoding

MAX_SIDE = 4096
JPEG_QUALITY = 95


def encode_image(
    image: NDArray[np.uint8],
    encoding: ImageEncoding = "raw",
    *,
    camera: str,
    seq: int,
    t_capture_ns: int,
    clock: str = "monotonic",
) -> CameraFrame:
    """A frame of `image` (H, W, 3) uint8 RGB; raises WireError naming the shape or dtype that is wrong."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise WireError(f"camera {camera}: image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    if encoding == "raw":
        data = np.ascontiguousarray(image).tobytes()
    else:
        buffer = io.BytesIO()
        options = {"quality": JPEG_QUALITY} if encoding == "jpeg" else {"compress_level": 1}
        Image.fromarray(image).save(buffer, encoding, **options)
        data = buffer.getvalue()
    return CameraFrame(
        t_ns=t_capture_ns,
        clock=clock,
        camera=camera,
        seq=seq,
        t_capture_ns=t_capture_ns,
        height=image.shape[0],
        width=image.shape[1],
        encoding=encoding,
        data=data,
    )


def decode_image(frame: CameraFrame) -> NDArray[np.uint8]:
    """The image (H, W, 3) uint8 RGB, read-only; raises WireError if the data does not match its header."""
    shape = (frame.height, frame.width, 3)
    if not (0 < frame.height <= MAX_SIDE and 0 < frame.width <= MAX_SIDE):
        raise WireError(f"camera {frame.camera}: size {frame.height}x{frame.width} is not in 1..{MAX_SIDE}")
    if frame.encoding == "raw":
        if len(frame.data) != shape[0] * shape[1] * 3:
            raise WireError(
                f"camera {frame.camera}: {len(frame.data)} bytes for a {frame.height}x{frame.width} RGB image"
            )
        return np.frombuffer(frame.data, dtype=np.uint8).reshape(shape)
    try:
        with Image.open(io.BytesIO(frame.data), formats=(frame.encoding.upper(),)) as opened:
            if opened.size != (frame.width, frame.height):
                raise WireError(
                    f"camera {frame.camera}: header says {frame.width}x{frame.height}, image is {opened.size}"
                )
            image = np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise WireError(f"camera {frame.camera}: cannot decode {frame.encoding}: {error}") from error
    return image
