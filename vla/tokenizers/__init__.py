"""Numbers and words as tokens."""

from reflexarc.vla.tokenizers.fast import FastTokenizer
from reflexarc.vla.tokenizers.text import WordTokenizer
from reflexarc.vla.tokenizers.uniform import UniformTokenizer

__all__ = ["FastTokenizer", "UniformTokenizer", "WordTokenizer"]
