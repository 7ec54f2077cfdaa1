"""Removes samples that several splits hold, by one rule for every kind of data."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol, Self, TypeVar

import numpy as np

from trainables.base.errors import InputError


class _Samples(Protocol):
    def take(self, indices: np.ndarray, /) -> Self:
        """The samples at these positions."""
        ...


Part = TypeVar("Part", bound=_Samples)


def without_copies(
    parts: Mapping[str, Part], keys: Mapping[str, Sequence[Hashable]], what: str, place: str, notes: list[str]
) -> dict[str, Part]:
    """The splits without the samples that another split holds.

    A model that was trained on a test sample gets too good a figure on it. Therefore:

    1. A sample of train that validation or test holds too leaves train.
    2. A sample of validation that test holds too leaves validation.
    3. Test stays unchanged, so that its figure compares with other figures on the same test set.

    Args:
        parts: the samples by split: `train`, and `val` and `test` if present.
        keys: by split a key of each sample; equal samples have equal keys.
        what: the samples in messages, such as `pictures`.
        notes: receives a sentence on the samples that left a split, and on repeated samples of test.

    Raises:
        InputError: a split would be empty.
    """
    held = {split: set(keys.get(split, ())) for split in ("val", "test")}
    left = dict(parts)
    for split, others, named in (
        ("train", held["val"] | held["test"], "val or test hold"),
        ("val", held["test"], "test holds"),
    ):
        stay = [position for position, key in enumerate(keys.get(split, ())) if key not in others]
        copies = len(keys.get(split, ())) - len(stay)
        if not copies:
            continue
        if not stay:
            raise InputError(
                f"{place}: {split}: all {copies} {what} are in {'val or test' if split == 'train' else 'test'} too; "
                "leave one of the copies out (a missing split is cut off train)"
            )
        left[split] = parts[split].take(np.array(stay))
        notes.append(f"{split}: {copies} {what} left out that {named} too")
    if again := len(keys.get("test", ())) - len(held["test"]):
        notes.append(f"test: {again} {what} are repeated, and count each time")
    return left
