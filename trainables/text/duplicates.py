"""Which texts are dropped: empty ones, repeated ones, and those of train that validation or test hold too."""

from __future__ import annotations

import unicodedata

import pandas as pd

from trainables.base.copies import staying


def clean(frame: pd.DataFrame, split: str, notes: list[str]) -> pd.DataFrame:
    """Drops empty and repeated texts of a frame with `text` and `label`, and adds a note of how many there were."""
    empty = frame["text"].str.strip() == ""
    if empty.any():
        notes.append(f"{split}: {int(empty.sum())} empty texts left out")
        frame = frame[~empty]
    keys = frame["text"].map(normalised)
    again = keys.duplicated()
    if again.any():
        other = frame.groupby(keys)["label"].nunique()
        notes.append(
            f"{split}: {int(again.sum())} repeated texts left out, the first of each kept"
            + (f"; {n} of them stand there with two labels" if (n := int((other > 1).sum())) else "")
        )
        frame = frame[~again]
    return frame.reset_index(drop=True)


def remove_overlap(frames: dict[str, pd.DataFrame], place: str, notes: list[str]) -> None:
    """Drops the texts that stand in several splits from all but one of them, as `copies.staying` says.

    Raises:
        InputError: nothing is left of a split.
    """
    filled = {split: frame for split, frame in frames.items() if len(frame)}  # others are refused later
    keys = {split: [normalised(text) for text in frame["text"]] for split, frame in filled.items()}
    for split, kept in staying(keys, "texts", place, notes).items():
        if len(kept) < len(frames[split]):
            frames[split] = frames[split].iloc[kept].reset_index(drop=True)


def normalised(text: str) -> str:
    """A text without what makes no other text of it: capitals, kinds of blanks, ways to write one letter."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
