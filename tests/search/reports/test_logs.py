"""`search logs`: what a trial printed."""

import threading

import pytest

import search
from search.core.journal import Journal
from search.reports import logs
from search.reports.logs import _Log, follow_log, log_lines
from trainables import InputError

TRAIN = """
import sys, warnings
for epoch in range(1, 4):
    print(f"begin {sys.argv[1]}", flush=True)
    print("warning: old", file=sys.stderr)
    print('\\x1b[32m@search {"epoch": %d, "val_loss": 1}\\x1b[0m' % epoch, flush=True)
print("saved", end="")
"""
RUN = (
    "run", "--command", "python train.py {lr}", "--space", "space.yaml", "--objective", "val_loss min", "--trials", "2",
    "--epochs", "3", "--name", "s", "--scheduler", "none",
)  # fmt: skip


@pytest.fixture(scope="module")
def searched(module_here):
    (module_here.folder / "train.py").write_text(TRAIN)
    (module_here.folder / "space.yaml").write_text("lr: {uniform: [0, 1]}")
    module_here.call(*RUN)
    return module_here


def test_logs_last_lines_and_all_lines(searched):
    whole = searched.call("logs", "s", "0").splitlines()
    assert len(whole) == 10 and whole[0].startswith("begin 0.") and whole[-1] == "saved"
    assert whole[2] == '@search {"epoch": 1, "val_loss": 1}', "without colours"
    assert searched.call("logs", "s", "0", "--lines", "2").splitlines() == whole[-2:]
    assert searched.call("logs", "s", "0", "--lines", "0").splitlines() == whole
    assert searched.call("logs", "s", "0", "--follow", "--lines", "3").splitlines() == whole[-3:]
    found = search.open("s", searched.folder / "mlruns")
    assert found.logs(0) == whole and found.logs(0, lines=1) == ["saved"]


def test_logs_wrong_trial(searched):
    assert "s: no trial 7; there are 0 to 1" in searched.call("logs", "s", "7", code=2)
    with pytest.raises(InputError, match="no trial 7"):
        search.open("s", searched.folder / "mlruns").logs(7)
    with pytest.raises(InputError, match="lines"):
        search.open("s", searched.folder / "mlruns").logs(0, lines=-1)


def test_logs_trial_without_output(searched):
    log = searched.folder / "mlruns" / "searches" / "s" / "trials" / "0001" / "output.log"
    log.unlink()
    assert searched.call("logs", "s", "1") == "trial 1 has printed nothing\n"
    assert searched.call("logs", "s", "1", "--follow") == "trial 1 has printed nothing\n"


def test_follow_until_the_trial_is_over(searched, monkeypatch, tmp_path):
    """A journal that ends before the end of trial 0, whose process goes on."""
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.01)
    store = search.open("s", searched.folder / "mlruns")._store
    folder = store.search("s")
    whole = folder.journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    cut = next(n for n, line in enumerate(lines) if b'"event": "trial"' in line) + 1
    printed = folder.log(0).read_text()
    folder.journal.write_bytes(b"".join(lines[:cut]))
    folder.log(0).write_text("first\nsecond\nthi")
    found, waits = [], threading.Event()
    try:
        with Journal(folder.journal):

            def read():
                for line in follow_log(store, "s", 0, 1):
                    found.append(line)
                    waits.set()

            reader = threading.Thread(target=read)
            reader.start()
            assert waits.wait(30) and found == ["second"], "the last line has no end yet"
            with folder.log(0).open("a") as log:
                log.write("rd\r10%\r20%\nend")
            with folder.journal.open("ab") as journal:
                journal.writelines(lines[cut:])
            reader.join(30)
        assert found == ["second", "third", "10%", "20%", "end"]
        folder.journal.write_bytes(b"".join(lines[:cut]))
        assert list(follow_log(store, "s", 0, 1)) == ["20%", "end"], "no process runs the search"
    finally:
        folder.journal.write_bytes(whole)
        folder.log(0).write_text(printed)
    assert log_lines(store, "s", 0)[-1] == "saved"


def test_log_that_begins_a_new_file(tmp_path):
    path = tmp_path / "output.log"
    path.write_text("a\nb")
    log = _Log(path)
    assert list(log.lines()) == ["a"]
    with path.open("a") as file:
        file.write("c\nd\n")
    path.rename(tmp_path / "output.log.1")
    path.write_text("e\nf")
    assert list(log.lines()) == ["bc", "d", "e"] and log.rest() == ["f"]
    again = _Log(path)
    assert [*again.lines(), *again.rest()] == ["a", "bc", "d", "e", "f"]
