"""Which samples stay where several splits hold the same: one policy for every kind of data."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from trainables.base.errors import InputError


def staying(
    keys: Mapping[str, Sequence[Hashable]], what: str, place: str, notes: list[str]
) -> dict[str, np.ndarray]:  # fmt: skip
    """The positions (k,) of the samples that stay in each split, in their order.

    A figure on a sample that was trained on flatters. Samples of train that validation or test hold too leave train,
    and samples of validation that test holds too leave validation. Test stays as it is, so that its figure can be
    compared with others on the same test set.

    Args:
        keys: by split (`train`, and `val` and `test` if they are given), what is equal for equal samples.
        what: the samples in messages, such as `pictures`.
        notes: gets a sentence on what left a split, and on what test holds several times.

    Raises:
        InputError: nothing is left of a split.
    """
    held = {split: set(keys.get(split, ())) for split in ("val", "test")}
    kept = {split: np.arange(len(some)) for split, some in keys.items()}
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
                "leave one of the copies out (a split that is not given is cut off train)"
            )
        if left:
            notes.append(f"{split}: {left} {what} left out that {named} too")
    if again := len(keys.get("test", ())) - len(held["test"]):
        notes.append(f"test: {again} {what} stand there a second time, and count each time")
    return kept
