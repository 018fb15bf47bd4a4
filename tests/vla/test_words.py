"""The word vocabulary."""

from __future__ import annotations

import json

import pytest

from reflexarc.configs.errors import PolicyError
from reflexarc.vla.tokenizers import WordTokenizer
from reflexarc.vla.tokenizers.text import BEGIN, PAD, UNKNOWN

WORDS = WordTokenizer.fit(["Lift the red cube.", "press the blue button!"], 6)


def test_case_and_punctuation_do_not_count() -> None:
    assert WORDS.encode("LIFT, the red: cube").tolist() == WORDS.encode("lift the red cube").tolist()


def test_known_words_have_ids_of_their_own_and_others_are_unknown() -> None:
    row = WORDS.encode("lift the purple cube").tolist()
    assert row[0] == BEGIN
    assert row[3] == UNKNOWN
    assert row[5:] == [PAD, PAD]
    assert len(set(row[:5])) == 5


def test_a_blank_instruction_is_not_empty() -> None:
    assert WORDS.encode("  ... ").tolist() == [BEGIN, *[PAD] * 6]


def test_too_long_an_instruction_is_refused() -> None:
    with pytest.raises(PolicyError, match="7 words; this policy reads at most 6"):
        WORDS.encode("one two three four five six seven")


def test_the_file_round_trips_and_a_damaged_one_is_refused() -> None:
    again = WordTokenizer.from_json(WORDS.to_json())
    assert again.words == WORDS.words
    assert again.size == WORDS.size == len(WORDS.words) + 3
    with pytest.raises(PolicyError, match="not a vocabulary file"):
        WordTokenizer.from_json("{}")
    with pytest.raises(PolicyError, match="names a word twice"):
        WordTokenizer.from_json(json.dumps({"kind": "words", "max_words": 3, "words": ["a", "a"]}))
