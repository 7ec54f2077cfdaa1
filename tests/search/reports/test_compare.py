"""Searches are compared from their journals, and those of a tracking server from MLflow."""

import io
import json

import numpy as np
import pandas as pd
import pytest

from search.cli.look import _show_grid
from search.core.state import SearchState
from search.core.store import Store
from search.live.screen import Screen
from search.reports.compare import (
    SearchTable,
    compare_searches,
    comparisons_as_csv,
    comparisons_as_json,
    rank_trials,
)
from search.reports.frames import curves_frame, free_columns, trials_frame
from tests.search.test_reading import kept, loop
from trainables import InputError, Objective
from trainables.base.unit import EPOCHS, Unit

LOSS = Objective("loss", "min")


def state_of(*curves, outcomes=(), params=()):
    """A search whose trials had these losses, epoch by epoch."""
    state = SearchState(LOSS)
    for number, losses in enumerate(curves):
        given = params[number] if params else {"lr": 0.1 * (number + 1)}
        state.apply({"event": "trial", "number": number, "params": given, "seed": 0})
        for epoch, loss in enumerate(losses, 1):
            state.apply({
                "event": "result", "number": number, "epoch": epoch, "outcome": None, "diverged": None,
                "device": "cpu", "time": epoch, "metrics": {"val_loss": loss, "size": 7.0, "epoch_seconds": 0.5},
            })  # fmt: skip
        state.trials[number].outcome = outcomes[number] if outcomes else "completed"
    return state


def table(name, frame, fingerprint="f", objective=LOSS, created=0, unit=EPOCHS, **settings):
    return SearchTable(
        name, name, "t", created, fingerprint, (objective,), "random + asha", 0.25, frame, unit, settings
    )


def test_trials_frame_has_a_row_for_each_trial():
    frame = trials_frame(state_of([0.5, 0.3, 0.4], []), objectives=[LOSS, Objective("size", "min")])
    assert frame.index.tolist() == [0, 1] and frame.index.name == "trial"
    assert list(frame.columns) == ["outcome", "epochs", "best_epoch", "val_loss", "size", "seconds", "lr"]
    assert frame.loc[0].tolist() == ["completed", 3, 2, 0.3, 7.0, 1.5, 0.1]
    assert np.isnan(frame.loc[1, "val_loss"]) and np.isnan(frame.loc[1, "size"]) and frame.loc[1, "epochs"] == 0


def test_trials_frame_keeps_the_names_of_its_own_columns():
    frame = trials_frame(state_of([0.5], params=[{"epochs": 9, "loss": 8}]), metric="loss")
    assert (frame.loc[0, "epochs"], frame.loc[0, "params_epochs"], frame.loc[0, "params_loss"]) == (1, 9, 8)


def test_frames_of_a_search_without_trials_are_empty():
    assert trials_frame(state_of()).columns.tolist() == ["outcome", "epochs", "best_epoch", "val_loss", "seconds"]
    assert curves_frame(state_of()).columns.tolist() == ["trial", "epoch"]


def test_frames_hold_texts_with_halves_of_characters():
    frame = trials_frame(state_of([0.5], params=[{"a\ud800": "b\ud800"}]))
    assert frame.loc[0, "a\\ud800"] == "b\\ud800"


def test_curves_frame_has_a_row_for_each_epoch():
    frame = curves_frame(state_of([0.5, 0.3], [0.2]))
    assert frame[["trial", "epoch", "val_loss"]].to_numpy().tolist() == [[0, 1, 0.5], [0, 2, 0.3], [1, 1, 0.2]]


def test_column_keeps_its_name_unless_it_is_taken():
    assert free_columns(["lr", "epochs"], ["trial", "epochs"]) == {"lr": "lr", "epochs": "params_epochs"}
    assert free_columns(["trial", "params_trial"], ["trial"]) == {
        "trial": "params_params_trial", "params_trial": "params_trial",
    }  # fmt: skip


def test_failed_trial_with_a_result_is_ranked_and_a_diverged_one_is_not():
    outcomes = ["completed", "failed", "failed", "diverged"]
    frame = trials_frame(state_of([0.5], [0.1], [], [0.01], outcomes=outcomes))
    trials, hyperparameters = rank_trials([table("s", frame)], [LOSS])
    assert trials["trial"].tolist() == [1, 0, 2, 3] and hyperparameters == ["lr"]
    assert trials["behind"].tolist()[:2] == [0.0, 0.4] and trials["val_loss"].isna().tolist() == [
        False,
        False,
        True,
        True,
    ]


def test_trials_of_a_search_that_counts_in_steps_have_steps(tmp_path):
    steps = Unit(100)
    frame = trials_frame(state_of([0.5, 0.3, 0.4]), unit=steps)
    (found,) = compare_searches(Store(tmp_path), "t", (), [table("s", frame, unit=steps)])
    assert found.trials.loc[0, ["best_step", "steps"]].tolist() == [200, 300] and "epochs" not in found.trials
    assert found.searches["steps"].tolist() == [300]
    searches, trials = found.grids(0)
    assert trials.heads[-2:] == ["steps", "seconds"] and "epochs" not in searches.heads
    both = [table("s", frame, unit=steps), table("e", trials_frame(state_of([0.5])))]
    (found,) = compare_searches(Store(tmp_path), "t", (), both)
    assert found.trials["steps"].tolist()[:1] == [300] and found.trials["epochs"].isna().tolist() == [True, False]


