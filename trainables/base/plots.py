"""Pictures and tables of predictions that several tasks write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """A figure of `width` by `height` inches, without pyplot: it works in any thread and needs no display."""
    from matplotlib.figure import Figure  # imported here: every worker imports this module, and few draw

    return Figure(figsize=(width, height))


def save_figure(figure: Figure, path: Path | BinaryIO) -> None:
    """Writes a figure: to a path in the format of its suffix, to an open file as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def classification(truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str], folder: Path) -> None:
    """Writes `confusion_matrix.{csv,png}` and `per_class.{csv,png}` (precision, recall, F1, support).

    Args:
        truth, predicted: indices of the classes, (n,).
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    labels = list(range(len(classes)))
    matrix = confusion_matrix(truth, predicted, labels=labels)
    pd.DataFrame(matrix, index=list(classes), columns=list(classes)).to_csv(
        folder / "confusion_matrix.csv", index_label="true \\ predicted"
    )
    side = max(4.0, 0.9 * len(classes) + 2)
    figure = new_figure(side, side)
    axes = figure.subplots()
    axes.imshow(matrix, cmap="Blues")
    for row in labels:
        for column in labels:
            shade = "white" if matrix[row, column] > matrix.max() / 2 else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=shade)
    axes.set_xticks(labels, list(classes), rotation=45, ha="right")
    axes.set_yticks(labels, list(classes))
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    save_figure(figure, folder / "confusion_matrix.png")

    scores = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    table = pd.DataFrame(dict(zip(("precision", "recall", "f1", "support"), scores, strict=True)), index=list(classes))
    table.to_csv(folder / "per_class.csv", index_label="class")
    figure = new_figure(1.6 * len(classes) + 2, 3.5)
    axes = figure.subplots()
    for offset, score in enumerate(("precision", "recall", "f1")):
        axes.bar(np.arange(len(classes)) + 0.27 * (offset - 1), table[score], width=0.25, label=score)
    axes.set_xticks(labels, list(classes), rotation=20, ha="right")
    axes.set_ylim(0, 1)
    axes.legend(ncols=3, loc="lower right")
    save_figure(figure, folder / "per_class.png")


def picture_grid(
    images: np.ndarray, captions: Sequence[str], path: Path | BinaryIO, title: str, columns: int = 5
) -> None:
    """Writes pictures uint8 (n, 3, h, w), each with a caption, as one picture; writes no file if n is 0."""
    if not len(images):
        return
    rows = -(-len(images) // columns)
    figure = new_figure(2.4 * columns, 2.8 * rows)
    for position, (image, caption) in enumerate(zip(images, captions, strict=True), 1):
        axes = figure.add_subplot(rows, columns, position)
        axes.imshow(image.transpose(1, 2, 0))
        axes.set_title(caption, fontsize=7)
        axes.axis("off")
    figure.suptitle(title)
    save_figure(figure, path)
