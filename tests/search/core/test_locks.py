"""The lock of a search: it names its holder, dies with it, and is not inherited."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from search.core import locks
from search.core.journal import Journal, is_held, lock_file
from trainables.base.errors import InputError

HOLD = (
    "import sys, pathlib, time\nfrom search.core.journal import Journal\n"
    "journal = Journal(pathlib.Path(sys.argv[1]))\njournal.append({'event': 'session'})\nprint('held', flush=True)\n"
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s" / "journal.jsonl"


def holder(path, then: str) -> subprocess.Popen:
    """A process that holds the journal, and then runs the code `then`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD + then, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_error_names_the_process_that_holds_the_search(path):
    process = holder(path, "sys.stdin.read()")
    whose = rf"s: this search is running in another process \(process {process.pid} on '{socket.gethostname()}'\)"
    with pytest.raises(InputError, match=whose):
        Journal(path)
    assert is_held(path)
    process.communicate("")
    assert not is_held(path)


def test_lock_of_a_killed_process_is_free_although_its_child_lives(path):
    process = holder(
        path, "import os\nif os.fork() == 0: sys.stdin.read()\nelse: print('forked', flush=True)\ntime.sleep(600)"
    )
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert lock_file(path).exists()
    assert not is_held(path)
    with Journal(path) as journal:
        assert len(journal.events) == 1
    process.stdin.close()


def test_child_that_ends_leaves_the_lock_to_its_parent(path):
    with Journal(path):
        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        child.join()
        assert is_held(path)


def test_lock_file_of_another_program_or_version_does_not_hinder(path):
    path.parent.mkdir()
    lock_file(path).write_bytes(b"\x00\xff not JSON")
    with Journal(path) as journal:
        with pytest.raises(InputError, match=r"running in another process \(process"):
            Journal(path)
        journal.append({"event": "session"})
    assert not lock_file(path).exists()


def test_questions_whether_a_search_runs_never_refuse_it(path):
    """A question takes the lock for a moment."""
    with Journal(path) as journal:
        journal.append({"event": "session"})
    over = threading.Event()

    def ask():
        while not over.wait(0.001):
            is_held(path)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        Journal(path).close()
    over.set()
    for thread in threads:
        thread.join()


MOUNTS = """\
overlay / overlay rw 0 0
server:/home /home nfs4 rw,local_lock=none 0 0
server:/data /mnt/my\\040data nfs rw,nolock 0 0
tmpfs /home/me tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "options"),
    [("/tmp", None), ("/home/other/x", "rw,local_lock=none"), ("/mnt/my data", "rw,nolock"), ("/home/me/x", None)],
)
def test_file_system_of_a_folder(tmp_path, folder, options):
    (tmp_path / "mounts").write_text(MOUNTS)
    assert locks.nfs_options(locks.Path(folder), tmp_path / "mounts") == options


def test_machine_without_a_list_of_mounts(tmp_path):
    assert locks.nfs_options(tmp_path, tmp_path / "missing") is None


def test_nfs_is_named_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "nfs_options", lambda folder: "rw,nolock,tested")
    for name in ("s", "t"):
        Journal(tmp_path / name / "journal.jsonl").close()
    assert len(caplog.messages) == 1
    assert "is on NFS, and its locks do not reach other machines" in caplog.text
