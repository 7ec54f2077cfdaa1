"""What the figures of a search show: places, ticks, words, and that no name or value becomes markup."""

import json
import random
from dataclasses import replace

import plotly.graph_objects as go
import pytest

from search.core.program_config import loop_config
from search.core.readable import value as significant
from search.core.replay import open_search
from search.core.searchers.base import RecordedSearcher
from search.core.space import parse_space
from search.core.state import SearchState, Trial
from search.core.store import Store
from search.core.study import Study
from search.reports import figures
from search.reports.axes import NOT_USED, label, linear_ticks, log_ticks, parameter_axis, readable_ticks, whole_ticks
from search.reports.pages import to_json
from tests.search.reports.made import made, state_of
from trainables import Objective

SPACE = {
    "lr": {"loguniform": [1e-5, 1e-1]},
    "layers": {"int": [1, 6]},
    "optimizer": {"choice": ["sgd", "adamw"]},
    "decay": {"loguniform": [1e-6, 1e-1], "when": {"optimizer": "adamw"}},
}


def results(count, spread=1.0):
    draw, found = random.Random(0), []
    for _ in range(count):
        optimizer = draw.choice(["sgd", "adamw"])
        params = {
            "lr": 10 ** draw.uniform(-5, -1), "layers": draw.randint(1, 6), "optimizer": optimizer,
            "decay": 10 ** draw.uniform(-6, -1) if optimizer == "adamw" else None,
        }  # fmt: skip
        values = [0.01 * spread ** draw.random() * (1 + draw.random() / epoch) for epoch in range(1, 4)]
        found.append((params, values, draw.choice(["completed", "stopped_early", "diverged", "failed"])))
    return found


def drawn(tmp_path, trials, space=SPACE, **more):
    _, folder, _, config = made(tmp_path, space, trials, **more)
    state, events = state_of(folder, config)
    return {one.title: checked(one) for one in all_drawings(state, config, events)}, state


def all_drawings(state, config, events):
    study = Study(config, state.objective, searcher=RecordedSearcher(), events=events)
    return figures.drawings(state, config, events, study.rungs())


def state_and_config(root, trials=None):
    """The state and the configuration of a search that is there, or of a new one with these trials."""
    if trials is not None:
        made(root, SPACE, trials)
    folder, _, config = open_search(Store(root), "s")
    return state_of(folder, config)[0], config


def checked(drawing):
    """The drawing with figures of plotly's own class, which refuses properties that plotly does not have."""
    return replace(drawing, figures=tuple(go.Figure(json.loads(to_json(one.plain()))) for one in drawing.figures))


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """Thirty trials whose losses span a factor of ten thousand."""
    return drawn(tmp_path_factory.mktemp("figures"), results(30, 1e4))


def every(drawings):
    return [figure for one in drawings.values() for figure in one.figures]


def test_figures_need_no_webgl(usual):
    kinds = {trace.type for figure in every(usual[0]) for trace in figure.data}
    assert kinds <= {"scatter", "bar", "contour"}


def test_conditional_numeric_axis_stays_numeric_and_has_a_place_for_what_is_not_used():
    (*_, decay) = parse_space(SPACE, "test").parameters
    trials = [Trial(0, {"optimizer": "adamw", "decay": 1e-6}, 0), Trial(1, {"optimizer": "adamw", "decay": 1e-1}, 0),
              Trial(2, {"optimizer": "sgd", "decay": None}, 0)]  # fmt: skip
    axis = parameter_axis(decay, trials)
    assert [axis.place(trial) for trial in trials] == [0, 1, NOT_USED]
    assert [text for _, text in axis.all_ticks(trials)] == [
        "not used", "1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1",
    ]  # fmt: skip
    assert axis.title == "decay, log"
    assert "not used" not in [text for _, text in axis.all_ticks(trials[:2])]


def test_null_that_is_a_choice_is_a_choice_and_true_is_not_one():
    (parameter,) = parse_space({"clip": {"choice": [None, 1, True]}}, "test").parameters
    trials = [Trial(0, {"clip": None}, 0), Trial(1, {"clip": 1}, 0), Trial(2, {"clip": True}, 0)]
    axis = parameter_axis(parameter, trials)
    assert [axis.place(trial) for trial in trials] == [0, 0.5, 1]


