"""Drops empty texts, repeated texts, and texts that several splits hold."""

from __future__ import annotations

import unicodedata

import pandas as pd

from trainables.base.leakage import without_copies


def clean(frame: pd.DataFrame, split: str, notes: list[str]) -> pd.DataFrame:
    """Drops empty and repeated texts of a frame with `text` and `label`. Adds their numbers to `notes`."""
    empty = frame["text"].str.strip() == ""
    if empty.any():
        notes.append(f"{split}: {int(empty.sum())} empty texts left out")
        frame = frame[~empty]
    keys = frame["text"].map(normalised)
    again = keys.duplicated()
    if again.any():
        conflicts = int((frame.groupby(keys)["label"].nunique() > 1).sum())
        note = f"{split}: {int(again.sum())} repeated texts left out, the first of each kept"
        notes.append(f"{note}; {conflicts} of them have two labels" if conflicts else note)
        frame = frame[~again]
    return frame.reset_index(drop=True)


def remove_overlap(frames: dict[str, pd.DataFrame], place: str, notes: list[str]) -> dict[str, pd.DataFrame]:
    """Drops texts that several splits hold, as `copies.without_copies`; raises InputError if a split would be empty."""
    keys = {split: [normalised(text) for text in frame["text"]] for split, frame in frames.items()}
    return without_copies(frames, keys, "texts", place, notes)


def normalised(text: str) -> str:
    """A text without differences of capitals, white space and Unicode composition; equal results are duplicates."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
