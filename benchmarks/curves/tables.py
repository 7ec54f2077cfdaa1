"""Tasks whose trainings are recorded: what each configuration would have shown after each epoch."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from search.algorithms.encoding import Encoding
from search.config.space import Space, parse_space

CURVES = Path(__file__).parents[3] / "shared" / "data" / "curves"
#: Epochs of a complete training, which the points of the recorded curves are taken for.
EPOCHS = 24
Array = NDArray[np.float64]


class Draws(Protocol):
    """The configurations of a table during one search."""

    def take(self, params: dict[str, Any]) -> tuple[dict[str, Any], Array]:
        """The configuration that stands for `params`, and its curve of losses (EPOCHS,), NaN where it diverged."""
        ...


@dataclass(frozen=True)
class Table:
    """A recorded task; `begin` starts a search over it."""

    family: str
    name: str
    space: dict[str, Any]
    begin: Callable[[], Draws]

    def parsed(self) -> Space:
        return parse_space(self.space, self.name)


class Listed:
    """A finite number of configurations; one that is asked for is the nearest that was not taken yet."""

    def __init__(self, encoding: Encoding, units: Array, configurations: list[dict[str, Any]], curves: Array) -> None:
        self._encoding, self._units = encoding, units
        self._configurations, self._curves = configurations, curves
        self._taken = np.zeros(len(units), dtype=bool)

    def take(self, params: dict[str, Any]) -> tuple[dict[str, Any], Array]:
        distance = ((self._units - self._encoding.row(params)) ** 2).sum(1)
        index = int(np.where(self._taken, np.inf, distance).argmin())
        self._taken[index] = True
        return self._configurations[index], self._curves[index]


class Surrogate:
    """LCBench's network on one data set: a smooth model of recorded trainings, for any configuration."""

    def __init__(self, session: Any, task: int) -> None:
        self._session, self._task = session, task

    def take(self, params: dict[str, Any]) -> tuple[dict[str, Any], Array]:
        epochs = np.round(52 * np.arange(1, EPOCHS + 1) / EPOCHS)
        fixed = [round(params["batch_size"]), params["learning_rate"], params["momentum"], params["weight_decay"],
                 params["num_layers"], round(params["max_units"]), params["max_dropout"]]  # fmt: skip
        rows = np.column_stack([epochs, *(np.full(EPOCHS, value) for value in fixed)]).astype(np.float32)
        inputs = {"x_cat": np.full((EPOCHS, 1), self._task, np.int32), "x_cont": rows}
        return params, -self._session.run(None, inputs)[0][:, BALANCED].astype(float)


#: Among the surrogate's outputs: validation balanced accuracy, in per cent.
BALANCED = 3


def taskset() -> list[Table]:
    """Twelve recurrent text classifiers, 1,000 recorded configurations of Adam each (Metz et al. 2020)."""
    tables = []
    for path in sorted((CURVES / "taskset").glob("*.json.gz")):
        with gzip.open(path) as file:
            entries = json.load(file)
        names = sorted(entries[0]["hp"])
        # Momenta are searched by their distance from 1, as everybody does.
        shown = [{k: 1 - v if k.startswith("beta") else v for k, v in entry["hp"].items()} for entry in entries]
        space: dict[str, Any] = {
            name: {"loguniform": [min(one[name] for one in shown), max(one[name] for one in shown)]} for name in names
        }
        encoding = Encoding(parse_space(space, path.name))
        points = np.round(50 * np.arange(1, EPOCHS + 1) / EPOCHS).astype(int)
        curves = np.array([np.array(entry["valid"]["loss"], float)[points] for entry in entries])
        curves[~np.isfinite(curves)] = np.nan
        units = np.array([encoding.row(one) for one in shown])
        begin = partial(Listed, encoding, units, shown, curves)
        tables.append(Table("taskset", path.name.split("_", 2)[2].removesuffix(".json.gz"), space, begin))
    return tables


def lcbench() -> list[Table]:
    """34 tabular data sets, a network of seven hyperparameters (Zimmer et al. 2021), by a surrogate (Pfisterer et al.
    2022)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(CURVES / "lcbench" / "model.onnx", options)
    space = {
        "batch_size": {"loguniform": [16, 512]},
        "learning_rate": {"loguniform": [1e-4, 1e-1]},
        "momentum": {"uniform": [0.1, 0.99]},
        "weight_decay": {"uniform": [1e-5, 1e-1]},
        "num_layers": {"int": [1, 5]},
        "max_units": {"loguniform": [64, 1024]},
        "max_dropout": {"uniform": [0.0, 1.0]},
    }
    codes = json.loads((CURVES / "lcbench" / "encoding.json").read_text())["OpenML_task_id"]
    return [
        Table("lcbench", name, space, lambda code=code: Surrogate(session, code))  # type: ignore[misc]
        for name, code in codes.items() if not name.startswith("#")
    ]  # fmt: skip
