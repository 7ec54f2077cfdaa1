"""The one policy for samples that several splits hold, for pictures, texts and sequences."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol, Self, TypeVar

import numpy as np

from trainables.base.errors import InputError
from trainables.base.splitting import SPLITS

#: The largest number of examples in a note.
EXAMPLES = 2


class _Samples(Protocol):
    def take(self, indices: np.ndarray, /) -> Self:
        """The samples at these positions."""
        ...


Part = TypeVar("Part", bound=_Samples)
#: By split: a value for each sample.
Column = Mapping[str, Sequence[Hashable]]


def without_copies(
    parts: Mapping[str, Part], keys: Column, what: str, place: str, notes: list[str], labels: Column | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Part]:  # fmt: skip
    """The splits without the samples that another split holds.

    A model that was trained on a test sample gets too good a figure on it. Therefore:

    1. A sample of train that validation or test holds too leaves train.
    2. A sample of validation that test holds too leaves validation.
    3. Test stays unchanged, so that its figure compares with other figures on the same test set.

    The rules need no setting: they depend on the data alone, so that a resumed search gets the same splits.

    Args:
        parts: the samples by split: `train`, and `val` and `test` if present.
        keys: by split a key of each sample; equal samples have equal keys.
        what: the samples in messages, such as `pictures`.
        notes: receives sentences on the samples that left a split, on repeated samples of test, and on equal samples
            with different labels.
        labels: by split the label of each sample; None: labels are not compared.
        names: by split the name of each sample in messages.

    Raises:
        InputError: a split would be empty.
    """
    held = {split: set(keys.get(split, ())) for split in ("val", "test")}
    left = dict(parts)
    for split, others in (("train", ("test", "val")), ("val", ("test",))):
        own = keys.get(split, ())
        copies = dict.fromkeys(others, 0)
        stay = []
        for position, key in enumerate(own):
            holder = next((other for other in others if key in held[other]), None)
            if holder is None:
                stay.append(position)
            else:
                copies[holder] += 1
        if len(stay) == len(own):
            continue
        if not stay:
            raise InputError(
                f"{place}: {split}: all {len(own)} {what} are in {' or '.join(sorted(others, reverse=True))} too; "
                "leave one of the copies out (a missing split is cut off train)"
            )
        left[split] = parts[split].take(np.array(stay))
        for other, count in copies.items():
            if count:
                are, leave = ("is", "leaves") if count == 1 else ("are", "leave")
                notes.append(f"{count:,} of {len(own):,} {what} of {split} {are} also in {other} and {leave} {split}")
    if again := len(keys.get("test", ())) - len(held["test"]):
        repeat = "repeats another one and counts" if again == 1 else "repeat others and count"
        notes.append(f"{again:,} of {len(keys['test']):,} {what} of test {repeat} each time")
    if labels is not None:
        notes += conflicts(keys, labels, what, names or {})
    return left


def conflicts(keys: Column, labels: Column, what: str, names: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence on equal samples with different labels, with examples; empty if there are none.

    Args:
        keys, labels, what, names: as of `without_copies`. A sample without a name is shown by its position.

    >>> conflicts({"train": "aab"}, {"train": [0, 1, 0]}, "texts", {"train": ["x", "y", "z"]})
    ['1 of 2 different texts occurs with different labels, as x (0) and y (1): no model gets all of them right']
    """
    first: dict[Hashable, tuple[Hashable, str]] = {}
    found: dict[Hashable, str] = {}
    for split in (split for split in SPLITS if split in keys):
        for position, (key, label) in enumerate(zip(keys[split], labels[split], strict=True)):
            name = names[split][position] if split in names else f"number {position} of {split}"
            label_before, name_before = first.setdefault(key, (label, name))
            if label != label_before and key not in found:
                found[key] = f"{name_before} ({label_before}) and {name} ({label})"
    if not found:
        return []
    occur = "occurs" if len(found) == 1 else "occur"
    differing = "targets" if all(isinstance(label, float) for label, _ in first.values()) else "labels"
    examples = "; ".join([*found.values()][:EXAMPLES])
    return [
        f"{len(found):,} of {len(first):,} different {what} {occur} with different {differing}, as {examples}: no "
        "model gets all of them right"
    ]
