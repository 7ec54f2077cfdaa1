"""What a script or a notebook uses: `search.run(train, space=..., objective=...)` and what it returns."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trainables
from search.core.config import SearchConfig
from search.core.record import SearchRecord
from search.core.replay import open_search, replay
from search.core.state import SearchState
from search.core.store import SearchFolder, Store
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

    It gives no whole numbers, whatever the bounds are: `loguniform(4, 128)` gives 22.6, say. Take `integer` for a width
    or a number of layers, or `choice([4, 8, 16, 32, 64, 128])` for a few of each order of magnitude.

    >>> loguniform(1e-4, 1e-1, prior=1e-3)
    {'loguniform': [0.0001, 0.1], 'prior': 0.001}
    """
    return _spec({"loguniform": [low, high]}, prior, when)


def integer(
    low: int, high: int, *, step: int = 1, prior: int | None = None, when: Spec | None = None
) -> dict[str, Any]:
    """A whole number between two, both included, each as likely; arguments as of `uniform`.

    Where each order of magnitude is to be as likely, name some: `choice([4, 8, 16, 32, 64, 128])`.

    >>> integer(16, 64, step=16)
    {'int': [16, 64], 'step': 16}
    """
    return _spec({"int": [low, high], **({"step": step} if step != 1 else {})}, prior, when)


def choice(values: Sequence[Any], *, prior: Any = None, when: Spec | None = None) -> dict[str, Any]:
    """One of some plain values, of a list, a tuple, a range or an array; arguments as of `uniform`.

    >>> choice(["sgd", "adamw"])
    {'choice': ['sgd', 'adamw']}
    """
    return _spec({"choice": values}, prior, when)


def _spec(spec: dict[str, Any], prior: Any, when: Spec | None) -> dict[str, Any]:
    given = spec | ({"prior": prior} if prior is not None else {}) | ({"when": when} if when else {})
    return {key: trainables.plain(value, key) for key, value in given.items()}


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
            it is defined does not matter, be it a script or a notebook: it travels to the workers, with what it refers
            to in your own modules. It runs in the folder where the search is started, so that `open("data.csv")` finds
            what it finds here; what it writes belongs in `trial.folder`. What it prints is in `output.log` there.
        space: by name a spec such as `loguniform(1e-4, 1e-1)`, or a fixed value.
        objective: the metric that counts and what is better of it, such as `val_accuracy max`.
        name: of the search, by default the function's with the time. (The task that MLflow shows is called like the
            function too, and `folder.function` where the store has another program's of that name.)
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
    from search.runtime.budget import call_begins

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
    with _generators_kept():
        name = start(_console(), kept, train, space, objective, given, options)
    return open(name, store)


def open(name: str, store: str | Path | None = None) -> Found:
    """Opens a search of a store, whether it ended or not; raises InputError where there is none of that name.

    Reading it runs no code of the store. `resume` does, as it unpickles the search's function: whoever may write to the
    store can have code run by those who resume.

    >>> search.open("mine").name
    'mine'
    """
    kept = Store.open(_path(store))
    folder, record, config = open_search(kept, name)
    return Found(kept, folder, config, record)


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


