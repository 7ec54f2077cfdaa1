"""A search with two objectives, as the summary, the page and Python show it."""

import re

import pytest

from search.reports import figures, report
from search.reports.summary import parts
from search.reports.view import View
from search.result import open_result
from tests.search.reports.made import made, state_of
from trainables import InputError

SPACE = {"x": {"uniform": [0, 1]}}
#: Loss and size: 0, 1 and 2 are on the front, and 1 is its knee.
TRIALS = [({"x": x}, [loss], "completed") for x, loss in ((1.0, 1.0), (0.2, 2.0), (0.1, 5.0), (0.9, 3.0))]
FLAGS = {"search.objective": ["loss min", "size min"]}


def found(root, trials=TRIALS, **flags):
    return made(root, SPACE, trials, flags={**FLAGS, **flags}, extra=lambda params: {"size": 100 * params["x"]})


PREFERRED = {"search.preference": {"size": 1}}


@pytest.mark.parametrize(
    ("flags", "first"),
    [({}, "best: trial 0, loss 1.000  size 100.0 at epoch 1"),
     (PREFERRED, "best by the preference size 1: trial 2, loss 5.000  size 10.00 at epoch 1")],
)  # fmt: skip
def test_summary_lists_the_front_and_names_the_knee(tmp_path, flags, first):
    _, folder, _, config = found(tmp_path, **flags)
    lines = parts(state_of(folder, config)[0], config)
    assert lines[0] == first
    begin = lines.index("Pareto front of loss min, size min:")
    assert lines[begin + 1 : begin + 5] == [
        "  trial 0: loss 1.000  size 100.0  x=1",
        "  trial 1: loss 2.000  size 20.00  (knee)  x=0.2",
        "  trial 2: loss 5.000  size 10.00  x=0.1",
        "hypervolume: the front dominates 67% of the box between the best and the worst value of each objective",
    ]


def test_page_marks_front_knee_and_choice(tmp_path):
    _, folder, record, config = found(tmp_path, **PREFERRED)
    view = View(folder, record, config)
    view.read()
    data = report.page_data(view)
    rows = {row["name"]: f"{row['figure']} {row['words']}".strip() for row in data["head"]}
    assert rows["best trial"] == "trial 2 at epoch 1 of 10, by the preference size 1: loss 5.000  size 10.00"
    assert rows["Pareto front"] == "of loss min, size min: trials 0, 1, 2"
    assert rows["knee of the front"] == "trial 1: loss 2.000  size 20.00"
    assert rows["hypervolume"].startswith("the front dominates 67% of the box")
    assert [row["cells"][0] for row in data["trials"]["rows"]] == ["2 best", "1 knee", "3", "0 front"]
    (drawing,) = [one for one in figures.drawings(view.state, config, [], {}) if one.title == "loss against size"]
    traces = {trace["name"]: trace["customdata"] for trace in drawing.figures[0].data}
    assert traces["Pareto front"] == [2, 1, 0] and traces["knee"] == [1]
    assert traces["chosen by the preference"] == [2]


def test_search_without_a_preference_has_no_choice_in_its_figure(tmp_path):
    _, folder, _, config = found(tmp_path)
    state, events = state_of(folder, config)
    (drawing,) = [one for one in figures.drawings(state, config, events, {}) if one.title == "loss against size"]
    assert [trace["name"] for trace in drawing.figures[0].data] == ["trials", "Pareto front", "knee"]


def test_result_has_front_knee_and_best(tmp_path):
    store, *_ = found(tmp_path, **PREFERRED)
    result = open_result(store, "s")
    assert [(one.number, one.values) for one in result.front] == [
        (0, {"loss": 1.0, "size": 100.0}), (1, {"loss": 2.0, "size": 20.0}), (2, {"loss": 5.0, "size": 10.0}),
    ]  # fmt: skip
    assert (result.knee.number, result.best.number, result.best.value) == (1, 2, 5.0)


def test_result_of_one_objective_has_a_front_of_its_best_trials(tmp_path):
    store, *_ = made(tmp_path, SPACE, [*TRIALS, TRIALS[0]])
    result = open_result(store, "s")
    assert [one.number for one in result.front] == [0, 4] and result.knee == result.best and not result.best.values


def test_search_without_a_result_has_no_knee(tmp_path):
    store, *_ = found(tmp_path, [({"x": 0.5}, [], "failed")])
    result = open_result(store, "s")
    assert result.front == []
    with pytest.raises(InputError, match=re.escape("s: no trial has a result")):
        _ = result.knee
