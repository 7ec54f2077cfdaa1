"""The page of a search: its data, and the page as one HTML file that needs no network.

`search watch` serves the same page of a running search (`search/watch`).
"""

from __future__ import annotations

import base64
import importlib.metadata
import math
import platform
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from plotly.offline import get_plotlyjs

from search.core import limits
from search.core.config import SearchConfig
from search.core.cost import cost
from search.core.events import Event
from search.core.outlook import outlook_line
from search.core.readable import duration, figure, visible
from search.core.readable import value as significant
from search.core.record import SearchRecord
from search.core.redaction import redacted
from search.core.replay import open_search
from search.core.requests import in_words
from search.core.state import FinalRun, SearchState, Trial
from search.core.store import SearchFolder, Store
from search.final import finalist_comparison, variant_comparison
from search.final.audit_result import audit_paragraph, audit_rows
from search.reports.figures import FINALISTS, STYLES, Drawing, drawings, hovers
from search.reports.frames import trials_frame
from search.reports.pages import render
from search.reports.repeat_command import again
from search.reports.summary import (
    at_best,
    by_preference,
    configuration,
    limits_line,
    no_winner,
    share_of_front,
    tally,
)
from search.reports.view import View
from trainables import InputError
from trainables.base.files import replacing

PACKAGES = ("ray", "torch", "transformers", "mlflow", "optuna", "pandas", "numpy")
#: Most trials in the table, and in the table that is printed; `compare` lists all of them.
ROWS, PRINTED_ROWS = 5000, 100
#: Characters of a line of a table on a printed page.
PRINTED = 96


def report_search(store: Store, name: str) -> Path:
    """Writes the report of a search and returns its path: `report.html` in the folder of the search.

    Of a store that can only be read, the report is `NAME-report.html` in the current folder.

    Raises:
        InputError: there is no such search, or no trial of it has a result.
    """
    path = None if store.is_writable else Path(f"{name}-report.html").resolve()
    return write_report(*open_search(store, name), path)


def write_report(folder: SearchFolder, record: SearchRecord, config: SearchConfig, path: Path | None = None) -> Path:
    """Writes the report, by default into the folder of the search; raises InputError if no trial has a result."""
    view = View(folder, record, config)
    view.read()
    if not any(t.curve for t in view.state.trials.values()):
        raise InputError(f"{folder.name}: {no_winner(view.state)}; there is nothing to show")
    page = render("report.html", **page_data(view) | {"plotly": plotly_script(), "script": page_script()})
    path = path or folder.path / "report.html"
    with replacing(path) as file:
        file.write(page.encode())
    return path


def page_script() -> str:
    """The script of the page."""
    return (Path(__file__).parent / "report.js").read_text()


def plotly_script() -> str:
    """The script that draws the figures, from the installed package."""
    return str(get_plotlyjs())


def page_data(view: View) -> dict[str, Any]:
    """All that the page shows of a search, as plain data: the values of the template `report.html`.

    `drawn` is for the page's script: figures, the text of hover labels, and the table of trials.
    """
    folder, record, config, state, events = view.folder, view.record, view.config, view.state, view.events
    drawn = drawings(state, config, events, view.study.rungs())
    budget = _budget(view)
    trials = _trials(folder, state, config)
    return {
        "title": f"{folder.name}: {config.task}", "name": folder.name, "task": config.task,
        "made": _moment(time.time()), "status": "paused" if state.is_paused and view.is_running else state.status,
        "said": _moment(events[-1].get("time", 0) / 1000) if events else "",
        "head": [*_head(view), *budget["rows"]], "bars": budget["bars"], "remarks": _remarks(state),
        "drawings": _drawings(drawn, state), "stopping": _stopping(view), "spent": _spent(state, config),
        "comparison": _comparison(folder, state, config), "final": _final(folder, state, config),
        "trials": trials, "facts": _facts(record, config), "again": again(folder, record, config, _origin(events)),
        "settings": redacted(yaml.safe_dump(config.raw, sort_keys=False)),
        "drawn": {
            "figures": {_id(one): _figures(one) for one in drawn}, "hover": hovers(state, config),
            "trials": {key: trials[key] for key in ("heads", "rows")}, "name": folder.name,
        },
        "live": False, "plotly": "", "script": "",
    }  # fmt: skip


