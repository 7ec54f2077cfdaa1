"""Compares the variants of a search by their repeats: figures, a paragraph and pictures."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from search.core.readable import Grid, figure
from search.core.space import Plain
from search.core.state import Repeat
from search.final.finalist_comparison import estimate
from trainables import Objective
from trainables.base.plots import new_figure, save_figure

#: A training is near its best validation objective within this share of it. A convention; it decides nothing.
NEAR = 0.05
#: Number of bins of the picture of errors.
BINS = 8


def variant_figures(repeats: Iterable[Repeat], objective: Objective) -> pd.DataFrame:
    """A row for each variant, the best mean test objective first. Seeds that diverged are left out.

    Columns:
        `test`: mean over seeds. `low`, `high`: its 95 % interval by Student's t; it counts the spread of the seeds and
        not the spread of the test set. `epochs_to_near`: mean of the first epoch within 5 % of the best validation
        objective. `gap_at_best`, `gap_at_end`: by how much validation is worse than training. `parameters`: number of
        parameters. `seconds`: training with one seed; of seeds that train as one model, the share of one seed.
        `seeds`: number of seeds. `trial`: its number. `test_*`: means of the other metrics. `val_METRIC/PART`: means
        of metrics that the task measures for each of several parts.
    """
    done = pd.DataFrame([_row(r, objective) for r in repeats if r.test])
    if done.empty:
        return done
    rows = {}
    for value, group in done.groupby("value", sort=False):
        interval = estimate(group["test"].to_numpy())
        means = group.drop(columns=["value"]).mean()
        rows[value] = {
            "test": means["test"], "low": interval.low, "high": interval.high,
            "epochs_to_near": means["epochs_to_near"],
            "gap_at_best": means["gap_at_best"], "gap_at_end": means["gap_at_end"],
            "parameters": int(means["parameters"]), "seconds": means["seconds"], "seeds": len(group),
            "trial": int(means["trial"]),
            **{key: means[key] for key in means.index if key.startswith(("test_", "val_"))},
        }  # fmt: skip
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.sort_values("test", ascending=objective.mode == "min", kind="stable")


def _row(repeat: Repeat, objective: Objective) -> dict[str, Plain]:
    val = {epoch: objective.val_loss(metrics) for epoch, metrics in repeat.curve.items()}
    best, at_best = val[repeat.best_epoch], repeat.curve[repeat.best_epoch]
    assert repeat.test is not None
    return {
        "value": repeat.value,
        "test": repeat.test[objective.metric],
        "epochs_to_near": min(e for e, loss in val.items() if loss <= best + NEAR * abs(best)),
        "gap_at_best": _gap(at_best, objective),
        "gap_at_end": _gap(repeat.curve[max(val)], objective),
        "parameters": repeat.parameters,
        "seconds": sum(metrics["epoch_seconds"] for metrics in repeat.curve.values()),
        "trial": repeat.trial,
        **{f"test_{key}": value for key, value in repeat.test.items() if key != objective.metric},
        **{key: value for key, value in at_best.items() if key.startswith("val_") and "/" in key},
    }


def _gap(metrics: dict[str, float], objective: Objective) -> float:
    """Validation minus training, in the objective, or in the loss if training does not measure the objective.

    NaN if the training measures neither, as a function may do.
    """
    measured = objective if f"train_{objective.metric}" in metrics else Objective("loss", "min")
    val, train = metrics.get(measured.key, math.nan), metrics.get(f"train_{measured.metric}", math.nan)
    return measured.loss(val) - measured.loss(train)


def apart(one: pd.Series, other: pd.Series) -> bool:
    """Whether two rows' intervals do not touch."""
    return bool(one["high"] < other["low"] or other["high"] < one["low"])


def variant_grids(frame: pd.DataFrame, name: str) -> list[Grid]:
    """A table with the figures of the variants, and a second table if the task measures several parts."""
    heads = [name, "test", "95 % interval", "epochs to 5 %", "gap at best", "gap at end", "parameters", "seconds"]
    rows = [
        [
            str(value), figure(row["test"]), f"{figure(row['low'])} to {figure(row['high'])}",
            f"{row['epochs_to_near']:.1f}", figure(row["gap_at_best"]), figure(row["gap_at_end"]),
            f"{row['parameters']:.0f}", f"{row['seconds']:.1f}",
        ]
        for value, row in frame.iterrows()
    ]  # fmt: skip
    parts = [str(column) for column in frame.columns if str(column).startswith("val_")]
    scores = [[str(value), *map(figure, row)] for value, row in frame[parts].iterrows()] if parts else []
    return [Grid(heads, rows), *([Grid([name, *parts], scores)] if parts else [])]


