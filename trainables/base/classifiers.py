"""Code that the classifiers of pictures and of texts share: class weights, tables and pictures of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from trainables.base import plots


def balanced_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Class weights (classes,) float32 as scikit-learn's `balanced`: n / (classes * count of the class).

    A class without samples gets the weight infinity; scikit-learn raises an error.
    """
    counts = np.bincount(labels, minlength=classes)
    return torch.tensor(len(labels) / (classes * counts), dtype=torch.float32)


def predictions(
    probabilities: np.ndarray, predicted: np.ndarray, classes: Sequence[str], index: pd.Index
) -> pd.DataFrame:
    """A row for each sample: `class`, `probability` of this class, and a column for each class.

    Args:
        probabilities: (n, classes).
        predicted: indices of the classes, (n,).
    """
    best = probabilities[np.arange(len(predicted)), predicted].astype(float)
    table = {"class": [classes[code] for code in predicted], "probability": best}
    return pd.DataFrame(table | dict(zip(classes, probabilities.T.astype(float), strict=True)), index=index)


def write_reports(
    samples: dict[str, Any], truth: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray,
    classes: Sequence[str], folder: Path,
) -> pd.DataFrame:  # fmt: skip
    """Writes the confusion matrix, the scores of each class, and `predictions.csv`, which it returns.

    Args:
        samples: columns that name the samples.
        truth, predicted: indices of the classes, (n,).
        probabilities: (n, classes).
    """
    _confusion_matrix(truth, predicted, classes, folder)
    _per_class(truth, predicted, classes, folder)
    names, rows = np.array(classes, dtype=object), np.arange(len(predicted))
    table = pd.DataFrame({
        **samples, "class": names[truth], "predicted": names[predicted],
        "probability": probabilities[rows, predicted], "of its label": probabilities[rows, truth],
    })  # fmt: skip
    table.to_csv(folder / "predictions.csv", index=False)
    return table


def _confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str], folder: Path) -> None:
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

    matrix = confusion_matrix(truth, predicted, labels=range(len(classes)))
    table = pd.DataFrame(matrix, index=list(classes), columns=list(classes))
    table.to_csv(folder / "confusion_matrix.csv", index_label="true \\ predicted")
    side = max(4.0, 0.9 * len(classes) + 2)
    figure = plots.new_figure(side, side)
    display = ConfusionMatrixDisplay(matrix, display_labels=classes)
    display.plot(ax=figure.subplots(), cmap="Blues", colorbar=False, xticks_rotation=45)
    plots.save_figure(figure, folder / "confusion_matrix.png")


def _per_class(truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str], folder: Path) -> None:
    from sklearn.metrics import precision_recall_fscore_support

    scores = precision_recall_fscore_support(truth, predicted, labels=range(len(classes)), zero_division=0)
    table = pd.DataFrame(dict(zip(("precision", "recall", "f1", "support"), scores, strict=True)), index=list(classes))
    table.to_csv(folder / "per_class.csv", index_label="class")
    figure = plots.new_figure(1.6 * len(classes) + 2, 3.5)
    axes = figure.subplots()
    table[["precision", "recall", "f1"]].plot.bar(ax=axes, rot=20, ylim=(0, 1))
    axes.legend(ncols=3, loc="lower right")
    plots.save_figure(figure, folder / "per_class.png")
