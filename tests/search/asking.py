"""Processes that share a study, each with a training of milliseconds: `python -m tests.search.asking STORE JSON`.

The processes are forks of one process that has imported everything. They may be killed at any moment; others then take
their place.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import search
from search.study import SharedStudy

SPACE = {"x": {"uniform": [0, 1]}, "kind": {"choice": ["a", "b"]}}


def opened(store: Path, **settings: Any) -> SharedStudy:
    given = {"trials": 12, "epochs": 4, "seed": 3} | settings
    return search.open("s", store, space=SPACE, objective="loss min", **given)


def loss(params: dict[str, Any], epoch: int) -> float:
    return (params["x"] - 0.3) ** 2 + (params["kind"] == "b") / 10 + 1 / epoch


def train(study: SharedStudy) -> None:
    """Asks and tells until the study has no trial left."""
    while not study.finished:
        if (trial := study.ask()) is None:
            time.sleep(0.01)  # trials of other processes may be promoted
            continue
        (trial.folder / "owner").write_text(str(os.getpid()))
        for epoch in range(trial.epoch + 1, trial.of + 1):
            if study.tell(trial, epoch, {"loss": loss(trial.params, epoch)}).kind != "continue":
                break


def main(store: Path, processes: int, kills: int, settings: dict[str, Any]) -> None:
    """Runs processes until the study has finished. `kills` times it kills one that trains, after a few events."""
    study, rng, running = opened(store, **settings), random.Random(0), set[int]()
    journal = store / "searches" / "s" / "journal.jsonl"
    ended = False
    while running or not ended:
        while len(running) < processes and not ended:
            if not (process := os.fork()):
                train(study)
                os._exit(0)
            running.add(process)
        if kills and not ended:
            until = journal.read_bytes().count(b"\n") + rng.randint(1, 6)
            while journal.read_bytes().count(b"\n") < until and not (ended := study.finished):
                time.sleep(rng.uniform(0, 0.002))
            owners = [trial.folder / "owner" for trial in study.running()]
            training = running & {int(owner.read_text() or 0) for owner in owners if owner.exists()}
            kills -= 1
            os.kill(rng.choice(sorted(training or running)), signal.SIGKILL)
        process, status = os.wait()
        running.remove(process)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, -signal.SIGKILL), code
        ended = ended or code == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), **json.loads(sys.argv[2]))
