"""The Python programs of the docs run as they are written there."""

from dataclasses import replace

import pytest

from tests.conftest import ROOT
from tests.pages import PAGES, programs

pytestmark = pytest.mark.slow

#: Pages whose programs other tests run.
ELSEWHERE = {"tutorial.md": "below", "from-other-tools.md": "tests/test_migrating.py"}
BLOCKS = [
    pytest.param(code, reason, id=f"{page.stem}-{number}")
    for page in PAGES
    if page.name not in ELSEWHERE
    for number, (code, reason) in enumerate(programs(page))
]


@pytest.mark.parametrize(("code", "reason"), BLOCKS)
def test_program(command, code, reason):
    if reason:
        pytest.skip(reason)
    (command.folder / "program.py").write_text(code)
    assert "best: trial" in replace(command, program=("program.py",)).run()


def test_tutorial(command):
    """The tutorial from its first step to its last, the search `second` killed and resumed."""
    (first, _), (use, _) = programs(ROOT / "docs" / "tutorial.md")
    tutorial = command.folder / "tutorial.py"
    tutorial.write_text(first)
    shown = replace(command, program=("tutorial.py",)).run()
    assert "12 trials of up to 9 epochs" in shown and "val_loss" in shown
    assert "proposed" in command.run("why", "tutorial", "9")
    command.run("report", "tutorial", "--open", BROWSER="true")
    (command.folder / "use.py").write_text(use)
    replace(command, program=("use.py",)).run()
    tutorial.write_text(first.replace('name="tutorial"', 'name="second"'))
    replace(command, program=("tutorial.py",)).kill_when("second", lambda events: len(events) > 8)
    command.run("resume", "second")
    assert "best: trial" in command.run("resume", "second", "--trials", "+10")


def test_folder_of_a_search(command):
    """docs/explanation/journal.md lists every file of a search's folder."""
    page = (ROOT / "docs" / "explanation" / "journal.md").read_text()
    (code, _), *_ = programs(ROOT / "docs" / "howto" / "own-function.md")
    (command.folder / "program.py").write_text(code.replace("trials=6", 'trials=6, name="s"'))
    replace(command, program=("program.py",)).run()
    names = {path.name + "/" * path.is_dir() for path in (command.folder / "mlruns" / "searches" / "s").iterdir()}
    assert {name for name in names if f"`{name}`" not in page} == set()