def test_settings_that_differ_between_searches_have_a_column(tmp_path):
    given = {"search.seed": "0", "search.trials": "9"}
    one = table("one", trials_frame(state_of([0.5])), **given)
    two = table("two", trials_frame(state_of([0.4])), **given | {"search.seed": "1", "search.epoch_budget": "40"})
    (found,) = compare_searches(Store(tmp_path), "t", (), [one, two])
    frame = found.searches.set_index("search")
    assert frame["search.seed"].to_dict() == {"one": "0", "two": "1"}
    assert frame["search.epoch_budget"].to_dict() == {"one": "", "two": "40"} and "search.trials" not in frame


def test_terminal_shows_what_differs_in_columns_that_fit_and_wide_shows_all(tmp_path):
    params = [{"lr": 0.1, "note": "a" * 40}, {"lr": 0.2, "note": "b" * 40}]
    (found,) = compare_searches(
        Store(tmp_path), "t", (), [table("s", trials_frame(state_of([0.5], [0.4], params=params)))]
    )
    (_, trials), console = found.grids(0), Screen(file=io.StringIO(), width=50, force_terminal=True, highlight=False)
    _show_grid(console, trials, wide=False)
    heading, *rows = lines = console.file.getvalue().splitlines()
    assert heading.split() == ["trial", "val_loss", "lr", "+2"] and len(rows) == 6
    assert lines[-2:] == [
        "the same in all: outcome completed, best_epoch 1,", "  epochs 1, seconds 0.5000",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 50 and any("`--wide`" in line for line in lines)
    console.file = io.StringIO()
    _show_grid(console, trials, wide=True)
    heading, *rows = console.file.getvalue().splitlines()
    assert heading.split() == [*trials.heads] and "a" * 40 in rows[1] and len(rows) == 2


def test_trials_on_the_pareto_front_are_marked():
    state = state_of([0.5], [0.1])
    state.trials[0].curve[1]["size"] = 3.0
    state.trials[1].curve[1]["size"] = 9.0
    objectives = (LOSS, Objective("size", "min"))
    trials, _ = rank_trials([table("s", trials_frame(state, objectives=objectives))], objectives)
    assert trials["front"].tolist() == [True, True] and trials["size"].tolist() == [9.0, 3.0]
    assert trials.columns.tolist()[:7] == ["search", "trial", "outcome", "val_loss", "behind", "front", "size"]


def test_searches_that_cannot_be_ranked_together_are_named_with_the_reason(tmp_path):
    frame = trials_frame(state_of([0.5]))
    given = [
        table("a", frame), table("b", frame, fingerprint="g"), table("c", frame, objective=Objective("loss", "max")),
        table("d", frame, created=9),
    ]  # fmt: skip
    (found,) = compare_searches(Store(tmp_path), "t", (), given)
    assert found.trials["search"].tolist() == ["a", "d"]
    assert found.left_out == (
        "not compared, as their data is other than d's (f): b (g)",
        "not compared, as their objective is other than d's (loss min): c (loss max)",
    )
    (found,) = compare_searches(Store(tmp_path), "t", ["a", "b"], given)
    assert found.trials["search"].tolist() == ["b"], "the last search that is named decides"


def test_compare_reads_the_journals_of_a_store(tmp_path, monkeypatch):
    config = loop(monkeypatch)
    about = {"offered": "trainables.loops.task:LoopTask?metric=loss&mode=min"}
    kept(Store(tmp_path), "one", config, **about)
    kept(Store(tmp_path), "two", config, **about)
    (found,) = compare_searches(Store(tmp_path))
    assert (found.task, found.objective) == ("mine", LOSS)
    assert found.searches["search"].tolist() == ["one", "two"]
    assert found.searches["best val_loss"].tolist() == [0.5, 0.5] and "test_loss" not in found.searches
    searches, trials = found.grids(top=1)
    assert (
        len(trials.rows) == 1
        and {"behind", "best_epoch", "epochs"} <= {*trials.heads}
        and searches.heads[0] == "search"
    )
    assert len(pd.read_csv(io.StringIO(comparisons_as_csv([found], 0)))) == 2
    assert [row["search"] for row in json.loads(comparisons_as_json([found], 0))] == ["one", "two"]
    assert not (tmp_path / "mlflow.db").exists(), "MLflow is not asked"


def test_searches_of_a_server_stand_beside_those_of_the_store_once(tmp_path, monkeypatch):
    kept(Store(tmp_path), "one", loop(monkeypatch), offered="trainables.loops.task:LoopTask?metric=loss&mode=min")
    there = SearchTable("other", "far", "mine", 0, "f", (LOSS,), "tpe + asha", 0.3, trials_frame(state_of([0.1])))
    here = SearchTable("one", "one", "mine", 0, "f", (LOSS,), "tpe + asha", 0.3, trials_frame(state_of([0.1])))
    (found,) = compare_searches(Store(tmp_path), None, (), [there, here])
    assert found.trials["search"].tolist() == ["far", "one"]


def test_tasks_are_compared_apart(tmp_path):
    other = SearchTable("o", "o", "u", 0, "f", (LOSS,), "tpe + asha", 0.3, trials_frame(state_of([0.1])))
    found = compare_searches(Store(tmp_path), None, (), [table("a", trials_frame(state_of([0.5]))), other])
    assert [one.task for one in found] == ["t", "u"]
    assert pd.read_csv(io.StringIO(comparisons_as_csv(found, 0)))["task"].tolist() == ["t", "u"]


def test_search_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="t: no search of this task in"):
        compare_searches(Store(tmp_path), "t")
    with pytest.raises(InputError, match="no search in this store"):
        compare_searches(Store(tmp_path))
    with pytest.raises(InputError, match="--search x: no such search of t; there are a"):
        compare_searches(Store(tmp_path), "t", ["x"], [table("a", trials_frame(state_of([0.5])))])
