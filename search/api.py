"""The Python API: `search.run(...)` starts a search, `search.open(...)` returns a search of the store or a study.

Without an `observer` a call shows the search as the command line does. With an observer it prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import trainables
from search.arguments import check_callbacks, mapping, names_unknown_arguments
from search.core.config import SearchConfig, load_config, parse_objective
from search.core.overrides import SECTIONS, argument
from search.core.store import Store
from search.observer import Observer
from search.result import SearchResult, open_result, shown
from trainables import InputError, Objective

if TYPE_CHECKING:
    import pandas as pd

    from search.housekeeping.cleaning import Cleaning
    from search.housekeeping.deletion import Deletion
    from search.housekeeping.listing import ListedSearch
    from search.housekeeping.sizes import Size
    from search.reports.compare import Comparison
    from search.reports.plan import Plan
    from search.runtime.search import Listener
    from search.study import SharedStudy
    from trainables.loops.trial import TrainingFunction

#: A space, as messages show it.
SPACE = "{'lr': search.uniform(0, 1)}"
#: The objective, or several.
Goals = str | Sequence[str]


@names_unknown_arguments
def run(
    train: TrainingFunction | str, space: Mapping[str, Any] | None = None, objective: Goals | None = None, *,
    data: str | Path | None = None, name: str | None = None, trials: int | None = None, epochs: int | None = None,
    steps: int | None = None, report_every: int | None = None, time_budget: str | None = None,
    target: float | None = None, cost_budget: float | None = None, worth: float | None = None,
    limits: Mapping[str, str] | None = None, searcher: str | None = None, scheduler: str | None = None,
    concurrency: int | None = None, seed: int | None = None, resources: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None, set: Mapping[str, Any] | None = None, store: str | Path | None = None,
    address: str | None = None, start: Sequence[Mapping[str, Any]] | None = None, start_from: str | None = None,
    retrain: bool = True, verbose: bool = False, observer: Observer | None = None, callbacks: Sequence[Listener] = (),
    test: Callable[..., Any] | None = None, export: Callable[..., Any] | None = None,
    predict: Callable[..., Any] | None = None,
) -> SearchResult:  # fmt: skip
    """Searches the hyperparameters of a training function, a command or a task, and returns the result.

    Ray Tune distributes the trials over the machine or a cluster. Early stopping ends weak trials. The journal and
    MLflow keep every epoch. After a kill, `search.open(name).resume()` continues the search.

    Args:
        train: a function that takes a `search.Trial` and yields the metrics of each epoch; a `search.Command`; or the
            name of a task, such as `"windows"`. A function may be defined in a script or a notebook: the workers
            receive it with all that it refers to in your own modules. It runs in the current folder, so that
            `open("data.csv")` finds the same file as here. It writes its files to `trial.folder`, and `output.log`
            there holds what it prints.
        space: a spec such as `loguniform(1e-4, 1e-1)` or a fixed value by hyperparameter. For a task it replaces
            entries of the task's own space.
        objective: the metric and its direction, such as `val_accuracy max`. A task has its own. A list of several, such
            as `["acc max", "latency_ms min"]`, searches their front: `SearchResult.front`.
        data: the path or URI of your data for a task; without it the task uses its demo data.
        name: the name of the search; by default the name of the function or task with the time.
        trials: the number of configurations; by default as many as the time budget holds.
        epochs: the number of epochs of a full trial. By default the search measures an epoch and chooses a number that
            fits the time budget. A function or a command without a time budget has 10.
        steps, report_every: the number of steps of a full trial of a function or a command, in place of `epochs`, and
            the steps from one report to the next. The search then counts in steps. `steps=2000, report_every=100` makes
            trials of 20 reports. `steps` is a multiple of `report_every`.
        time_budget: the time for the whole call, such as `90s`, `30m` or `2h`; by default `1h` if neither `trials` nor
            `search.epoch_budget` is given.
        target: the value of the objective that ends the trials as soon as a trial reaches it.
        cost_budget: the cost of all trials and of the final training that ends the trials, by the prices of
            `resources`, such as `{"price_gpu_hour": 2.5}`.
        worth: the improvement of the best value that one more hour has to be expected to bring; with less the trials
            end.
        limits: limits on outcomes by metric, such as `{"latency_ms": "<= 5", "recall": ">= 0.9"}`. Only a trial within
            all limits can be the best.
        searcher, scheduler, concurrency, seed: as the options of `python -m search run`.
        resources: the resources of a trial, such as `{"cpus": 2, "gpus": 0.25}`.
        settings: further keys of the section `search` of configs/defaults.yaml, such as `{"grace_period": 3}`.
        set: further keys of any section, as `--set` takes them: `{"lr": 0.01, "data.val_fraction": 0.2}`.
        store: the folder of results; by default `SEARCH_STORE`, else `mlruns`.
        address: the address of a Ray cluster; by default Ray starts on this machine.
        start: starting configurations: the first trials have them, in this order. A configuration may lack
            hyperparameters: each gets the value of its prior, or a random value if it has none.
        start_from: the name of a search whose results the searcher learns first.
        retrain: whether the search ends with a final training. A function without `test` and `export` has none.
        verbose: whether each epoch has a line where no live table is shown.
        observer: receives what a person may want to see; by default it is printed.
        callbacks: functions that receive each event and the state of the search, `callback(event, state)`, after the
            event is in the journal. A callback that raises is named in a line and called no more.
        test: for a function: `test(trial, **parts)` measures the final model once, on data that chose nothing. It gets
            the objects given to `trial.epochs`, or the `trainer` and `model` of `trial.fit`. It returns figures by
            name: numbers, or arrays with one value per sample.
        export: for a function: `export(trial, folder, **parts)` writes the final model as files into `folder`. It may
            return a list of inputs as an example for `predict`. Without it, a `torch.nn.Module` among the parts is the
            model.
        predict: `predict(model, inputs)` returns a prediction for each of the texts `inputs`, for `search.predict` and
            `python -m search predict`. `model` is the folder of `export` or of the final command, else the module.

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
    from search import runs
    from search.programs import Program, run_program

    opened = Store.open(store)
    check_callbacks(callbacks)
    flags: dict[str, Any] = {
        **{f"search.{key}": value for key, value in mapping(settings, "settings", "{'grace_period': 3}").items()},
        **{f"resources.{key}": value for key, value in mapping(resources, "resources", "{'cpus': 2}").items()},
        **_set_flags(set),
    }
    named = {
        "search.trials": trials, "search.epochs": epochs, "search.steps": steps,
        "search.report_every": report_every, "search.time_budget": time_budget, "search.target": target,
        "search.cost_budget": cost_budget, "search.worth": worth, "search.limits": limits,
        "search.searcher": searcher, "search.scheduler": scheduler, "search.concurrency": concurrency,
        "search.seed": seed, "search.first": start,
    }  # fmt: skip
    flags |= {key: value for key, value in named.items() if value is not None}
    own = _first_objective(objective, flags)
    options = runs.RunOptions(_text(data), name, address, retrain, start_from)
    others = {"test": test, "export": export, "predict": predict}
    with shown(observer, verbose) as (observer, show):
        if isinstance(train, str):
            if given := [name for name, function in others.items() if function is not None]:
                raise InputError(f"{given[0]}: the task {train} has its own; only a training function takes it")
            config = _task_config(train, space, own, data, flags)
            outcome = runs.run(opened, config, options, observer, listeners=callbacks)
        else:
            program = Program(train, *_of_function(space, own, data), flags, others=others)
            outcome = run_program(opened, program, options, observer, callbacks)
        show(outcome)
    return open_result(opened, outcome.folder.name)


