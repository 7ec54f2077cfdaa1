"""The interactive figures of a search: pure functions of its state, its configuration and its events.

They are drawn as SVG, which needs no WebGL. The page (`page.html`) sets the colours of text and grid lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from search.core.config import SearchConfig
from search.core.events import Event
from search.core.pareto import front, value_of
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
    "stopped_early": Style("#909090"), "paused": Style("#909090", "dot", "circle-open", "○"),
    "interrupted": Style("#e69f00"), "running": Style("#e69f00", "dot", "circle-open", "○"),
    "timed_out": Style("#56b4e9", "dash", "square", "■"), "completed": Style("#1f83c7"),
    "best": Style("#d55e00", symbol="diamond", sign="◆"),
}  # fmt: skip
GREY = "rgba(128,128,128,0.6)"
#: Fewest trials from which importance means something; and most trials from which it is computed.
ENOUGH, PLENTY = 20, 1000
#: Most points of a figure: a phone draws that many SVG elements in about a second; and of one learning curve.
POINTS, CURVE = 4000, 200
#: Most hyperparameters in a hover label: a screen has no room for more lines.
LISTED = 20
#: The heading of the figure of the finalists; the page has their table below it.
FINALISTS = "Validation against test"
#: Most characters of a name beside a bar: a longer one leaves no room for bars on a phone.
BAR = 18
#: Height in pixels of a row in the drawing of configurations, and pixels right of its axis.
ROW, EDGE = 66, 16


@dataclass(frozen=True)
class Drawing:
    """Figures under one heading. `key`: the kinds of trials whose colours the page explains; else the legend does."""

    title: str
    words: str
    figures: tuple[go.Figure, ...] = ()
    key: tuple[str, ...] = ()


def drawings(state: SearchState, config: SearchConfig, events: Sequence[Event]) -> list[Drawing]:
    """All drawings of a search; those for which it has no trials are left out."""
    drawn = [best_so_far(state, config, events), curves(state, config), scatter(state, config), parallel(state, config)]
    drawn += [pareto(state, config, other) for other in config.objectives[1:]]
    drawn += [finalists(state, config), importance(state, config)]
    return [drawing for drawing in drawn if drawing is not None]


def best_so_far(state: SearchState, config: SearchConfig, events: Sequence[Event]) -> Drawing | None:
    """The best objective so far against time; the time between two sessions is left out."""
    key, objective, at = state.objective.key, state.objective, config.search.unit.at
    seconds: list[float] = []
    best: list[float] = []
    text: list[str] = []
    spent = begun = last = 0.0
    for event in events:
        if event["event"] == "session":
            spent, begun = last, event["time"]
        elif event["event"] == "result" and event["outcome"] != "diverged" and key in event["metrics"]:
            value, last = event["metrics"][key], spent + (event["time"] - begun) / 1000
            if not best or objective.better(value, best[-1]):
                seconds.append(last)
                best.append(value)
                text.append(_hover(state.trials[event["number"]], config, f"{at(event['epoch'])}: {_of(key, value)}"))
    if not best:
        return None
    unit, size = next((u, s) for u, s in (("hours", 3600), ("minutes", 60), ("seconds", 1)) if last > 2 * s or s == 1)
    figure = go.Figure(
        go.Scatter(
            x=[s / size for s in (*seconds, last)], y=[*best, best[-1]], text=[*text, text[-1]],
            hovertemplate="%{text}<extra></extra>", mode="lines+markers", showlegend=False,
            line={"shape": "hv", "color": STYLES["best"].colour}, marker_size=[6] * len(best) + [0],
        )
    )  # fmt: skip
    _dress(figure, 320, f"{unit} of searching", f"best {_title(objective, key)}")
    _set_y(figure, best, objective)
    figure.update_xaxes(rangemode="tozero")
    return Drawing("Best so far", "The best validation figure by the time since the search began.", (figure,))


def curves(state: SearchState, config: SearchConfig) -> Drawing | None:
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
    figure = go.Figure()
    for kind, style in STYLES.items():
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str] = []
        for trial in (t for t in trials if _kind(t, best) == kind):
            about = _hover(trial, config)
            for epoch, value in known[trial.number]:
                x.append(steps(epoch))
                y.append(value)
                text.append(f"{steps.at(epoch)}: {_of(metric, value)}<br>{about}")
            x.append(None)
            y.append(None)
            text.append("")
        if x:
            figure.add_trace(
                go.Scatter(
                    x=x, y=y, text=text, hovertemplate="%{text}<extra></extra>", name=_words(kind),
                    mode="lines+markers", marker={"size": 4, "symbol": style.symbol},
                    line={"color": style.colour, "width": 3 if kind == "best" else 1, "dash": style.dash},
                    opacity=0.7 if kind == "stopped_early" else 1,
                )
            )  # fmt: skip
    figure.update_layout(showlegend=True)
    _dress(figure, 440, steps.name, _title(state.objective, metric))
    last, half = steps(max(epoch for t in trials for epoch, _ in known[t.number])), steps(1) / 2
    figure.update_xaxes(tickvals=whole_ticks(steps(1), max(2, last)), range=[half, last + half])
    _set_y(figure, [value for t in trials for _, value in known[t.number]], state.objective)
    words = "Each line is a trial. Its colour says how the trial ended; click a name to hide its lines."
    return Drawing("Learning curves", words + note, (figure,))


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
    trials, note = _some(ranked, max(2, POINTS // len(searched)))
    lost = [t for t in state.trials.values() if t.outcome == "failed" and t not in ranked][: len(trials)]
    beyond = _beyond([t.best_value for t in trials], state.objective)
    figures = []
    for parameter in searched:
        axis, figure = parameter_axis(parameter, [*trials, *lost], FEW), go.Figure()
        for kind, style in STYLES.items():
            of_kind = [t for t in (*trials, *lost) if _kind(t, best) == kind]
            if of_kind:
                figure.add_trace(
                    go.Scatter(
                        x=[axis.place(t) for t in of_kind],
                        y=[beyond if t in lost else t.best_value for t in of_kind], mode="markers",
                        text=[
                            _hover(t, config, "no result" if t in lost else _result(t, config, state.objective))
                            for t in of_kind
                        ],
                        showlegend=False,
                        hovertemplate="%{text}<extra></extra>",
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
    figure = go.Figure()
    quarter = max(1, len(trials) // 4)
    for name, some, colour, width, opacity in (
        ("other trials", trials[quarter:], STYLES["stopped_early"].colour, 1, 0.45),
        ("best quarter", trials[1:quarter], STYLES["completed"].colour, 1.5, 0.9),
        ("best trial", trials[:1], STYLES["best"].colour, 3, 1),
    ):
        if some:
            figure.add_trace(_lines(name, some, axes, config, state.objective, colour, width, opacity))
    for row, axis in enumerate(axes):
        _add_row(figure, row, axis, trials)
    figure.update_layout(showlegend=True)
    _dress(figure, ROW * len(axes) + 50, None, None)
    figure.update_layout(margin={"l": 4, "r": 8, "t": 8, "b": 4})
    figure.update_xaxes(visible=False, range=[NOT_USED - 0.11, 1.06], fixedrange=True)
    figure.update_yaxes(visible=False, range=[0.5 - len(axes), 0.5], fixedrange=True)
    words = (
        f"Each line is a trial: it goes through the values of its hyperparameters down to its {objectives[-1].metric}."
    )
    return Drawing("Configurations", words + note, (figure,))


def _objective_axis(objective: Objective, trials: Sequence[Trial]) -> Axis:
    title = _title(objective, objective.metric)
    return value_axis(title, lambda trial: value_of(trial, objective), trials, objective)


def _lines(
    name: str, trials: Sequence[Trial], axes: Sequence[Axis], config: SearchConfig, objective: Objective, colour: str,
    width: float, opacity: float,
) -> go.Scatter:  # fmt: skip
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial in trials:
        x += [*(axis.place(trial) for axis in axes), None]
        y += [*(-row for row in range(len(axes))), None]
        text += [_hover(trial, config, _result(trial, config, objective))] * len(axes) + [""]
    return go.Scatter(
        x=x, y=y, text=text, hovertemplate="%{text}<extra></extra>", name=name, mode="lines+markers", marker_size=4,
        line={"color": colour, "width": width}, opacity=opacity,
    )  # fmt: skip


def _add_row(figure: go.Figure, row: int, axis: Axis, trials: Sequence[Trial]) -> None:
    """Draws an axis as a row: a line with ticks, their labels below it and its title above it."""
    ticks = axis.all_ticks(trials, ROW_PIXELS)
    figure.add_shape(type="line", x0=0, x1=1, y0=-row, y1=-row, line={"color": GREY, "width": 1}, layer="below")
    for place, text in ticks:
        figure.add_shape(
            type="line", x0=place, x1=place, y0=-row - 0.07, y1=-row + 0.07, line={"color": GREY, "width": 1},
            layer="below",
        )  # fmt: skip
        if text:
            # A long label at the right end would leave the figure.
            end = {"xanchor": "right", "xshift": EDGE} if place > 0.9 and len(text) * CHARACTER > 2 * EDGE else {}
            figure.add_annotation(
                x=place, y=-row, text=text, showarrow=False, yanchor="top", yshift=-4, font_size=11, **end
            )
    figure.add_annotation(
        x=NOT_USED - 0.09, y=-row, text=f"<b>{axis.title}</b>", showarrow=False, xanchor="left", yanchor="bottom",
        yshift=5, font_size=12,
    )  # fmt: skip


def pareto(state: SearchState, config: SearchConfig, other: Objective) -> Drawing | None:
    """One objective against another; a line joins their Pareto front."""
    first, ranked = config.objectives[0], _finite(state.ranked())
    if not ranked:
        return None
    best = sorted(front(ranked, (first, other)), key=lambda t: value_of(t, other))
    trials, note = _some(ranked, POINTS)
    figure = go.Figure()
    for name, some, mode, style in (
        ("trials", trials, "markers", STYLES["completed"]),
        ("Pareto front", best, "lines+markers", STYLES["best"]),
    ):
        figure.add_trace(
            go.Scatter(
                x=[value_of(t, other) for t in some], y=[t.best_value for t in some], mode=mode, name=name,
                text=[_hover(t, config, _result(t, config, first, other)) for t in some], line_color=style.colour,
                hovertemplate="%{text}<extra></extra>", marker={"symbol": style.symbol, "size": 8},
            )
        )  # fmt: skip
    figure.update_layout(showlegend=True)
    _dress(figure, 420, _title(other, other.metric), _title(first, first.metric))
    _set_y(figure, [t.best_value for t in trials], first)
    if wide(values := [value_of(t, other) for t in trials], other):
        ticks = log_ticks(min(values), max(values))
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[label(t) for t in ticks])
    words = f"The front has {len(best)} trials: what one gains in an objective it pays for in the other."
    return Drawing(f"{first.metric} against {other.metric}", words + note, (figure,))


def finalists(state: SearchState, config: SearchConfig) -> Drawing | None:
    """The test objective against the validation objective of each finalist, with 95 % intervals."""
    if not state.decision:
        return None
    rows = state.decision["finalists"]
    ends = [min(row["val"] for row in rows), max(row["val"] for row in rows)]
    figure = go.Figure(
        go.Scatter(x=ends, y=ends, mode="lines", line={"dash": "dot", "color": GREY}, name="equal", hoverinfo="skip")
    )
    for row in rows:
        style = STYLES["best" if row is rows[0] else "completed"]
        text = f"{_of(state.objective.key, row['val'])}<br>{_of(state.objective.test_key, row['test'])}"
        if np.isfinite(row["low"]):
            text += f" ({significant(row['low'])} to {significant(row['high'])})"
        figure.add_trace(
            go.Scatter(
                x=[row["val"]], y=[row["test"]], name=f"trial {row['trial']}", mode="markers",
                text=[_hover(state.trials[row["trial"]], config, text)], hovertemplate="%{text}<extra></extra>",
                marker={"color": style.colour, "symbol": style.symbol, "size": 10},
                error_y={"array": [row["high"] - row["test"]], "arrayminus": [row["test"] - row["low"]]},
            )
        )  # fmt: skip
    figure.update_layout(showlegend=True)
    _dress(figure, 400, f"best {_title(state.objective, state.objective.key)}", label(state.objective.test_key, VALUE))
    side = "above" if state.objective.mode == "min" else "below"
    words = f"Validation chose the finalists and flatters them: {side} the dotted line test is worse. "
    words += "Bars are 95 % intervals."
    return Drawing(FINALISTS, words, (figure,))


def importance(state: SearchState, config: SearchConfig) -> Drawing | None:
    """The importance of each hyperparameter, with its interval and the number of trials that it was computed from."""
    every, searched = _finite(state.ranked()), _searched(config)
    drawn = np.random.default_rng(0).permutation(len(every))[:PLENTY]
    trials = [every[i] for i in sorted(drawn)]
    if not trials or not searched:
        return None
    try:
        computed = importances(trials, config.space, state.objective)
    except ValueError as error:
        return Drawing("Importance", f"No importance: {error}.")
    bars = list(reversed(computed))
    figure = go.Figure(
        go.Bar(
            x=[item.share for item in bars], y=[label(item.name, BAR) for item in bars], orientation="h",
            marker_color=STYLES["completed"].colour, hovertemplate="%{text}<extra></extra>", textposition="none",
            error_x={"array": [item.high - item.share for item in bars], "color": STYLES["best"].colour,
                     "arrayminus": [item.share - item.low for item in bars]},
            text=[
                f"{label(item.name, VALUE)}: {item.share:.0%}, interval {item.low:.0%} to {item.high:.0%}<br>from "
                f"{item.trials} of {len(trials)} trials" for item in bars
            ],
        )
    )  # fmt: skip
    _dress(figure, 90 + 28 * len(bars), "share of the variance of ranks", "hyperparameter")
    figure.update_xaxes(tickformat=".0%", range=[0, 1.02])
    # Seven pixels for each character, and the axis title: the automatic margin of plotly overlaps in print.
    figure.update_layout(margin_l=51 + 7 * max(len(item.name[:BAR]) for item in bars))
    figure.update_yaxes(type="category", ticks="", ticklabelstandoff=6, automargin=False)
    part = f" of {len(every)}, drawn at random" if len(trials) < len(every) else ""
    words = (
        f"How much of the difference in rank between {len(trials)} trials{part} each hyperparameter explains by itself "
        f"(main effects of fANOVA). Orange bars hold {LEVEL:.0%} of what resampled trials give: where two of them "
        "overlap, the order may be chance."
    )
    if some := [item for item in computed if item.trials < len(trials)]:
        listed = ", ".join(f"{item.name} {item.trials}" for item in some)
        words += f" A conditional hyperparameter counts on the trials in which it exists ({listed})."
    left = {p.name for p in searched} - {item.name for item in computed}
    if left:
        words += f" Left out, as too few trials have them: {', '.join(sorted(left))}."
    if len(trials) < ENOUGH:
        words += f" With fewer than {ENOUGH} trials this is hardly more than a guess."
    return Drawing("Importance", words, (figure,))


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


def _result(trial: Trial, config: SearchConfig, *objectives: Objective) -> str:
    """The objectives of a trial at its best epoch, as text."""
    values = ", ".join(_of(o.metric, value_of(trial, o)) for o in objectives)
    return f"{values} at {config.search.unit.at(trial.best_epoch)}"


def _hover(trial: Trial, config: SearchConfig, first: str = "") -> str:
    """The hover label of a trial: its number, its outcome and its hyperparameters."""
    used = [p for p in _searched(config) if p.exists(trial.params) and p.name in trial.params]
    lines = [f"{label(p.name, VALUE)}: {label(trial.params[p.name], VALUE)}" for p in used]
    if len(lines) > LISTED:
        lines = [*lines[:LISTED], f"and {len(lines) - LISTED} more"]
    head = f"<b>trial {trial.number}</b>, {_words(trial.outcome or 'running')}"
    return "<br>".join([*([first] if first else []), head, *lines])


def _dress(figure: go.Figure, height: int, x: str | None, y: str | None) -> None:
    """Sets size, fonts, margins, legend and grid, which all figures share."""
    figure.update_layout(
        template="none", height=height, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#808080", "family": "system-ui, sans-serif"}, hovermode="closest",
        hoverlabel={"align": "left", "font_size": 12},
        margin={"l": 64, "r": 16, "t": 16, "b": 48},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
    )  # fmt: skip
    grid = "rgba(128,128,128,0.25)"
    figure.update_xaxes(title_text=x, gridcolor=grid, zeroline=False, automargin=True)
    figure.update_yaxes(title_text=y, gridcolor=grid, zeroline=False, automargin=True, title_standoff=8)


def _set_x(figure: go.Figure, ticks: Sequence[tuple[float, str]]) -> None:
    """Sets the ticks of the horizontal axis."""
    low = NOT_USED - 0.08 if any(place < 0 for place, _ in ticks) else -0.06
    figure.update_xaxes(
        tickvals=[place for place, _ in ticks], ticktext=[text for _, text in ticks], tickangle=0, tickfont_size=11,
        range=[low, 1.06], fixedrange=True,
    )  # fmt: skip
    figure.update_yaxes(fixedrange=True)


def _set_y(figure: go.Figure, values: Sequence[float], objective: Objective) -> None:
    """Makes the vertical axis logarithmic if the values span a wide range."""
    if wide(values, objective):
        ticks = log_ticks(min(values), max(values))
        figure.update_yaxes(type="log", tickvals=ticks, ticktext=[label(tick) for tick in ticks])
        figure.update_yaxes(title_text=f"{figure.layout.yaxis.title.text}, log")
