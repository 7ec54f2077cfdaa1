"""Writes the report of a search: one HTML file that needs no network."""

from __future__ import annotations

import base64
import importlib.metadata
import platform
import time
import webbrowser
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs
from rich.console import Console

from search.algorithms.pareto import value_of
from search.algorithms.schedulers import make_scheduler
from search.analysis.figures import figures
from search.analysis.pages import render
from search.analysis.summary import summary, tally
from search.config.load import SearchConfig
from search.finals import audit
from search.record.cost import cost
from search.record.redaction import redacted
from search.record.replay import open_search, replay
from search.record.state import SearchState, Trial
from search.record.store import SearchFolder, Store
from search.tracking.client import mlflow_client
from trainables import InputError
from trainables.base.files import replacing

PACKAGES = ("ray", "torch", "transformers", "mlflow", "optuna", "pandas", "numpy")


def report(console: Console, store: Store, name: str, show: bool) -> None:
    """Writes a search's report, logs it to the search's run in MLflow, and opens it in a browser if `show`.

    Raises:
        InputError: there is no such search, or no trial of it has a result.
    """
    folder, description, config = open_search(store, name)
    path = write(folder, description, config)
    console.print(f"report: {path}", markup=False, soft_wrap=True)
    if show:
        webbrowser.open(path.as_uri())
    client = mlflow_client(store)
    experiment = client.get_experiment_by_name(config.task)
    key = f"tags.`search.id` = '{description['id']}' AND tags.`search.run` = 'parent'"
    for run in client.search_runs([experiment.experiment_id], key) if experiment else ():
        client.log_artifact(run.info.run_id, str(path))


def write(folder: SearchFolder, description: dict[str, Any], config: SearchConfig) -> Path:
    """Writes the report into the search's folder; raises InputError if no trial has a result."""
    state, events = replay(folder, config)
    if not any(t.curve for t in state.trials.values()):
        raise InputError(f"{folder.name}: no trial of it has a result to show yet")
    page = render(
        "report.html",
        title=f"{folder.name}: {config.task}",
        name=folder.name,
        task=config.task,
        made=time.strftime("%Y-%m-%d %H:%M"),
        status=state.status,
        summary=[redacted(line) for line in summary(state, config)],
        plotly=get_plotlyjs(),
        figures=figures(state, config, events),
        stopping=_stopping(state, config),
        spent=_spent(state, config),
        optimism=_optimism(state),
        trials=_trials(state, config),
        pictures=_pictures(folder, state),
        samples=folder.samples(state.final),
        facts=_facts(description, config),
    )
    path = folder.path / "report.html"
    with replacing(path) as file:
        file.write(page.encode())
    return path


def _stopping(state: SearchState, config: SearchConfig) -> dict[str, Any]:
    """The rungs, and what early stopping saved: the epochs that stopped trials did not train, at their own pace."""
    scheduler = make_scheduler(config)
    for trial in state.trials.values():  # the order does not matter to a rung; diverged trials left theirs
        for epoch, metrics in trial.curve.items() if trial.outcome != "diverged" else ():
            scheduler.record(trial.number, epoch, state.objective.val_loss(metrics))
    stopped = [t for t in state.trials.values() if t.outcome == "stopped_early"]
    audited = audit.table(state)
    epochs = sum(config.search.epochs - t.epoch for t in stopped)
    return {
        "rule": config.search.scheduler,
        "rungs": [
            {
                "epoch": epoch,
                "trials": len(rung),
                "stopped": sum(1 for t in stopped if t.epoch == epoch),
                "best": f"{state.objective.loss(min(rung.values())):.4g}",
            }
            for epoch, rung in scheduler.rungs().items()
            if rung
        ],
        "audit": audit.words(audited, state),
        "audited": audited,
        "stopped": len(stopped),
        "epochs": epochs,
        "hours": sum(t.seconds / t.epoch * (config.search.epochs - t.epoch) for t in stopped) / 3600,
    }


