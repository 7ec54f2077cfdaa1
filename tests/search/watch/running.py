"""A search that seems to run: a test writes the events that a driver would write."""

from pathlib import Path

from search.core.journal import Journal, read_events
from tests.search.reports.made import made

SPACE = {"lr": {"loguniform": [1e-5, 1e-1]}, "layers": {"int": [1, 6]}}


class Running:
    """Holds the journal of a search `s`, as its driver does."""

    def __init__(self, root: Path, space: dict | None = None, **more) -> None:
        self.space = space or SPACE
        self.store, self.folder, self.record, self.config = made(
            root, self.space, [], flags={"search.trials": 9}, **more
        )
        self.folder.journal.unlink()
        self.journal = Journal(self.folder.journal)
        self.key = self.record.objective.key
        self.journal.append({"event": "session"})

    def propose(self, number: int, **params) -> None:
        self.journal.append({
            "event": "trial", "number": number, "seed": number, "reason": "by the test", "params": params,
        })  # fmt: skip

    def report(self, number: int, epoch: int, value: float, outcome: str | None = None) -> None:
        self.journal.append({
            "event": "result", "number": number, "epoch": epoch, "outcome": outcome, "diverged": None, "device": "cpu",
            "metrics": {self.key: value, "epoch_seconds": 0.5},
        })  # fmt: skip

    def trials(self) -> list[dict]:
        """The events of the proposed trials."""
        return [event for event in read_events(self.folder.journal) if event["event"] == "trial"]

    def end(self) -> None:
        self.journal.append({"event": "ended", "status": "finished", "rungs": {}})
        self.journal.close()
