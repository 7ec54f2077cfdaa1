"""Names and values of users appear as text: no terminal obeys an escape, no markup changes a colour."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from search.cli.look import _show_grid
from search.core.config import load_config
from search.core.readable import visible
from search.core.store import Store
from search.live.console import Reporter
from search.live.outcome import print_outcome
from search.live.screen import Screen, say
from search.outcome import SearchOutcome
from search.reports.compare import compare_searches
from search.reports.logs import log_lines
from search.reports.why import why
from search.runtime.search import Search
from tests.search.live.test_console import report
from tests.search.reports.made import made, state_of
from trainables import get_task

#: These clear the screen, link a text, write the clipboard, ring, set and end a colour, go to the start of the line,
#: show a picture, turn the direction of text, and run on a page.
EVIL = [
    "\x1b[2J", "\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\", "\x1b]52;c;ZXZpbA==\x07", "\x07", "[red]x",
    "[/red]", "a\rb", ":skull:", "a\u202eb", "<script>alert(1)</script>",
]  # fmt: skip
#: A control character that is neither a line break nor shown as text.
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f\u202e]")


@pytest.fixture(params=EVIL, ids=lambda evil: repr(visible(evil)))
def evil(request) -> str:
    return request.param


@pytest.fixture
def screen() -> Screen:
    """A terminal, whose own colours are off."""
    return Screen(file=io.StringIO(), width=400, height=50, force_terminal=True, color_system=None, highlight=False)


def shown(screen: Screen) -> str:
    text = screen.file.getvalue()
    assert not OBEYED.search(text), text
    return text


@pytest.fixture
def searched(tmp_path, evil):
    """A search with `evil` in the name and the values of a hyperparameter, in metrics and in what a trial printed."""
    space = {f"x{evil}": {"choice": [f"{evil}0", f"{evil}1"]}}
    results = [({f"x{evil}": f"{evil}{n}"}, [0.5 - n / 10], "completed") for n in (0, 1)]
    store, folder, record, config = made(tmp_path, space, results, extra={f"val_{evil}": 1.0})
    folder.log(0).parent.mkdir(parents=True)
    folder.log(0).write_bytes(f"one {evil} two\n".encode())
    state, events = state_of(folder, config)
    return SearchOutcome(store, folder, config, record, get_task(config.task), state, events, "resume s", trained=False)


def test_summary_shows_them(searched, screen, evil):
    print_outcome(screen, replace(searched, note=f"note {evil}", pages=(f"http://127.0.0.1/{evil}",)))
    text = shown(screen)
    assert all(f"{before}{visible(evil)}" in text for before in ("note ", "http://127.0.0.1/", "x"))


def test_compare_shows_them(searched, screen, evil):
    (found,) = compare_searches(searched.store)
    for grid in found.grids(0):
        for wide in (False, True):
            _show_grid(screen, grid, wide)
    assert shown(screen).count(f"{visible(evil)}1"[:31]) >= 2


def test_why_shows_them(searched, screen, evil):
    for line in why(searched.store, "s", 0):
        say(screen, line)
    assert f"x{visible(evil)} {visible(evil)}0" in shown(screen)


def test_log_shows_them_without_colours(searched, screen, evil):
    for line in log_lines(searched.store, "s", 0):
        say(screen, line)
    expected = evil.replace("\x1b[2J", "")  # colours and cursor movements of a progress bar are left out
    assert shown(screen) == f"one {visible(expected)} two\n".replace("\\r", "\n")


def test_live_table_shows_them(tmp_path, screen, evil):
    search = Search(load_config("rnn", ["search.trials=4", "search.searcher=random"]), Store(tmp_path).search("s"))
    for number in range(2):
        search.propose().params["init"] = f"{evil}{number}"
        report(search, number, 1, 1.0)
    reporter = Reporter(screen, search)
    event = {"event": "repeat_result", "value": f"{evil}\nnext", "seed": 0, "epoch": 1, "metrics": {}, "trial": 0}
    reporter(event, search.state)
    lines = reporter._lines(400, 50)
    screen.print(reporter._render())
    reporter.say(f"failed: {evil}")
    text = shown(screen)
    assert f"comparison: {visible(evil)}\\nnext, seed 0" in text and f"failed: {visible(evil)}" in text
    assert len(lines) == len(text.splitlines()) - 1, "each line of the table is one row"
    assert f"{visible(evil)}0"[:11] in text
    search.journal.close()


def test_other_consoles_show_them_too(evil):
    console = Console(file=io.StringIO(), width=400, force_terminal=True, color_system=None)
    Reporter.say(type("Quiet", (), {"_live": None, "begun": 0.0, "console": console})(), f"note {evil}")
    assert f"note {visible(evil)}" in shown(console)
