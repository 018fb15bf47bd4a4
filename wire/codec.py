"""Messages to bytes and back: msgpack by msgspec, arrays as (dtype, shape, bytes), never pickle.

Anything wrong with the bytes (truncated, foreign, too large, another version, an array of another dtype than the field
is declared with) is a `WireError` that names the field; no other exception leaves this file. Decoded arrays are
read-only and own their memory.
"""

from __future__ import annotations

import math
from collections.abc import Buffer
from functools import reduce
from operator import or_
from typing import Any, get_args

import msgspec
import numpy as np

from reflexarc.configs.errors import WireError
from reflexarc.wire import messages
from reflexarc.wire.messages import WIRE_VERSION, Message

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Larger messages are refused on both sides; the largest legal one, an observation with images, is far below."""

DTYPES = ("float64", "float32", "int64", "int32", "int16", "uint8")
"""Element types of arrays that may cross a process boundary; always little-endian."""

_DTYPE_OF_NAME = {name: np.dtype(name).newbyteorder("<") for name in DTYPES}
_NAME_OF_STR = {dtype.str: name for name, dtype in _DTYPE_OF_NAME.items()}


def message_types() -> tuple[type[Message], ...]:
    """Every message type that may cross a process boundary."""
    found = [
        value
        for value in vars(messages).values()
        if isinstance(value, type) and issubclass(value, Message) and value is not Message
    ]
    return tuple(found)


def encode(message: Message) -> bytes:
    """The message as bytes; raises WireError if it is too large or holds something that is not sent."""
    try:
        data = _encoder.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise WireError(f"cannot encode {type(message).__name__}: {error}") from error
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"{type(message).__name__} is {len(data)} bytes; the limit is {MAX_MESSAGE_BYTES}")
    return data


def decode(data: Buffer) -> Message:
    """The message in `data`. Its arrays are read-only and share no memory with `data`. Raises WireError only."""
    size = memoryview(data).nbytes
    if size > MAX_MESSAGE_BYTES:
        raise WireError(f"message of {size} bytes refused; the limit is {MAX_MESSAGE_BYTES}")
    try:
        message = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        _check_version(data)
        raise WireError(f"cannot decode {size} bytes: {_one_line(error)}") from error
    if message.version != WIRE_VERSION:
        raise WireError(_wrong_version(type(message).__name__, message.version))
    return message


class _Head(msgspec.Struct):
    """The part of a message that no version of it may change."""

    type: str
    version: int


def _check_version(data: Buffer) -> None:
    """Raise WireError if undecodable `data` is a message of another version: that is then the reason."""
    try:
        head = _head_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError):
        return
    if head.version != WIRE_VERSION:
        raise WireError(_wrong_version(head.type, head.version))


def _wrong_version(name: str, version: int) -> str:
    return f"message {_one_line(name)} has wire version {version}; this side speaks version {WIRE_VERSION}"


def _one_line(text: object) -> str:
    """For an error: what a stranger sent may be quoted in it, line breaks, control characters and all."""
    return "".join(each if each.isprintable() else " " for each in str(text)[:300])


def _encode_other(value: Any) -> Any:
    """Called by msgspec for what it does not know: arrays and NumPy scalars. Raises TypeError for all else."""
    if isinstance(value, np.ndarray):
        name = _NAME_OF_STR.get(value.dtype.str)
        if name is None:
            raise TypeError(f"array dtype {value.dtype} is not sent; use one of {', '.join(DTYPES)}")
        return (name, value.shape, value.tobytes())
    if isinstance(value, np.floating | np.integer | np.bool_):
        return value.item()
    raise TypeError(f"a {type(value).__name__} is not sent over the wire")


def _decode_array(kind: Any, value: Any) -> Any:
    """Called by msgspec for array fields; `kind` is the declared NDArray. Raises ValueError or TypeError."""
    if type(value) is not list or len(value) != 3:
        raise ValueError(f"expected an array as (dtype, shape, bytes), got {type(value).__name__}")
    name, shape, data = value
    wanted = _declared_dtype(kind)
    if name != wanted:
        raise ValueError(f"array must be {wanted}, got {str(name)[:40]!r}")
    if type(shape) is not list or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"array shape {str(shape)[:40]} is not a list of sizes")
    if type(data) is not bytes:
        raise ValueError(f"array data must be bytes, got {type(data).__name__}")
    dtype = _DTYPE_OF_NAME[wanted]
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(f"array of shape {tuple(shape)} {wanted} needs {expected} bytes, got {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape)  # of immutable bytes, so it can't be made writeable


_declared: dict[Any, str] = {}


def _declared_dtype(kind: Any) -> str:
    """`float64` for `NDArray[np.float64]`."""
    name = _declared.get(kind)
    if name is None:
        (scalar,) = get_args(get_args(kind)[1])
        name = _declared[kind] = np.dtype(scalar).name
    return name


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_other)
_head_decoder = msgspec.msgpack.Decoder(_Head)
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(
    reduce(or_, message_types()), dec_hook=_decode_array
)
