"""`basic_english`: the normalisation that torchtext published under that name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

UNKNOWN, START, END = "<unk>", "<sos>", "<eos>"
#: What is replaced by what, in this order, after lower-casing; then words are what white space parts.
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
    """`<unk>` (and `<sos>`, `<eos>`), then the words that occur often enough, the most frequent first."""
    special = (UNKNOWN, START, END) if boundaries else (UNKNOWN,)
    counts = Counter(words)
    often = [word for word, count in counts.items() if count >= min_frequency and word not in special]
    return (*special, *sorted(often, key=lambda word: (-counts[word], word)))


def encode(words: Iterable[str], known: dict[str, int]) -> np.ndarray:
    """Indices of words, int32; 0, which is `<unk>`, for those that are not known."""
    return np.fromiter((known.get(word, 0) for word in words), dtype=np.int32)


def decode(words: Iterable[str]) -> str:
    """Words as a sentence to read: punctuation stands where English has it."""
    return _AFTER.sub(r"\1", _BEFORE.sub(r"\1", " ".join(words))).replace(" ' ", "'")
