"""Begins a search with the trials of an earlier search of its task (`--from NAME`)."""

from __future__ import annotations

from collections import Counter

from search.config.load import SearchConfig
from search.record.events import EarlierTrial, WarmStarted
from search.record.replay import open_search, replay
from search.record.state import Trial
from search.record.store import Store
from trainables import InputError, Objective, get_task


def from_search(store: Store, name: str, config: SearchConfig, fingerprint: str) -> tuple[WarmStarted, list[str]]:
    """Reads the finished trials of search `name` that fit into this search's space.

    A trial fits if each of its hyperparameters that is searched here too has a value in this search's range.
    Hyperparameters that the earlier search did not have are left open.

    Returns:
        The event that tells the searcher of them, and lines for the user.

    Raises:
        InputError: there is no such search, it is of another task, or nothing of it can be used.
    """
    place = f"--from {name}"
    if config.search.searcher not in ("ranks", "tpe", "gp"):
        learn = "ranks, tpe and gp do"
        raise InputError(f"{place}: the {config.search.searcher} searcher learns nothing from trials; {learn}")
    folder, description, earlier = open_search(store, name)
    if earlier.task != config.task and not description.get("imported"):
        raise InputError(f"{place}: a search of {earlier.task}, not of {config.task}")
    own, other = get_task(config.task).objective, get_task(earlier.task).objective
    if own.mode != other.mode:
        raise InputError(f"{place}: its {other.metric} is better where it is {other.mode}, not {own.mode}")
    state, _ = replay(folder, earlier)
    finished = [t for t in state.trials.values() if t.over and t.outcome != "failed"]
    outside: Counter[str] = Counter()
    taken: list[EarlierTrial] = []
    for trial in finished:
        wrong = next(
            (
                p.name
                for p in config.space.parameters
                if p.searched and p.name in trial.params and p.exists(trial.params)
                and not p.allows(trial.params[p.name])
            ),
            None,
        )  # fmt: skip
        if wrong:
            outside[wrong] += 1
        else:
            metric = f"val_{state.objective.metric}"
            values = {str(e): m[metric] for e, m in trial.curve.items() if metric in m}
            taken.append({"params": trial.params, "outcome": trial.outcome, "values": values})
    reasons = ", ".join(f"{n} for {parameter}" for parameter, n in outside.items())
    left = f"; {sum(outside.values())} lie outside this space ({reasons})" if outside else ""
    if not taken:
        raise InputError(f"{place}: none of its {len(finished)} finished trials can be used{left}")
    said = [f"warm start: {len(taken)} of {len(finished)} finished trials of {name} taken{left}"]
    if description["fingerprint"] != fingerprint and not description.get("imported"):
        said.append(f"warm start: {name} was made on other data (fingerprint {description['fingerprint']})")
    return {"event": "warm_start", "from": name, "trials": taken}, said


def as_trials(event: WarmStarted, objective: Objective) -> list[Trial]:
    """The trials of the event, numbered below zero, as `Searcher.learn` takes them."""
    trials = []
    for index, told in enumerate(event["trials"]):
        trial = Trial(-1 - index, told["params"], seed=0, outcome=told["outcome"])
        for epoch, value in told["values"].items():
            trial.take(int(epoch), {f"val_{objective.metric}": value}, objective)
        trials.append(trial)
    return trials
