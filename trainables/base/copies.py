"""Removes samples that several splits hold, by one rule for every kind of data."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from trainables.base.errors import InputError


def staying(
    keys: Mapping[str, Sequence[Hashable]], what: str, place: str, notes: list[str]
) -> dict[str, np.ndarray]:  # fmt: skip
    """The positions (k,) of the samples that stay in each split, in ascending order.

    A model that was trained on a test sample gets too good a figure on it. Therefore:

    1. A sample of train that validation or test holds too leaves train.
    2. A sample of validation that test holds too leaves validation.
    3. Test stays unchanged, so that its figure compares with other figures on the same test set.

    Args:
        keys: by split (`train`, and `val` and `test` if present) a key of each sample; equal samples have equal keys.
        what: the samples in messages, such as `pictures`.
        notes: receives a sentence on the samples that left a split, and on repeated samples of test.

    Raises:
        InputError: a split would be empty.
    """
    held = {split: set(keys.get(split, ())) for split in ("val", "test")}
    kept = {split: np.arange(len(samples)) for split, samples in keys.items()}
    for split, others, named in (
        ("train", held["val"] | held["test"], "val or test hold"),
        ("val", held["test"], "test holds"),
    ):
        if split not in keys or not others:
            continue
        kept[split] = np.array([i for i, key in enumerate(keys[split]) if key not in others], dtype=np.int64)
        left = len(keys[split]) - len(kept[split])
        if left == len(keys[split]):
            raise InputError(
                f"{place}: {split}: all {left} {what} stand in {'val or test' if split == 'train' else 'test'} too; "
                "leave one of the copies out (a missing split is cut off train)"
            )
        if left:
            notes.append(f"{split}: {left} {what} left out that {named} too")
    if again := len(keys.get("test", ())) - len(held["test"]):
        notes.append(f"test: {again} {what} stand there a second time, and count each time")
    return kept