def _moment(seconds: float) -> str:
    """A time since 1970 as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _budget(view: View) -> dict[str, Any]:
    """The budget used and reserved: `rows` for the head, and `bars` with shares of 0 to 1."""
    config, state = view.config, view.state
    rows, bars = [], []

    def add(name: str, used: float, of: float, reserved: float, words: str) -> None:
        rows.append({"name": name, "figure": "", "words": words, "verdict": "", "good": True})
        bars.append({"name": name, "used": min(1.0, used / of), "reserved": min(1.0, reserved / of), "words": words})

    if clock := view.time_budget():
        words = f"{duration(clock['used'])} used of {duration(clock['of'])}"
        if clock["reserved"]:
            words += f", {duration(clock['reserved'])} reserved for the trainings after the trials"
        add("time budget", clock["used"], clock["of"], clock["reserved"], words)
    if most := config.search.trials:
        ended = sum(t.over for t in state.trials.values())
        words = f"{ended} of {most} trials ended, {len(state.trials)} proposed"
        add("trials to run", ended, most, (len(state.trials) - ended), words)
    if most := config.search.epoch_budget:
        unit, spent = config.search.unit, sum(t.epoch for t in state.trials.values())
        add(f"{unit.name} budget", spent, most, 0, f"{unit.count(spent)} used of {unit(most)}")
    if money := config.search.cost_budget:
        used, kept = limits.spent(config, state), limits.reserved(config, state) * view.record.retrain
        words = f"{figure(used)} used of {figure(money)}"
        if kept:
            words += f", about {figure(kept)} kept for the final training"
        add("cost budget", used, money, kept, words)
    return {"rows": rows, "bars": bars}


def _head(view: View) -> list[dict[str, Any]]:
    """The rows of the first table: `name`, `figure`, `words`, `verdict`, and whether the verdict is `good`."""
    state, config = view.state, view.config
    rows: list[dict[str, Any]] = []

    def row(name: str, figure: str, words: str, verdict: str = "", good: bool = True) -> None:
        rows.append({"name": name, "figure": figure, "words": redacted(words), "verdict": verdict, "good": good})

    metric, best, final, unit = state.objective.metric, state.best(), state.final, config.search.unit
    if final is not None and final.test:
        row(state.objective.test_key, figure(final.test[metric]), _how(final, config))
        for name, value in final.baselines.items():
            good = state.objective.better(final.test[metric], value)
            row(f"baseline {name}", figure(value), "on test", "beaten" if good else "NOT beaten", good)
    if best is None:
        row("best trial", "", no_winner(state))
    else:
        when = f"trial {best.number} at {unit.at(best.best_epoch)} of {unit(config.search.epochs)}"
        if chosen := by_preference(state):
            row("best trial", "", f"{when},{chosen}: {at_best(best, config)}")
        else:
            row(f"best {state.objective.key}", figure(best.best_value), when)
        row("its configuration", "", configuration(best, config))
    if config.objectives and (knee := state.knee()) is not None:
        numbers = ", ".join(str(t.number) for t in state.front())
        row("Pareto front", "", f"of {', '.join(config.search.objective or ())}: trials {numbers}")
        row("knee of the front", "", f"trial {knee.number}: {at_best(knee, config)}")
        if share := share_of_front(state):
            row("hypervolume", "", f"the front dominates {share}")
    row("trials", str(len(state.trials)), tally(t.outcome for t in state.trials.values()).replace("_", " "))
    if line := limits_line(state, config):
        name, _, words = line.partition(": ")
        row(name, "", words)
    trained = sum(t.seconds for t in state.trials.values())
    sessions = f" in {state.sessions} sessions" if state.sessions > 1 else ""
    until = time.time() * 1000 if view.is_running else None
    row(
        "time",
        duration(elapsed(view.events, until)),
        f"{sessions} {'from beginning to end' if until is None else 'until now'}; "
        f"{duration(trained)} of training in all trials",
    )
    if line := outlook_line(config, state):
        name, _, words = line.partition(": ")
        row(name, "", words)
    if limit := limits.in_force(config, state):
        row("ended by", limit["why"], limit["reason"])
    if state.requests:
        asked = (f"{in_words(event)} ({state.by_request(name)})" for name, event in state.requests.items())
        row("requests", str(len(state.requests)), "; ".join(asked))
    return rows


def _how(final: FinalRun, config: SearchConfig) -> str:
    """How a final model was trained."""
    unit = config.search.unit
    if not final.merged:
        own = f"trial {final.trial}'s own model of {unit.at(final.epochs)}"
        return f"{own}, trained on train alone as the budget holds no more"
    data = "" if config.is_own_program else " on train+validation"
    return f"trial {final.trial} trained again{data}, {unit.count(final.epochs)}, seed {final.seed}"


def elapsed(events: Sequence[Event], until: float | None = None) -> float:
    """Seconds of all sessions: the time from the beginning of each session to its last event.

    Args:
        until: the end of the last session, in milliseconds since 1970; None: its last event.
    """
    total = 0.0
    first = last = 0.0
    for event in events:
        if event["event"] == "request":  # one may come right before a session begins
            continue
        now = event.get("time", last)
        if event["event"] == "session":
            total += last - first
            first = event.get("began", now)
        last = now
    return (total + max(last, until or last) - first) / 1000


def _remarks(state: SearchState) -> list[str]:
    """Sentences below the head that compare the test figure with the validation figure."""
    final, best, metric = state.final, state.best(), state.objective.metric
    remarks = []
    if final is not None and best is not None and final.trial != best.number:
        remarks.append(
            f"Trained again is trial {final.trial}, and not trial {best.number}, which "
            f"{'has the best single epoch' if state.preference is None else 'the preference chooses now'}."
        )
    if final is not None and final.test:
        # The winner's curse: the best of many validation figures flatters the trial that it chose.
        winner = state.trials[final.trial]
        gap = state.objective.loss(final.test[metric]) - state.objective.loss(winner.best_value)
        how = "after training on both" if final.merged else "of the same model"
        remarks.append(
            f"The winner's {metric} was {figure(winner.best_value)} on validation, where it was chosen among "
            f"{len(state.ranked())} trials, and is {figure(final.test[metric])} on test, {how}: "
            f"{significant(float(f'{abs(gap):.2g}'))} {'worse' if gap > 0 else 'better'}."
        )
    return remarks


def _drawings(drawn: Sequence[Drawing], state: SearchState) -> list[dict[str, Any]]:
    """The headings, words and tables of the drawings; the page's script draws their figures."""
    rows = []
    for drawing in drawn:
        words, table = drawing.words, None
        if drawing.title == FINALISTS and state.decision:
            words += " " + finalist_comparison.finalists_paragraph(state.decision, state.objective)
            grid = finalist_comparison.finalists_grid(state.decision, state.objective.metric)
            table = _table(grid.heads, grid.rows)
        heights = [figure.layout["height"] for figure in drawing.figures]
        rows.append({
            "id": _id(drawing), "title": drawing.title, "words": words, "key": _key(drawing), "table": table,
            "many": len(heights) > 1 and not drawing.names, "heights": heights[:1] if drawing.names else heights,
        })  # fmt: skip
    return rows


