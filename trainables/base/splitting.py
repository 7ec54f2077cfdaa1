"""Cuts validation and test off a training set.

scikit-learn's `train_test_split` refuses a class of one sample, and may draw no sample of a small class: if two classes
have 100 and 2 samples, `test_size=0.1` draws none of the second. Here each class keeps a sample on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from trainables.base.errors import InputError

SPLITS = ("train", "val", "test")
T = TypeVar("T")


@dataclass(frozen=True)
class Splitter:
    """The settings `val_fraction`, `test_fraction` and `split_seed` of a `data` section.

    A fraction is a share of the samples that are left in train: test is cut off first, then validation.
    """

    val_fraction: float
    test_fraction: float
    seed: int

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Splitter:
        """Reads the settings of a `data` section."""
        return cls(data["val_fraction"], data["test_fraction"], data["split_seed"])

    def complete(self, parts: dict[str, T], cut: Callable[[str, T, float], tuple[T, T]]) -> None:
        """Adds the splits that `parts` lacks.

        Args:
            parts: splits by name; `train` is one of them.
            cut: `cut(name, train, fraction)` returns the rest of train and the new split `name`.
        """
        for name, fraction in (("test", self.test_fraction), ("val", self.val_fraction)):
            if name not in parts:
                parts["train"], parts[name] = cut(name, parts["train"], fraction)

    def by_class(
        self, labels: np.ndarray, fraction: float, refuse: Callable[[int, int], InputError | None], classes: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws `fraction` of every class, at least one sample of each, and leaves at least one.

        Args:
            labels: indices of the classes, (n,).
            refuse: for a class (index, number of samples) with fewer than two samples the error to raise, or None to
                leave its sample in train.

        Returns:
            The positions that stay, and those that were drawn, in ascending order.
        """
        rng = np.random.default_rng(self.seed)
        drawn = np.zeros(len(labels), dtype=bool)
        for code in range(classes):
            members = np.flatnonzero(labels == code)
            if len(members) < 2:
                if (error := refuse(code, len(members))) is not None:
                    raise error
                continue
            drawn[rng.permutation(members)[: _share(fraction, len(members))]] = True
        return np.flatnonzero(~drawn), np.flatnonzero(drawn)

    def by_group(self, groups: Sequence[Any] | np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
        """Draws `fraction` of the groups; samples of one group stay together.

        Args:
            groups: the group of each sample, (n,), at least two different ones.

        Returns:
            As `by_class`.
        """
        names = np.unique(groups)
        shuffled = np.random.default_rng(self.seed).permutation(names)
        drawn = np.isin(groups, shuffled[: _share(fraction, len(names))])
        return np.flatnonzero(~drawn), np.flatnonzero(drawn)


def _share(fraction: float, count: int) -> int:
    """A fraction of `count`, at least 1 and at most `count` - 1."""
    return min(max(1, round(fraction * count)), count - 1)
