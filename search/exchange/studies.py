"""Reads a study of Optuna as a search, and writes a search as a study."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from search.core.config import SearchConfig
from search.core.events import Event
from search.core.pareto import value_of
from search.core.redaction import redacted, remember, without_secrets
from search.core.searchers.optuna_searcher import distribution
from search.core.state import SearchState, Trial
from search.exchange.imported import Imported, ImportedTrial
from trainables import InputError
from trainables.base.errors import one_line

#: A float with steps becomes a choice if it has at most this many values, else a range.
MOST_STEPS = 100


def read_study(url: str, name: str | None, metric: str | None) -> Imported:
    """Reads a study with one objective.

    The intermediate values of a trial become the objective of its epochs 1, 2, ... If they lack the value of the trial,
    it becomes the objective of one more epoch.

    Args:
        url: of the storage, such as `sqlite:///study.db`.
        name: of the study; None: the only study of the storage.
        metric: name of the objective; by default the name that the study has for it, else `value`.

    Raises:
        InputError: there is no such study, or it has several objectives.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    shown = without_secrets(url)
    with _opened(url):
        names = optuna.get_all_study_names(url)
    if (name is None and len(names) != 1) or (name is not None and name not in names):
        problem = "which study? give --study" if name is None else f"--study {name}: there is none of that name"
        raise InputError(f"{shown}: {problem}; there are {', '.join(names) or 'none'}")
    with _opened(url):
        study = optuna.load_study(study_name=name or names[0], storage=url)
    if len(study.directions) > 1:
        raise InputError(f"{shown}: {study.study_name} has {len(study.directions)} objectives; one is read")
    metric = metric or (study.metric_names or ["value"])[0]
    states, notes = optuna.trial.TrialState, list[str]()
    every = study.get_trials(deepcopy=False)
    ended = [trial for trial in every if trial.state.is_finished()]
    if len(ended) < len(every):
        notes.append(f"{len(every) - len(ended)} trials that never ended are left out")
    space = _space(ended, notes)
    outcomes: dict[Any, Any] = {states.COMPLETE: "completed", states.PRUNED: "stopped_early", states.FAIL: "failed"}
    trials = [
        ImportedTrial({n: _plain(v) for n, v in trial.params.items()}, _curve(trial, metric), outcomes[trial.state])
        for trial in ended
    ]
    # A pruned trial without a value was not pruned because of its results.
    trials = [t for t in trials if t.curve or t.outcome == "failed"]
    mode = "min" if study.direction == optuna.study.StudyDirection.MINIMIZE else "max"
    return Imported(shown, study.study_name, metric, mode, space, trials, notes)


@contextmanager
def _opened(url: str) -> Iterator[None]:
    """Turns every error in the block into an InputError of one line, without the secrets of the storage's address."""
    remember(url)
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        missing: BaseException | None = error  # the message of Optuna does not name the driver
        while missing is not None and not isinstance(missing, ModuleNotFoundError):
            missing = missing.__cause__ or missing.__context__
        reason = one_line(missing or error)
        raise InputError(
            f"{without_secrets(url)}: the driver of this database is not installed ({reason}); install it, or name "
            "another in the address, such as postgresql+psycopg2://"
        ) from error
    except Exception as error:  # each driver raises its own errors
        reason = one_line(redacted(str(error))) or type(error).__name__
        raise InputError(f"{without_secrets(url)}: cannot be opened as a storage of Optuna ({reason})") from error


