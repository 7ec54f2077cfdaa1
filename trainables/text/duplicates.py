"""Which texts are dropped: empty ones, repeated ones, and those of train that validation or test hold too."""

from __future__ import annotations

import pandas as pd


def clean(frame: pd.DataFrame, split: str, notes: list[str]) -> pd.DataFrame:
    """Drops empty and repeated texts of a frame with `text` and `label`, and adds a note of how many there were."""
    empty = frame["text"].str.strip() == ""
    if empty.any():
        notes.append(f"{split}: {int(empty.sum())} empty texts left out")
        frame = frame[~empty]
    again = frame.duplicated("text")
    if again.any():
        other = frame.groupby("text")["label"].nunique()
        notes.append(
            f"{split}: {int(again.sum())} repeated texts left out, the first of each kept"
            + (f"; {n} of them stand there with two labels" if (n := int((other > 1).sum())) else "")
        )
        frame = frame[~again]
    return frame.reset_index(drop=True)


def remove_overlap(frames: dict[str, pd.DataFrame], notes: list[str]) -> None:
    """Drops from train the texts that validation or test hold too, and from validation those that test holds."""
    held = set().union(*(set(frame["text"]) for split, frame in frames.items() if split != "train"))
    both = frames["train"]["text"].isin(held)
    if both.any():
        notes.append(f"train: {int(both.sum())} texts left out that val or test hold too")
        frames["train"] = frames["train"][~both].reset_index(drop=True)
    if "val" in frames and "test" in frames:
        both = frames["val"]["text"].isin(set(frames["test"]["text"]))
        if both.any():
            notes.append(f"val: {int(both.sum())} texts left out that test holds too")
            frames["val"] = frames["val"][~both].reset_index(drop=True)