def test_ticks_are_values_that_a_hyperparameter_can_have():
    assert whole_ticks(1, 6) == [1, 2, 3, 4, 5, 6]
    assert whole_ticks(16, 128, 16) == [16, 48, 80, 112]
    assert len(whole_ticks(0, 2**32 - 1)) <= 6
    assert linear_ticks(0, 0.5) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert log_ticks(1e-3, 1e-2) == [0.001, 0.002, 0.005, 0.01]
    assert log_ticks(0.031, 0.034) == [0.031, 0.034]


def test_labels_have_few_digits_and_no_markup():
    assert significant(0.0013876543) == "0.001388"
    assert significant(1e-6) == "1e-06"
    assert label("<a href='javascript:x'>&\x1b[31m", 60) == "&lt;a href='javascript:x'&gt;&amp;\\x1b[31m"
    assert len(label("x" * 100)) == 14


def test_every_axis_has_a_title(usual):
    for title, one in usual[0].items():
        for figure in one.figures:
            axes = (figure.layout.xaxis, figure.layout.yaxis)
            if title == "Configurations":
                names = {note.text for note in figure.layout.annotations if note.text.startswith("<b>")}
                assert names == {"<b>lr, log</b>", "<b>layers</b>", "<b>optimizer</b>", "<b>decay, log</b>",
                                 "<b>loss (lower is better), log</b>"}  # fmt: skip
            else:
                assert all(axis.title.text for axis in axes), title


def test_losses_that_span_much_have_a_log_axis_and_others_do_not(usual, tmp_path):
    assert usual[0]["Learning curves"].figures[0].layout.yaxis.type == "log"
    near, _ = drawn(tmp_path, results(12))
    assert near["Learning curves"].figures[0].layout.yaxis.type != "log"


@pytest.mark.parametrize("title", [
    "Best so far", "Learning curves", "Objective against each hyperparameter", "Configurations", "Contour", "Rank",
    "Distribution of the objective", "Workers over time",
])  # fmt: skip
def test_points_lead_to_their_trials(usual, title):
    drawings, state = usual
    traces = [trace for figure in drawings[title].figures for trace in figure.data if trace.type == "scatter"]
    assert traces and all(len(trace.customdata) == len(trace.x) for trace in traces)
    assert state.best().number in {number for trace in traces for number in trace.customdata}


def test_hover_has_the_result_and_the_hyperparameters_of_the_trial(tmp_path):
    state, config = state_and_config(tmp_path, results(12))
    for number, text in figures.hovers(state, config).items():
        trial = state.trials[number]
        assert text.startswith(f"<b>trial {number}</b>, {trial.outcome.replace('_', ' ')}<br>loss ")
        assert f"lr: {trial.params['lr']:.4g}" in text and f"layers: {trial.params['layers']}" in text
        assert ("decay: " in text) == (trial.params["decay"] is not None)


def test_colours_are_explained(usual):
    drawings, state = usual
    kinds = {t.outcome.replace("_", " ") for t in state.trials.values() if t is not state.best() and t.can_win}
    curves = {trace.name for trace in drawings["Learning curves"].figures[0].data}
    assert curves >= {"best trial", *kinds}
    scatter = drawings["Objective against each hyperparameter"]
    assert {k.replace("_", " ") for k in scatter.key} == {"best", *kinds}
    assert [trace.name for trace in drawings["Configurations"].figures[0].data] == [
        "other trials", "best quarter", "best trial",
    ]  # fmt: skip


def test_figures_are_the_same_each_time(tmp_path):
    _, folder, _, config = made(tmp_path, SPACE, results(12))
    state, events = state_of(folder, config)
    first, second = (to_json([f.plain() for d in all_drawings(state, config, events) for f in d.figures]) for _ in "12")
    assert first == second


def test_figures_of_thousands_of_trials_are_thinned_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "POINTS", 200)
    monkeypatch.setattr(figures, "MARKS", 50)
    monkeypatch.setattr(figures, "CURVE", 5)
    trials = [({"x": i / 100}, [1 + i / 100 - e / 50 for e in range(20)], "completed") for i in range(100)]
    drawings, state = drawn(tmp_path, trials, {"x": {"uniform": [0, 1]}})
    assert drawings["Learning curves"].figures[0].data[0].mode == "lines", "a mark for each point takes a browser long"
    for title in ("Learning curves", "Objective against each hyperparameter", "Configurations"):
        one = drawings[title]
        points = sum(sum(y is not None for y in trace.y) for trace in one.figures[0].data)
        if title == "Objective against each hyperparameter":
            assert points == 100, "so many are drawn whole"
        else:
            assert points <= 200 and (points == 200 or "Drawn are" in one.words)
    assert "at most 5 epochs" in drawings["Learning curves"].words
    assert "of 100 trials: the" in drawings["Learning curves"].words
    best = [y for t in drawings["Learning curves"].figures[0].data if t.name == "best trial" for y in t.y if y]
    assert min(best) == state.best().best_value