def write_study(
    config: SearchConfig, state: SearchState, name: str, url: str, events: Sequence[Event] = ()
) -> list[str]:
    """Writes a search as a study into a storage of Optuna, for Optuna's dashboard.

    Optuna's best trial is always a complete trial. Therefore the best trial of the search is written as complete, even
    if it was stopped early.

    Args:
        events: the journal, which has the times of each trial.

    Returns:
        Lines for the user.

    Raises:
        InputError: the storage has a study of that name, or cannot be written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    objectives = config.objectives or (state.objective,)
    directions = ["minimize" if objective.mode == "min" else "maximize" for objective in objectives]
    shown = without_secrets(url)
    with _opened(url):
        if name in optuna.get_all_study_names(url):
            raise InputError(f"{shown}: it has a study {name} already; delete that, or write to another file")
        study = optuna.create_study(storage=url, study_name=name, directions=directions)
    study.set_metric_names([objective.metric for objective in objectives])
    study.set_user_attr("task", config.task)
    times = _times(events)
    best, states, notes = state.best(), optuna.trial.TrialState, list[str]()
    for _, trial in sorted(state.trials.items()):
        kind = states.FAIL
        if trial.can_win or trial.outcome == "infeasible" or trial.infeasible:
            kind = states.COMPLETE if trial.outcome == "completed" or trial is best else states.PRUNED
        if trial is best and trial.outcome != "completed":
            notes.append(f"trial {trial.number}, the best, is written as complete although it was {trial.outcome}")
        frozen = _frozen(trial, config, state, kind, objectives)
        if trial.number in times:
            frozen.datetime_start, frozen.datetime_complete = times[trial.number]
        study.add_trial(frozen)
    return [f"{len(state.trials)} trials written to {shown} as study {name}", *notes]


def _times(events: Sequence[Event]) -> dict[int, tuple[datetime, datetime]]:
    """The times of the first and the last event of each trial, in local time as Optuna needs it."""
    times: dict[int, tuple[datetime, datetime]] = {}
    for event in events:
        number, when = event.get("number"), event.get("time")
        # An audit continues a stopped trial after the search; its events do not count.
        if isinstance(number, int) and when is not None and not event["event"].startswith("audit"):
            moment = datetime.fromtimestamp(when / 1000)
            times[number] = (times[number][0] if number in times else moment, moment)
    return times


def _frozen(trial: Trial, config: SearchConfig, state: SearchState, kind: Any, objectives: Sequence[Any]) -> Any:
    """The trial as an Optuna `FrozenTrial`."""
    import optuna

    metric = state.objective.key
    searched = [p for p in config.space.parameters if p.searched and p.name in trial.params]
    parameters = [p for p in searched if p.exists(trial.params) and p.allows(trial.params[p.name])]
    complete = kind == optuna.trial.TrialState.COMPLETE
    curve = {epoch: m[metric] for epoch, m in trial.curve.items() if math.isfinite(m.get(metric, math.nan))}
    return optuna.trial.create_trial(
        state=kind,
        values=[trial.best_value, *(value_of(trial, other) for other in objectives[1:])] if complete else None,
        params={p.name: trial.params[p.name] for p in parameters},
        distributions={p.name: distribution(p) for p in parameters},
        intermediate_values=curve if len(objectives) == 1 else {},
        constraints={limit.metric: beyond for limit in config.search.outcome_limits
                     if (beyond := limit.excess(trial.judged)) is not None} or None,
        user_attrs={"number": trial.number, "outcome": trial.outcome, "seed": trial.seed, "seconds": trial.seconds},
    )  # fmt: skip


def _curve(trial: Any, metric: str) -> dict[int, dict[str, float]]:
    """The objective by epoch. Steps that begin with 0 or less are shifted to begin with 1."""
    reported = {step: value for step, value in sorted(trial.intermediate_values.items()) if math.isfinite(value)}
    shift = max(0, 1 - min(reported, default=1))
    curve = {step + shift: {metric: float(value)} for step, value in reported.items()}
    if trial.value is not None and trial.value not in reported.values():
        curve[max(curve, default=0) + 1] = {metric: float(trial.value)}
    return curve


def _space(trials: Sequence[Any], notes: list[str]) -> dict[str, Any]:
    """The spec of each parameter of any trial.

    A parameter that some trials lack gets a condition on a parent: a parameter whose value decides whether it exists. A
    trial may have failed before it asked for all its parameters, so failed trials are no evidence for a condition.
    """
    distributions: dict[str, list[Any]] = {}
    for trial in trials:
        for name, of_trial in trial.distributions.items():
            distributions.setdefault(name, []).append(of_trial)
    space = {name: _spec(name, of_trials, notes) for name, of_trials in distributions.items()}
    configurations = [trial.params for trial in trials if trial.value is not None or trial.intermediate_values]
    configurations = configurations or [trial.params for trial in trials if trial.params]
    everywhere = [name for name in space if all(name in params for params in configurations)]
    parents = {name: _values(space[name]) for name in sorted(everywhere, key=lambda name: "choice" not in space[name])}
    for name, spec in space.items():
        if name in everywhere:
            continue
        for parent, values in parents.items():
            present = {_plain(params[parent]) for params in configurations if name in params}
            absent = {_plain(params[parent]) for params in configurations if name not in params}
            if values and not present & absent:
                spec["when"] = {parent: _values_with_child(values, present, absent)}
                break
        else:
            notes.append(f"{name}: some trials lack it, and no other parameter says which; it is taken to exist in all")
    return space


def _values(spec: Mapping[str, Any]) -> list[Any]:
    """The values of a choice or of a short range of integers, in their order; an empty list for other specs."""
    if "choice" in spec:
        return list(spec["choice"])
    if "int" not in spec:
        return []
    low, high = spec["int"]
    step = spec.get("step", 1)
    return list(range(low, high + 1, step)) if (high - low) // step < MOST_STEPS else []


def _values_with_child(values: list[Any], present: set[Any], absent: set[Any]) -> list[Any]:
    """The values of a parent with which a parameter exists.

    A number that no trial has counts if the nearest tried numbers on both sides have the parameter. Example: trials
    with 1 lack the parameter, trials with 2 and 4 have it. Then 3 counts. 5 counts too: on its upper side no number was
    tried.

    Args:
        values: all values of the parent, in their order.
        present, absent: the tried values with and without the parameter.
    """
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    chosen = []
    for index, value in enumerate(values):
        sides = (reversed(values[:index]), values[index + 1 :])
        tried = [next((v for v in side if v in present | absent), None) for side in sides]
        nearest = {v for v in tried if v is not None}
        if value in present or (numbers and value not in absent and nearest and nearest <= present):
            chosen.append(value)
    return chosen


def _spec(name: str, distributions: Sequence[Any], notes: list[str]) -> dict[str, Any]:
    """The spec of a parameter from its distributions in the trials; `notes` gets a sentence if it is not exact."""
    import optuna

    first = distributions[0]
    if isinstance(first, optuna.distributions.CategoricalDistribution):
        return {"choice": list(dict.fromkeys(_plain(value) for value in first.choices))}
    low, high = min(each.low for each in distributions), max(each.high for each in distributions)
    if low == high:
        return {"choice": [low]}
    if isinstance(first, optuna.distributions.IntDistribution):
        if first.log:
            return {"int": [low, high], "log": True}
        step = 1 if any(each.step != first.step for each in distributions) else first.step
        return {"int": [low, high], "step": step} if step != 1 and not (high - low) % step else {"int": [low, high]}
    if first.step is not None:
        if all((each.step, each.low) == (first.step, low) for each in distributions):
            return {"uniform": [low, high], "step": first.step}
        notes.append(f"{name}: its steps differ from trial to trial and are left out")
    return {"loguniform" if first.log else "uniform": [low, high]}


def _plain(value: Any) -> Any:
    """The value, or its text if YAML has no such value."""
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
