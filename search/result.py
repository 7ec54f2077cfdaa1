"""The result of a search in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.arguments import check_callbacks, mapping, whole
from search.core.config import SearchConfig
from search.core.events import Event
from search.core.failures import in_a_line
from search.core.pareto import value_of
from search.core.readable import visible
from search.core.record import SearchRecord
from search.core.replay import open_search, replay
from search.core.requests import (
    AddTrials,
    Answer,
    ChangeSettings,
    Configuration,
    ContinueTrials,
    PauseTrials,
    StopSearch,
    StopTrials,
    send,
)
from search.core.state import SearchState, Trial
from search.core.store import SearchFolder, Store
from trainables import InputError, plain
from trainables.base.checkpoint_files import folder_of
from trainables.loops import ENDS_WITH_TRAINING

if TYPE_CHECKING:
    import pandas as pd

    from search.observer import Observer
    from search.outcome import SearchOutcome
    from search.runtime.search import Listener
    from trainables.loops.trial import TrainingFunction


@dataclass(frozen=True)
class BestTrial:
    """The best trial of a search.

    Attributes:
        number: the number of the trial, from 0.
        params: its hyperparameters.
        value: its best value of the objective.
        epoch: the epoch of that value, from 1; in a search that counts in steps, the number of the report.
        step: the step of that value; None in a search that counts in epochs.
        checkpoint: the file of the trial's state at that epoch, None if it was deleted.
            `torch.load(checkpoint, weights_only=True)["parts"]` holds the state of each part.
        files: the folder with the trainer's own checkpoint at that epoch; None if there is none.
        values: the values of all objectives at that epoch, by metric; empty in a search with one objective.

    >>> best = search.open("mine").best
    >>> best.epoch, best.value == best.params["x"] ** 2 / 2
    (2, True)
    """

    number: int
    params: dict[str, Any]
    value: float
    epoch: int
    checkpoint: Path | None
    step: int | None = None
    files: Path | None = None
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class SearchResult:
    """A search at the moment when it was opened: `search.run` and `search.open` read its journal once.

    `resume` and `retrain` return a new result.

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
    _state: SearchState
    _events: list[Event]

    def __repr__(self) -> str:
        from search.reports.summary import trials_of

        best, trials = self._state.best(), trials_of(len(self._state.trials))
        if best is None:
            result = "none is feasible" if self._state.none_is_feasible else "none with a result"
            return f"search {self.name}: {self.status}, {trials}, {result}"
        return (
            f"search {self.name}: {self.status}, {trials}, best {self._record.metric} {best.best_value:.4g} at "
            f"{self._config.search.unit.at(best.best_epoch)} of trial {best.number}"
        )

    def _repr_html_(self) -> str:
        """The table that a notebook shows: name, status and best trial, and some methods of the result."""
        from search.reports.summary import trials_of

        rows = {"search": self.name, "status": f"{self.status}, {trials_of(len(self._state.trials))}"}
        if (best := self._state.best()) is not None:
            reached = f"{best.best_value:.4g} at {self._config.search.unit.at(best.best_epoch)} of trial {best.number}"
            rows[f"best {self._record.metric}"] = reached
            rows["its hyperparameters"] = ", ".join(
                f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
                for name, value in best.params.items() if value is not None
            )  # fmt: skip
        rows["next"] = "found.best, found.trials(), found.curves(), found.resume(trials='+10')"
        cells = "".join(f"<tr><th>{escape(key)}</th><td>{escape(text)}</td></tr>" for key, text in rows.items())
        return f"<table>{cells}</table>"

    @property
    def name(self) -> str:
        """The name of the search."""
        return self._folder.name

    @property
    def status(self) -> str:
        """`finished`, `interrupted` or `failed`; `searching` for a search that runs or was killed."""
        return self._state.status

    @property
    def best(self) -> BestTrial:
        """The trial with the best value of the objective on validation, or the trial that `search.preference` chooses.

        Raises:
            InputError: no trial has a result.
        """
        return self._found(self._state.best())

    @property
    def front(self) -> list[BestTrial]:
        """The trials that no other trial beats in every objective, sorted by the first objective, the best first.

        In a search with one objective these are the trials with the best value.
        """
        return [self._found(trial) for trial in self._state.front()]

    @property
    def knee(self) -> BestTrial:
        """The trial of the front with the smallest sum of all objectives, each scaled to 0 to 1 on the front.

        Raises:
            InputError: no trial has a result.
        """
        return self._found(self._state.knee())

    def _found(self, trial: Trial | None) -> BestTrial:
        """A trial with its files; raises InputError for None."""
        if trial is None:
            raise InputError(f"{self.name}: {self._no_winner()}")
        paths = [self._folder.path / c.name for c in trial.checkpoints if c.epoch == trial.best_epoch]
        checkpoint = paths[-1] if paths and paths[-1].exists() else None
        files = None if checkpoint is None else checkpoint.with_name(folder_of(checkpoint.name))
        unit = self._config.search.unit
        return BestTrial(
            trial.number, dict(trial.params), trial.best_value, trial.best_epoch, checkpoint,
            None if unit.report_every is None else unit(trial.best_epoch),
            files if files is not None and files.is_dir() else None,
            {objective.metric: value_of(trial, objective) for objective in self._config.objectives},
        )  # fmt: skip

    @property
    def test(self) -> dict[str, float] | None:
        """The test figures of the final model by metric; None for a search whose model is not tested."""
        final = self._state.final
        return dict(final.test) if final is not None and final.test else None

    def trials(self) -> pd.DataFrame:
        """A row for each trial, indexed by its number.

        Columns:
            `outcome`, `epochs`, `best_epoch`, the objective at the best epoch, `seconds`, and each hyperparameter. A
            hyperparameter with the name of another column, such as `epochs`, has the column `params_epochs`. A search
            that counts in steps has `steps` and `best_step` in place of `epochs` and `best_epoch`. A search with limits
            on outcomes has `feasible`: whether the trial has a result within all of them.
        """
        from search.reports.frames import trials_frame

        search = self._config.search
        return trials_frame(self._state, metric=self._record.metric, unit=search.unit, limited=bool(search.limits))

    def curves(self) -> pd.DataFrame:
        """A row for each epoch of each trial: `trial`, `epoch`, and each metric. A metric with the name `trial` or
        `epoch` has the column `metrics_trial` or `metrics_epoch`. A search that counts in steps has a row for each
        report, and `step` in place of `epoch`.

        The search stores the objective of a function under a name with `val_`. An objective `acc` therefore has two
        columns with the same values, `acc` and `val_acc`.
        """
        from search.reports.frames import curves_frame

        return curves_frame(self._state, self._config.search.unit)

    def why(self, trial: int) -> list[str]:
        """The decisions on a trial with their figures: why it was proposed, continued, stopped or won.

        Raises:
            InputError: there is no such trial.
        """
        from search.reports.why import why

        return [visible(line) for line in why(self._store, self.name, whole(trial, "trial", 0))]

    def logs(self, trial: int, lines: int = 0) -> list[str]:
        """The lines that a trial has printed until now, warnings and errors included; empty for a trial of a task.

        Args:
            lines: only this many lines from the end; 0 for all.

        Raises:
            InputError: there is no such trial.
        """
        from search.reports.logs import log_lines

        found = log_lines(self._store, self.name, whole(trial, "trial", 0), whole(lines, "lines", 0))
        return [visible(line) for line in found]

    def report(self) -> Path:
        """Writes an HTML page that shows the search, logs it to MLflow, and returns its path.

        Raises:
            InputError: no trial has a result.
        """
        from search import runs

        return runs.report(self._store, self.name)

    def stop(self, *trials: int, retrain: bool = True, timeout: float = 10.0) -> Answer:
        """Ends trials of the running search now, or without trials the search after its running epochs.

        This method and the four below it write a request, and wait up to `timeout` seconds for the answer of the
        process that runs the search. If no process runs it, the request takes effect at the next `resume`.

        Args:
            retrain: whether the final training follows when the search ends.

        Raises:
            InputError: there is no such trial, or it is over.
        """
        numbers = tuple(whole(trial, "trial", 0) for trial in trials)
        return send(self._folder, StopTrials(numbers) if numbers else StopSearch(retrain), timeout)

    def pause(self, *trials: int, timeout: float = 10.0) -> Answer:
        """Pauses trials after their running epoch until `continue_`; without trials all, and no new trial starts.

        Raises:
            InputError: as `stop`.
        """
        return send(self._folder, PauseTrials(tuple(whole(trial, "trial", 0) for trial in trials)), timeout)

    def continue_(self, *trials: int, timeout: float = 10.0) -> Answer:
        """Continues paused trials; without trials everything that `pause` paused.

        Raises:
            InputError: a trial is not paused, or nothing is.
        """
        return send(self._folder, ContinueTrials(tuple(whole(trial, "trial", 0) for trial in trials)), timeout)

    def add(
        self, *configurations: Mapping[str, Any], from_trial: int | None = None, from_checkpoint: bool = False,
        timeout: float = 10.0,
    ) -> Answer:  # fmt: skip
        """Tries configurations next, beside the trials that the search has.

        Args:
            configurations: values by hyperparameter. The search chooses the missing values.
            from_trial: the trial that gives the missing values. Without a configuration it is tried again with another
                seed.
            from_checkpoint: whether the trainings start from the latest checkpoint of that trial. The network must be
                of the same shape.

        Raises:
            InputError: an unknown hyperparameter, or a value outside its range.
        """
        number = None if from_trial is None else whole(from_trial, "from_trial", 0)
        several = configurations or (({},) if number is not None else ())
        added = [
            Configuration(plain(dict(mapping(one, "configuration", "{'lr': 0.01}")), "configuration"), number,
                          from_checkpoint)
            for one in several
        ]  # fmt: skip
        return send(self._folder, AddTrials(tuple(added)), timeout)

    def set(self, *, space: Mapping[str, Any] | None = None, timeout: float = 10.0, **settings: Any) -> Answer:
        """Changes settings from now on.

        Earlier trials inside a new range still inform the searcher.

        Args:
            space: new ranges by hyperparameter, such as `{"lr": search.loguniform(1e-4, 1e-2)}`.
            settings: new values, such as `trials="+20"`, `time_budget="+1h"` or `concurrency=3`.

        Raises:
            InputError: a setting cannot change while a search runs, or a value is wrong.
        """
        ranges = {f"space.{name}": spec for name, spec in mapping(space, "space", "{'lr': 0.01}").items()}
        given = {name: plain(value, name) for name, value in {**settings, **ranges}.items()}
        return send(self._folder, ChangeSettings(given), timeout)

    def resume(
        self, train: TrainingFunction | None = None, *, trials: int | str | None = None,
        epochs: int | str | None = None, steps: int | str | None = None, time_budget: str | None = None,
        changed_code: bool = False, address: str | None = None, observer: Observer | None = None,
        callbacks: Sequence[Listener] = (), test: Callable[..., Any] | None = None,
        export: Callable[..., Any] | None = None, predict: Callable[..., Any] | None = None,
    ) -> SearchResult:  # fmt: skip
        """Continues the search after a kill or an interruption, or gives it more trials, epochs or time.

        Args:
            train: the function with a corrected mistake, for example. By default the stored function runs, with all
                that it refers to in your own modules.
            trials, epochs, steps: a new number, or `"+20"` for 20 more. A search that counts in steps takes `steps`.
            changed_code: continue although code changed: the source of `train`, of what it refers to in your modules,
                or of a program that the command names.
            address: another Ray cluster than before; `local` starts one on this machine.
            observer, callbacks: as of `search.run`.
            test, export, predict: as of `search.run`; they take the place of those that the search has.

        Raises:
            InputError: the source or the data changed, a value is wrong, or another process runs the search.
        """
        from search.resume import resume

        check_callbacks(callbacks)
        if train is None and changed_code:
            train = self._stored_command()
        given = {"trials": trials, "epochs": epochs, "steps": steps}
        numbers = {key: None if value is None else str(value) for key, value in given.items()}
        with shown(observer) as (observer, show), self._folder.hold(self._store) as journal:
            self._replace_functions(train, {"test": test, "export": export, "predict": predict}, changed_code)
            outcome = resume(
                self._store, self.name, numbers | {"time_budget": time_budget}, observer, address=address,
                journal=journal, listeners=callbacks,
            )  # fmt: skip
            show(outcome)
        return open_result(self._store, self.name)

    def retrain(
        self, *, finalists: int = 1, seeds: int | None = None, address: str | None = None,
        observer: Observer | None = None, callbacks: Sequence[Listener] = (), test: Callable[..., Any] | None = None,
        export: Callable[..., Any] | None = None, predict: Callable[..., Any] | None = None,
    ) -> SearchResult:  # fmt: skip
        """Trains the best configurations again, on train and validation, and tests them.

        Args:
            finalists: the number of configurations. Several are compared on test.
            seeds: the number of seeds for each; by default `search.retrain_seeds`, at least 5 for several finalists.
            address, observer, callbacks: as of `resume`.
            test, export, predict: as of `search.run`, for a search of a function that lacks them. A model that is
                tested is not tested again.

        Raises:
            InputError: several finalists of a function without a test; or as `resume`.
        """
        from search import runs

        check_callbacks(callbacks)
        finalists, seeds = whole(finalists, "finalists", 1), None if seeds is None else whole(seeds, "seeds", 1)
        with shown(observer) as (observer, show), self._folder.hold(self._store) as journal:
            self._replace_functions(None, {"test": test, "export": export, "predict": predict}, False)
            outcome = runs.retrain(
                self._store, self.name, observer, finalists=finalists, seeds=seeds, address=address,
                listeners=callbacks, journal=journal,
            )  # fmt: skip
            show(outcome)
        return open_result(self._store, self.name)

    def _stored_command(self) -> TrainingFunction | None:
        """The command of the search; None for a search of a function."""
        from trainables.loops.task import Code

        function = self._config.data.get("function")
        return None if function is None else Code.read(self._store.root / function, "").command

    def _replace_functions(
        self, train: TrainingFunction | None, others: Mapping[str, Callable[..., Any] | None], changed_code: bool
    ) -> None:
        """Stores the given functions in place of those that the search has.

        Args:
            others: `test`, `export` and `predict`. The results of the trials do not depend on them, so they may change.

        Raises:
            InputError: the source of `train` changed and `changed_code` is False, or the search is of a task.
        """
        from search.core.program_config import loop_address
        from trainables.loops.task import Code, packed_others

        if train is None and not any(others.values()):
            return
        data, record = self._config.data, self._folder.read(self._store)
        if (function := data.get("function")) is None:
            raise InputError(f"{self.name}: searches the task {self._config.task}, which is not a function")
        path, new = self._store.root / function, None if train is None else Code.of(train)
        try:
            stored = Code.read(path, data.get("folder", ""))
        except InputError:  # a damaged or missing file is written again
            if new is None:
                raise
            code = replace(new, others=packed_others(others, new.command is not None))
            changed = [] if code.digest == record.fingerprint else [code.name]
        else:
            code = new or stored
            code = replace(code, others={**stored.others, **packed_others(others, code.command is not None)})
            if not code.changed(stored):
                return
            changed = code.changed(replace(stored, others=code.others))
        if changed and not changed_code:
            parts = "" if changed == [code.name] else f" ({', '.join(changed)})"
            raise InputError(
                f"{self.name}: the source of {code.name} changed since the search began{parts}; the results come "
                "from the old source: resume(train, changed_code=True) continues with the new source, search.run(...) "
                "begins a new search"
            )
        code.write(path)
        offered = loop_address(record.metric, record.objective.mode, code.brings)
        ends = record.retrain or bool(ENDS_WITH_TRAINING & {*code.brings})
        self._folder.write(replace(record, fingerprint=code.digest, offered=offered, retrain=ends))

    def _no_winner(self) -> str:
        """The reason why there is no best trial, and how to continue a search that has not ended."""
        from search.reports.summary import no_winner

        failed = [event for event in self._events if event["event"] == "failed"]
        if failed:
            message = visible(in_a_line(failed[-1]["traceback"]))
            return f"no trial has a result; the last failure is of trial {failed[-1]['number']}: {message}"
        ended = self.status in ("finished", "failed") or self._record.elsewhere
        return no_winner(self._state) + ("" if ended else "; found.resume() continues the search")


def open_result(store: Store, name: str) -> SearchResult:
    """The result of a search of the store.

    Raises:
        InputError: there is no search of that name, or its record or journal is damaged.
    """
    folder, record, config = open_search(store, name)
    return SearchResult(store, folder, config, record, *replay(folder))


@contextmanager
def shown(
    observer: Observer | None, verbose: bool = False
) -> Iterator[tuple[Observer, Callable[[SearchOutcome], None]]]:
    """The observer for a call from Python, and a function that shows the outcome.

    Without an observer, the console shows the search as the command line does. An observer of the caller's own receives
    everything while the search runs, and nothing prints its outcome. The time budget begins with the call. The random
    generators of Python, NumPy and torch are afterwards as they were before.
    """
    from search.runtime.budget import call_begins
    from trainables.base.training import rng_state, set_rng_state

    call_begins()
    states = rng_state()
    try:
        if observer is not None:
            yield observer, lambda outcome: None
        else:
            from search.live.observer import ConsoleObserver, default_console
            from search.live.outcome import print_outcome

            console = default_console()
            yield ConsoleObserver(console, verbose), partial(print_outcome, console)
    finally:
        set_rng_state(states)