def test_front_joins_the_trials_that_no_other_beats(tmp_path):
    trials = [({"x": x}, [loss], "completed") for x, loss in ((0.1, 3.0), (0.2, 2.0), (0.3, 1.0))]
    flags = {"search.objective": ["loss min", "size min"], "search.searcher": "nsga2"}
    drawings, _ = drawn(tmp_path, trials, {"x": {"uniform": [0, 1]}}, flags=flags, extra={"size": 5.0})
    figure = drawings["loss against size"].figures[0]
    assert list(figure.data[1].y) == [1.0]
    assert "loss 3, size 5 at epoch 1" in figures.hovers(*state_and_config(tmp_path))[0]
    assert figure.layout.xaxis.title.text == "size (lower is better)"


def test_importance_says_what_it_was_made_from(usual):
    words = usual[0]["Importance"].words
    assert "A conditional hyperparameter counts on the trials in which it exists (decay " in words
    bars = usual[0]["Importance"].figures[0].data[0]
    assert set(bars.y) == set(SPACE)
    assert bars.error_x.array is not None and bars.error_x.arrayminus is not None
    assert all("interval" in text for text in bars.text)


def test_importance_of_too_few_trials_is_words(tmp_path):
    drawings, _ = drawn(tmp_path, [({"x": 0.1}, [1.0], "completed")], {"x": {"uniform": [0, 1]}})
    assert not drawings["Importance"].figures
    assert "1 trials have a result" in drawings["Importance"].words


def test_finalists_have_intervals_their_hyperparameters_and_a_line_of_equality(tmp_path):
    trials = [({"x": x}, [loss], "completed") for x, loss in ((0.1, 0.5), (0.2, 0.6))]
    rows = [{"trial": 0, "val": 0.5, "test": 0.7, "low": 0.6, "high": 0.8},
            {"trial": 1, "val": 0.6, "test": 0.75, "low": 0.7, "high": 0.8, "p": 0.3}]  # fmt: skip
    _, folder, _, config = made(tmp_path, {"x": {"uniform": [0, 1]}}, trials)
    state, _ = state_of(folder, config)
    assert figures.finalists(state, config) is None
    state.decision = {"champion": 0, "winner": False, "resampled": True, "seeds": 5, "finalists": rows}
    found = checked(figures.finalists(state, config))
    equal, first, second = found.figures[0].data
    assert list(equal.x) == list(equal.y) == [0.5, 0.6]
    assert list(first.error_y.array) == pytest.approx([0.1]) and list(first.error_y.arrayminus) == pytest.approx([0.1])
    assert "test_loss 0.7 (0.6 to 0.8)" in first.text[0] and list(first.customdata) == [0]
    assert second.name == "trial 1"
    assert "above the dotted line test is worse" in found.words


@pytest.mark.parametrize(("objective", "side"), [("loss min", "above"), ("accuracy max", "below")])
def test_failed_trials_without_a_result_stand_beyond_the_worst_result(tmp_path, objective, side):
    trials = [({"x": 0.1}, [0.5], "completed"), ({"x": 0.2}, [0.75], "completed"), ({"x": 0.9}, [], "failed")]
    drawings, _ = drawn(tmp_path, trials, {"x": {"uniform": [0, 1]}}, objective=objective)
    scatter = drawings["Objective against each hyperparameter"]
    (cross,) = [trace for trace in scatter.figures[0].data if trace.marker.symbol == "x"]
    assert list(cross.x) == [0.9] and (cross.y[0] > 0.75 if side == "above" else cross.y[0] < 0.5)
    assert list(cross.customdata) == [2] and f"stand {side} the worst result" in scatter.words
    assert "failed" in scatter.key


def test_labels_of_an_axis_do_not_overlap():
    rates = [(i / 5, text) for i, text in enumerate(("0.0005", "0.001", "0.002", "0.005", "0.01", "0.02"))]
    assert [text for _, text in readable_ticks(rates, 165, thin=True)] == ["0.0005", "", "0.002", "", "0.01", ""]
    choices = [(i / 3, name) for i, name in enumerate(("cosine", "constant", "step", "warmup_cosine"))]
    assert readable_ticks(choices, 1000) == choices
    assert [text for _, text in readable_ticks(choices, 165)] == ["cosine", "<br>constant", "step", "<br>warmup_cosine"]
    assert [at for at, _ in readable_ticks(choices, 10)] == [at for at, _ in choices], "ticks stay"


