"""A real command is never silent for long: in a pipe it prints lines, on a terminal it draws."""

import os
import pty
import re
import subprocess
import sys
import time
from itertools import pairwise

from tests.conftest import CODE, COMMAND, outside

#: Seconds: the longest silence, and what a busy machine may add to it.
SILENCE, BUSY = 10.0, 8.0
#: A search whose two epochs are long and say nothing.
SLOW = ("run", "toy", "--set", "index=0", "--epochs", "2", "--no-retrain", "--set")


def longest(times: list[float]) -> float:
    return max(after - before for before, after in pairwise(times))


def test_search_with_silent_epochs_prints_lines_into_a_pipe(command):
    process = command.start(*SLOW, "data.pause=14")
    times, lines = [time.monotonic()], []
    for line in process.stdout:
        times.append(time.monotonic())
        lines.append(line)
    assert process.wait() == 0, lines
    assert longest(times) < SILENCE + BUSY, lines
    assert any(re.search(r"  no trial has a result yet; elapsed 0:\d\d", line) for line in lines), lines


def test_search_with_silent_epochs_draws_on_a_terminal_all_the_time(command):
    main, other = pty.openpty()
    command._put_store()
    own = {"SEARCH_STORE": str(command.folder / "mlruns"), **command.env, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, *COMMAND, *SLOW, "data.pause=6"], cwd=command.folder, stdin=other, stdout=other, stderr=other,
        env={**outside(), "PYTHONPATH": CODE, **own}, start_new_session=True,
    )  # fmt: skip
    os.close(other)
    times, written = [], b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # the command has closed its side
            break
        times.append(time.monotonic())
        written += part
    os.close(main)
    text = written.decode()
    assert process.wait() == 0, text
    assert longest(times) < BUSY, text
    assert "starting Ray" in text and "no trial has a result yet" in text
