"""Messages to bytes and back: msgpack by msgspec, arrays as (dtype, shape, bytes), never pickle.

Anything wrong with the bytes (truncated, foreign, too large, another version, a dtype that is not on the list) is a
`WireError`; no other exception leaves this file.
"""

from __future__ import annotations

import math
from functools import reduce
from operator import or_
from typing import Any

import msgspec
import numpy as np

from reflexarc.configs.errors import WireError
from reflexarc.wire import messages
from reflexarc.wire.messages import WIRE_VERSION, Message

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Larger messages are refused on both sides; the largest legal one, an observation with images, is far below."""

DTYPES = ("float64", "float32", "int64", "int32", "int16", "uint8", "bool")


def message_types() -> tuple[type[Message], ...]:
    """Every message type that may cross a process boundary."""
    found = [
        value
        for value in vars(messages).values()
        if isinstance(value, type) and issubclass(value, Message) and value is not Message
    ]
    return tuple(found)


def _encode_array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.name not in DTYPES:
            raise WireError(f"array dtype {value.dtype.name} is not sent; use one of {', '.join(DTYPES)}")
        return (value.dtype.name, value.shape, np.ascontiguousarray(value).data)
    if isinstance(value, np.floating | np.integer | np.bool_):
        return value.item()
    raise WireError(f"a {type(value).__name__} is not sent over the wire")


def _decode_array(kind: type, value: Any) -> Any:
    if not (isinstance(value, list | tuple) and len(value) == 3):
        raise WireError(f"expected an array as (dtype, shape, bytes), got {type(value).__name__}")
    dtype, shape, data = value
    if dtype not in DTYPES:
        raise WireError(f"array dtype {dtype!r} is not accepted; use one of {', '.join(DTYPES)}")
    if not (isinstance(shape, list | tuple) and all(isinstance(n, int) and n >= 0 for n in shape)):
        raise WireError(f"array shape {shape!r} is not a list of sizes")
    if not isinstance(data, bytes | memoryview | bytearray):
        raise WireError(f"array data must be bytes, got {type(data).__name__}")
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if len(data) != expected:
        raise WireError(f"array of shape {tuple(shape)} {dtype} needs {expected} bytes, got {len(data)}")
    array = np.frombuffer(bytes(data), dtype=dtype).reshape(shape)
    array.flags.writeable = False
    return array


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_array)
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(
    reduce(or_, message_types()), dec_hook=_decode_array
)


def encode(message: Message) -> bytes:
    """The message as bytes; raises WireError if it is too large or holds something that is not sent."""
    try:
        data = _encoder.encode(message)
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise WireError(f"cannot encode {type(message).__name__}: {error}") from error
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"{type(message).__name__} is {len(data)} bytes; the limit is {MAX_MESSAGE_BYTES}")
    return data


def decode(data: bytes) -> Message:
    """The message in `data`. Its arrays are read-only and share no memory with `data`."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"message of {len(data)} bytes refused; the limit is {MAX_MESSAGE_BYTES}")
    try:
        message = _decoder.decode(data)
    except WireError:
        raise
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise WireError(f"cannot decode {len(data)} bytes: {error}") from error
    if message.version != WIRE_VERSION:
        raise WireError(
            f"message {type(message).__name__} has wire version {message.version}; this side speaks {WIRE_VERSION}"
        )
    return message
