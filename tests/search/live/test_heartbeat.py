"""No work of a command is silent for long: a bar on a terminal, a line after ten seconds without a line in a log."""

import io
import os
import pty
import re
import subprocess
import sys
import time

import pytest

from search.core.config import load_config
from search.core.store import Store
from search.live import console as live
from search.live import heartbeat
from search.live.console import Reporter
from search.live.heartbeat import data_progress
from search.live.observer import ConsoleObserver
from search.live.screen import Screen
from search.runtime.search import Search
from tests.conftest import CODE


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(heartbeat, "SILENCE", 0.2)
    monkeypatch.setattr(live, "SILENCE", 0.2)


def until(out: io.StringIO, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in out.getvalue() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert text in out.getvalue()


def test_ten_seconds_is_the_longest_silence():
    assert heartbeat.SILENCE == 10.0


def test_log_names_the_work_its_steps_and_its_seconds(impatient):
    out = io.StringIO()
    shown_by, progress = data_progress(Screen(file=out, width=60))
    with shown_by:
        until(out, "  reading the data, 0 s\n")
        progress(3200, 14000, "encoding")
        until(out, "  encoding: 3,200 of 14,000, 0 s\n")
        progress(0, 1, "TF-IDF")
        until(out, "  TF-IDF, 0 s\n")
        progress(14000, 14000, "encoding")
        out.truncate(0)
        until(out, "  reading the data, ")  # the steps are over, and the work goes on
    assert re.search(r"\d\d:\d\d:\d\d  \d+:\d\d  reading", out.getvalue())


def test_work_that_ends_at_once_leaves_a_log_empty():
    out = io.StringIO()
    shown_by, progress = data_progress(Screen(file=out))
    with shown_by:
        progress(1, 1, "decoding images")
    assert not out.getvalue()


def test_short_works_one_after_the_other_are_not_silent_together(impatient, monkeypatch):
    out = io.StringIO()
    observer = ConsoleObserver(Screen(file=out))
    observer.say("begins")
    for number in range(10):
        with observer.progress(f"work {number}"):
            time.sleep(0.1)
    assert 2 <= len(re.findall(r"work \d, \d s\n", out.getvalue())) <= 5


def test_log_of_a_search_in_which_nothing_happens_goes_on(tmp_path, impatient):
    out = io.StringIO()
    search = Search(load_config("rnn", ["search.trials=4"]), Store(tmp_path).search("s"))
    reporter = Reporter(Screen(file=out), search)
    with reporter.live():
        until(out, "no trial has a result yet; elapsed 0:00")
    lines = len(out.getvalue().splitlines())
    time.sleep(0.5)
    assert len(out.getvalue().splitlines()) == lines, "no line after the block"
    search.journal.close()


@pytest.mark.parametrize(("elapsed", "patience"), [(5, 10), (100, 10), (1000, 20), (100_000, 60)])
def test_long_search_gets_fewer_lines(tmp_path, monkeypatch, elapsed, patience):
    now = [1000.0]
    monkeypatch.setattr("search.live.console.time.monotonic", lambda: now[0])
    search = Search(load_config("rnn", ["search.trials=4"]), Store(tmp_path).search("s"))
    reporter = Reporter(Screen(file=io.StringIO()), search, began=1000.0 - elapsed)
    now[0] += patience * 0.9
    assert not reporter._due()
    now[0] += patience * 0.2
    assert reporter._due()
    search.journal.close()


#: A preparation with a slow work that calls nothing, and a slow work with steps.
_SLOW = """
import time
from search.live import heartbeat
heartbeat.SILENCE = 0.5
from search.live.observer import ConsoleObserver
from search.live.screen import Screen
observer = ConsoleObserver(Screen(highlight=False))
with observer.progress("measuring") as progress:
    time.sleep(1.6)
    for done in range(16):
        progress(done, 16, "encoding")
        time.sleep(0.1)
print("done")
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CODE), "TERM": "xterm", "COLUMNS": "100"}


def test_pipe_gets_lines_while_the_work_goes_on():
    began, seen = time.monotonic(), []
    with subprocess.Popen([sys.executable, "-c", _SLOW], stdout=subprocess.PIPE, text=True, env=environment()) as run:
        for line in run.stdout:
            seen.append((time.monotonic() - began, line))
    lines = [line for _, line in seen]
    assert sum(bool(re.search(r"  measuring, \d+ s$", line.rstrip())) for line in lines) >= 2
    assert sum(bool(re.search(r"  encoding: \d+ of 16, \d s$", line.rstrip())) for line in lines) >= 2
    assert lines[-1] == "done\n"
    assert seen[0][0] < seen[-1][0] - 1.5, "each line arrives when it is due, not at the end"


def test_terminal_gets_a_bar_that_moves_while_the_work_goes_on():
    main, other = pty.openpty()
    run = subprocess.Popen([sys.executable, "-c", _SLOW], stdout=other, stderr=other, env=environment())
    os.close(other)
    written = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not part:
            break
        written += part
    os.close(main)
    assert run.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    assert "measuring" in text and "0:01" in text, "the time goes on without a call"
    assert re.search(r"encoding .*\b[1-9]\d%", text) and "done" in text
    assert not re.search(r"\d\d:\d\d:\d\d  \d+:\d\d  ", text), "a terminal gets no lines of a log"


def test_dumb_terminal_gets_the_lines_of_a_log(impatient, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    out = io.StringIO()
    shown_by, _ = data_progress(Screen(file=out, force_terminal=True))
    with shown_by:
        until(out, "  reading the data, 0 s\n")
