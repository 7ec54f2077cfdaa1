"""What a person sees of a search that a budget ends, and of long epochs."""

import io

import pytest
from rich.console import Console

from search.config.load import load_config
from search.console import Reporter
from search.engine.search import Search
from search.record.store import Store

STEP = {"epoch": 2, "done": 40, "of": 160, "loss": 5.25, "samples_per_second": 2600.4, "left": 80.0}


@pytest.fixture
def search(tmp_path):
    search = Search(load_config("rnn", profile="data"), Store(tmp_path).search("s"))
    trial = search.propose()
    metrics = {"val_mse": 2.0, "epoch_seconds": 1.0}
    result = {"number": trial.number, "epoch": 1, "metrics": metrics, "diverged": None, "checkpoint": None}
    search.report([result], "cpu")
    yield search
    search.journal.close()


def shown(reporter: Reporter) -> str:
    out = Console(file=io.StringIO(), width=160)
    out.print(reporter._render())
    return out.file.getvalue()


def test_live_table_of_a_search_that_a_budget_ends(search):
    table = shown(Reporter(Console(file=io.StringIO()), search))
    assert "1 of as many trials as the budget holds: 1 running" in table
    assert "about 59:5" in table or "about 1:00:00" in table, "what is left of the hour"


def test_long_epochs_show_how_far_they_are_until_they_end(search):
    reporter = Reporter(Console(file=io.StringIO()), search)
    reporter({"event": "progress", "number": 0, **STEP}, search.state)
    assert "trial 0: step 40 of 160, loss 5.250, 2600 samples/s, 1:20 to go" in shown(reporter)
    result = {"number": 0, "epoch": 2, "metrics": {"val_mse": 1.0, "epoch_seconds": 1.0}, "diverged": None}
    search.listeners.append(reporter)
    search.report([{**result, "checkpoint": None}], "cpu")
    assert "step 40" not in shown(reporter)


def test_in_a_pipe_a_long_epoch_has_a_line_a_minute(search, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("search.console.time.monotonic", lambda: now[0])
    out = io.StringIO()
    reporter = Reporter(Console(file=out, width=200), search)
    for _ in range(30):
        now[0] += 5
        reporter({"event": "progress", "number": 0, **STEP}, search.state)
    assert out.getvalue().count("step 40 of 160") == 2


def test_in_a_pipe_a_trial_has_a_line_as_it_ends_and_every_epoch_has_one_on_demand(search, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("search.console.time.monotonic", lambda: now[0])
    brief, full = (Reporter(Console(file=io.StringIO(), width=200), search, verbose) for verbose in (False, True))
    search.listeners += [brief, full]
    epochs = search.config.search.epochs
    for epoch in range(2, epochs + 1):
        now[0] += 100 / epochs
        metrics = {"val_mse": 2.0 - epoch / epochs, "epoch_seconds": 1.0}
        search.report([{"number": 0, "epoch": epoch, "metrics": metrics, "diverged": None, "checkpoint": None}], "cpu")
        if search.state.trials[0].outcome:
            break
    lines = brief.console.file.getvalue().splitlines()
    assert len(full.console.file.getvalue().splitlines()) == epoch - 1
    assert "1 of as many trials as the budget holds: 1 running; best " in lines[0], "a minute without a line"
    assert lines[1:] == [full.console.file.getvalue().splitlines()[-1]]
