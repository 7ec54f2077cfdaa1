"""Drops empty texts, repeated texts, and texts that several splits hold."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import pandas as pd

from trainables.base.leakage import conflicts, without_copies

#: The largest number of characters of a text in a message.
LONGEST = 60


def clean(frame: pd.DataFrame, split: str, notes: list[str]) -> pd.DataFrame:
    """Drops empty and repeated texts of a frame with `text` and `label`. Adds their numbers to `notes`."""
    empty = frame["text"].str.strip() == ""
    if empty.any():
        notes.append(f"{split}: {int(empty.sum())} empty texts left out")
        frame = frame[~empty]
    keys = frame["text"].map(normalised)
    again = keys.duplicated()
    if again.any():
        notes.append(
            f"{int(again.sum()):,} of {len(frame):,} texts of {split} repeat others and leave {split}; the first of "
            "each stays"
        )
        labels, names = frame["label"].tolist(), shown(frame["text"])
        notes += conflicts({split: keys.tolist()}, {split: labels}, f"texts of {split}", {split: names})
        frame = frame[~again]
    return frame.reset_index(drop=True)


def remove_overlap(frames: dict[str, pd.DataFrame], place: str, notes: list[str]) -> dict[str, pd.DataFrame]:
    """Drops texts that several splits hold, as `leakage.without_copies`.

    Raises:
        InputError: a split would be empty.
    """
    keys = {split: [normalised(text) for text in frame["text"]] for split, frame in frames.items()}
    labels = {split: frame["label"].tolist() for split, frame in frames.items()}
    names = {split: shown(frame["text"]) for split, frame in frames.items()}
    return without_copies(frames, keys, "texts", place, notes, labels, names)


def shown(texts: Iterable[str]) -> list[str]:
    """Texts in quotes, at most 60 characters of each, for messages."""
    return [repr(text if len(text) <= LONGEST else f"{text[:LONGEST]}…") for text in texts]


def normalised(text: str) -> str:
    """A text without differences of capitals, white space and Unicode composition; equal results are duplicates."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
