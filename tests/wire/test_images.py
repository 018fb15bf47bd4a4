"""Images survive their frame; a frame that lies about its image is refused."""

from __future__ import annotations

import contextlib
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from reflexarc.configs.errors import WireError
from reflexarc.wire.codec import decode, encode
from reflexarc.wire.images import MAX_SIDE, decode_image, encode_image
from reflexarc.wire.messages import CameraFrame, ImageEncoding

ENCODINGS: tuple[ImageEncoding, ...] = ("raw", "png", "jpeg")
IMAGES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3)))


def frame(image: NDArray[np.uint8], encoding: ImageEncoding = "raw") -> CameraFrame:
    return encode_image(image, camera="front", seq=4, t_capture_ns=5, encoding=encoding, clock="virtual")


def altered(source: CameraFrame, **changes: Any) -> CameraFrame:
    fields = {name: getattr(source, name) for name in source.__struct_fields__}
    return CameraFrame(**(fields | changes))


@given(IMAGES, st.sampled_from(["raw", "png"]))
def test_lossless_round_trip_through_the_wire(image: NDArray[np.uint8], encoding: ImageEncoding) -> None:
    received = decode(encode(frame(image, encoding)))
    assert isinstance(received, CameraFrame)
    np.testing.assert_array_equal(decode_image(received), image)


def test_jpeg_keeps_the_colour_of_small_things() -> None:
    image = np.full((96, 96, 3), 200, dtype=np.uint8)
    image[40:48, 40:48] = (220, 30, 30)
    decoded = decode_image(frame(image, "jpeg"))
    assert np.abs(decoded[44, 44].astype(int) - image[44, 44]).max() < 12
    assert len(frame(image, "jpeg").data) < image.size / 5


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_decoded_image_is_read_only_and_the_source_is_not_shared(encoding: ImageEncoding) -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    made = frame(image, encoding)
    image[:] = 255
    decoded = decode_image(made)
    assert decoded.max() < 10
    with pytest.raises(ValueError, match="read-only"):
        decoded[0, 0, 0] = 1


def test_frame_says_what_it_holds() -> None:
    made = frame(np.zeros((6, 9, 3), dtype=np.uint8))
    assert (made.height, made.width, made.camera, made.seq, made.t_ns, made.t_capture_ns, made.clock) == (
        6,
        9,
        "front",
        4,
        5,
        5,
        "virtual",
    )


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((0, 4, 3), dtype=np.uint8),
        np.zeros((1, MAX_SIDE + 1, 3), dtype=np.uint8),
    ],
    ids=["grey", "alpha", "float", "empty", "too wide"],
)
def test_other_arrays_are_refused(image: Any) -> None:
    with pytest.raises(WireError, match="camera front: "):
        frame(image)


def test_an_unknown_encoding_lists_the_known() -> None:
    with pytest.raises(WireError, match="unknown image encoding 'bmp'; known: jpeg, png, raw"):
        frame(np.zeros((4, 4, 3), dtype=np.uint8), cast(ImageEncoding, "bmp"))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_header_that_does_not_fit_is_refused(encoding: ImageEncoding) -> None:
    made = frame(np.zeros((8, 8, 3), dtype=np.uint8), encoding)
    with pytest.raises(WireError, match="camera front"):
        decode_image(altered(made, height=9))
    with pytest.raises(WireError, match=f"is not within 1..{MAX_SIDE}"):
        decode_image(altered(made, width=MAX_SIDE + 1))


@given(st.sampled_from(ENCODINGS), st.data())
def test_damaged_data_decodes_or_is_a_wire_error(encoding: ImageEncoding, data: st.DataObject) -> None:
    made = frame(np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3), encoding)
    damaged = bytearray(made.data)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    with contextlib.suppress(WireError):
        assert decode_image(altered(made, data=bytes(damaged[:cut]))).shape == (8, 8, 3)


def test_one_format_does_not_pass_for_another() -> None:
    png = frame(np.zeros((8, 8, 3), dtype=np.uint8), "png")
    with pytest.raises(WireError, match="cannot decode jpeg"):
        decode_image(altered(png, encoding="jpeg"))
