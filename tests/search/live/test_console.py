"""What a person sees of a running search: on terminals of every size, in a log, and of long epochs."""

import io
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from rich.console import Console

from search.core.config import load_config
from search.core.store import Store
from search.live.console import Reporter
from search.live.screen import Screen
from search.runtime.search import Search
from tests.conftest import CODE

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


def shown(reporter: Reporter, width: int = 160, height: int = 25) -> str:
    out = Console(file=io.StringIO(), width=width, height=height)
    out.print(reporter._render())
    return out.file.getvalue()


def report(search: Search, number: int, epoch: int, mse: float) -> None:
    metrics = {"val_mse": mse, "epoch_seconds": 1.0}
    result = {"number": number, "epoch": epoch, "metrics": metrics, "diverged": None, "checkpoint": None}
    search.report([result], "cpu")


@pytest.fixture
def paused(tmp_path):
    """20 trials of the demo's space at the rung of epoch 2, the first ones the better. The best five were promoted, the
    others wait."""
    sets = ["search.scheduler=asha-promote", "search.grace_period=2", "search.trials=20", "search.balance=null"]
    search = Search(load_config("rnn", [*sets, "search.searcher=random"]), Store(tmp_path).search("s"))
    while len(search.state.trials) < 20 and (trial := search.propose()) is not None:
        for epoch in range(trial.epoch + 1, 3):
            report(search, trial.number, epoch, 2.1 - epoch + trial.number)
    search.propose()
    yield search
    search.journal.close()


@pytest.mark.parametrize(("width", "height"), [(60, 14), (80, 24), (120, 40), (200, 50)])
def test_live_table_fits_the_terminal_and_shows_best_elapsed_and_the_learning_rate(paused, width, height):
    reporter = Reporter(Console(file=io.StringIO()), paused)
    lines = shown(reporter, width, height).splitlines()
    assert max(map(len, lines)) <= width and len(lines) < height
    assert lines[0] == "best val_mse 0.1000 (trial 0, epoch 2)"
    assert lines[1].startswith("elapsed 0:0")
    heading = next(i for i, line in enumerate(lines) if line.startswith("trial "))
    assert re.match(r"trial +epoch +time +(trend +)?(latest +)?best +lr\b", lines[heading])
    assert "  0  running" in lines[heading + 1] and len(lines) - heading > 6
    said = " ".join(lines[:heading])
    assert "20 trials proposed: 5 running, 15 paused" in said
    assert "rung at epoch 2: 20 trials" in said and "the best 1 in 4 of a rung continue" in said


@pytest.mark.parametrize(("width", "height"), [(30, 10), (40, 10), (48, 12)])
def test_narrow_live_table_cuts_no_figure_and_shows_the_best_values(paused, width, height):
    paused.objective = replace(paused.objective, metric="accuracy_of_a_long_name")
    lines = shown(Reporter(Console(file=io.StringIO()), paused), width, height).splitlines()
    assert len(lines) < height and max(map(len, lines)) <= width
    assert "0.1000 (trial 0, epoch 2)" in re.sub(r"\s+", " ", "".join(lines[:3])) and "…" not in "".join(lines)
    (heading,) = [line for line in lines if line.startswith("trial ")]
    assert heading.split()[:3] == ["trial", "epoch", "best"] and ("lr" in heading.split() or width == 30)


def test_wider_terminals_show_more_hyperparameters_and_say_how_many_are_left_out(paused):
    reporter = Reporter(Console(file=io.StringIO()), paused)
    headings = {}
    for width in (60, 80, 120, 200):
        (heading,) = [line for line in shown(reporter, width).splitlines() if line.startswith("trial ")]
        headings[width] = heading.partition(" best ")[2].split()
    every = headings[200]
    assert every[:2] == ["lr", "weight_decay"] and not every[-1].startswith("+"), "all have room"
    assert "ridge" not in every and "dropout" not in every, "these are the same in all trials"
    for width in (60, 80, 120):
        *names, more = headings[width]
        assert more == f"+{len(every) - len(names)}"
        assert all(full.startswith(name.rstrip("…")) for name, full in zip(names, every, strict=False))
    assert len(headings[60]) < len(headings[80]) < len(headings[120])


@pytest.mark.parametrize("width", [80, 120])
def test_learning_rate_and_two_more_hyperparameters_stand_beside_time_epoch_and_trend(paused, width):
    report(paused, 0, 3, 0.05)
    lines = shown(Reporter(Console(file=io.StringIO()), paused), width).splitlines()
    heading = next(i for i, line in enumerate(lines) if line.startswith("trial "))
    *names, more = lines[heading].partition(" best ")[2].split()
    assert names[0] == "lr" and len(names) >= 3 and more[0] == "+"
    lr = paused.state.trials[0].params["lr"]
    running, epoch, seconds, _, trend, *figures = lines[heading + 1].split()[1:]
    assert (running, epoch, seconds, trend) == ("running", "3/24", "3.0", "█▁▁")
    given = figures[2 if width == 120 else 1]
    assert float(given) == pytest.approx(lr, rel=0.01) and max(map(len, lines)) <= width