def test_long_label_at_the_right_end_stays_inside_the_figure(tmp_path):
    space = {"init": {"choice": ["uniform", "xavier", "orthogonal"]}}
    trials = [({"init": name}, [1.0 + i], "completed") for i, name in enumerate(space["init"]["choice"])]
    figure = drawn(tmp_path, trials, space)[0]["Configurations"].figures[0]
    (last,) = [note for note in figure.layout.annotations if note.text == "orthogonal"]
    assert last.xanchor == "right"


def test_rungs_are_lines_across_the_learning_curves(usual, tmp_path):
    trials = [
        ({"x": i / 9}, [1.0 + i] * (1 if i % 2 else 3), "stopped_early" if i % 2 else "completed") for i in range(9)
    ]
    drawings, _ = drawn(
        tmp_path, trials, {"x": {"uniform": [0, 1]}}, flags={"search.scheduler": "asha", "search.epochs": 9},
        sets=("search.grace_period=1",),
    )  # fmt: skip
    curves = drawings["Learning curves"]
    assert [line.x0 for line in curves.figures[0].layout.shapes] == [1, 3]
    assert "Dotted lines are the rungs, where asha compares the trials." in curves.words and curves.scales


def test_contour_is_the_mean_of_near_trials_and_blank_elsewhere(tmp_path):
    trials = [({"a": i / 40, "b": i / 40}, [1.0 + i / 40], "completed") for i in range(40)]
    drawings, _ = drawn(tmp_path, trials, {"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}})
    surface, points = drawings["Contour"].figures[0].data
    assert drawings["Contour"].names == drawings["Rank"].names == ("a and b",)
    middle, corner = surface.z[15][15], surface.z[30][0]
    assert middle == pytest.approx(1.5, abs=0.05) and (corner is None or corner != corner)
    assert len(points.x) == 40
    (rank,) = drawings["Rank"].figures[0].data
    ranks = dict(zip(rank.customdata, rank.marker.color, strict=True))
    assert ranks[0] == 0 and ranks[39] == 1


def test_distribution_gives_the_share_of_trials_that_reach_a_value(tmp_path):
    trials = [({"x": i / 4}, [value], "completed") for i, value in enumerate((4.0, 1.0, 3.0, 2.0))]
    line = drawn(tmp_path, trials, {"x": {"uniform": [0, 1]}})[0]["Distribution of the objective"].figures[0].data[0]
    assert list(zip(line.x, line.y, line.customdata, strict=True)) == [
        (1, 0.25, 1),
        (2, 0.5, 3),
        (3, 0.75, 2),
        (4, 1, 0),
    ]


def test_timeline_has_a_row_for_each_training_at_a_time_and_no_time_between_sessions():
    state = SearchState(Objective("loss", "min"))
    events = [{"event": "session", "time": 0}]
    for number in (0, 1, 2):
        events.append({"event": "trial", "number": number, "params": {"x": 0.5}, "seed": 0, "time": 0})

    def result(number, epoch, seconds, at):
        metrics = {"val_loss": 1.0, "epoch_seconds": seconds}
        return {"event": "result", "number": number, "epoch": epoch, "metrics": metrics, "diverged": None,
                "outcome": None, "device": "cpu", "time": at}  # fmt: skip

    events += [result(0, 1, 10, 10_000), result(1, 1, 10, 10_500), result(0, 2, 10, 20_000)]
    events += [{"event": "session", "time": 500_000}, result(2, 1, 5, 505_000)]
    for event in events:
        state.apply(event)
    config = loop_config("mine", {"x": {"uniform": [0, 1]}}, "loss min", {"search.trials": 3}, (), "test")
    figure = checked(figures.timeline(state, config, events)).figures[0]
    bars = {
        number: (trace.x[i], trace.x[i + 1], trace.y[i], trace.text[i])
        for trace in figure.data
        for i, number in enumerate(trace.customdata)
        if i % 3 == 0
    }
    assert bars[0] == (0, 20, 1, "2 epochs in 20 s"), "epochs without a break are one bar"
    assert bars[1][2] == 2 and bars[2] == (20, 25, 1, "1 epoch in 5 s")