def _id(drawing: Drawing) -> str:
    """The id of a drawing on the page; a metric's name in its title may hold any character."""
    return re.sub(r"[^a-z]+", "-", drawing.title.lower())


def _figures(drawing: Drawing) -> dict[str, Any]:
    """The figures of a drawing for the page's script."""
    return {
        "plots": [figure.plain() for figure in drawing.figures], "names": [visible(name) for name in drawing.names],
        "scales": drawing.scales,
    }  # fmt: skip


def _key(drawing: Drawing) -> list[dict[str, str]]:
    return [
        {
            "name": "best trial" if kind == "best" else kind.replace("_", " "), "colour": STYLES[kind].colour,
            "sign": STYLES[kind].sign + "\u00a0",
        }
        for kind in drawing.key
    ]  # fmt: skip


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> dict[str, Any]:
    return {"heads": list(heads), "rows": [list(row) for row in rows]}


def _stopping(view: View) -> dict[str, Any]:
    """The rungs, the epochs and the time that early stopping saved, and the audit of stopped trials."""
    state, config = view.state, view.config
    stopped = [t for t in state.trials.values() if t.outcome == "stopped_early"]
    audited, unit = audit_rows(state), config.search.unit
    return {
        "rule": config.search.scheduler,
        "rungs": _table(
            [f"rung at {unit.name}", "trials", "stopped there", "best"],
            (
                [
                    str(unit(epoch)), str(len(rung)), str(sum(1 for t in stopped if t.epoch == epoch)),
                    figure(state.objective.loss(min(rung.values()))),
                ]
                for epoch, rung in view.study.rungs().items()
                if rung
            ),
        ),
        "audit": audit_paragraph(audited, state),
        "audited": _table(
            ["trial", f"stopped at {unit.name}", "best then", "rank then", "best at the end", "rank at the end"],
            (
                [
                    str(row["trial"]), str(unit(row["epoch"])), figure(row["then"]), str(row["rank_then"]),
                    figure(row["end"]), str(row["rank_end"]),
                ]
                for row in audited
            ),
        ),
        "stopped": len(stopped),
        "saved": unit.count(sum(config.search.epochs - t.epoch for t in stopped)),
        "time": duration(sum(t.epoch_seconds * (config.search.epochs - t.epoch) for t in stopped)),
    }  # fmt: skip


