"""Rows of different lengths in one array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """`flat` (sum of lengths, ...): row i is `flat[starts[i]:starts[i + 1]]`; `starts` (rows + 1,) int64."""

    flat: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """The length of each row, (rows,)."""
        return np.diff(self.starts)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.flat[self.starts[row] : self.starts[row + 1]]

    def padded(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows, padded with 0 (rows, longest, ...), and a mask that is true on content."""
        lengths = self.lengths[rows]
        steps = np.arange(lengths.max())
        mask = steps < lengths[:, None]
        positions = self.starts[rows][:, None] + steps
        values = self.flat[np.minimum(positions, len(self.flat) - 1)]
        values[~mask] = 0
        return values, mask

    def filled(self, length: int, fill: int) -> Ragged:
        """The same rows, each padded at its end to `length`; the padding then counts as content."""
        values = np.full((len(self), length, *self.flat.shape[1:]), fill, dtype=self.flat.dtype)
        values[np.arange(length) < self.lengths[:, None]] = self.flat
        return Ragged(values.reshape(-1, *self.flat.shape[1:]), np.arange(len(self) + 1) * length)


def join(first: Ragged, second: Ragged) -> Ragged:
    """The rows of `first`, followed by the rows of `second`."""
    starts = np.concatenate([first.starts, first.starts[-1] + second.starts[1:]])
    return Ragged(np.concatenate([first.flat, second.flat]), starts)
