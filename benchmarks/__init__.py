"""One runnable file a claim: `python -m benchmarks.fused_rnn`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from search.cli.finish import DONE, INTERRUPTED
from search.core.journal import read_events

Events = list[dict[str, Any]]


def run_search(
    task: str, *arguments: str, sets: tuple[str, ...] = (), store: str = "",
    until: Callable[[Events], bool] = lambda events: False,
) -> Events:  # fmt: skip
    """Runs the real command without a final training; returns the journal's events.

    Args:
        store: a store that is there; without, it has one of its own.
        until: interrupts the search once it is true of the events so far.
    """
    name = f"benchmark-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as own:
        store = store or own
        process = subprocess.Popen(
            [sys.executable, "-m", "search", "run", task, "--name", name, "--no-retrain", *arguments,
             *(word for text in sets for word in ("--set", text))],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "SEARCH_STORE": store},
        )  # fmt: skip
        journal, allowed = Path(store) / "searches" / name / "journal.jsonl", [DONE]
        while True:
            try:
                output, _ = process.communicate(timeout=1)
                break
            except subprocess.TimeoutExpired:
                if len(allowed) == 1 and until(list(read_events(journal))):
                    process.send_signal(signal.SIGINT)
                    allowed.append(INTERRUPTED)
        if process.returncode not in allowed:
            raise SystemExit(output)
        return list(read_events(journal))