def _spent(state: SearchState, config: SearchConfig) -> list[dict[str, Any]]:
    """Time and money by the outcome of the trials, and the time of what followed them."""
    groups: dict[str, list[Trial]] = {}
    for trial in state.trials.values():
        groups.setdefault(trial.outcome or "running", []).append(trial)
    rows = []
    for outcome, trials in sorted(groups.items()):
        costs = [cost(t, config.resources) for t in trials]
        rows.append(
            {
                "outcome": outcome.replace("_", " "),
                "trials": len(trials),
                "epochs": sum(t.epoch for t in trials),
                **{
                    key: sum(c.get(f"{key}_seconds", 0.0) for c in costs) / 3600 for key in ("cpu", "gpu")
                },
                "money": sum(c["cost"] for c in costs),
            }
        )  # fmt: skip
    for name, done in (("final training", state.finals.values()), ("comparison", state.repeats.values())):
        if curves := [one.curve for one in done if one.curve]:
            seconds = sum(m.get("epoch_seconds", 0.0) for curve in curves for m in curve.values())
            hours = {"cpu": seconds * config.resources.cpus / 3600, "gpu": 0.0}
            rows.append(
                {"outcome": name, "trials": len(curves), "epochs": sum(map(len, curves)), **hours, "money": 0.0}
            )
    return rows


def _optimism(state: SearchState) -> str:
    """A sentence on the winner's curse: the best of many validation figures flatters the trial that it chose."""
    final = state.final
    if final is None or final.test is None:
        return ""
    best, metric = state.trials[final.trial], state.objective.metric
    gap = state.objective.loss(final.test[metric]) - state.objective.loss(best.best_value)
    return (
        f"The winner's {metric} was {best.best_value:.4g} on validation, where it was chosen among "
        f"{len(state.ranked())} trials, and is {final.test[metric]:.4g} on test, after training on both: "
        f"{abs(gap):.2g} {'worse' if gap > 0 else 'better'}."
    )


def _trials(state: SearchState, config: SearchConfig) -> dict[str, Any]:
    """The table of the best hundred trials."""
    names = [p.name for p in config.space.parameters if p.searched]
    objectives = config.objectives or (state.objective,)
    ranked = state.ranked()
    rest = [t for t in state.trials.values() if not t.can_win]
    rows = [
        [
            trial.number, (trial.outcome or "running").replace("_", " "), trial.epoch,
            *(f"{value_of(trial, o):.4g}" if trial.can_win else "" for o in objectives),
            *(_shown(trial.params.get(name)) for name in names),
        ]
        for trial in [*ranked, *rest][:100]
    ]  # fmt: skip
    heads = ["trial", "outcome", "epochs", *(o.metric for o in objectives), *names]
    outcomes = tally(trial.outcome for trial in state.trials.values())
    return {"heads": heads, "rows": rows, "all": len(state.trials), "tally": outcomes}


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _pictures(folder: SearchFolder, state: SearchState) -> list[dict[str, str]]:
    """The pictures of the final model and of the comparison, base64-encoded."""
    final = sorted((folder.final(state.final.trial, 0) / "artifacts").glob("*.png")) if state.final else []
    paths = [*final, *sorted(folder.comparison.glob("*.png"))]
    return [
        {"name": path.stem.replace("_", " "), "data": base64.b64encode(path.read_bytes()).decode()} for path in paths
    ]


def _facts(description: dict[str, Any], config: SearchConfig) -> dict[str, dict[str, str]]:
    """Tables of the data, the environment, and the command that repeats the search."""
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    data = f" --data {description['data']}" if description["data"] else ""
    return {
        "Data": {
            "source": redacted(str(description["data"] or "the task's demo")),
            "fingerprint": description["fingerprint"],
            **{f"data.{key}": redacted(str(value)) for key, value in config.data.items()},
        },
        "Environment": {
            "python": platform.python_version(), "machine": platform.platform(), "commit": description["commit"],
            **versions,
        },
        "Again": {
            "command": redacted(f"python -m search run {config.task}{data}"),
            **{section: redacted(str(config.raw[section])) for section in ("search", "resources", "space")},
        },
    }  # fmt: skip
