"""The tokenizer `basic_english` of torchtext, and its inverse for reading.

The last release of torchtext, 0.18 of 2024, belongs to torch 2.3, and this project needs torch 2.6.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

UNKNOWN, START, END = "<unk>", "<sos>", "<eos>"
#: Replacements in this order, after lower-casing; then white space separates the words.
_RULES = (
    ("'", " '  "), ('"', ""), (".", " . "), ("<br />", " "), (",", " , "), ("(", " ( "), (")", " ) "), ("!", " ! "),
    ("?", " ? "), (";", " "), (":", " "),
)  # fmt: skip
_BEFORE = re.compile(r"\s+([.,!?)])")
_AFTER = re.compile(r"([(])\s+")


def basic_english(text: str) -> list[str]:
    """Lower-case words and punctuation marks of a text."""
    text = text.lower()
    for old, new in _RULES:
        text = text.replace(old, new)
    return text.split()


def vocabulary(words: Iterable[str], min_frequency: int, boundaries: bool) -> tuple[str, ...]:
    """`<unk>` (and `<sos>`, `<eos>`), then the words with at least `min_frequency` occurrences, by frequency."""
    special = (UNKNOWN, START, END) if boundaries else (UNKNOWN,)
    counts = Counter(words)
    often = [word for word, count in counts.items() if count >= min_frequency and word not in special]
    return (*special, *sorted(often, key=lambda word: (-counts[word], word)))


def encode(words: Iterable[str], index: dict[str, int]) -> np.ndarray:
    """The indices of words, int32; unknown words get 0, the index of `<unk>`."""
    return np.fromiter((index.get(word, 0) for word in words), dtype=np.int32)


def decode(words: Iterable[str]) -> str:
    """Joins words to a sentence, with blanks around punctuation as English has them."""
    return _AFTER.sub(r"\1", _BEFORE.sub(r"\1", " ".join(words))).replace(" ' ", "'")
