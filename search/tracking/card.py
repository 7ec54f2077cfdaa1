"""Writes the card of a registered model: its data, how it was found, its test figures, its limits, its use."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from search.core.config import SearchConfig
from search.core.readable import figure
from search.core.record import SearchRecord
from search.core.redaction import redacted
from search.core.state import SearchState
from search.core.store import SearchFolder
from search.final.finalist_comparison import LEVEL, resample
from search.reports.summary import tally
from trainables import Bootstrapped, DataInfo, get_task
from trainables.base import onnx_file

#: The file of an exported model with lines of Python that use it without this project.
USAGE = "usage.py"
_PYFUNC = """\
import mlflow

mlflow.set_tracking_uri("{uri}")
model = mlflow.pyfunc.load_model("runs:/{run}/model")
print(model.predict(frame))  # a pandas DataFrame: {columns}"""


_NATIVE = """\
import mlflow.{flavor}

mlflow.set_tracking_uri("{uri}")
model = mlflow.{flavor}.load_model("runs:/{run}/model")"""


def write_card(
    folder: SearchFolder, config: SearchConfig, record: SearchRecord, info: DataInfo, state: SearchState,
    number: int, tracking_uri: str, run_id: str,
) -> str:  # fmt: skip
    """Writes `model_card.md` beside a tested final model, and returns it.

    Args:
        number: of the trial whose configuration the model has.
        run_id: of the final run in MLflow.
    """
    task, final, trial = get_task(config.task), state.finals[number, 0], state.trials[number]
    files, metric, unit = folder.final(final), state.objective.metric, config.search.unit
    assert final.test is not None  # only tested models are registered
    searched = {p.name for p in config.space.parameters if p.searched}
    params = {key: value for key, value in final.params.items() if value is not None}
    sizes = ", ".join(f"{count} {name}" for name, count in info.sizes.items())
    made = time.strftime("%Y-%m-%d", time.localtime(record.created / 1000))
    trained = "train and validation" if final.merged else "train alone"
    if config.is_own_program and final.merged:
        trained = "what the program chose for its final training"
    where = f", on {info.sizes.get('test', 'the')} test samples that chose nothing" if final.tested else ""
    test = "not tested"
    if final.tested:
        test = f"{state.objective.test_key} {figure(final.test[metric])}{_interval(task, files)}"
    others = [f"test_{key} {figure(value)}" for key, value in final.test.items() if key != metric and "/" not in key]
    lines = [
        f"# {config.task}: the model of the search {folder.name}",
        "",
        f"{test}{where}.",
        "",
        "## Data",
        "",
        f"- {redacted(info.source)} ({sizes}), fingerprint `{info.fingerprint}`",
        *([f"- classes: {', '.join(info.classes)}"] if info.classes else []),
        *(f"- {note}" for note in info.notes),
        "",
        "## How it was found",
        "",
        f"- {len(state.trials)} trials ({tally(t.outcome for t in state.trials.values())}), "
        f"{config.search.searcher} and {config.search.scheduler}, seed {config.search.seed}, begun on {made}, "
        f"commit `{record.commit}`",
        f"- trial {number}: {state.objective.key} {figure(trial.best_value)} at {unit.at(trial.best_epoch)}; the best "
        "of many validation figures flatters, so only the test figure counts",
        f"- then trained on {trained} for {unit.count(final.epochs)} with seed 0",
        "",
        "| hyperparameter | value | |",
        "|---|---|---|",
        *(f"| {key} | {value} | {'searched' if key in searched else 'fixed'} |" for key, value in params.items()),
        "",
        "## Test",
        "",
        f"- {test}",
        *([f"- {', '.join(others)}"] if others else []),
        *(f"- baseline {name}: {state.objective.test_key} {figure(value)}" for name, value in final.baselines.items()),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in _limits(folder, state, number)),
        "",
        "## Use",
        "",
    ]
    usage = files / "model" / USAGE
    if usage.exists():
        where = f"searches/{folder.name}/{final.folder}/model"
        lines += [f"In the store's folder `{where}`, with no part of this project:", "", "```python"]
        lines += [*usage.read_text().splitlines(), "```", "", *_onnx(task, files / "model")]
        lines += ["Or by MLflow, which keeps the code with the model:", ""]
    code = _use(files, run_id, redacted(tracking_uri))
    lines += ["```python", *code.splitlines(), "```"]
    card = "\n".join(lines) + "\n"
    (files / "model_card.md").write_text(card)
    return card


def _use(files: Path, run_id: str, uri: str) -> str:
    """Lines of Python that load the registered model and use it."""
    described = files / "model" / "MLmodel"
    for flavor in ("transformers", "pytorch"):  # a model that MLflow saved itself
        if described.exists() and f"\n  {flavor}:" in described.read_text():
            return _NATIVE.format(flavor=flavor, uri=uri, run=run_id)
    example = files / "example.parquet"
    columns = ", ".join(pd.read_parquet(example).columns) if example.exists() else "input"
    return _PYFUNC.format(run=run_id, columns=columns, uri=uri)


def _onnx(task: Any, model: Path) -> list[str]:
    """Lines on the use of `model.onnx`, or on how to get it; empty if the task writes no such file."""
    usage = model / onnx_file.USAGE
    if usage.exists():
        return ["In the same folder, with onnxruntime:", "", "```python", *usage.read_text().splitlines(), "```", ""]
    if not isinstance(task, onnx_file.ConvertedToOnnx):
        return []
    return [
        f"There is no `{onnx_file.FILE}`, as the extra `onnx` was not installed. A final training after "
        f"`{onnx_file.INSTALL}` writes it too.",
        "",
    ]


def _interval(task: Any, files: Path) -> str:
    """The bootstrap interval of the test objective as text; empty if the task is not `Bootstrapped`."""
    units = files / "units.npy"
    if not (isinstance(task, Bootstrapped) and units.exists()):
        return ""
    drawn = resample([np.load(units)], task.objective_of)[0]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return f" [{figure(low)}, {figure(high)}; {LEVEL:.0%}]"


def _limits(folder: SearchFolder, state: SearchState, number: int) -> list[str]:
    """Sentences on other data, on baselines that are better, and on the worst class."""
    final, objective = state.finals[number, 0], state.objective
    test = (final.test or {}).get(objective.metric, math.nan)
    limits = ["The figures hold for data like the test set; nothing was measured on other sources."]
    if worse := [name for name, value in final.baselines.items() if not objective.better(test, value)]:
        limits.append(f"It does NOT beat {', '.join(worse)} on test.")
    scores = folder.final(final) / "artifacts" / "per_class.csv"
    if scores.exists():
        frame = pd.read_csv(scores, keep_default_na=False, dtype={"class": str})
        worst = frame.loc[frame["f1"].idxmin()]
        limits.append(
            f"Its worst class is {worst['class']}: precision {worst['precision']:.2f}, recall {worst['recall']:.2f} on "
            f"{int(worst['support'])} test samples."
        )
    return limits
