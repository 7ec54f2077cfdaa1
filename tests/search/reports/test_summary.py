"""What stands at the end of a search, and how it is printed."""

import io
import re

import pytest

from search.core.config import load_config
from search.core.readable import Grid, figure
from search.core.record import SearchRecord
from search.core.state import SearchState
from search.core.store import Store
from search.live.outcome import print_outcome, print_summary
from search.live.screen import Screen, show
from search.outcome import SearchOutcome
from search.reports.summary import conclusion, parts, tally
from trainables import Objective, get_task
from trainables.base.unit import EPOCHS

RMSE = Objective("rmse", "min")
#: The address of a search in MLflow.
ADDRESS = "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=12a19fd9a669"
CONFIG = load_config("rnn", ["search.trials=3"], {}, "data")


def state(test: float = 0.0912, baselines: dict | None = None) -> SearchState:
    """Three trials, of which the second is the best, and its final training."""
    found = SearchState(RMSE)
    for number, value in enumerate([0.5, 0.1, 1e-6]):
        params = {"lr": 0.00312345 * (number + 1), "variant": "vanilla", "hidden": 32, "momentum": 0.9, "keep": None}
        found.apply({"event": "trial", "number": number, "params": params, "seed": 0})
        told = {"event": "result", "number": number, "epoch": 2, "metrics": {"val_rmse": value}, "diverged": None}
        outcome = ("stopped_early", "completed", "diverged")[number]
        found.apply({**told, "outcome": outcome, "device": "cpu", "time": 0})
    final = {"trial": 1, "seed": 0, "epochs": 2}
    found.apply({"event": "final_started", "params": {}, **final})
    told = {"test": {"mse": 1e-6, "rmse": test}, "baselines": baselines or {}, "device": "cpu", "spent": 3}
    found.apply({"event": "final_finished", "chosen": True, **final, **told})
    return found


def test_conclusion_is_the_test_figure_beside_the_best_baseline():
    found = state(baselines={"constant": 0.4663, "ridge": 0.1384})
    assert conclusion(found, EPOCHS) == ("test_rmse 0.09120   ridge baseline 0.1384", True)
    assert (
        parts(found, CONFIG)
        == [
            "best: trial 1, val_rmse 0.1000 at epoch 2",
            "  lr=0.006247 variant=vanilla hidden=32",  # the learning rate first, nothing that is the same
            "test (trial 1, retrained on train+validation, 2 epochs, seed 0): mse 1.000e-06  rmse 0.09120",
            "baselines (test_rmse): constant 0.4663, ridge 0.1384",
            "trials: 1 completed, 1 stopped early, 1 diverged",
            *parts(found, CONFIG)[5:],
        ]
    )


def test_single_epoch_that_early_stopping_saved_is_one_epoch():
    lines = parts(state(), load_config("rnn", (), {"search.trials": 3, "search.epochs": 3}, "data"))
    assert "early stopping: 1 epoch saved, 6 trained (14% less)" in lines


def test_model_that_does_not_beat_the_best_baseline_is_told_in_the_conclusion():
    said, beats = conclusion(state(test=0.2, baselines={"constant": 0.4663, "ridge": 0.1384}), EPOCHS)
    assert said == "test_rmse 0.2000   ridge baseline 0.1384   the searched model does NOT beat the baseline 'ridge'"
    assert not beats


def test_without_a_test_figure_the_conclusion_is_the_best_value():
    found = state()
    found.final = None
    assert conclusion(found, EPOCHS) == ("best val_rmse 0.1000 (trial 1, epoch 2)", None)
    assert conclusion(SearchState(RMSE), EPOCHS) == ("no trial has a result yet", None)


def test_outcomes_are_counted_in_plain_words():
    assert tally([None, "paused", "paused", "stopped_early"]) == "1 running, 2 paused, 1 stopped early"


def printed(write, terminal: bool) -> str:
    console = Screen(
        file=io.StringIO(), width=60, force_terminal=terminal, color_system="standard" if terminal else None
    )
    write(console)
    return console.file.getvalue()


def outcome(tmp_path, found: SearchState, status: str = "finished", **fields) -> SearchOutcome:
    store, found.status = Store(tmp_path), status
    about = SearchRecord("rnn", CONFIG.raw, CONFIG.place)
    return SearchOutcome(store, store.search("s"), CONFIG, about, get_task("rnn"), found, [], "resume s", **fields)


@pytest.mark.parametrize(("test", "colour"), [(0.0912, "\x1b[1;32m"), (0.2, "\x1b[1;33m")], ids=["beats", "does not"])
def test_last_line_has_a_colour_on_a_terminal_alone(tmp_path, test, colour):
    ended = outcome(tmp_path, state(test, {"ridge": 0.1384}), trained=False, pages=(ADDRESS,))

    def write(console):
        print_outcome(console, ended)

    _, last = printed(write, terminal=True).split(colour, 1)
    assert last.startswith(f"test_rmse {figure(test)}   ridge baseline 0.1384")
    plain = printed(write, terminal=False)
    assert "\x1b" not in plain and plain.splitlines()[-1].startswith("test_rmse")


