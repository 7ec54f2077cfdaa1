"""Writes tables and pictures of a text classifier: scores, curves, mistakes, samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from trainables.base import plots
from trainables.base.classifiers import write_reports
from trainables.text.batches import EncodedSplit

#: The numbers of mistakes and of random samples that are written.
MISTAKES, SAMPLES = 20, 10
#: The number of bins of equal width of the calibration curve.
BINS = 10


def write(
    split: EncodedSplit, predicted: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...], positive: int,
    folder: Path,
) -> None:  # fmt: skip
    """Writes into `folder`: confusion matrix, scores of each class, predictions, the most confident mistakes, samples,
    calibration and, for two classes, the precision-recall curve of the class `positive`."""
    table = write_reports({"text": split.texts}, split.labels, probabilities, predicted, classes, folder)
    wrong = table[table["class"] != table["predicted"]]
    wrong.nlargest(MISTAKES, "probability").to_csv(folder / "mistakes.csv", index=False)
    chosen = np.random.default_rng(0).choice(len(table), min(SAMPLES, len(table)), replace=False)
    lines = [
        f'"{row["text"]}" was predicted to be class {row["predicted"]} and is class {row["class"]}'
        for _, row in table.iloc[chosen].iterrows()
    ]
    (folder / "samples.txt").write_text("\n".join(lines) + "\n")
    _calibration(split.labels, probabilities, folder)
    if len(classes) == 2:
        _precision_recall(split.labels == positive, probabilities[:, positive], classes[positive], folder)


def _calibration(labels: np.ndarray, probabilities: np.ndarray, folder: Path) -> None:
    """Draws the accuracy of the predicted class against its probability, with the expected calibration error (Guo et
    al. 2017, arXiv:1706.04599). scikit-learn's `calibration_curve` gives no sizes of bins, which the error needs."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    table = pd.DataFrame(
        {"bin": np.minimum((confidence * BINS).astype(int), BINS - 1), "p": confidence, "right": right}
    )
    bins = table.groupby("bin").agg(confidence=("p", "mean"), accuracy=("right", "mean"), texts=("right", "size"))
    error = float(((bins["accuracy"] - bins["confidence"]).abs() * bins["texts"]).sum() / len(table))
    bins.to_csv(folder / "calibration.csv", index=False)
    figure = plots.new_figure(5, 5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey")
    axes.plot(bins["confidence"], bins["accuracy"], "o-")
    axes.set(xlabel="probability of the predicted class", ylabel="how often it is right", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"expected calibration error {error:.3f}")
    plots.save_figure(figure, folder / "calibration.png")


def _precision_recall(truth: np.ndarray, probabilities: np.ndarray, name: str, folder: Path) -> None:
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(truth, probabilities)
    columns = {"threshold": [*thresholds, 1.0], "precision": precision, "recall": recall}
    pd.DataFrame(columns).to_csv(folder / "precision_recall.csv", index=False)
    figure = plots.new_figure(5, 5)
    axes = figure.subplots()
    axes.step(recall, precision, where="post")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title=f"class {name}")
    plots.save_figure(figure, folder / "precision_recall.png")