def _spent(state: SearchState, config: SearchConfig) -> dict[str, Any]:
    """Time and cost of the trials by outcome, and of the trainings after them."""
    groups: dict[str, list[Trial]] = {}
    for trial in state.trials.values():
        groups.setdefault(trial.outcome or "running", []).append(trial)
    rows = []
    for outcome, trials in sorted(groups.items()):
        costs = [cost(t, config.resources) for t in trials]
        cpu, gpu, money = (sum(c.get(key, 0.0) for c in costs) for key in ("cpu_seconds", "gpu_seconds", "cost"))
        trained = config.search.unit(sum(t.epoch for t in trials))
        rows.append((outcome.replace("_", " "), len(trials), trained, cpu, gpu, money))
    for name, runs in (("final training", state.finals.values()), ("comparison", state.repeats.values())):
        if curves := [run.curve for run in runs if run.curve]:
            seconds = sum(m.get("epoch_seconds", 0.0) for curve in curves for m in curve.values())
            trained = config.search.unit(sum(map(len, curves)))
            rows.append((name, len(curves), trained, seconds * config.resources.all_cpus, 0.0, 0.0))
    with_gpu, with_money = (any(row[i] for row in rows) for i in (4, 5))
    heads = [
        "outcome",
        "trials",
        f"{config.search.unit.name}s",
        "CPU time",
        *(["GPU time"] if with_gpu else []),
        *(["cost"] if with_money else []),
    ]
    return _table(
        heads,
        (
            [
                name, str(trials), str(epochs), duration(cpu), *([duration(gpu) if gpu else ""] if with_gpu else []),
                *([f"{money:.2f}" if money else ""] if with_money else []),
            ]
            for name, trials, epochs, cpu, gpu, money in rows
        ),
    )  # fmt: skip


def _comparison(folder: SearchFolder, state: SearchState, config: SearchConfig) -> dict[str, Any] | None:
    """The comparison of the variants, with its pictures; None where there is none."""
    frame = variant_comparison.variant_figures(state.repeats.values(), state.objective)
    if not state.compared or frame.empty:
        return None
    name = str(config.search.balance)
    return {
        "title": f"The values of {name} compared",
        "words": variant_comparison.variants_paragraph(frame, name, state.objective),
        "tables": [_table(grid.heads, grid.rows) for grid in variant_comparison.variant_grids(frame, name)],
        "pictures": _pictures(folder.comparison),
    }


def _final(folder: SearchFolder, state: SearchState, config: SearchConfig) -> dict[str, Any] | None:
    """The final model: its test figures with each seed, its pictures, and its text samples."""
    final = state.final
    if final is None:
        return None
    tested = state.tested(final.trial)
    metrics = [key for key in (tested[0].test if tested else None) or {} if "/" not in key]
    tests = {f"seed {run.seed}": run.test for run in tested if run.test}
    if len(tests) > 1:
        tests["mean"] = {key: sum(test[key] for test in tests.values()) / len(tests) for key in metrics}
    rows = [[name, *(figure(test[key]) for key in metrics)] for name, test in tests.items()]
    rows += [
        [f"baseline {name}", *(figure(value) if key == state.objective.metric else "" for key in metrics)]
        for name, value in final.baselines.items()
    ]
    how = _how(final, config)
    return {
        "words": f"{how[0].upper()}{how[1:]}. On test:",
        "tests": _table(["", *metrics], rows),
        "pictures": _pictures(folder.final(final) / "artifacts"),
        "samples": folder.samples(final),
    }


