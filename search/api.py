"""What a script or a notebook uses: `search.run(train, space=..., objective=...)` and what it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trainables
from search.config.load import SearchConfig
from search.record.replay import open_search, replay
from search.record.state import SearchState
from search.record.state import Trial as Recorded
from search.record.store import SearchFolder, Store
from trainables import InputError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from trainables.loops.trial import TrainingFunction

Spec = Mapping[str, Any]


def uniform(low: float, high: float, *, prior: float | None = None, when: Spec | None = None) -> dict[str, Any]:
    """A number between two, each as likely.

    Args:
        prior: the value that you would try first.
        when: values of other hyperparameters beside which it exists, such as `{"optimizer": "sgd"}`.

    >>> uniform(0, 0.5)
    {'uniform': [0, 0.5]}
    """
    return _spec({"uniform": [low, high]}, prior, when)


def loguniform(low: float, high: float, *, prior: float | None = None, when: Spec | None = None) -> dict[str, Any]:
    """A number between two, each order of magnitude as likely; arguments as of `uniform`.

    >>> loguniform(1e-4, 1e-1, prior=1e-3)
    {'loguniform': [0.0001, 0.1], 'prior': 0.001}
    """
    return _spec({"loguniform": [low, high]}, prior, when)


def integer(
    low: int, high: int, *, step: int = 1, prior: int | None = None, when: Spec | None = None
) -> dict[str, Any]:
    """A whole number between two, both included; arguments as of `uniform`.

    >>> integer(16, 64, step=16)
    {'int': [16, 64], 'step': 16}
    """
    return _spec({"int": [low, high], **({"step": step} if step != 1 else {})}, prior, when)


def choice(values: Sequence[Any], *, prior: Any = None, when: Spec | None = None) -> dict[str, Any]:
    """One of some plain values; arguments as of `uniform`.

    >>> choice(["sgd", "adamw"])
    {'choice': ['sgd', 'adamw']}
    """
    return _spec({"choice": list(values)}, prior, when)


def _spec(spec: dict[str, Any], prior: Any, when: Spec | None) -> dict[str, Any]:
    return spec | ({"prior": prior} if prior is not None else {}) | ({"when": dict(when)} if when else {})


def run(
    train: TrainingFunction, space: Mapping[str, Any], objective: str, *, name: str | None = None,
    trials: int | None = None, epochs: int | None = None, time_budget: str | None = None, searcher: str | None = None,
    scheduler: str | None = None, concurrency: int | None = None, seed: int | None = None,
    resources: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None,
    store: str | Path | None = None, address: str | None = None, start_from: str | None = None, verbose: bool = False,
) -> Found:  # fmt: skip
    """Searches the hyperparameters of a training function, and returns what it found.

    Ray Tune spreads the trials over the machine (or a cluster), early stopping ends weak ones, every epoch is in a
    journal and in MLflow; after a kill, `search.open(name).resume()` goes on.

    Args:
        train: a function that takes a `search.Trial` and yields the metrics of each epoch, or a `search.Command`. Where
            it is defined does not matter, be it a script or a notebook: it travels to the workers.
        space: by name a spec such as `loguniform(1e-4, 1e-1)`, or a fixed value.
        objective: the metric that counts and what is better of it, such as `val_accuracy max`.
        name: of the search, by default the function's with the time.
        trials: number of configurations; with a `time_budget` (`90s`, `30m`, `2h`) as many as it holds.
        epochs: of a full trial.
        searcher, scheduler, concurrency, seed: as the flags of the command line.
        resources: of a trial, such as `{"cpus": 2, "gpus": 0.25}`.
        settings: further keys of the section `search` of configs/defaults.yaml.
        store: the folder of results; by default `SEARCH_STORE`, else `mlruns`.
        address: of a Ray cluster; by default it runs here.
        start_from: the name of a search whose results the searcher is told first.

    Raises:
        InputError: an argument is wrong; the message names it, its value and what is allowed.

    >>> def train(trial):
    ...     for epoch in trial.epochs():
    ...         yield {"loss": trial.params["x"] ** 2 / epoch}
    >>> found = search.run(train, {"x": search.uniform(1, 2)}, "loss min", trials=3, epochs=2, name="mine")
    search mine: task train, 3 trials of up to 2 epochs, ...
    >>> found.status
    'finished'
    """
    from search.cli.commands import RunOptions
    from search.cli.loops import start
    from search.engine.budget import call_begins

    call_begins()
    given: dict[str, Any] = {f"search.{key}": value for key, value in (settings or {}).items()}
    given |= {f"resources.{key}": value for key, value in (resources or {}).items()}
    given |= {
        "search.trials": trials, "search.epochs": epochs, "search.time_budget": time_budget,
        "search.searcher": searcher, "search.scheduler": scheduler, "search.concurrency": concurrency,
        "search.seed": seed,
    }  # fmt: skip
    kept = Store.open(_path(store))
    options = RunOptions(None, name, address, False, start_from, verbose=verbose)
    return open(start(_console(), kept, train, space, objective, given, options), store)


def open(name: str, store: str | Path | None = None) -> Found:
    """Opens a search of a store, whether it ended or not; raises InputError where there is none of that name.

    >>> search.open("mine").name
    'mine'
    """
    kept = Store.open(_path(store))
    folder, description, config = open_search(kept, name)
    return Found(kept, folder, config, description)


def searches(store: str | Path | None = None) -> list[str]:
    """The names of the searches in a store.

    >>> search.searches()
    ['mine']
    """
    return Store.open(_path(store)).names()


def tasks() -> list[str]:
    """The tasks that `python -m search run` knows.

    >>> "windows" in search.tasks()
    True
    """
    return trainables.task_names()


@dataclass(frozen=True)
class Best:
    """The best trial of a search: its hyperparameters, the objective's value at its best epoch, and the file of its
    state then (None where it was deleted), of which `torch.load(path, weights_only=True)["parts"]` are the parts.

    >>> best = search.open("mine").best
    >>> best.epoch, best.value == best.params["x"] ** 2 / 2
    (2, True)
    """

    number: int
    params: dict[str, Any]
    value: float
    epoch: int
    checkpoint: Path | None


@dataclass(frozen=True)
class Found:
    """What a search found, read from its journal whenever it is asked for.

    >>> found = search.open("mine")
    >>> list(found.trials().columns)
    ['outcome', 'epochs', 'best_epoch', 'loss', 'seconds', 'x']
    >>> float(found.curves()["loss"].min()) == found.best.value
    True
    >>> found.resume(trials="+1").status
    search mine: ...
    'finished'
    """

    _store: Store
    _folder: SearchFolder
    _config: SearchConfig
    _description: dict[str, Any]

    @property
    def name(self) -> str:
        """The search's name."""
        return self._folder.name

    @property
    def status(self) -> str:
        """`finished`, `interrupted`, `failed` or `running`."""
        return self._state().status

    @property
    def best(self) -> Best:
        """The best trial; raises InputError where none has a result."""
        trial = self._state().best()
        if trial is None:
            raise InputError(f"{self.name}: no trial has a result; their tracebacks are artifacts in MLflow")
        there = [one.name for one in trial.checkpoints if one.epoch == trial.best_epoch]
        path = self._folder.path / there[-1] if there else None
        kept = path if path and path.exists() else None
        return Best(trial.number, dict(trial.params), trial.best_value, trial.best_epoch, kept)

    def trials(self) -> pd.DataFrame:
        """A row for each trial, by number: its `outcome`, number of `epochs`, `best_epoch`, the objective's value
        there, `seconds`, and a column for each hyperparameter."""
        import pandas as pd

        metric = self._metric
        rows = {
            trial.number: {
                "outcome": trial.outcome or "running", "epochs": trial.epoch, "best_epoch": trial.best_epoch,
                metric: trial.best_value, "seconds": trial.seconds, **trial.params,
            }
            for trial in self._trials()
        }  # fmt: skip
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("trial")

    def curves(self) -> pd.DataFrame:
        """A row for each epoch of each trial: `trial`, `epoch`, and every metric."""
        import pandas as pd

        rows = [
            {"trial": t.number, "epoch": epoch, **metrics} for t in self._trials() for epoch, metrics in t.curve.items()
        ]
        return pd.DataFrame(rows)

    def resume(
        self, train: TrainingFunction | None = None, *, trials: int | str | None = None,
        epochs: int | str | None = None, time_budget: str | None = None, changed_code: bool = False,
        address: str | None = None,
    ) -> Found:  # fmt: skip
        """Goes on with the search: with what a kill cut off, and with more trials, epochs or time where given.

        Args:
            train: the function, where it changed since (a mistake is mended, say); by default the one that was kept.
            trials, epochs: a new number, or `"+20"` for so many more.
            changed_code: go on although the source of `train` is another.

        Raises:
            InputError: the source changed; or as the command `resume`.
        """
        from search.cli import commands
        from search.engine.budget import call_begins

        call_begins()
        if train is not None:
            self._replace(train, changed_code)
        more = {key: None if v is None else str(v) for key, v in (("trials", trials), ("epochs", epochs))}
        commands.resume(_console(), self._store, self.name, more | {"time_budget": time_budget}, address)
        return open(self.name, self._store.root)

    def _replace(self, train: TrainingFunction, changed_code: bool) -> None:
        from trainables.loops.task import Code

        code, function = Code.of(train), self._config.data.get("function")
        if function is None:
            raise InputError(f"{self.name}: searches the task {self._config.task}, which is no function")
        if code.digest == self._description["fingerprint"]:
            return
        if not changed_code:
            raise InputError(
                f"{self.name}: the source of {code.name} changed since the search began; what was found so far is of "
                "the old one: resume(train, changed_code=True) goes on all the same, search.run(...) begins anew"
            )
        code.write(self._store.root / function)
        self._folder.write({**self._description, "fingerprint": code.digest})

    def _state(self) -> SearchState:
        return replay(self._folder, self._config)[0]

    def _trials(self) -> list[Recorded]:
        return [trial for _, trial in sorted(self._state().trials.items())]

    @property
    def _metric(self) -> str:
        task: Any = trainables.get_task(self._config.task)
        return str(getattr(task, "metric", f"val_{task.objective.metric}"))


def _path(store: str | Path | None) -> Path | None:
    return None if store is None else Path(store)


def _console() -> Console:
    from rich.console import Console

    from search.analysis.screen import Screen

    # In a notebook lines are plain text; the live table has an output of its own.
    terminal = False if Console().is_jupyter else None
    return Screen(highlight=False, force_jupyter=False, force_terminal=terminal)
