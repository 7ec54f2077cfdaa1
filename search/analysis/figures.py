"""The interactive figures of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.algorithms.importance import importances
from search.algorithms.pareto import front, value_of
from search.config.load import SearchConfig
from search.config.space import Parameter
from search.record.events import Event
from search.record.state import SearchState, Trial
from trainables import Objective

#: Colours that colour-blind people can tell apart, on white and on black (Okabe and Ito 2008).
COLOURS = {
    "failed": "#cc79a7", "diverged": "#cc79a7", "stopped_early": "#999999", "paused": "#999999",
    "interrupted": "#e69f00", "running": "#e69f00", "timed_out": "#56b4e9", "completed": "#0072b2", "best": "#d55e00",
}  # fmt: skip
#: From `ENOUGH` trials on an importance means something; beyond `PLENTY` more of them only take longer.
ENOUGH, PLENTY = 20, 1000


def figures(state: SearchState, config: SearchConfig, events: Sequence[Event]) -> list[dict[str, str]]:
    """The figures of a search, each with `title`, `words` and `html`."""
    searched = [p for p in config.space.parameters if p.searched]
    shown = [
        (
            "Best so far",
            "The best validation figure by the time since the search began.",
            _anytime(events, state.objective),
        ),
        ("Learning curves", "Each line is a trial; those that were stopped early are grey.", _curves(state)),
        ("Objective against each hyperparameter", "The best epoch of each trial.", _scatter(state, searched)),
        ("Configurations", "Drag along an axis to select trials.", _parallel(state, searched)),
    ]
    for other in config.objectives[1:]:
        words = "What the front's trials gain in one they pay for in the other."
        shown.append((f"{config.objectives[0].metric} against {other.metric}", words, _front(state, config, other)))
    if state.decision:
        words = "Validation chose the finalists and flatters them: below the line test is worse."
        if state.objective.mode == "min":
            words = words.replace("below", "above")
        shown.append(("Validation against test", words, _finalists(state)))
    figure, words = _importance(state, searched)
    shown.append(("Importance", words, figure))
    return [
        {"title": title, "words": words, "html": _html(figure)} for title, words, figure in shown if figure is not None
    ]


def _html(figure: go.Figure) -> str:
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font_color="#888888",
        margin={"l": 70, "r": 30, "t": 50, "b": 45}, legend={"orientation": "h", "y": -0.2},
    )  # fmt: skip
    figure.update_xaxes(gridcolor="rgba(128,128,128,0.25)", zerolinecolor="rgba(128,128,128,0.4)")
    figure.update_yaxes(
        gridcolor="rgba(128,128,128,0.25)", zerolinecolor="rgba(128,128,128,0.4)", automargin=True
    )  # fmt: skip
    options = {"responsive": True, "displayModeBar": False}
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, config=options)
    return html


def _anytime(events: Sequence[Event], objective: Objective) -> go.Figure | None:
    """The best objective of all trials against the minutes of the sessions, without the time between them."""
    key = f"val_{objective.metric}"
    x: list[float] = []
    y: list[float] = []
    spent = begun = 0.0
    for event in events:
        if event["event"] == "session":
            spent, begun = x[-1] if x else 0.0, event["time"]
        elif event["event"] == "result" and event["outcome"] != "diverged" and key in event["metrics"]:
            value = event["metrics"][key]
            x.append(spent + (event["time"] - begun) / 60_000)
            y.append(value if not y or objective.better(value, y[-1]) else y[-1])
    if not x:
        return None
    figure = go.Figure(go.Scatter(x=x, y=y, mode="lines", line={"shape": "hv", "color": COLOURS["best"]}))
    figure.update_layout(height=320, xaxis_title="minutes", yaxis_title=f"best {key}")
    return figure


def _curves(state: SearchState) -> go.Figure:
    """Learning curves. The trials of an outcome are one line with gaps, as a browser cannot draw thousands of lines."""
    metric, best = f"val_{state.objective.metric}", state.best()
    figure = go.Figure()
    for outcome in COLOURS:
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str] = []
        for trial in state.trials.values():
            if _kind(trial, best) != outcome:
                continue
            known = [(epoch, m[metric]) for epoch, m in sorted(trial.curve.items()) if metric in m]
            x += [epoch for epoch, _ in known] + [None]
            y += [value for _, value in known] + [None]
            text += [f"trial {trial.number}"] * (len(known) + 1)
        if any(value is not None for value in y):
            figure.add_trace(
                go.Scattergl(
                    x=x, y=y, text=text, name=outcome.replace("_", " "), mode="lines+markers", marker_size=4,
                    line={"color": COLOURS[outcome], "width": 3 if outcome == "best" else 1},
                    opacity=0.5 if outcome == "stopped_early" else 1,
                )
            )  # fmt: skip
    figure.update_layout(height=420, xaxis_title="epoch", yaxis_title=metric)
    return figure


def _scatter(state: SearchState, searched: list[Parameter]) -> go.Figure | None:
    able, best = state.ranked(), state.best()
    if not searched or not able:
        return None
    columns = min(3, len(searched))
    rows = math.ceil(len(searched) / columns)
    figure = make_subplots(rows, columns, subplot_titles=[p.name for p in searched], shared_yaxes=True)
    for index, parameter in enumerate(searched):
        there = [t for t in able if t.params.get(parameter.name) is not None]
        values = [t.params[parameter.name] for t in there]
        place = {"row": index // columns + 1, "col": index % columns + 1}
        figure.add_trace(
            go.Scattergl(
                x=[str(v) for v in values] if parameter.kind == "choice" else values,
                y=[t.best_value for t in there], text=[f"trial {t.number}" for t in there], mode="markers",
                showlegend=False,
                marker={"color": [COLOURS[_kind(t, best)] for t in there], "size": 7},
            ),
            **place,
        )  # fmt: skip
        figure.update_xaxes(type={"loguniform": "log", "choice": "category"}.get(parameter.kind, "linear"), **place)
    figure.update_layout(height=230 * rows + 60)
    return figure


def _kind(trial: Trial, best: Trial | None) -> str:
    return "best" if trial is best else trial.outcome or "running"


def _parallel(state: SearchState, searched: list[Parameter]) -> go.Figure | None:
    able = state.ranked()
    if not searched or len(able) < 2:
        return None
    dimensions: list[dict[str, Any]] = []
    for parameter in searched:
        values = [t.params.get(parameter.name) for t in able]
        if parameter.kind == "choice" or any(v is None for v in values):
            names = sorted({str(v) for v in values})
            codes = [names.index(str(v)) for v in values]
            dimensions.append(
                {"label": parameter.name, "values": codes, "tickvals": list(range(len(names))), "ticktext": names}
            )
        elif parameter.kind == "loguniform":
            dimensions.append({"label": f"log10 {parameter.name}", "values": [math.log10(v) for v in values if v]})
        else:
            dimensions.append({"label": parameter.name, "values": values})
    objective = [t.best_value for t in able]
    dimensions.append({"label": state.objective.metric, "values": objective})
    figure = go.Figure(
        go.Parcoords(
            dimensions=dimensions,
            line={"color": objective, "colorscale": "Viridis", "reversescale": state.objective.mode == "min",
                  "showscale": True},
        )
    )  # fmt: skip
    figure.update_layout(height=420)
    return figure


def _front(state: SearchState, config: SearchConfig, other: Objective) -> go.Figure:
    """One objective against another; a line joins their Pareto front."""
    first, able = config.objectives[0], state.ranked()
    best = sorted(front(able, (first, other)), key=lambda t: value_of(t, other))
    figure = go.Figure()
    for name, trials, mode in (("trials", able, "markers"), ("Pareto front", best, "lines+markers")):
        figure.add_trace(
            go.Scatter(
                x=[value_of(t, other) for t in trials], y=[t.best_value for t in trials], mode=mode, name=name,
                text=[f"trial {t.number}" for t in trials],
                line_color=COLOURS["best" if trials is best else "completed"],
            )
        )  # fmt: skip
    figure.update_layout(height=420, xaxis_title=other.metric, yaxis_title=first.metric)
    return figure


def _finalists(state: SearchState) -> go.Figure:
    """Test against validation of each finalist, with the 95 % interval of its mean over seeds."""
    assert state.decision is not None  # else there is no such figure
    rows, metric = state.decision["finalists"], state.objective.metric
    val = [row["val"] for row in rows]
    figure = go.Figure(go.Scatter(x=val, y=val, mode="lines", line={"dash": "dot", "color": "#888888"}, name="equal"))
    for row in rows:
        kind = "best" if row is rows[0] else "completed"
        figure.add_trace(
            go.Scatter(
                x=[row["val"]], y=[row["test"]], name=f"trial {row['trial']}", mode="markers",
                marker={"color": COLOURS[kind], "size": 9},
                error_y={"array": [row["high"] - row["test"]], "arrayminus": [row["test"] - row["low"]]},
            )
        )  # fmt: skip
    figure.update_layout(height=380, xaxis_title=f"best val_{metric}", yaxis_title=f"test {metric}")
    return figure


def _importance(state: SearchState, searched: list[Parameter]) -> tuple[go.Figure | None, str]:
    """How much of the objective's variance each hyperparameter explains, and what that was worked out from."""
    every = state.ranked()
    drawn = np.random.default_rng(0).permutation(len(every))[:PLENTY]
    trials = [every[i] for i in sorted(drawn)]
    always = [p for p in searched if not p.when]
    if len(trials) < 4 or not always:
        return None, ""
    try:
        found = importances(trials, always, state.objective)
    except (ValueError, RuntimeError) as error:  # every trial came to the same, say
        return None, f"No importance: {error}"
    names = list(reversed(found))
    figure = go.Figure(go.Bar(x=[found[n] for n in names], y=names, orientation="h", marker_color=COLOURS["completed"]))
    figure.update_layout(height=80 + 28 * len(names), xaxis_title="share of the objective's variance (fANOVA)")
    part = f" of {len(every)}, drawn at random" if len(trials) < len(every) else ""
    words = f"From {len(trials)} trials{part}; hyperparameters that exist in some configurations only are left out."
    if len(trials) < ENOUGH:
        words += f" With fewer than {ENOUGH} trials this is hardly more than a guess."
    return figure, words
