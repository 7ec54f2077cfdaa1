"""A callback that writes each new best value to a file."""

from pathlib import Path

from search.core.events import Event, Notice
from search.core.state import SearchState

FILE = Path("best_values.txt")


def tell_best_value(event: Event | Notice, state: SearchState) -> None:
    """Called with every event, after it is in the journal, and with the state of the search."""
    best = state.best()
    if event["event"] == "result" and best is not None and (best.number, best.best_epoch) == (
        event["number"], event["epoch"]
    ):  # fmt: skip
        with FILE.open("a") as file:
            file.write(f"trial {best.number}, epoch {best.best_epoch}: {best.best_value:.4f}\n")
