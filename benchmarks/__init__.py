"""One runnable file a claim: `python -m benchmarks.fused_rnn`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def run_search(task: str, *arguments: str, sets: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Runs the real command without a final training, in a store of its own; returns the journal's events."""
    with tempfile.TemporaryDirectory() as store:
        subprocess.run(
            [sys.executable, "-m", "search", "run", task, "--name", "b", "--no-retrain", *arguments,
             *(word for text in sets for word in ("--set", text))],
            check=True, capture_output=True, env={**os.environ, "SEARCH_STORE": store},
        )  # fmt: skip
        lines = (Path(store) / "searches" / "b" / "journal.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