@names_unknown_arguments
def plan(
    task: str, *, data: str | Path | None = None, trials: int | None = None, epochs: int | None = None,
    time_budget: str | None = None, set: Mapping[str, Any] | None = None, store: str | Path | None = None,
    address: str | None = None, observer: Observer | None = None,
) -> Plan:  # fmt: skip
    """Trains some configurations of a task for two epochs, and forecasts its search. No search begins.

    The arguments are as of `run`. The result has the number of `trials`, and the low, median and high forecast of
    `epochs` and `hours`.

    Raises:
        InputError: as `run`, or no trial got through its first epoch.

    >>> search.plan("rnn", trials=20).hours  # doctest: +SKIP
    (0.2, 0.3, 0.5)
    """
    from search import runs

    opened = Store.open(store)
    flags = _set_flags(set)
    named = {"search.trials": trials, "search.epochs": epochs, "search.time_budget": time_budget}
    flags |= {key: value for key, value in named.items() if value is not None}
    config = _task_config(task, None, None, data, flags)
    with shown(observer) as (observer, _):
        return runs.plan(opened, config, runs.RunOptions(_text(data), address=address), observer)


@overload
def open(name: str, store: str | Path | None = None) -> SearchResult: ...
@overload
def open(
    name: str, store: str | Path | None = None, *, space: Mapping[str, Any], objective: Goals, trials: int, epochs: int,
    target: float | None = None, limits: Mapping[str, str] | None = None, searcher: str | None = None,
    scheduler: str | None = None, seed: int | None = None, start: Sequence[Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> SharedStudy: ...  # fmt: skip
@names_unknown_arguments
def open(
    name: str, store: str | Path | None = None, *, space: Mapping[str, Any] | None = None,
    objective: Goals | None = None, trials: int | None = None, epochs: int | None = None, target: float | None = None,
    limits: Mapping[str, str] | None = None, searcher: str | None = None, scheduler: str | None = None,
    seed: int | None = None, start: Sequence[Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> SearchResult | SharedStudy:  # fmt: skip
    """Returns a search of the store, whether it has ended or not. With a `space` it opens a study.

    Without a `space` it runs no code of the store. `SearchResult.resume` does, as it unpickles the function of the
    search. Whoever may write to the store can therefore run code as the person who resumes.

    With a `space` the search is a study: your own programs ask it for trials, train them, and tell it the metrics.
    It is created if it does not exist, so that each process makes the same call. Then `search.open(name)` returns its
    results, as of any search. See docs/howto/ask-and-tell.md.

    Args:
        space, objective, limits, searcher, seed, start: of a study, as of `run`.
        trials: the number of configurations of a study. `ask` returns None after them. A larger number than before
            gives the study more.
        epochs: the number of epochs of a full trial of a study; 1 for trainings that are told once.
        target: the value of the objective that ends a study: `tell` then returns `stop` for each trial.
        scheduler: the rule that stops the trials of a study; by default `asha`. `asha-promote` and `asha-predict` pause
            trials, which then need checkpoints.
        settings: further keys of the section `search`, such as `{"grace_period": 3, "stall_timeout": "30m"}`.

    Raises:
        InputError: there is no search of that name; an argument of a study is wrong, or differs from before.

    >>> search.open("mine").name
    'mine'
    """
    opened = Store.open(store)
    flags = {f"search.{key}": value for key, value in mapping(settings, "settings", "{'grace_period': 3}").items()}
    named = {
        "search.trials": trials, "search.epochs": epochs, "search.target": target, "search.limits": limits,
        "search.searcher": searcher, "search.scheduler": scheduler, "search.seed": seed, "search.first": start,
    }  # fmt: skip
    flags |= {key: value for key, value in named.items() if value is not None}
    if space is None and objective is None and not flags:
        return open_result(opened, name)
    from search.study import open_study

    own = _first_objective(objective, flags)
    return open_study(opened, name, *_of_function(space, own, None), flags)


def searches(store: str | Path | None = None) -> list[str]:
    """The names of the searches in the store.

    >>> search.searches()
    ['mine']
    """
    return Store.open(store).names()


def ls(store: str | Path | None = None) -> list[ListedSearch]:
    """The searches of the store with status, best value, test figure and size, the newest first.

    A search that cannot be read has the status `damaged`.

    >>> "mine" in [found.name for found in search.ls()]
    True
    """
    from search.housekeeping.listing import list_searches

    return list_searches(Store.open(store))


def du(store: str | Path | None = None) -> list[Size]:
    """The disk space of each search by kind of file, and of MLflow and the caches. The largest is first.

    >>> "record" in {size.kind for size in search.du() if size.search == "mine"}
    True
    """
    from search.housekeeping.sizes import sizes

    return sizes(Store.open(store))


def gc(*, dry_run: bool = False, store: str | Path | None = None) -> Cleaning:
    """Deletes what no search needs, and returns it: its `garbage`, its `bytes`, and the parts that were `skipped`.

    Deleted are checkpoints that no resume and no retrain reads, the cache of decoded data, and what killed commands
    left behind. A search that is running is left alone.

    Args:
        dry_run: deletes nothing.

    >>> search.gc(dry_run=True).skipped
    []
    """
    from search.housekeeping.cleaning import clean

    return clean(Store.open(store), dry_run)


def rename(old: str, new: str, *, store: str | Path | None = None) -> SearchResult:
    """Gives a search another name, in the store and in MLflow, and returns it.

    After a kill the same call completes the renaming.

    Raises:
        InputError: there is no search `old`, it runs, there is a search `new`, or MLflow does not answer.

    >>> search.rename("mine", "ours").name  # doctest: +SKIP
    'ours'
    """
    from search.housekeeping.renaming import rename as rename_search

    opened = Store.open(store)
    rename_search(opened, old, new)
    return open_result(opened, new)


def delete(name: str, *, store: str | Path | None = None) -> Deletion:
    """Deletes a search without a question, and returns what was deleted: `bytes`, `runs` and `models`.

    Deleted are its folder, its checkpoints in a storage, its runs in MLflow, and its registered models that have no
    alias. The champion stays, with its run. After a kill the same call completes the deletion.

    Raises:
        InputError: there is no such search, it runs, or MLflow does not answer.

    >>> search.delete("mine").runs  # doctest: +SKIP
    4
    """
    from search.housekeeping.deletion import delete as delete_search

    return delete_search(Store.open(store), name)


def tasks() -> list[str]:
    """The names of the tasks that `search.run` and `python -m search run` take. Functions and commands are not among
    them.

    >>> "windows" in search.tasks()
    True
    """
    return trainables.runnable_tasks()


def compare(
    task: str, names: Sequence[str] = (), *, store: str | Path | None = None, observer: Observer | None = None
) -> Comparison:
    """Compares the searches of a task on the same data.

    Args:
        names: only these searches; by default all.
        observer: receives a line for each search that cannot be read.

    Returns:
        The frames `searches` (a row for each search) and `trials` (a row for each trial, the best first), and lines on
        the searches that are `left_out`.

    Raises:
        InputError: there is no such task or search.

    >>> search.compare("train").searches["search"].tolist()
    ['mine']
    """
    from search.core.task_names import check_task_name
    from search.reports.compare import compare_searches
    from search.tracking.results import searches_of_server

    opened, warn = Store.open(store), (observer or Observer()).say
    check_task_name(task, opened)
    (comparison,) = compare_searches(opened, task, names, searches_of_server(opened, task, warn))
    return comparison


def predict(task: str, inputs: Sequence[str | Path] | str | Path, *, store: str | Path | None = None) -> pd.DataFrame:
    """Predicts with the champion of a task: the registered model that `promote` or the best test figure chose.

    Args:
        inputs: files or folders, or texts of a task that takes texts. A single path or text needs no list.

    Returns:
        A row for each input, indexed by the input: the prediction, then its figures, such as probabilities.

    Raises:
        InputError: an input cannot be read, or there is no champion.

    >>> search.predict("tweets", ["three days of fever now"])  # doctest: +SKIP
    """
    from search.core.task_names import check_task_name
    from search.tracking.predict import predict_inputs

    opened = Store.open(store)
    check_task_name(task, opened)
    inputs = [inputs] if isinstance(inputs, str | Path) else inputs
    return predict_inputs(opened, task, [str(path) for path in inputs])


def promote(task: str, version: int, *, store: str | Path | None = None) -> str:
    """Makes a registered version of a task's model the champion, whatever its test figure is.

    Returns:
        A sentence on the new and the old champion.

    Raises:
        InputError: there is no such task or version.

    >>> search.promote("tweets", 2)  # doctest: +SKIP
    """
    from search import runs
    from search.core.task_names import check_task_name

    opened = Store.open(store)
    check_task_name(task, opened)
    return runs.promote(opened, task, version)


def _task_config(
    task: str, space: Mapping[str, Any] | None, objective: str | None, data: str | Path | None, flags: dict[str, Any]
) -> SearchConfig:
    """The configuration of a search of a task; raises InputError."""
    from search.core.task_names import check_task_name

    check_task_name(task)
    own = trainables.get_task(task).objective
    if objective is not None and parse_objective(objective, "objective") != Objective(own.metric, own.mode):
        raise InputError(f"objective={objective!r}: the task {task} has the objective {own.metric} {own.mode}")
    flags = {**{f"space.{key}": spec for key, spec in mapping(space, "space", SPACE).items()}, **flags}
    flags = {key: trainables.plain(value, key) for key, value in flags.items()}
    return load_config(task, flags=flags, profile="demo" if data is None else "data", named=argument)


def _first_objective(objective: Goals | None, flags: dict[str, Any]) -> str | None:
    """The objective, or the first of several, which become the flag `search.objective`."""
    if not isinstance(objective, list | tuple):
        return objective  # type: ignore[return-value]
    flags["search.objective"] = list(objective)
    return objective[0] if objective else None


def _of_function(
    space: Mapping[str, Any] | None, objective: str | None, data: str | Path | None
) -> tuple[Mapping[str, Any], str]:
    """The space and the objective of a training function; raises InputError where one is missing."""
    if space is None:
        raise InputError(f"space: missing; give the hyperparameters, such as {SPACE}")
    if objective is None:
        raise InputError("objective: missing; give the metric to optimize, such as 'val_loss min'")
    if data is not None:
        raise InputError(f"data={str(data)!r}: a training function reads its own data; only a task takes `data`")
    return mapping(space, "space", SPACE), objective


def _set_flags(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The argument `set` by dotted key; raises InputError if it is no mapping."""
    return {_dotted(str(key)): value for key, value in mapping(given, "set", "{'lr': 0.01}").items()}


def _dotted(key: str) -> str:
    """The key with its section: `lr` is a hyperparameter, `search.trials` has its section already."""
    return key if key.split(".")[0] in SECTIONS else f"space.{key}"


def _text(data: str | Path | None) -> str | None:
    return None if data is None else str(data)