def test_columns_stay_where_they_are_when_other_trials_are_shown(paused):
    reporter = Reporter(Console(file=io.StringIO()), paused)
    before = shown(reporter, 80)
    for number in range(20):
        paused.state.trials[number].params.update(variant="x", weight_decay=1.0)
    after = shown(reporter, 80)
    (one,), (other,) = ([line for line in text.splitlines() if line.startswith("trial ")] for text in (before, after))
    assert one == other
    (wider,) = [line for line in shown(reporter, 120).splitlines() if line.startswith("trial ")]
    assert len(wider) > 80, "another width lays the columns out anew"


def test_first_three_columns_are_the_most_important_hyperparameters_once_they_are_measured(paused):
    reporter = Reporter(Console(file=io.StringIO()), paused)
    reporter._importance.update = lambda trials: None
    reporter._importance.shares = {"hidden": 0.5, "init": 0.3}
    (heading,) = [line for line in shown(reporter, 80).splitlines() if line.startswith("trial ")]
    assert heading.partition(" best ")[2].split()[:3] == ["lr", "hidden", "init"]


def test_searched_hyperparameter_has_its_column_from_the_first_trial_on(search):
    reporter = Reporter(Console(file=io.StringIO()), search)
    headings = []
    for _ in range(3):
        headings += [line for line in shown(reporter, 80).splitlines() if line.startswith("trial ")]
        trial = search.propose()
        report(search, trial.number, 1, 1.0)
    assert headings[0] == headings[1] == headings[2]


def test_bar_shows_what_is_used_of_the_time_budget_and_what_the_final_training_keeps(search, monkeypatch):
    monkeypatch.setattr("search.live.console.time.monotonic", lambda: 1900.0)
    reporter = Reporter(Console(file=io.StringIO()), search, began=1000.0)
    search.reserved_seconds = 1800.0
    (line,) = [line for line in shown(reporter, 80).splitlines() if "reserved" in line]
    bar, _, words = line.partition("  ")
    assert words == "15:00 of 1:00:00, 30:00 reserved for the final training"
    assert [round(bar.count(mark) / len(bar), 1) for mark in "█░▒"] == [0.3, 0.2, 0.5] and len(bar) >= 8
    assert "15:00 of 1:00:00, 30:00 reserved" in shown(reporter, 56), "a narrow terminal has the words alone"


def test_bar_without_a_time_budget_shows_trials_or_epochs(paused, tmp_path):
    paused.give_up(*list(paused.state.paused())[:10])
    assert re.search(r"█{15}░{15}  10 of 20 trials over", shown(Reporter(Console(file=io.StringIO()), paused), 80))
    sets = ["search.epoch_budget=40", "search.trials=null", "search.time_budget=null"]
    search = Search(load_config("rnn", sets, profile="data"), Store(tmp_path).search("epochs"))
    search.propose()
    report(search, 0, 10, 1.0)
    assert re.search(r"█{8}░{22}  10 of 40 epochs", shown(Reporter(Console(file=io.StringIO()), search), 80))
    search.journal.close()


def test_terminal_without_unicode_gets_marks_of_ascii(paused):
    for epoch in (3, 4):
        report(paused, 0, epoch, 0.05)
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=80)
    text = "\n".join(line.plain for line in Reporter(console, paused)._lines(80, 25))
    assert text.replace("…", "").isascii() and "^__" in text and ".....  0 of 20 trials over" in text


def test_no_trial_yet_is_said_and_no_time_to_go_is_made_up(tmp_path):
    search = Search(load_config("rnn", ["search.trials=4"]), Store(tmp_path).search("s"))
    reporter = Reporter(Console(file=io.StringIO()), search)
    search.propose()
    assert "no trial has a result yet" in shown(reporter) and "to go" not in shown(reporter)
    search.journal.close()