@pytest.mark.parametrize("width", [40, 80])
def test_address_in_mlflow_is_whole_in_a_pipe_and_a_hyperlink_on_a_terminal(tmp_path, width):
    ended = outcome(tmp_path, state(), trained=False, pages=(ADDRESS,))
    for terminal in (False, True):
        console = Screen(
            file=io.StringIO(), width=width, force_terminal=terminal, color_system="standard" if terminal else None
        )
        print_outcome(console, ended)
        (line,) = [line for line in console.file.getvalue().split("\n") if ADDRESS in line]
        assert re.fullmatch(rf"\x1b]8;id=\d+;{re.escape(ADDRESS)}\x1b\\{re.escape(ADDRESS)}\x1b]8;;\x1b\\" if terminal
                            else re.escape(ADDRESS), line)  # fmt: skip


@pytest.mark.parametrize(
    ("status", "commands"),
    [
        ("finished", ["report s --open", "predict rnn INPUT...", "retrain s --finalists 3"]),
        ("interrupted", ["resume s"]),
    ],
)
def test_one_block_has_the_commands_that_come_next(tmp_path, monkeypatch, status, commands):
    monkeypatch.setenv("SEARCH_STORE", str(tmp_path))
    ended = outcome(tmp_path, state(), status, trained=False)
    for width, explained in ((20, False), (120, True)):
        console = Screen(file=io.StringIO(), width=width)
        print_outcome(console, ended)
        *_, block = console.file.getvalue().split("next:\n")
        *lines, _ = block.splitlines()
        given, reasons = zip(*(line.partition("#")[::2] for line in lines), strict=True)
        assert [line.strip() for line in given] == [f"python -m search {command}" for command in commands]
        assert all(reasons) == explained


def test_interrupted_search_without_a_model_may_make_it_of_what_there_is(tmp_path):
    found = state()
    found.final = None
    console = Screen(file=io.StringIO(), width=200)
    print_outcome(console, outcome(tmp_path, found, "interrupted", trained=False))
    assert "python -m search retrain s" in console.file.getvalue().split("next:")[1]


def test_table_is_drawn_on_a_terminal_and_markdown_in_a_log():
    grid = Grid(["variant", "test"], [["vanilla", "0.1122"]])
    assert printed(lambda console: show(console, grid), terminal=False).splitlines()[1] == "| --- | --- |"
    drawn = printed(lambda console: show(console, grid), terminal=True)
    assert "|" not in drawn and "vanilla" in drawn and "0.1122" in drawn


def test_words_stay_whole_on_a_terminal_and_an_address_on_one_line():
    text = "a sentence that is longer than the terminal is wide, so that it takes more than a single line"
    lines = printed(lambda console: [show(console, text), show(console, ADDRESS)], terminal=True).splitlines()
    assert lines[-1] == ADDRESS
    assert " ".join(line.strip() for line in lines[:-1]) == text and max(map(len, lines[:-1])) <= 60
    assert printed(lambda console: show(console, text), terminal=False) == text + "\n"


def test_two_of_the_texts_that_a_model_wrote_are_printed_and_the_file_of_the_rest_is_named(tmp_path):
    folder, found = Store(tmp_path).search("s"), state()
    file = folder.samples_file(found.final)
    file.parent.mkdir(parents=True)
    file.write_text("".join(f"sentence {n}\n" for n in range(10)))
    lines = printed(lambda console: print_summary(console, CONFIG, folder, found), terminal=False).splitlines()
    assert lines[-4:] == ["  sentence 0", "  sentence 1", "  and 8 more in", str(file)]


def limited(why: str = "target") -> SearchState:
    """Thirty trials of a minute each, one after the other, which a limit ended."""
    found = SearchState(RMSE)
    found.apply({"event": "session", "time": 0})
    for number in range(30):
        at = 60_000 * (number + 1)
        found.apply({"event": "trial", "number": number, "params": {"lr": 0.1}, "seed": 0, "time": at})
        metrics = {"val_rmse": 1.0 + (7 * number) % 30, "epoch_seconds": 60.0}
        told = {"event": "result", "number": number, "epoch": 1, "metrics": metrics, "diverged": None}
        found.apply({**told, "outcome": "completed", "device": "cpu", "time": at})
    settings = {"target": 1.5, "trials": 99, "epochs": LIMITED.search.epochs, "added": 0}
    found.apply({"event": "limit", "why": why, "reason": "it is there; the target is 1.5", "settings": settings})
    return found


LIMITED = load_config("rnn", ["search.trials=99", "search.target=1.5"], {}, "data")


def test_summary_says_which_limit_ended_the_search_and_what_one_more_hour_would_bring():
    lines = parts(limited(), LIMITED)
    assert "ended by its target: it is there; the target is 1.5" in lines
    (outlook,) = [line for line in lines if str(line).startswith("one more hour")]
    assert re.fullmatch(r"one more hour: -[\d.]+, 95 %: -[\d.]+ to 0", outlook)


def test_limit_that_was_changed_since_is_no_end():
    changed = load_config("rnn", ["search.trials=99", "search.target=0.5"], {}, "data")
    assert not [line for line in parts(limited(), changed) if str(line).startswith("ended by")]


def test_few_trials_say_nothing_about_one_more_hour():
    assert not [line for line in parts(state(), CONFIG) if str(line).startswith("one more hour")]