def _trials(folder: SearchFolder, state: SearchState, config: SearchConfig) -> dict[str, Any]:
    """The table of the trials, the best first.

    A row has the number of its trial, the kind of its colour, the texts of its cells, and their `keys` to sort by: a
    number, or None where the text itself is the key.
    """
    names = [p.name for p in config.space.parameters if p.searched]
    objectives = config.objectives or (state.objective,)
    limited = bool(config.search.limits)
    frame = trials_frame(state, objectives=objectives, parameters=names, limited=limited)
    records = {number: dict(zip(frame.columns, row, strict=True)) for number, *row in frame.itertuples(name=None)}
    best, every = state.best(), [*state.ranked(), *(t for t in state.trials.values() if not t.can_win)]
    on_front = {t.number for t in state.front()} if config.objectives else set()
    knee = state.knee() if config.objectives else None
    measured = [state.objective.key, *(objective.metric for objective in objectives[1:])]
    given = list(frame.columns[frame.columns.get_loc("seconds") + 1 :])

    def row(trial: Trial) -> dict[str, Any]:
        values = records[trial.number]
        mark = " best" if trial is best else " knee" if trial is knee else " front" if trial.number in on_front else ""
        cells = [
            (f"{trial.number}{mark}", trial.number),
            (values["outcome"].replace("_", " "), None),
            *([("yes" if values["feasible"] else "no", None)] if limited else []),
            (str(config.search.unit(int(values["epochs"]))), None),
            (duration(values["seconds"]), values["seconds"]),
        ]
        for column in [*measured, *given]:
            value = values[column]
            if pd.isna(value) or (column in measured and not trial.can_win):
                cells.append(("", None))
            else:
                plain = value.item() if hasattr(value, "item") else value  # a column of pandas may hold NumPy's scalars
                shown = figure if column in measured else significant
                cells.append((shown(plain), plain if isinstance(plain, float) and math.isfinite(plain) else None))
        texts, keys = zip(*cells, strict=True)
        return {"number": trial.number, "best": trial is best, "outcome": trial.outcome or "running",
                "cells": texts, "keys": keys}  # fmt: skip

    rows = [row(trial) for trial in every[:ROWS]]
    heads = ["trial", "outcome", *(["feasible"] if limited else [])]
    heads += [f"{config.search.unit.name}s", "time", *measured, *given]
    words = f"{tally(trial.outcome for trial in every).replace('_', ' ')}."
    if left := len(every) - len(rows):
        words += (
            f" The best {len(rows)} are shown and {left} left out; "
            f"`python -m search compare {config.task} --search {folder.name} --top 0` lists them all."
        )
    return {
        "heads": [visible(head) for head in heads], "rows": rows, "words": words,
        "printed": _parts(heads, rows[:PRINTED_ROWS]), "printed_rows": rows[:PRINTED_ROWS],
        "unprinted": max(0, len(rows) - PRINTED_ROWS),
    }  # fmt: skip


def _parts(heads: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The columns of a table in parts that are as wide as a printed page; each part begins with the first column."""
    widths = [2 + max(len(head), *(len(row["cells"][i]) for row in rows), 0) for i, head in enumerate(heads)]
    parts: list[list[int]] = [[0]]
    for column in range(1, len(heads)):
        if len(parts[-1]) > 1 and sum(widths[i] for i in (*parts[-1], column)) > PRINTED:
            parts.append([0])
        parts[-1].append(column)
    return parts


def _pictures(folder: Path) -> list[dict[str, str]]:
    """The pictures in a folder, base64-encoded."""
    return [
        {"name": path.stem.replace("_", " "), "data": base64.b64encode(path.read_bytes()).decode()}
        for path in sorted(folder.glob("*.png"))
    ]


def _origin(events: Sequence[Event]) -> str | None:
    """The value of `--from`: the name of a search, or `auto`; None where it was not given."""
    for event in events:
        if event["event"] == "warm_start":
            return event["from"] if event["trials"] else "auto"
    return None


def _facts(record: SearchRecord, config: SearchConfig) -> dict[str, dict[str, str]]:
    """Tables of the data and the environment."""
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {
        "Data": {
            "source": redacted(_source(record, config)),
            "fingerprint": record.fingerprint,
            **{
                f"data.{key}": redacted(value)
                for key, value in _flat(config.data)
                if record.data is None or not key.startswith("demo.")
            },
        },
        "Environment": {
            "python": platform.python_version(), "machine": platform.platform(), "commit": record.commit,
            **versions,
        },
    }  # fmt: skip


def _source(record: SearchRecord, config: SearchConfig) -> str:
    """The source of the data."""
    if record.imported:
        return f"imported from {record.imported}"
    if record.asked:
        return "whatever the programs read that ask the study"
    own = "whatever the function or the command reads" if config.is_own_program else "the task's demo"
    return str(record.data or own)


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The dotted keys of a section of the configuration with their values as text."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "" if value is None else str(value)
