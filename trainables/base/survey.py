"""What a look at a data set shows, before anything is trained on it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from trainables.base import plots
from trainables.base.task import Splits

SPLITS = ("train", "val", "test")
#: Rows of a table that a person reads.
SHOWN = 50


@dataclass(frozen=True)
class Finding:
    """Something that a person should know of the data.

    Attributes:
        title: a heading.
        words: what is shown, and what follows from it.
        table: rows to show beside the words; None for none.
        picture: a PNG to show; empty for none.
        warning: one line for the terminal, where figures on validation or test cannot be trusted because of it.
    """

    title: str
    words: str
    table: pd.DataFrame | None = None
    picture: bytes = b""
    warning: str = ""


@runtime_checkable
class Surveyed(Protocol):
    """For a task that looks its data over before anything is trained on it."""

    def leaks(self, splits: Splits) -> list[Finding]:
        """What validation and test share with train beyond chance, so that figures on them flatter; in seconds."""
        ...

    def overview(self, splits: Splits) -> list[Finding]:
        """What the data is: classes, lengths, examples, ..."""
        ...


def drawn(write: Callable[[BinaryIO], None]) -> bytes:
    """The PNG that a function writes into an open file."""
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def classes_found(splits: Splits) -> Finding:
    """How many samples of each class each split holds; the splits have `labels` (n,)."""
    names = list(splits.info.classes)
    counts = {part: np.bincount(getattr(splits, part).labels, minlength=len(names)) for part in SPLITS}
    table = pd.DataFrame({"class": names, **counts})
    most, least = int(counts["train"].max()), int(counts["train"].min())
    words = f"The most frequent class of train has {most} samples, the rarest {least}."
    if most > 5 * least:
        words += " What is right most often may still be wrong on the rare classes; look at the figures of each class."
    return Finding("Classes", words, table)


def histograms(values: dict[str, Sequence[float] | np.ndarray], label: str) -> bytes:
    """The distributions of a quantity in each split, beside each other, as a PNG."""
    figure = plots.new_figure(9, 3)
    axes = figure.subplots()
    everything = np.concatenate([np.asarray(some, dtype=float) for some in values.values()])
    bins = np.histogram_bin_edges(everything, bins=min(40, max(1, len(np.unique(everything)))))
    for name, some in values.items():
        axes.hist(some, bins=bins.tolist(), density=True, histtype="step", label=name)
    axes.set(xlabel=label, ylabel="density")
    axes.legend()
    return drawn(lambda file: plots.save_figure(figure, file))


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` positions out of `count`, evenly spaced: the same ones each time."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)
