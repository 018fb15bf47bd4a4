"""Numbers and words as tokens."""

import json

from reflexarc.configs.errors import PolicyError, unknown
from reflexarc.vla.tokenizers.fast import FastTokenizer
from reflexarc.vla.tokenizers.openvla import OpenVlaTokenizer
from reflexarc.vla.tokenizers.text import WordTokenizer
from reflexarc.vla.tokenizers.uniform import UniformTokenizer

__all__ = ["GRIDS", "FastTokenizer", "OpenVlaTokenizer", "UniformTokenizer", "WordTokenizer", "read_grid"]

GRIDS: dict[str, type[UniformTokenizer]] = {"uniform": UniformTokenizer, "openvla": OpenVlaTokenizer}
"""Bins of actions by `model.bins`."""


def read_grid(text: str) -> UniformTokenizer:
    """A tokenizer file of either kind; raises PolicyError saying what is wrong with it."""
    try:
        kind = json.loads(text)["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise PolicyError(f"not an action tokenizer file: {error!r}") from error
    if kind not in GRIDS:
        raise PolicyError(unknown("kind of tokenizer", str(kind), GRIDS))
    return GRIDS[kind].from_json(text)