@dataclass(frozen=True, repr=False)
class Found:
    """What a search found, read from its journal whenever it is asked for.

    >>> found = search.open("mine")
    >>> found
    search mine: finished, 3 trials, best loss ... at epoch 2 of trial ...
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
    _record: SearchRecord

    def __repr__(self) -> str:
        from search.reports.summary import trials_of

        state = self._state()
        best = state.best()
        trials = trials_of(len(state.trials))
        if best is None:
            return f"search {self.name}: {state.status}, {trials}, none with a result"
        return (
            f"search {self.name}: {state.status}, {trials}, best {self._metric} {best.best_value:.4g} at epoch "
            f"{best.best_epoch} of trial {best.number}"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows of it: its name, status and best trial, and what can be asked of it."""
        from search.reports.summary import trials_of

        state = self._state()
        rows = {"search": self.name, "status": f"{state.status}, {trials_of(len(state.trials))}"}
        if (best := state.best()) is not None:
            rows[f"best {self._metric}"] = f"{best.best_value:.4g} at epoch {best.best_epoch} of trial {best.number}"
            rows["its hyperparameters"] = ", ".join(
                f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
                for name, value in best.params.items() if value is not None
            )  # fmt: skip
        rows["next"] = "found.best, found.trials(), found.curves(), found.resume(trials='+10')"
        cells = "".join(f"<tr><th>{escape(key)}</th><td>{escape(text)}</td></tr>" for key, text in rows.items())
        return f"<table>{cells}</table>"

    @property
    def name(self) -> str:
        """The search's name."""
        return self._folder.name

    @property
    def status(self) -> str:
        """`finished`, `interrupted`, `failed`, or `searching` where it runs or was killed."""
        return self._state().status

    @property
    def best(self) -> Best:
        """The best trial; raises InputError where none has a result."""
        trial = self._state().best()
        if trial is None:
            raise InputError(f"{self.name}: no trial has a result{self._why()}")
        there = [one.name for one in trial.checkpoints if one.epoch == trial.best_epoch]
        path = self._folder.path / there[-1] if there else None
        kept = path if path and path.exists() else None
        return Best(trial.number, dict(trial.params), trial.best_value, trial.best_epoch, kept)

    def trials(self) -> pd.DataFrame:
        """A row for each trial, by number: its `outcome`, number of `epochs`, `best_epoch`, the objective's value
        there, `seconds`, and a column for each hyperparameter. One that is called like another column, such as
        `epochs`, has the column `params_epochs`."""
        from search.reports.frames import trials_frame

        return trials_frame(self._state(), metric=self._metric)

    def curves(self) -> pd.DataFrame:
        """A row for each epoch of each trial: `trial`, `epoch`, and every metric; metrics that are called so are
        `metrics_trial` and `metrics_epoch`."""
        from search.reports.frames import curves_frame

        return curves_frame(self._state())

    def resume(
        self, train: TrainingFunction | None = None, *, trials: int | str | None = None,
        epochs: int | str | None = None, time_budget: str | None = None, changed_code: bool = False,
        address: str | None = None,
    ) -> Found:  # fmt: skip
        """Goes on with the search: with what a kill cut off, and with more trials, epochs or time where given.

        Args:
            train: the function, where it changed since (a mistake is mended, say); by default the one that was kept,
                with all that it refers to in your own modules.
            trials, epochs: a new number, or `"+20"` for so many more.
            changed_code: go on although code changed: the source of `train`, of what it refers to in your modules, or
                of a program that the command names.

        Raises:
            InputError: the source changed; or as the command `resume`.
        """
        from search.cli import commands
        from search.runtime.budget import call_begins

        call_begins()
        if train is None and changed_code:
            train = self._command()
        more = {key: None if v is None else str(v) for key, v in (("trials", trials), ("epochs", epochs))}
        with _generators_kept(), self._folder.hold(self._store) as journal:
            if train is not None:
                self._replace(train, changed_code)
            commands.resume(
                _console(), self._store, self.name, more | {"time_budget": time_budget}, address, journal=journal
            )
        return open(self.name, self._store.root)

    def _command(self) -> TrainingFunction | None:
        """The command that is searched; None where that is a function."""
        from trainables.loops.task import Code

        function = self._config.data.get("function")
        return None if function is None else Code.read(self._store.root / function, "").command

    def _replace(self, train: TrainingFunction, changed_code: bool) -> None:
        from trainables.loops.task import Code

        code, data, record = Code.of(train), self._config.data, self._folder.read(self._store)
        if (function := data.get("function")) is None:
            raise InputError(f"{self.name}: searches the task {self._config.task}, which is no function")
        kept, known = self._store.root / function, None
        with suppress(InputError):  # a file that is damaged or gone is written again
            known = Code.read(kept, data.get("folder", ""))
        changed = [] if code.digest == record.fingerprint else [code.name]
        if known is not None:
            changed = code.changed(known)
        if not changed and known is not None and (known.parts or known.command):
            return
        if changed and not changed_code:
            what = "" if changed == [code.name] else f" ({', '.join(changed)})"
            raise InputError(
                f"{self.name}: the source of {code.name} changed since the search began{what}; what was found so far "
                "is of the old one: resume(train, changed_code=True) goes on all the same, search.run(...) begins anew"
            )
        code.write(kept)
        self._folder.write(replace(record, fingerprint=code.digest))

    def _why(self) -> str:
        """The reason of the last trial that failed, and where its output is; empty where none failed."""
        failed = [event for event in replay(self._folder)[1] if event["event"] == "failed"]
        if not failed:
            return " yet; found.resume() goes on with it"
        last = failed[-1]
        reason = last["traceback"].strip().split("\n")[-1].strip()
        return f"; the last one that failed is trial {last['number']}: {reason}"

    def _state(self) -> SearchState:
        return replay(self._folder)[0]

    @property
    def _metric(self) -> str:
        return self._record.metric


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Leaves the random generators of Python, NumPy and torch as the caller had them: libraries draw from them."""
    from trainables.base.training import rng_state, set_rng_state

    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


def _path(store: str | Path | None) -> Path | None:
    return None if store is None else Path(store)


def _console() -> Console:
    from rich.console import Console

    from search.live.screen import Screen
    from search.output import PatientFile

    # In a notebook lines are plain text; the live table has an output of its own.
    terminal = False if Console().is_jupyter else None
    output: Any = PatientFile(sys.stdout)
    return Screen(file=output, highlight=False, force_jupyter=False, force_terminal=terminal)