def test_time_to_go_is_told_where_trials_pause(paused, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("search.live.console.time.monotonic", lambda: now[0])
    reporter = Reporter(Console(file=io.StringIO()), paused, began=940.0)
    paused.listeners.append(reporter)
    for epoch in (3, 4):
        now[0] += 5
        report(paused, 0, epoch, 0.1 - epoch / 100)
    # 20 trials to epoch 2, five to 8 and one to 24: 58 more epochs, of which 2 took 6 s (the first one 1 s).
    missing = 6 + 6 * 4 + 16 - 2
    assert f"elapsed 1:10, about {int(missing * 3 // 60)}:{missing * 3 % 60:02.0f} to go" in shown(reporter)
    paused.record({"event": "request", "id": "p", "kind": "pause", "content": {"trials": []}})
    assert "elapsed 1:10, paused" in shown(reporter) and "to go" not in shown(reporter)


@pytest.mark.parametrize("evil", ["\x1b[2J\x1b[31m", "[/red]", "a\rb\x07"])
def test_texts_from_a_configuration_do_not_steer_the_terminal(tmp_path, evil):
    config = load_config("rnn", ["search.trials=4", "search.searcher=random"])
    search = Search(config, Store(tmp_path).search("s"))
    for number in range(2):
        trial = search.propose()
        trial.params["init"] = f"{evil}{number}"
        report(search, number, 1, 1.0)
    out = Screen(file=io.StringIO(), width=300, force_terminal=True, color_system=None)
    reporter = Reporter(out, search)
    out.print(reporter._render())
    reporter.say(f"failed: {evil}")
    out.print(f"note: {evil}", markup=False)
    written = out.file.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", written)
    assert written.count(evil.encode("unicode_escape").decode()[:4]) >= 4, "two trials and two lines"
    search.journal.close()


#: Draws a live table that does not change for some seconds.
_DRAW = """
import sys, time
from pathlib import Path
from search.live.screen import Screen
from search.core.config import load_config
from search.live.console import Reporter
from search.runtime.search import Search
from search.core.store import Store
config = load_config("rnn", ["search.trials=30", "search.searcher=random"])
search = Search(config, Store(Path(sys.argv[1])).search("s"))
for number in range(int(sys.argv[2])):
    search.propose()
    metrics = {"val_mse": 1.0, "epoch_seconds": 1.0}
    told = {"number": number, "epoch": 1, "metrics": metrics, "diverged": None, "checkpoint": None}
    search.report([told], "cpu")
for number in range(12):
    print("the line before")
with Reporter(Screen(), search).live():
    while not Path(sys.argv[1], "stop").exists():
        time.sleep(0.1)
print("the line after")
time.sleep(600)
"""


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
@pytest.mark.parametrize("trials", [9, 30])
def test_terminal_that_is_resized_keeps_no_lines_of_earlier_frames(tmp_path, trials):
    tmux = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null"]

    def call(*arguments: str) -> str:
        return subprocess.run([*tmux, *arguments], check=True, capture_output=True, text=True).stdout

    def wait(done) -> list[str]:
        deadline = time.monotonic() + 120
        while not done(lines := call("capture-pane", "-p", "-t", "s").rstrip("\n").splitlines()):
            assert time.monotonic() < deadline, lines
            time.sleep(0.2)
        return lines

    script = tmp_path / "draw.py"
    script.write_text(_DRAW)
    program = (
        "-e", f"PYTHONPATH={CODE}", "-e", "COLUMNS=", "-e", "LINES=", sys.executable, str(script), str(tmp_path),
        str(trials),
    )  # fmt: skip
    call("new-session", "-d", "-s", "s", "-x", "120", "-y", "30", *program)
    try:
        more = ""
        for width, height in ((120, 30), (70, 25), (60, 14), (110, 30), (45, 10), (110, 40)):
            call("resize-window", "-t", "s", "-x", str(width), "-y", str(height))
            # How many hyperparameters the heading leaves out tells the widths apart. A number that the terminal wraps
            # until the next frame is drawn has digits on the line below.
            lines = wait(
                lambda lines, old=more: (
                    [old, *re.findall(r" (\+\d+)$(?!\n\d)", "\n".join(lines), re.MULTILINE)][-1] != old
                )
            )
            heading = max(i for i, line in enumerate(lines) if line.startswith("trial "))
            more = lines[heading].split()[-1]
            best = max(i for i, line in enumerate(lines) if line.startswith("best val_mse 1.000"))
            assert lines[:best] == ["the line before"] * best, lines
            assert all(re.match(r" +\d+  (running|  *1/24) ", line) for line in lines[heading + 1 :]), lines
        (tmp_path / "stop").touch()
        lines = wait(lambda lines: lines[-1] == "the line after")[:-1]
        assert set(lines) <= {"the line before"}
    finally:
        call("kill-server")


def test_log_lines_have_the_time_hyperparameters_and_both_bests(paused, monkeypatch):
    monkeypatch.setattr("search.live.console.time.strftime", lambda form: "14:03:22")
    now = [1000.0]
    monkeypatch.setattr("search.live.console.time.monotonic", lambda: now[0])
    out = io.StringIO()
    paused.listeners.append(Reporter(Screen(file=out, width=60), paused, verbose=True, began=938.0))
    trial, epochs = paused.state.trials[0], paused.config.search.epochs
    for epoch in range(3, 9):
        report(paused, 0, epoch, 0.05 if epoch == 4 else 0.06)
    *_, line = out.getvalue().splitlines()
    lr = f"lr={trial.params['lr']:.4g}".rstrip("0")
    assert line.startswith(
        f"14:03:22  1:02  trial 0 paused, epoch 8: val_mse 0.06000; its best 0.05000 at epoch 4; {lr} "
    )
    assert line.endswith("; best so far 0.05000 (trial 0)") and f" hidden={trial.params['hidden']} " in line
    assert "ridge=" not in line and "None" not in line and epochs == 24


def test_dumb_terminal_gets_the_lines_of_a_log(search, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    out = Screen(file=io.StringIO(), force_terminal=True, width=200)
    reporter = Reporter(out, search, verbose=True)
    search.listeners.append(reporter)
    with reporter.live():
        report(search, 0, 2, 1.0)
    assert "trial 0, epoch 2: val_mse 1.000" in out.file.getvalue()


def test_live_table_of_a_search_that_a_budget_ends(search):
    table = shown(Reporter(Console(file=io.StringIO()), search))
    assert "1 trial so far: 1 running" in table
    assert "about 59:5" in table or "about 1:00:00" in table, "what is left of the hour"


def test_long_epochs_show_how_far_they_are_until_they_end(search):
    reporter = Reporter(Console(file=io.StringIO()), search)
    reporter({"event": "progress", "number": 0, **STEP}, search.state)
    assert "trial 0: step 40 of 160, loss 5.250, 2600 samples/s, 1:20 to go" in shown(reporter)
    result = {"number": 0, "epoch": 2, "metrics": {"val_mse": 1.0, "epoch_seconds": 1.0}, "diverged": None}
    search.listeners.append(reporter)
    search.report([{**result, "checkpoint": None}], "cpu")
    assert "step 40" not in shown(reporter)


@pytest.mark.parametrize(("elapsed", "lines"), [(0, 10), (3600, 2)])
def test_in_a_pipe_a_long_epoch_has_a_line_after_ten_seconds_and_later_after_a_minute(
    search, monkeypatch, elapsed, lines
):
    now = [10_000.0]
    monkeypatch.setattr("search.live.console.time.monotonic", lambda: now[0])
    out = io.StringIO()
    reporter = Reporter(Console(file=out, width=200), search, began=now[0] - elapsed)
    for _ in range(30):
        now[0] += 5
        reporter({"event": "progress", "number": 0, **STEP}, search.state)
    assert out.getvalue().count("step 40 of 160") == lines


def test_in_a_pipe_a_trial_has_a_line_as_it_ends_and_every_epoch_has_one_on_demand(search, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("search.live.console.time.monotonic", lambda: now[0])
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
    assert all("best val_mse " in line and "1 trial so far: 1 running" in line for line in lines[:-1])
    assert 5 < len(lines) <= 10 and lines[-1] == full.console.file.getvalue().splitlines()[-1]


def test_trial_that_waited_at_a_rung_and_ends_has_a_line_in_a_log(paused):
    out = io.StringIO()
    paused.listeners.append(Reporter(Console(file=out, width=500), paused))
    waiting = list(paused.state.paused())
    paused.give_up(*waiting)
    lines = out.getvalue().splitlines()
    assert len(lines) == len(waiting) == 15
    assert (
        f"trial {waiting[0]} stopped early, epoch 2: val_mse" in lines[0] and "best so far 0.1000 (trial 0)" in lines[0]
    )


def test_pause_has_a_line_in_a_log_only_on_demand(paused):
    brief, full = io.StringIO(), io.StringIO()
    paused.listeners += [
        Reporter(Console(file=out, width=500), paused, verbose) for out, verbose in ((brief, False), (full, True))
    ]
    for epoch in range(3, 9):
        report(paused, 0, epoch, 0.05)
    assert "trial 0 paused, epoch 8" in full.getvalue() and not brief.getvalue()


def test_trial_that_an_earlier_session_stopped_has_no_line_when_it_is_stopped_again(paused):
    paused.give_up(*(waiting := list(paused.state.paused())))
    out = io.StringIO()
    paused.listeners.append(Reporter(Console(file=out, width=500), paused))
    paused.record(*({"event": "paused", "number": number} for number in waiting))
    report(paused, waiting[0], 3, 1.0)
    paused.give_up(*waiting)
    (line,) = out.getvalue().splitlines()
    assert line.split("  ")[2].startswith(f"trial {waiting[0]} stopped early, epoch 3")
