"""Instructions as word ids, from a vocabulary file of our own: no hub, no download.

A word is a run of letters or digits, in lower case. The first three ids are reserved; a word that was never seen in
training becomes `<unk>`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from reflexarc.configs.errors import PolicyError

PAD, BEGIN, UNKNOWN = 0, 1, 2
SPECIAL = ("<pad>", "<begin>", "<unk>")
_WORD = re.compile(r"[^\W_]+")


class WordTokenizer:
    """Maps instructions to fixed-length rows of ids."""

    def __init__(self, words: Iterable[str], max_words: int) -> None:
        """`words`: the vocabulary without the reserved entries. `max_words`: the longest instruction."""
        self.words = tuple(words)
        self.max_words = max_words
        self._ids = {word: index + len(SPECIAL) for index, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            raise PolicyError(f"the vocabulary of {len(self.words)} words names a word twice")

    @classmethod
    def fit(cls, instructions: Iterable[str], max_words: int) -> WordTokenizer:
        """The vocabulary of all words in `instructions`, in alphabetical order."""
        return cls(sorted({word for text in instructions for word in split(text)}), max_words)

    @property
    def size(self) -> int:
        """Number of ids, reserved ones included."""
        return len(self.words) + len(SPECIAL)

    def id_of(self, word: str) -> int:
        """The id of a word; that of `<unk>` if it is not in the vocabulary."""
        return self._ids.get(word, UNKNOWN)

    def encode(self, instruction: str) -> NDArray[np.int64]:
        """(1 + max_words,) ids: `<begin>`, the words, padding. Raises PolicyError if it is too long."""
        words = split(instruction)
        if len(words) > self.max_words:
            raise PolicyError(
                f"instruction of {len(words)} words; this policy reads at most {self.max_words}"
            )
        row = np.full(1 + self.max_words, PAD, dtype=np.int64)
        row[0] = BEGIN
        row[1 : 1 + len(words)] = [self.id_of(word) for word in words]
        return row

    def decode(self, ids: Iterable[int]) -> str:
        """The words of ids, up to the first padding; reserved ids are left out."""
        known = itertools.takewhile(lambda each: each != PAD, ids)
        return " ".join(self.words[each - len(SPECIAL)] for each in known if each >= len(SPECIAL))

    def to_json(self) -> str:
        """The vocabulary file."""
        return json.dumps({"kind": "words", "max_words": self.max_words, "words": self.words}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> WordTokenizer:
        """Read a vocabulary file; raises PolicyError saying what is wrong with it."""
        try:
            data = json.loads(text)
            if data["kind"] != "words":
                raise PolicyError(f"vocabulary of kind {data['kind']!r}; known: words")
            return cls([str(word) for word in data["words"]], int(data["max_words"]))
        except (ValueError, KeyError, TypeError) as error:
            raise PolicyError(f"not a vocabulary file: {error!r}") from error


def split(instruction: str) -> list[str]:
    """The words of an instruction, in lower case, without punctuation."""
    return _WORD.findall(instruction.lower())
