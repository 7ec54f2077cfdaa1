"""Drops empty texts, repeated texts, and texts that several splits hold."""

from __future__ import annotations

import unicodedata

import pandas as pd

from trainables.base.copies import staying


def clean(frame: pd.DataFrame, split: str, notes: list[str]) -> pd.DataFrame:
    """Drops empty and repeated texts of a frame with `text` and `label`, and adds notes with their numbers."""
    empty = frame["text"].str.strip() == ""
    if empty.any():
        notes.append(f"{split}: {int(empty.sum())} empty texts left out")
        frame = frame[~empty]
    keys = frame["text"].map(normalised)
    again = keys.duplicated()
    if again.any():
        conflicts = int((frame.groupby(keys)["label"].nunique() > 1).sum())
        note = f"{split}: {int(again.sum())} repeated texts left out, the first of each kept"
        notes.append(f"{note}; {conflicts} of them stand there with two labels" if conflicts else note)
        frame = frame[~again]
    return frame.reset_index(drop=True)


def remove_overlap(frames: dict[str, pd.DataFrame], place: str, notes: list[str]) -> None:
    """Drops texts that several splits hold, by the rule of `copies.staying`.

    Raises:
        InputError: a split would be empty.
    """
    filled = {split: frame for split, frame in frames.items() if len(frame)}  # `split_up` refuses empty splits
    keys = {split: [normalised(text) for text in frame["text"]] for split, frame in filled.items()}
    for split, kept in staying(keys, "texts", place, notes).items():
        if len(kept) < len(frames[split]):
            frames[split] = frames[split].iloc[kept].reset_index(drop=True)


def normalised(text: str) -> str:
    """A text without differences of capitals, white space and Unicode composition; equal results are duplicates."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
