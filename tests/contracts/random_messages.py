"""Random messages of every type, made from the annotations of their fields."""

from __future__ import annotations

import math
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reflexarc.wire.messages import WIRE_VERSION, Message

INT64 = st.integers(min_value=-(2**63), max_value=2**63 - 1)
TEXT = st.text(max_size=20)


def messages(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Any legal message of this type, NaN and infinity included."""
    fields = {name: _values(hint) for name, hint in get_type_hints(kind).items() if not name.startswith("_")}
    if issubclass(kind, Message):
        fields["version"] = st.just(WIRE_VERSION)
    fields = {name: fields[name] for name in kind.__struct_fields__}
    return st.builds(kind, **fields)


def _values(hint: Any) -> st.SearchStrategy[Any]:
    simple = {int: INT64, float: st.floats(), str: TEXT, bytes: st.binary(max_size=50), bool: st.booleans()}
    if hint in simple:
        return simple[hint]
    if hint is type(None):
        return st.none()
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return st.sampled_from(args)
    if origin is list:
        return st.lists(_values(args[0]), max_size=4)
    if origin is dict:
        return st.dictionaries(_values(args[0]), _values(args[1]), max_size=3)
    if origin in (types.UnionType, Union):
        return st.one_of([_values(each) for each in args])
    if origin is np.ndarray:
        (scalar,) = get_args(args[1])
        shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
        return hnp.arrays(np.dtype(scalar), shapes)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return messages(hint)
    raise TypeError(f"no strategy for {hint!r}")


def same(a: Any, b: Any) -> bool:
    """Equal to the bit: types, shapes, dtypes, NaN included; integers and floats are told apart."""
    if type(a) is not type(b):
        return False
    if isinstance(a, msgspec.Struct):
        return all(same(getattr(a, name), getattr(b, name)) for name in a.__struct_fields__)
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        equal = a == b or (math.isnan(a) and math.isnan(b))
        return bool(equal and math.copysign(1, a) == math.copysign(1, b))
    return bool(a == b)
