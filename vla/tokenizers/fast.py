"""FAST: a chunk of actions as few tokens (Pertsch et al. 2025, "FAST: Efficient Action Tokenization for VLA Models").

Along time each dimension becomes its cosine transform (DCT-II, orthonormal), which is scaled and rounded: smooth motion
leaves few numbers that are not zero. They are flattened lowest frequency first, all dimensions of one frequency side by
side, written as one character each (code point: number - min_token), and byte pair encoding makes tokens of them.

The folder is that of the published tokenizer (huggingface.co/physical-intelligence/fast): `processor_config.json` with
`scale`, `min_token` and `vocab_size` (10, -354 and 2048 there), and `tokenizer.json` of the library `tokenizers`. The
published one is byte-level with GPT-2's splitting; one trained here has a character for every coefficient that a chunk
within the bounds can have, so that every such chunk can be written.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from reflexarc.configs.errors import PolicyError
from reflexarc.wire.messages import F64

PROCESSOR, TOKENIZER = "processor_config.json", "tokenizer.json"
LEAST_COUNT = 2
"""A pair must occur this often to become a token."""


class FastTokenizer:
    """Encodes chunks (H, V), normalised to -1..1, into lists of ids and back.

    scale: coefficients are multiples of 1/scale. min_token: the least coefficient that can be written.
    """

    def __init__(self, tokenizer: Tokenizer, scale: float, min_token: int) -> None:
        if not (math.isfinite(scale) and scale > 0):
            raise PolicyError(f"FAST scale must be positive and finite; got {scale}")
        self._tokenizer = tokenizer
        self.scale, self.min_token = float(scale), int(min_token)

    @classmethod
    def fit(cls, chunks: F64, *, scale: float = 10.0, vocabulary: int = 1024) -> FastTokenizer:
        """Trained on chunks (N, H, V) in -1..1. Raises PolicyError where the vocabulary is too small for them."""
        chunks = np.asarray(chunks, dtype=np.float64)
        if chunks.ndim != 3 or not chunks.size:
            raise PolicyError(f"FAST needs chunks (N, H, V) to be trained on; got {chunks.shape}")
        most = _largest(scale, chunks.shape[1])
        alphabet = [chr(code) for code in range(2 * most + 1)]
        if len(alphabet) > vocabulary:
            raise PolicyError(
                f"a FAST vocabulary of {vocabulary} has no room for {len(alphabet)} coefficients; "
                f"raise model.head.vocabulary or lower model.head.scale ({scale:g})"
            )
        tokenizer = Tokenizer(BPE())
        tokenizer.decoder = decoders.Fuse()
        made = cls(tokenizer, scale, -most)
        trainer = BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=LEAST_COUNT,
            show_progress=False,
            special_tokens=[],
            initial_alphabet=alphabet,
        )
        tokenizer.train_from_iterator((made._text(chunk) for chunk in chunks), trainer)
        return made

    @property
    def size(self) -> int:
        """Number of ids."""
        return int(self._tokenizer.get_vocab_size())

    @property
    def id(self) -> str:
        """Names this tokenizer: equal ids mean equal tokens for equal chunks."""
        content = self._tokenizer.to_str() + self._settings()
        return f"fast-{self.size}/{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def encode(self, chunk: F64) -> list[int]:
        """The ids of a chunk (H, V). Raises PolicyError if a value is not finite or a coefficient cannot be written."""
        text = self._text(np.asarray(chunk, dtype=np.float64))
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not ids and text:
            raise PolicyError("this FAST tokenizer knows none of the chunk's coefficients")
        return ids

    def decode(self, ids: Sequence[int], horizon: int, dims: int) -> F64:
        """The chunk (H, V) of ids, within -1..1.

        A model may say too few or too many: what is missing is zero, which are high frequencies; the rest is dropped.
        So is a number that no chunk has, as half a character of a byte-level tokenizer gives.
        Raises PolicyError on an id that is not in the vocabulary.
        """
        if ids and not 0 <= min(ids) <= max(ids) < self.size:
            raise PolicyError(f"FAST ids must lie in 0..{self.size - 1}; got {min(ids)}..{max(ids)}")
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        numbers = np.zeros(horizon * dims)
        said = np.array([ord(each) + self.min_token for each in text][: len(numbers)], dtype=np.float64)
        numbers[: len(said)] = np.where(np.abs(said) <= _largest(self.scale, horizon), said, 0.0)
        chunk = idct(numbers.reshape(horizon, dims) / self.scale, axis=0, norm="ortho")
        return np.asarray(np.clip(chunk, -1.0, 1.0))

    def save(self, folder: Path) -> None:
        """Write the two files."""
        folder.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(folder / TOKENIZER), pretty=False)
        (folder / PROCESSOR).write_text(self._settings() + "\n")

    @classmethod
    def load(cls, folder: Path) -> FastTokenizer:
        """Read the two files; raises PolicyError naming the one that is missing or wrong, and what is there."""
        for name in (PROCESSOR, TOKENIZER):
            if not (folder / name).is_file():
                there = ", ".join(sorted(each.name for each in folder.glob("*"))) or "nothing"
                raise PolicyError(f"{folder} has no {name}; a FAST tokenizer needs it, there is {there}")
        path = folder / PROCESSOR
        try:
            settings = json.loads(path.read_text())
            scale, least, size = (
                float(settings["scale"]),
                int(settings["min_token"]),
                int(settings["vocab_size"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise PolicyError(f"{path}: not a FAST configuration: {error!r}") from error
        try:
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # the library raises nothing narrower
            raise PolicyError(f"{folder / TOKENIZER}: not a tokenizer file: {error}") from error
        if tokenizer.get_vocab_size() > size:
            raise PolicyError(
                f"{folder / TOKENIZER} has {tokenizer.get_vocab_size()} tokens, {PROCESSOR} says {size}"
            )
        return cls(tokenizer, scale, least)

    def coefficients(self, chunk: F64) -> NDArray[np.int64]:
        """(H·V,) scaled and rounded, lowest frequency first. Raises PolicyError on values that are not finite."""
        if not np.isfinite(chunk).all():
            raise PolicyError("a chunk with values that are not finite cannot become tokens")
        scaled: F64 = dct(chunk, axis=0, norm="ortho") * self.scale
        return np.rint(scaled).astype(np.int64).flatten()

    def _text(self, chunk: F64) -> str:
        return "".join(map(chr, np.maximum(self.coefficients(chunk) - self.min_token, 0)))

    def _settings(self) -> str:
        settings = {"scale": self.scale, "min_token": self.min_token, "vocab_size": self.size}
        return json.dumps(settings, indent=1)


def _largest(scale: float, horizon: int) -> int:
    """The largest coefficient of any chunk: all samples ±1, with the signs of a cosine whose L1 norm is sqrt(2 H)."""
    return math.ceil(scale * math.sqrt(2 * horizon))
