"""Findings about a data set, and the tables and histograms that several tasks show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from trainables.base import plots
from trainables.base.splitting import SPLITS
from trainables.base.task import Splits

#: The largest number of rows of a finding's table.
SHOWN = 50
#: A warning appears if train holds more than this share of a split. Short texts reach this share by chance, and a
#: figure that is too good by a hundredth changes no decision.
CHANCE = 0.01


@dataclass(frozen=True)
class Finding:
    """One fact about the data.

    Attributes:
        title: a heading.
        words: the fact and its consequences.
        table: rows to show beside the words; None for none.
        picture: a PNG; empty for none.
        warning: one line for the terminal if the fact makes figures on validation or test unreliable; else empty.
        note: one line that names samples of validation or test that nearly equal samples of train, with examples; empty
            if there are none, or if `warning` names them.
    """

    title: str
    words: str
    table: pd.DataFrame | None = None
    picture: bytes = b""
    warning: str = ""
    note: str = ""

    @property
    def line(self) -> str:
        """The warning or the note; empty without both."""
        return self.warning or self.note


def near_copies(fact: str, examples: Sequence[str], doubtful: bool) -> tuple[str, str]:
    """The `warning` and the `note` of a finding about near-copies, which stay in their splits. One of them is empty.

    Args:
        fact: their number, such as `3 of 402 pictures of test look like one of train`.
        examples: pairs of near-copies; the first two are named.
        doubtful: whether they are so many that figures on the split are unreliable.
    """
    named = f"{fact}, as {'; '.join(examples[:2])}" if examples else fact
    return (f"{named}: its figures flatter", "") if doubtful else ("", f"{named}; they stay")


def classes_found(splits: Splits) -> Finding:
    """Counts the samples of each class in each split; the splits have `labels` (n,)."""
    names = list(splits.info.classes)
    counts = {part: np.bincount(getattr(splits, part).labels, minlength=len(names)) for part in SPLITS}
    table = pd.DataFrame({"class": names, **counts})
    most, least = int(counts["train"].max()), int(counts["train"].min())
    words = f"The most frequent class of train has {most} samples, the rarest {least}."
    if most > 5 * least:
        words += " A model with a high accuracy may still fail on the rare classes; see the figures of each class."
    return Finding("Classes", words, table)


def histograms(values: dict[str, Sequence[float] | np.ndarray], label: str) -> bytes:
    """Draws the distribution of a quantity in each split into one PNG."""
    figure = plots.new_figure(9, 3)
    axes = figure.subplots()
    pooled = np.concatenate([np.asarray(numbers, dtype=float) for numbers in values.values()])
    bins = np.histogram_bin_edges(pooled, bins=min(40, max(1, len(np.unique(pooled)))))
    for name, numbers in values.items():
        axes.hist(numbers, bins=bins.tolist(), density=True, histtype="step", label=name)
    axes.set(xlabel=label, ylabel="density")
    axes.legend()
    return plots.as_png(figure)


def run_hashes(codes: np.ndarray, length: int) -> np.ndarray:
    """A hash, uint64 (n - length + 1,), of each run of `length` consecutive whole numbers `codes` (n,).

    The hash is the sum of (code + 1) * factor over the run, modulo 2^64; each position has its own odd factor.
    """
    if len(codes) < length:
        return np.zeros(0, dtype=np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**63, length, dtype=np.uint64) | np.uint64(1)
    runs = np.lib.stride_tricks.sliding_window_view(codes.astype(np.uint64) + np.uint64(1), length)
    return runs @ factors


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` positions out of `count`, evenly spaced. The result is the same in each call."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)
