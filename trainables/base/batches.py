"""Batches of sample positions, and arrays as tensors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


def shuffled_batches(count: int, batch_size: int) -> list[torch.Tensor]:
    """Batches of the indices 0 to count - 1, in an order drawn from torch's global generator.

    A last batch of one sample is joined to the previous batch: batch normalisation needs two samples.
    """
    order = torch.randperm(count)
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


@dataclass(frozen=True)
class Rows:
    """The positions of a batch's samples in a split, twice.

    Attributes:
        here: on the CPU, to compute shapes without waiting for the device.
        there: on the device, to index tensors.
    """

    here: np.ndarray
    there: torch.Tensor

    def __len__(self) -> int:
        return self.here.shape[-1]

    def chunk(self, parts: int) -> list[Rows]:
        """Cuts the batch into parts."""
        pieces = zip(np.array_split(self.here, parts, -1), self.there.tensor_split(parts, dim=-1), strict=True)
        return [Rows(here, there) for here, there in pieces]


def rows_on(device: torch.device, batches: Sequence[np.ndarray]) -> list[Rows]:
    """Batches of indices (n,) int64 as `Rows`, sent to the device in one transfer."""
    there = torch.from_numpy(np.concatenate(batches)).to(device).split([len(batch) for batch in batches])
    return [Rows(here, part) for here, part in zip(batches, there, strict=True)]


def shuffled_rows(count: int, batch_size: int, device: torch.device) -> list[Rows]:
    """`shuffled_batches` as `Rows`."""
    return rows_on(device, [index.numpy() for index in shuffled_batches(count, batch_size)])


def read_only(array: np.ndarray) -> torch.Tensor:
    """The array as a tensor without a copy. Do not write to it: arrays of Ray's object store are read-only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
