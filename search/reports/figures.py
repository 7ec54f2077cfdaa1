"""The interactive figures of a search: pure functions of its state, its configuration and its events.

They are drawn as SVG, which needs no WebGL. The page sets the colours of text and grid lines. A point has
the number of its trial as `customdata`: the page adds the text about the trial (`hovers`) to the label of the point,
and opens the trial on a click.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import numpy as np

from search.core.config import SearchConfig
from search.core.events import Event
from search.core.pareto import front, value_of
from search.core.readable import duration
from search.core.schedulers.rungs import Losses
from search.core.space import Parameter
from search.core.state import SearchState, Trial
from search.reports.axes import (
    CHARACTER,
    FEW,
    NOT_USED,
    ROW_PIXELS,
    SMALL_PIXELS,
    VALUE,
    Axis,
    label,
    log_ticks,
    parameter_axis,
    significant,
    value_axis,
    whole_ticks,
    wide,
)
from search.reports.importance import LEVEL, importances
from trainables import Objective


@dataclass(frozen=True)
class Style:
    """How a kind of trial is drawn.

    Colour-blind people can tell the colours apart, on white and on black (Okabe and Ito 2008, with a lighter blue).
    Kinds of one colour differ in dash and symbol.
    """

    colour: str
    dash: str = "solid"
    symbol: str = "circle"
    sign: str = "●"


#: Styles by outcome, in the order in which they are drawn.
STYLES = {
    "failed": Style("#cc79a7", symbol="x", sign="✕"), "diverged": Style("#cc79a7", "dot", "x-open", "╳"),
    "infeasible": Style("#b59a00", "dash", "triangle-down", "▼"),
    "stopped_early": Style("#909090"), "paused": Style("#909090", "dot", "circle-open", "○"),
    "interrupted": Style("#e69f00"), "running": Style("#e69f00", "dot", "circle-open", "○"),
    "timed_out": Style("#56b4e9", "dash", "square", "■"), "completed": Style("#1f83c7"),
    "best": Style("#d55e00", symbol="diamond", sign="◆"),
}  # fmt: skip
#: The ring around the trial that a preference chooses.
CHOSEN = Style("#e69f00", symbol="circle-open")
GREY = "rgba(128,128,128,0.6)"
#: The colour of trainings after the trials, and the colours from the best value to the worst.
AFTER = "#009e73"
SCALE = [[0, "#d55e00"], [0.5, "#e8d9b5"], [1, "#1f83c7"]]
#: Fewest trials from which importance means something.
ENOUGH = 20
#: Most hyperparameters of which each pair has a figure, and the fewest trials with a result for these figures.
IN_PAIRS, FEWEST_IN_PAIRS = 4, 5
#: The points of a contour on each axis, and the distance within which trials count, as shares of a range.
GRID, NEAR = np.linspace(0, 1, 31), 0.1
#: Most points of a figure, most of them with a mark (each mark is an SVG element), and most of one learning curve.
POINTS, MARKS, CURVE = 4000, 1000, 200
#: Most hyperparameters in a hover label: a screen has no room for more lines.
LISTED = 20
#: The heading of the figure of the finalists; the page has their table below it.
FINALISTS = "Validation against test"
#: Most characters of a name beside a bar: a longer one leaves no room for bars on a phone.
BAR = 18
#: Height in pixels of a row in the drawing of configurations, and pixels right of its axis.
ROW, EDGE = 66, 16


class Figure:
    """A figure as plotly's script takes it.

    Plotly's own class checks each property, which takes seconds for 2,000 trials. A test gives it these figures.
    """

    def __init__(self, *traces: dict[str, Any]) -> None:
        self.data = list(traces)
        self.xaxis: dict[str, Any] = {}
        self.yaxis: dict[str, Any] = {}
        self.layout: dict[str, Any] = {"xaxis": self.xaxis, "yaxis": self.yaxis}

    def plain(self) -> dict[str, Any]:
        """The figure for JSON."""
        return {"data": self.data, "layout": self.layout}


def _contour(**properties: Any) -> dict[str, Any]:
    return {"type": "contour", **properties}


def _bar(**properties: Any) -> dict[str, Any]:
    return {"type": "bar", **properties}


def _scatter(**properties: Any) -> dict[str, Any]:
    return {"type": "scatter", **properties}


@dataclass(frozen=True)
class Drawing:
    """Figures under one heading.

    Attributes:
        key: the kinds of trials whose colours the page explains; else the legend does.
        names: a name for each figure, if the page shows one figure at a time.
        scales: whether the page offers to change the axes between linear and logarithmic.
    """

    title: str
    words: str
    figures: tuple[Figure, ...] = ()
    key: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    scales: bool = False


def drawings(state: SearchState, config: SearchConfig, events: Sequence[Event], rungs: Losses) -> list[Drawing]:
    """All drawings of a search; those for which it has no trials are left out.

    Args:
        rungs: `Study.rungs`.
    """
    shares, weights = importance(state, config)
    drawn = [best_so_far(state, config, events), curves(state, config, rungs), shares, scatter(state, config)]
    drawn += [parallel(state, config), *pairs(state, config, weights), distribution(state, config)]
    drawn += [pareto(state, config, other) for other in config.objectives[1:]]
    drawn += [finalists(state, config), timeline(state, config, events)]
    return [drawing for drawing in drawn if drawing is not None]


def searching(events: Iterable[Event]) -> Iterator[tuple[Event, float]]:
    """Each event but requests with the seconds of searching before it, without the time between two sessions."""
    spent = begun = last = 0.0
    for event in events:
        if event["event"] == "request":  # one may come right before a session begins
            continue
        if event["event"] == "session":
            spent, begun = last, event.get("time", 0)
        last = spent + (event.get("time", begun) - begun) / 1000
        yield event, last


def _unit_of_time(seconds: float) -> tuple[str, int]:
    """A unit in which this many seconds are a number of two digits, and its seconds."""
    return next((u, s) for u, s in (("hours", 3600), ("minutes", 60), ("seconds", 1)) if seconds > 2 * s or s == 1)


def best_so_far(state: SearchState, config: SearchConfig, events: Sequence[Event]) -> Drawing | None:
    """The best objective so far against time."""
    key, objective, at = state.objective.key, state.objective, config.search.unit.at
    seconds: list[float] = []
    best: list[float] = []
    text: list[str] = []
    numbers: list[int] = []
    last = 0.0
    for event, now in searching(events):
        if event["event"] == "result" and event["outcome"] != "diverged" and key in event["metrics"]:
            value, last = event["metrics"][key], now
            if not best or objective.better(value, best[-1]):
                seconds.append(last)
                best.append(value)
                text.append(f"{at(event['epoch'])}: {_of(key, value)}")
                numbers.append(event["number"])
    if not best:
        return None
    unit, size = _unit_of_time(last)
    figure = Figure(
        _scatter(
            x=[s / size for s in (*seconds, last)], y=[*best, best[-1]], text=[*text, text[-1]],
            customdata=[*numbers, numbers[-1]], mode="lines+markers", showlegend=False,
            line={"shape": "hv", "color": STYLES["best"].colour}, marker={"size": [6] * len(best) + [0]},
        )
    )  # fmt: skip
    _dress(figure, 320, f"{unit} of searching", f"best {_title(objective, key)}")
    _set_y(figure, best, objective)
    figure.xaxis.update(rangemode="tozero")
    return Drawing("Best so far", "The best validation figure by the time since the search began.", (figure,))


def curves(state: SearchState, config: SearchConfig, rungs: Losses) -> Drawing | None:
    """Learning curves. The trials of one outcome are one line with gaps: a browser draws it as one path."""
    metric, best, steps = state.objective.key, state.best(), config.search.unit
    ranked = state.ranked()
    others = [t for t in state.trials.values() if not t.can_win]
    known = {t.number: _curve(t, metric) for t in (*ranked, *others)}
    able = [t for t in (*ranked, *others) if known[t.number]]
    if not able:
        return None
    points = sum(len(known[t.number]) for t in able)
    trials, note = _some(able, max(2, POINTS * len(able) // points))
    if any(len(t.curve) > CURVE for t in trials):
        note += f" Of each trial at most {CURVE} epochs are drawn."
    figure = Figure()
    mode = _mode(sum(len(known[t.number]) for t in trials))
    for kind, style in STYLES.items():
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str] = []
        numbers: list[int] = []
        for trial in (t for t in trials if _kind(t, best) == kind):
            for epoch, value in known[trial.number]:
                x.append(steps(epoch))
                y.append(value)
                text.append(f"{steps.at(epoch)}: {_of(metric, value)}")
            x.append(None)
            y.append(None)
            text.append("")
            numbers += [trial.number] * (len(known[trial.number]) + 1)
        if x:
            figure.data.append(
                _scatter(
                    x=x, y=y, text=text, customdata=numbers, name=_words(kind),
                    mode=mode, marker={"size": 4, "symbol": style.symbol},
                    line={"color": style.colour, "width": 3 if kind == "best" else 1, "dash": style.dash},
                    opacity=0.7 if kind == "stopped_early" else 1,
                )
            )  # fmt: skip
    figure.layout["showlegend"] = True
    _dress(figure, 440, steps.name, _title(state.objective, metric))
    last, half = steps(max(epoch for t in trials for epoch, _ in known[t.number])), steps(1) / 2
    figure.xaxis.update(tickvals=whole_ticks(steps(1), max(2, last)), range=[half, last + half])
    _set_y(figure, [value for t in trials for _, value in known[t.number]], state.objective)
    words = "Each line is a trial. Its colour says how the trial ended; click a name to hide its lines."
    if reached := [steps(epoch) for epoch, rung in rungs.items() if rung and steps(epoch) <= last]:
        figure.layout.update(shapes=[
            {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
             "line": {"color": GREY, "width": 1, "dash": "dot"}}
            for at in reached
        ])  # fmt: skip
        words += f" Dotted lines are the rungs, where {config.search.scheduler} compares the trials."
    return Drawing("Learning curves", words + note, (figure,), scales=True)


def _curve(trial: Trial, metric: str) -> list[tuple[int, float]]:
    """Epochs and finite values of a metric. A long curve keeps evenly spaced epochs and the best one."""
    known = [(e, m[metric]) for e, m in sorted(trial.curve.items()) if metric in m and np.isfinite(m[metric])]
    if len(known) <= CURVE:
        return known
    kept = {int(i) for i in np.linspace(0, len(known) - 1, CURVE - 1)}
    return [point for i, point in enumerate(known) if i in kept or point[0] == trial.best_epoch]


def scatter(state: SearchState, config: SearchConfig) -> Drawing | None:
    """The objective against each hyperparameter, one figure for each hyperparameter."""
    searched, best = _searched(config), state.best()
    ranked = _finite(state.ranked())
    if not searched or not ranked:
        return None
    trials, note = _some(ranked, max(2, 2 * MARKS // len(searched)))
    have = {t.number for t in ranked}
    lost = [t for t in state.trials.values() if t.outcome == "failed" and t.number not in have][: len(trials)]
    beyond = _beyond([t.best_value for t in trials], state.objective)
    figures = []
    for parameter in searched:
        axis, figure = parameter_axis(parameter, [*trials, *lost], FEW), Figure()
        for kind, style in STYLES.items():
            of_kind = [t for t in (*trials, *lost) if _kind(t, best) == kind]
            if of_kind:
                figure.data.append(
                    _scatter(
                        x=[axis.place(t) for t in of_kind],
                        y=[t.best_value if t.number in have else beyond for t in of_kind], mode="markers",
                        customdata=[t.number for t in of_kind], showlegend=False,
                        marker={"color": style.colour, "symbol": style.symbol, "size": 9 if kind == "best" else 7},
                    )
                )  # fmt: skip
        _dress(figure, 270, axis.title, label(state.objective.metric, VALUE))
        _set_x(figure, axis.all_ticks([*trials, *lost], SMALL_PIXELS))
        _set_y(figure, [t.best_value for t in trials], state.objective)
        figures.append(figure)
    words = f"Each point is a trial at its best epoch; {_better(state.objective)} {state.objective.metric} is better."
    if any(p.when for p in searched):
        words += " Trials in which a hyperparameter does not exist stand at “not used”."
    if lost:
        side = "above" if state.objective.mode == "min" else "below"
        words += f" Failed trials without a result stand {side} the worst result."
    kinds = tuple(kind for kind in reversed(STYLES) if any(_kind(t, best) == kind for t in (*trials, *lost)))
    return Drawing("Objective against each hyperparameter", words + note, tuple(figures), kinds)


def _beyond(values: Sequence[float], objective: Objective) -> float:
    """A value that is a little worse than the worst of the values, on a linear or logarithmic axis."""
    low, high = min(values), max(values)
    if wide(values, objective):
        return high * (high / low) ** 0.08
    margin = 0.08 * (high - low or abs(high) or 1.0)
    return high + margin if objective.mode == "min" else low - margin


def parallel(state: SearchState, config: SearchConfig) -> Drawing | None:
    """Parallel coordinates: each line is a trial and goes through its hyperparameters down to its result.

    The axes are rows, so that they fit a narrow screen and a printed page.
    """
    searched, ranked = _searched(config), _finite(state.ranked())
    if not searched or len(ranked) < 2:
        return None
    objectives = config.objectives or (state.objective,)
    trials, note = _some(ranked, max(2, POINTS // (len(searched) + len(objectives))))
    axes = [parameter_axis(p, trials) for p in searched]
    axes += [_objective_axis(objective, trials) for objective in objectives]
    figure, mode = Figure(), _mode(len(trials) * len(axes))
    quarter = max(1, len(trials) // 4)
    for name, some, colour, width, opacity in (
        ("other trials", trials[quarter:], STYLES["stopped_early"].colour, 1, 0.45),
        ("best quarter", trials[1:quarter], STYLES["completed"].colour, 1.5, 0.9),
        ("best trial", trials[:1], STYLES["best"].colour, 3, 1),
    ):
        if some:
            figure.data.append(_lines(name, some, axes, mode, colour, width, opacity))
    for row, axis in enumerate(axes):
        _add_row(figure, row, axis, trials)
    figure.layout["showlegend"] = True
    _dress(figure, ROW * len(axes) + 50, None, None)
    figure.layout.update(margin={"l": 4, "r": 8, "t": 8, "b": 4})
    figure.xaxis.update(visible=False, range=[NOT_USED - 0.11, 1.06], fixedrange=True)
    figure.yaxis.update(visible=False, range=[0.5 - len(axes), 0.5], fixedrange=True)
    words = (
        f"Each line is a trial: it goes through the values of its hyperparameters down to its {objectives[-1].metric}."
    )
    return Drawing("Configurations", words + note, (figure,))


def _objective_axis(objective: Objective, trials: Sequence[Trial]) -> Axis:
    title = _title(objective, objective.metric)
    return value_axis(title, lambda trial: value_of(trial, objective), trials, objective)


def _lines(
    name: str, trials: Sequence[Trial], axes: Sequence[Axis], mode: str, colour: str, width: float, opacity: float
) -> dict[str, Any]:  # fmt: skip
    x: list[float | None] = []
    y: list[float | None] = []
    numbers: list[int] = []
    for trial in trials:
        x += [*(axis.place(trial) for axis in axes), None]
        y += [*(-row for row in range(len(axes))), None]
        numbers += [trial.number] * (len(axes) + 1)
    return _scatter(
        x=x, y=y, customdata=numbers, name=name, mode=mode, marker={"size": 4},
        line={"color": colour, "width": width}, opacity=opacity,
    )  # fmt: skip


def _add_row(figure: Figure, row: int, axis: Axis, trials: Sequence[Trial]) -> None:
    """Draws an axis as a row: a line with ticks, their labels below it and its title above it."""
    ticks = axis.all_ticks(trials, ROW_PIXELS)
    line = {"type": "line", "line": {"color": GREY, "width": 1}, "layer": "below"}
    shapes, notes = (figure.layout.setdefault(key, []) for key in ("shapes", "annotations"))
    shapes.append({**line, "x0": 0, "x1": 1, "y0": -row, "y1": -row})
    for place, text in ticks:
        shapes.append({**line, "x0": place, "x1": place, "y0": -row - 0.07, "y1": -row + 0.07})
        if text:
            # A long label at the right end would leave the figure.
            end = {"xanchor": "right", "xshift": EDGE} if place > 0.9 and len(text) * CHARACTER > 2 * EDGE else {}
            notes.append({
                "x": place, "y": -row, "text": text, "showarrow": False, "yanchor": "top", "yshift": -4,
                "font": {"size": 11}, **end,
            })  # fmt: skip
    notes.append({
        "x": NOT_USED - 0.09, "y": -row, "text": f"<b>{axis.title}</b>", "showarrow": False, "xanchor": "left",
        "yanchor": "bottom", "yshift": 5, "font": {"size": 12},
    })  # fmt: skip


def pareto(state: SearchState, config: SearchConfig, other: Objective) -> Drawing | None:
    """One objective against another; a line joins their Pareto front, and the knee of all objectives is marked."""
    first, ranked = config.objectives[0], _finite(state.ranked())
    if not ranked:
        return None
    best = sorted(front(ranked, (first, other)), key=lambda t: value_of(t, other))
    trials, note = _some(ranked, MARKS)
    figure = Figure()
    knee, chosen = state.knee(), state.best() if state.preference else None
    for name, some, mode, style, size in (
        ("trials", trials, "markers", STYLES["completed"], 8),
        ("Pareto front", best, "lines+markers", STYLES["best"], 8),
        ("knee", [t for t in ranked if t is knee], "markers", Style(AFTER, symbol="star"), 14),
        ("chosen by the preference", [t for t in ranked if t is chosen], "markers", CHOSEN, 18),
    ):
        if some:
            figure.data.append(
                _scatter(
                    x=[value_of(t, other) for t in some], y=[t.best_value for t in some], mode=mode, name=name,
                    customdata=[t.number for t in some],
                    line={"color": style.colour}, marker={"symbol": style.symbol, "size": size},
                )
            )  # fmt: skip
    figure.layout["showlegend"] = True
    _dress(figure, 420, _title(other, other.metric), _title(first, first.metric))
    _set_y(figure, [t.best_value for t in trials], first)
    if wide(values := [value_of(t, other) for t in trials], other):
        ticks = log_ticks(min(values), max(values))
        figure.xaxis.update(type="log", tickvals=ticks, ticktext=[label(t) for t in ticks])
    words = f"The front has {len(best)} trials: what one gains in an objective it pays for in the other. "
    words += "The knee is the trial with the smallest sum of all objectives, each scaled to 0 to 1 on the front."
    return Drawing(f"{first.metric} against {other.metric}", words + note, (figure,))


def finalists(state: SearchState, config: SearchConfig) -> Drawing | None:
    """The test objective against the validation objective of each finalist, with 95 % intervals."""
    if not state.decision:
        return None
    rows = state.decision["finalists"]
    ends = [min(row["val"] for row in rows), max(row["val"] for row in rows)]
    figure = Figure(
        _scatter(x=ends, y=ends, mode="lines", line={"dash": "dot", "color": GREY}, name="equal", hoverinfo="skip")
    )
    for row in rows:
        style = STYLES["best" if row is rows[0] else "completed"]
        text = f"{_of(state.objective.key, row['val'])}<br>{_of(state.objective.test_key, row['test'])}"
        if np.isfinite(row["low"]):
            text += f" ({significant(row['low'])} to {significant(row['high'])})"
        figure.data.append(
            _scatter(
                x=[row["val"]], y=[row["test"]], name=f"trial {row['trial']}", mode="markers",
                text=[text], customdata=[row["trial"]],
                marker={"color": style.colour, "symbol": style.symbol, "size": 10},
                error_y={"array": [row["high"] - row["test"]], "arrayminus": [row["test"] - row["low"]]},
            )
        )  # fmt: skip
    figure.layout["showlegend"] = True
    _dress(figure, 400, f"best {_title(state.objective, state.objective.key)}", label(state.objective.test_key, VALUE))
    side = "above" if state.objective.mode == "min" else "below"
    words = f"Validation chose the finalists and flatters them: {side} the dotted line test is worse. "
    words += "Bars are 95 % intervals."
    return Drawing(FINALISTS, words, (figure,))


def importance(state: SearchState, config: SearchConfig) -> tuple[Drawing | None, dict[str, float]]:
    """The importance of each hyperparameter with its interval; and the shares by name, the largest first."""
    trials, searched = _finite(state.ranked()), _searched(config)
    if not trials or not searched:
        return None, {}
    try:
        computed = importances(trials, config.space, state.objective)
    except ValueError as error:
        return Drawing("Importance", f"No importance: {error}."), {}
    bars = list(reversed(computed))
    figure = Figure(
        _bar(
            x=[item.share for item in bars], y=[label(item.name, BAR) for item in bars], orientation="h",
            marker={"color": STYLES["completed"].colour}, textposition="none",
            error_x={"array": [item.high - item.share for item in bars], "color": STYLES["best"].colour,
                     "arrayminus": [item.share - item.low for item in bars]},
            text=[
                f"{label(item.name, VALUE)}: {item.share:.0%}, interval {item.low:.0%} to {item.high:.0%}<br>from "
                f"{item.trials} of {len(trials)} trials" for item in bars
            ],
        )
    )  # fmt: skip
    _dress(figure, 90 + 28 * len(bars), "share of the importance", "hyperparameter")
    figure.xaxis.update(tickformat=".0%", range=[0, 1.02])
    # Seven pixels for each character, and the axis title: the automatic margin of plotly overlaps in print.
    figure.layout["margin"]["l"] = 51 + 7 * max((len(item.name[:BAR]) for item in bars), default=0)
    figure.yaxis.update(type="category", ticks="", ticklabelstandoff=6, automargin=False)
    words = (
        f"How much the values of a hyperparameter in the best tenth of {len(trials)} trials differ from those in all "
        f"(PED-ANOVA). Orange bars hold {LEVEL:.0%} of what resampled trials give: where two of them overlap, the "
        "order may be chance."
    )
    if some := [item for item in computed if item.trials < len(trials)]:
        listed = ", ".join(f"{item.name} {item.trials}" for item in some)
        words += f" A conditional hyperparameter counts on the trials in which it exists ({listed})."
    left = {p.name for p in searched} - {item.name for item in computed}
    if left:
        words += f" Left out, as too few trials have them: {', '.join(sorted(left))}."
    if len(trials) < ENOUGH:
        words += f" With fewer than {ENOUGH} trials this is hardly more than a guess."
    return Drawing("Importance", words, (figure,)), {item.name: item.share for item in computed}


def pairs(state: SearchState, config: SearchConfig, shares: Mapping[str, float]) -> list[Drawing]:
    """The objective (contour) and the rank of trials over two hyperparameters, for each pair of the most important.

    Args:
        shares: the importance of each hyperparameter.
    """
    ranked = _finite(state.ranked())
    if len(ranked) < FEWEST_IN_PAIRS:
        return []
    searched = sorted(_searched(config), key=lambda p: (p.kind == "choice", -shares.get(p.name, 0.0)))
    trials, note = _some(ranked, MARKS // 2)
    values = np.array([t.best_value for t in trials])
    logs = wide(list(values), state.objective)
    places = {t.number: place / max(1, len(ranked) - 1) for place, t in enumerate(ranked)}
    axes = [parameter_axis(p, trials, FEW) for p in searched[:IN_PAIRS]]
    along = [[axis.place(t) for t in trials] for axis in axes]
    ticks = [axis.all_ticks(trials, ROW_PIXELS) for axis in axes]
    contours, ranks, names = [], [], []
    for i, j in combinations(range(len(axes)), 2):
        x, y = along[i], along[j]
        points = {"x": x, "y": y, "mode": "markers", "customdata": [t.number for t in trials]}
        names.append(f"{searched[i].name} and {searched[j].name}")
        ranks.append(Figure(_scatter(**points, marker={
            "color": [places[t.number] for t in trials], "colorscale": SCALE, "size": 7, "cmin": 0, "cmax": 1,
            "colorbar": {"title": {"text": "rank"}, "tickvals": [0, 0.5, 1], "ticktext": ["best", "half", "worst"],
                         "thickness": 12},
        }, showlegend=False)))  # fmt: skip
        surface = _surface(np.array(x), np.array(y), np.log10(values) if logs else values)
        title = f"{label(state.objective.metric)}{', log10' if logs else ''}"
        contours.append(Figure(
            _contour(
                x=GRID.tolist(), y=GRID.tolist(), z=surface, colorscale=SCALE,
                reversescale=state.objective.mode == "max", hoverinfo="skip",
                colorbar={"title": {"text": title}, "thickness": 12}, connectgaps=False, line={"width": 0.5},
            ),
            _scatter(**points, marker={"color": "#000", "size": 4, "opacity": 0.6}, showlegend=False),
        ))  # fmt: skip
        for figure in (contours[-1], ranks[-1]):
            _dress(figure, 400, axes[i].title, axes[j].title)
            _set_x(figure, ticks[i])
            low = NOT_USED - 0.08 if any(place < 0 for place, _ in ticks[j]) else -0.06
            figure.yaxis.update(
                tickvals=[place for place, _ in ticks[j]], ticktext=[text.removeprefix("<br>") for _, text in ticks[j]],
                range=[low, 1.06],
            )  # fmt: skip
    if not names:
        return []
    most = ""
    if len(searched) > IN_PAIRS:
        most = f" Paired are {IN_PAIRS} of {len(searched)} hyperparameters: numbers first, then the most important."
    smooth = (
        "The colour is the mean of the trials near a point (a Gaussian of a tenth of the range), and no model's "
        "forecast; it is blank where no trial is near. Points are trials."
    )
    coloured = "Each point is a trial. Its colour is its rank among all trials with a result."
    return [
        Drawing("Contour", smooth + most + note, tuple(contours), names=tuple(names)),
        Drawing("Rank", coloured + most + note, tuple(ranks), names=tuple(names)),
    ]


def _surface(x: np.ndarray, y: np.ndarray, values: np.ndarray) -> list[list[float]]:
    """The mean of the values near each point of the grid; NaN where no value is near, and outside of the range."""
    there = (x >= 0) & (y >= 0)
    near_x, near_y = (np.exp(-(((GRID[:, None] - at[there]) / NEAR) ** 2) / 2) for at in (x, y))
    weight = near_y @ near_x.T
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (near_y * values[there]) @ near_x.T / weight
    surface: list[list[float]] = np.where(weight > 0.1, mean, np.nan).round(4).tolist()
    return surface


def distribution(state: SearchState, config: SearchConfig) -> Drawing | None:
    """The empirical distribution function of the objective."""
    ranked = _finite(state.ranked())
    if len(ranked) < 2:
        return None
    step = max(1, len(ranked) // CURVE)
    kept = [*ranked[::step], *([ranked[-1]] if (len(ranked) - 1) % step else [])]
    places = {t.number: place for place, t in enumerate(ranked, 1)}
    shares = [places[t.number] / len(ranked) for t in kept]
    figure = Figure(
        _scatter(
            x=[t.best_value for t in kept], y=shares, mode="lines+markers", marker={"size": 4}, showlegend=False,
            text=[f"{share:.0%} of the trials reach {_of(state.objective.metric, t.best_value)}"
                  for share, t in zip(shares, kept, strict=True)],
            customdata=[t.number for t in kept], line={"shape": "hv", "color": STYLES["completed"].colour},
        )
    )  # fmt: skip
    values = [t.best_value for t in ranked]
    _dress(figure, 320, _title(state.objective, state.objective.key), "share of the trials")
    figure.yaxis.update(tickformat=".0%", range=[0, 1.02])
    if wide(values, state.objective):
        ticks = log_ticks(min(values), max(values))
        figure.xaxis.update(type="log", tickvals=ticks, ticktext=[label(t) for t in ticks])
    elif state.objective.mode == "max":
        figure.xaxis.update(autorange="reversed")
    some = f" Drawn are {len(kept)} of {len(ranked)} trials, evenly by rank." if len(kept) < len(ranked) else ""
    words = f"The share of the {len(ranked)} trials with a result that reach a value or a better one (EDF).{some}"
    return Drawing("Distribution of the objective", words, (figure,))


@dataclass
class _Bar:
    """A stretch of time in which a trial trained without a break."""

    kind: str
    number: int
    begin: float
    end: float
    epochs: int = 1
    lane: int = 0


def timeline(state: SearchState, config: SearchConfig, events: Sequence[Event]) -> Drawing | None:
    """When each trial trained, in rows of trials that trained one after the other."""
    best, bars, last = state.best(), list[_Bar](), 0.0
    open_bars: dict[tuple[object, ...], _Bar] = {}
    for event, now in searching(events):
        if event["event"] not in ("result", "audit_result", "repeat_result", "final_result"):
            continue
        number = cast(int, event.get("number", event.get("trial")))
        after = event["event"] != "result"
        key, begin, last = (event["event"], number, event.get("seed")), now - _seconds(event), now
        bar = open_bars.get(key)
        if bar is not None and begin - bar.end < max(0.5, 0.5 * (now - begin)):
            bar.end, bar.epochs = now, bar.epochs + 1
            continue
        kind = "after" if after else _kind(state.trials[number], best)
        open_bars[key] = _Bar(kind, number, max(0.0, begin), now)
        bars.append(open_bars[key])
    if not bars:
        return None
    free: list[float] = []
    for bar in sorted(bars, key=lambda bar: bar.begin):
        bar.lane = next((i for i, end in enumerate(free) if end <= bar.begin + 0.05), len(free))
        free[bar.lane : bar.lane + 1] = [bar.end]
    unit, size = _unit_of_time(last)
    figure = Figure()
    for kind in (*STYLES, "after"):
        some = [bar for bar in bars if bar.kind == kind]
        if some:
            colour = AFTER if kind == "after" else STYLES[kind].colour
            figure.data.append(
                _scatter(
                    x=[at for bar in some for at in (bar.begin / size, bar.end / size, None)],
                    y=[at for bar in some for at in (bar.lane + 1, bar.lane + 1, None)],
                    text=[t for bar in some for t in (_span(bar, config), _span(bar, config), "")],
                    customdata=[bar.number for bar in some for _ in range(3)], mode="lines",
                    name="after the trials" if kind == "after" else _words(kind), line={"color": colour, "width": 9},
                )
            )  # fmt: skip
    figure.layout["showlegend"] = True
    _dress(figure, 110 + min(400, 24 * len(free)), f"{unit} of searching", "worker")
    figure.yaxis.update(tickvals=whole_ticks(1, max(2, len(free))), range=[0.4, len(free) + 0.6], fixedrange=True)
    words = (
        "A bar is a stretch in which a trial trained. The journal does not name workers: a row has trials that trained "
        "one after the other, so there are as many rows as trainings ran at once."
    )
    return Drawing("Workers over time", words, (figure,))


def _seconds(event: Event) -> float:
    return float(event["metrics"].get("epoch_seconds", 0.0))  # type: ignore[typeddict-item]


def _span(bar: _Bar, config: SearchConfig) -> str:
    return f"{config.search.unit.count(bar.epochs)} in {duration(bar.end - bar.begin)}"


def _searched(config: SearchConfig) -> list[Parameter]:
    return [p for p in config.space.parameters if p.searched]


def _finite(ranked: Sequence[Trial]) -> list[Trial]:
    return [t for t in ranked if np.isfinite(t.best_value)]


def _some(trials: Sequence[Trial], most: int) -> tuple[list[Trial], str]:
    """At most `most` of the trials: the best half of them, and a random half of the rest.

    Args:
        trials: the best first.

    Returns:
        The trials in their order, and a sentence about the choice; empty if all trials are drawn.
    """
    if len(trials) <= most:
        return list(trials), ""
    first = most // 2
    rest = np.random.default_rng(0).permutation(len(trials) - first)[: most - first]
    chosen = [*trials[:first], *(trials[first + i] for i in sorted(rest))]
    return chosen, f" Drawn are {most} of {len(trials)} trials: the {first} best, and {most - first} others at random."


def _mode(points: int) -> str:
    """How a figure draws lines: with a mark at each point unless there are many."""
    return "lines+markers" if points <= MARKS else "lines"


def _kind(trial: Trial, best: Trial | None) -> str:
    return "best" if trial is best else trial.outcome or "running"


def _words(kind: str) -> str:
    return "best trial" if kind == "best" else kind.replace("_", " ")


def _better(objective: Objective) -> str:
    return "lower" if objective.mode == "min" else "higher"


def _title(objective: Objective, metric: str) -> str:
    return f"{label(metric, VALUE)} ({_better(objective)} is better)"


def _of(metric: str, value: float) -> str:
    return f"{label(metric, VALUE)} {significant(value)}"


def hovers(state: SearchState, config: SearchConfig) -> dict[int, str]:
    """The text about each trial in hover labels: its number, its outcome, its result and its hyperparameters."""
    searched = [(p, label(p.name, VALUE)) for p in _searched(config)]
    return {number: _hover(trial, config, state.objective, searched) for number, trial in state.trials.items()}


def _hover(trial: Trial, config: SearchConfig, objective: Objective, searched: Sequence[tuple[Parameter, str]]) -> str:
    lines = [
        f"{name}: {label(trial.params[p.name], VALUE)}"
        for p, name in searched
        if p.name in trial.params and p.exists(trial.params)
    ]
    if len(lines) > LISTED:
        lines = [*lines[:LISTED], f"and {len(lines) - LISTED} more"]
    reached = "no result"
    if trial.best_epoch:
        objectives = config.objectives or (objective,)
        values = ", ".join(_of(o.metric, value_of(trial, o)) for o in objectives)
        reached = f"{values} at {config.search.unit.at(trial.best_epoch)}"
    return "<br>".join([f"<b>trial {trial.number}</b>, {_words(trial.outcome or 'running')}", reached, *lines])


def _dress(figure: Figure, height: int, x: str | None, y: str | None) -> None:
    """Sets size, fonts, margins, legend and grid, which all figures share."""
    figure.layout.update(
        height=height, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", hovermode="closest",
        font={"color": "#808080", "family": "system-ui, sans-serif"},
        hoverlabel={"align": "left", "font": {"size": 12}},
        margin={"l": 64, "r": 16, "t": 16, "b": 48}, legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
    )  # fmt: skip
    axis = {"gridcolor": "rgba(128,128,128,0.25)", "zeroline": False, "automargin": True}
    figure.xaxis.update(axis, title={"text": x})
    figure.yaxis.update(axis, title={"text": y, "standoff": 8})


def _set_x(figure: Figure, ticks: Sequence[tuple[float, str]]) -> None:
    """Sets the ticks of the horizontal axis."""
    low = NOT_USED - 0.08 if any(place < 0 for place, _ in ticks) else -0.06
    figure.xaxis.update(
        tickvals=[place for place, _ in ticks], ticktext=[text for _, text in ticks], tickangle=0,
        tickfont={"size": 11}, range=[low, 1.06], fixedrange=True,
    )  # fmt: skip
    figure.yaxis.update(fixedrange=True)


def _set_y(figure: Figure, values: Sequence[float], objective: Objective) -> None:
    """Makes the vertical axis logarithmic if the values span a wide range."""
    if wide(values, objective):
        ticks = log_ticks(min(values), max(values))
        figure.yaxis.update(type="log", tickvals=ticks, ticktext=[label(tick) for tick in ticks])
        figure.yaxis["title"]["text"] += ", log"
