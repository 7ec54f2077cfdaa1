"""What must hold after a sequence: nothing lost, nothing doubled, the same bits.

What MLflow has is read from its database, so that nothing of the delivery can hide it.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd

from search.core.events import Event
from search.core.journal import read_events
from search.core.redaction import redacted
from search.core.state import SearchState
from search.tracking.events_to_runs import STATUS, SUMMARY
from tests.fuzz.known import HELD_BACK
from tests.fuzz.world import Action, Case, World, broken, play, undisturbed

#: Names that MLflow takes as they are; others stand there translated.
_PLAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 -]|_(?!_)){0,199}")
#: The longest value of a parameter that is logged.
_PARAM = 6000


class Tracked:
    """The runs of one database of MLflow, by their keys in the search."""

    def __init__(self, world: World) -> None:
        with closing(sqlite3.connect(world.database)) as database:
            runs, tags, params, metrics, versions, models, aliases = (
                pd.read_sql_query(f"SELECT * FROM {table}", database)
                for table in ("runs", "tags", "params", "metrics", "model_versions", "logged_models",
                              "registered_model_aliases")
            )  # fmt: skip
        self.versions, self.models, self.aliases = versions, models, aliases
        self.metrics = metrics
        #: The run ids of each key; more than one is a doubled run.
        self.ids: dict[str, list[str]] = defaultdict(list)
        self.tags: dict[str, dict[str, str]] = defaultdict(dict)
        self.params: dict[str, dict[str, str]] = defaultdict(dict)
        for tag in tags.itertuples():
            self.tags[tag.run_uuid][tag.key] = tag.value
        for param in params.itertuples():
            self.params[param.run_uuid][param.key] = param.value
        for run_id in runs[runs["lifecycle_stage"] == "active"]["run_uuid"]:
            self.ids[self.tags[run_id].get("search.run", f"no key: {run_id}")].append(run_id)
        self.status = dict(zip(runs["run_uuid"], runs["status"], strict=True))
        self.at: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
        for row in metrics[metrics["is_nan"] == 0].itertuples():
            self.at[row.run_uuid, row.step][row.key] = row.value

    def run(self, key: str) -> str:
        """The id of the run of a key."""
        return self.ids[key][0]


def hold(case: Case, actions: Sequence[Action], folder: Path, empty: Path) -> None:
    """Plays a sequence and checks every promise; raises Broken.

    Args:
        folder: is used and emptied.
        empty: a database of MLflow without runs.
    """
    world = play(case, actions, folder / "world", empty)
    if not world.folder.exists:  # the case itself is refused
        return
    # A session that failures stopped is gone on with by each `resume`, which tries one more trial.
    failed = any(e["event"] == "ended" and e["status"] == "failed" for e in read_events(world.folder.journal))
    exact = world.exact and not failed
    same = undisturbed(case, world.requests, folder / "undisturbed", empty) if exact else None
    check(world, same)


def check(world: World, reference: World | None) -> None:
    """Checks every promise of a world that has just ended an undisturbed resume.

    Args:
        reference: an undisturbed search with the same requests; None where there can be none.

    Raises:
        Broken: the first one that does not hold.
    """
    events, state = list(read_events(world.folder.journal)), world.state()
    _check_journal(world, events)
    if complaints := [line for line in world.last_output.splitlines() if line.startswith("MLflow ")]:
        raise broken("events lost", "; ".join(complaints))
    tracked = Tracked(world)
    _check_runs(world, tracked, events, state)
    for event in events:
        _check_event(tracked, event)
    _check_outcomes(world, tracked, state)
    _check_doubled(world, tracked)
    _check_versions(world, tracked, events)
    if reference is not None:
        _check_bits(world.results(), reference.results())


def _check_journal(world: World, events: list[Event]) -> None:
    left = iter(events)
    for one in world.acknowledged:
        if not any(repr(one) == repr(event) for event in left):
            raise broken("journal lost", f"{one}")
    seen: Counter[tuple[Any, ...]] = Counter()
    for event in events:
        match event["event"]:
            case "warm_start":
                seen["warm start",] += 1
            case "trial":
                seen["trial", event["number"]] += 1
            case "result":
                seen["result", event["number"], event["epoch"]] += 1
            case "final_result":
                seen["final", event["trial"], event["seed"], event["epochs"], event["epoch"]] += 1
            case "final_finished":
                seen["finished", event["trial"], event["seed"], event["epochs"], event.get("merged", True)] += 1
    if doubled := [key for key, count in seen.items() if count > 1]:
        raise broken("journal doubled", f"{doubled}")
    if world.case.warm and events and not seen["warm start",] and world.case.searcher in ("tpe", "ranks"):
        raise broken("journal lost", "the warm start")
    numbers = [key[1] for key in seen if key[0] == "trial"]
    if numbers != list(range(len(numbers))):
        raise broken("journal lost", f"trials {numbers}")


def _key(event: Any) -> str:
    if "number" in event:
        return f"trial-{event['number']}"
    return f"final-{event['seed']}-{event['trial']}-{event['epochs']}" + ("" if event.get("merged", True) else "-kept")


def _check_runs(world: World, tracked: Tracked, events: list[Event], state: SearchState) -> None:
    wanted = {"parent"} | {_key(e) for e in events if e["event"] in ("trial", "final_started")}
    if missing := wanted - tracked.ids.keys():
        raise broken("runs lost", f"{sorted(missing)}")
    doubled = {key: len(ids) for key, ids in tracked.ids.items() if len(ids) > 1}
    # MLflow keeps the runs of events that a damaged journal lost: the search may then choose another trial.
    unknown = set() if world.told_again else tracked.ids.keys() - wanted
    if doubled or unknown:
        raise broken("runs doubled", f"{doubled or sorted(unknown)}")


def _check_event(tracked: Tracked, event: Event) -> None:
    match event["event"]:
        case "trial" | "final_started":
            given = {k: _shown(redacted(str(v))) for k, v in event["params"].items() if v is not None}
            there = {k: _shown(v) for k, v in tracked.params[tracked.run(_key(event))].items()}
            _check_values("params lost", given, there, _key(event))
        case "result" | "final_result":
            run_id, metrics = tracked.run(_key(event)), _finite(event["metrics"])
            _check_values(
                "metrics lost", metrics, tracked.at[run_id, event["epoch"]], f"{_key(event)} {event['epoch']}"
            )
        case "final_finished":
            test = _finite({f"test_{key}": value for key, value in event["test"].items()})
            _check_values("metrics lost", test, tracked.at[tracked.run(_key(event)), 0], f"test of {_key(event)}")


def _check_values(promise: str, given: dict[str, Any], there: dict[str, Any], where: str) -> None:
    """Plain names stand there as they are; for others it is enough that their values do, under whatever name."""
    wrong = {
        k: (v, there.get(k)) for k, v in given.items() if _PLAIN.fullmatch(k) and k not in SUMMARY and there.get(k) != v
    }
    lacking = Counter(given.values()) - Counter(there.values())
    if wrong or lacking:
        raise broken(promise, f"{where}: {wrong or dict(lacking)}")


def _shown(value: str) -> str:
    """The value of a parameter, without what a database may refuse."""
    return value.replace("\0", r"\x00").encode(errors="backslashreplace").decode()[:_PARAM]


def _finite(metrics: dict[str, Any]) -> dict[str, float]:
    found = {}
    for key, value in metrics.items():
        try:
            if math.isfinite(value):
                found[key] = float(value)
        except OverflowError:  # an integer beyond every float
            continue
    return found


def _check_outcomes(world: World, tracked: Tracked, state: SearchState) -> None:
    for number, trial in state.trials.items():
        run_id = tracked.run(f"trial-{number}")
        outcome = tracked.tags[run_id].get("outcome")
        if outcome != (trial.outcome or "running"):
            raise broken("outcomes lost", f"trial {number}: {outcome}, the journal says {trial.outcome}")
        if trial.outcome and tracked.status[run_id] != STATUS[trial.outcome]:
            raise broken("outcomes lost", f"trial {number}: {tracked.status[run_id]}, though {trial.outcome}")
    parent, best = tracked.run("parent"), state.best()
    outcome = "completed" if state.status == "finished" else state.status
    if tracked.tags[parent].get("outcome") != outcome:
        raise broken("outcomes lost", f"parent: {tracked.tags[parent].get('outcome')}, the journal says {outcome}")
    if best is not None and math.isfinite(best.best_value):
        values = world_values(tracked, parent)
        if best.best_value not in values:
            raise broken("metrics lost", f"parent: best value {best.best_value} is not among {sorted(values)}")


def world_values(tracked: Tracked, run_id: str) -> set[float]:
    """Every value that a run has."""
    return {value for (one, _), there in tracked.at.items() if one == run_id for value in there.values()}


def _check_doubled(world: World, tracked: Tracked) -> None:
    if world.told_again:
        return
    counts = tracked.metrics.groupby(["run_uuid", "key", "step"]).size()
    if len(doubled := counts[counts > 1]):
        run_id, key, step = doubled.index[0]
        raise broken("metrics doubled", f"{tracked.tags[run_id].get('search.run')}: {key} at {step}: {doubled.iloc[0]}")


def _check_versions(world: World, tracked: Tracked, events: Iterable[Event]) -> None:
    chosen = [_key(e) for e in events if e["event"] == "final_finished" and e["chosen"]]
    wanted = Counter(tracked.run(key) for key in chosen) if world.case.makes_model else Counter()
    there = Counter(tracked.versions["run_id"])
    if wanted - there:
        raise broken("versions lost", f"{len(chosen)} chosen models, {len(tracked.versions)} versions")
    if wanted and not len(tracked.aliases):
        raise broken("versions lost", "no version is the champion")
    if world.told_again:  # MLflow keeps the versions of events that a damaged journal lost
        return
    if there - wanted:
        raise broken("versions doubled", f"{len(chosen)} chosen models, {len(tracked.versions)} versions")
    if len(tracked.models) != sum(wanted.values()) and "orphans" not in HELD_BACK:
        raise broken("models doubled", f"{len(tracked.models)} logged models for {len(chosen)} versions")


def _check_bits(found: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    for part, wanted in undisturbed.items():
        if repr(found.get(part)) != repr(wanted):
            raise broken("other bits", f"{part}: {found.get(part)!r:.600} instead of {wanted!r:.600}")