def variants_paragraph(frame: pd.DataFrame, name: str, objective: Objective) -> str:
    """A paragraph about the rows of `variant_figures`."""
    first = frame.iloc[0]
    seeds = f"{first['seeds']:.0f} seeds"
    metric = objective.test_key
    sentences = [
        f"Over {seeds}, {name} {frame.index[0]} has the best {metric}: {figure(first['test'])} "
        f"(95 % interval {figure(first['low'])} to {figure(first['high'])})."
    ]
    for value, row in frame.iloc[1:].iterrows():
        change = abs(row["test"] - first["test"]) / abs(first["test"]) if first["test"] else float("nan")
        verdict = (
            "the intervals do not touch, so the seed does not explain the difference"
            if apart(first, row)
            else "the intervals overlap, so this comparison does not tell the two apart"
        )
        share = f"{change:.0%}" if change >= 0.1 else f"{change:.1%}"
        sentences.append(f"{value} is at {figure(row['test'])}, {share} worse; {verdict}.")
    quick, slow = frame["epochs_to_near"].idxmin(), frame["epochs_to_near"].idxmax()
    if frame.at[quick, "epochs_to_near"] < frame.at[slow, "epochs_to_near"]:
        sentences.append(
            f"{quick} comes within {NEAR:.0%} of its best {objective.key} first, after "
            f"{frame.at[quick, 'epochs_to_near']:.1f} epochs on average; {slow} needs "
            f"{frame.at[slow, 'epochs_to_near']:.1f}."
        )
    if frame["gap_at_end"].notna().any():
        wide = frame["gap_at_end"].idxmax()
        sentences.append(
            f"The widest gap between training and validation at the end is that of {wide} "
            f"({figure(frame.at[wide, 'gap_at_end'])}, after {figure(frame.at[wide, 'gap_at_best'])} at its best "
            "epoch)."
        )
    small, large = frame["parameters"].idxmin(), frame["parameters"].idxmax()
    if frame.at[small, "parameters"] < frame.at[large, "parameters"]:
        times = frame.at[large, "parameters"] / frame.at[small, "parameters"]
        sentences.append(f"{large} has {times:.3g} times the parameters of {small}.")
    return " ".join(sentences)


def write_variant_comparison(
    folder: Path, repeats: list[Repeat], errors: dict[tuple[Plain, int], pd.DataFrame], name: str, objective: Objective
) -> None:
    """Writes `comparison.csv`, `comparison.md`, `learning_curves.png` and, if `errors` is not empty, `errors.png`."""
    frame = variant_figures(repeats, objective)
    if frame.empty:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    frame.to_csv(folder / "comparison.csv", index_label=name)
    lines = [f"# {name} compared by {objective.test_key}", ""]
    for grid in variant_grids(frame, name):
        lines += [*grid.markdown(), ""]
    (folder / "comparison.md").write_text("\n".join([*lines, variants_paragraph(frame, name, objective), ""]))
    _learning_curves(folder / "learning_curves.png", repeats, objective)
    if errors:
        _errors(folder / "errors.png", errors)


def _learning_curves(path: Path, repeats: list[Repeat], objective: Objective) -> None:
    """Draws means over seeds of validation (full lines) and training (dashed), with the range of the seeds."""
    figure = new_figure(8, 5)
    axes = figure.subplots()
    for position, value in enumerate(dict.fromkeys(r.value for r in repeats)):
        curves = [r.curve for r in repeats if r.value == value and r.test]
        if not curves:
            continue
        colour, epochs = f"C{position}", sorted(curves[0])
        for split, style in (("val", "-"), ("train", "--")):
            if f"{split}_{objective.metric}" not in curves[0][epochs[0]]:
                continue
            values = np.array([[c[e][f"{split}_{objective.metric}"] for e in epochs] for c in curves])
            axes.plot(epochs, values.mean(0), style, color=colour, label=f"{value}, {split}")
            axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.12, linewidth=0)
    axes.set(xlabel="epoch", ylabel=objective.metric)
    axes.legend()
    save_figure(figure, path)


def _errors(path: Path, errors: dict[tuple[Plain, int], pd.DataFrame]) -> None:
    """Draws the mean error of the test samples against the first column of `Traced.errors`, in bins of equal counts."""
    figure = new_figure(8, 5)
    axes = figure.subplots()
    along, error = next(iter(errors.values())).columns
    for position, value in enumerate(dict.fromkeys(value for value, _ in errors)):
        together = pd.concat([frame for (of, _), frame in errors.items() if of == value])
        bins = pd.qcut(together[along], BINS, duplicates="drop")
        means = together.groupby(bins, observed=True).mean()
        axes.plot(means[along], means[error], "o-", color=f"C{position}", label=str(value))
    axes.set(xlabel=along, ylabel=error, title="test, mean over seeds")
    axes.legend()
    save_figure(figure, path)
