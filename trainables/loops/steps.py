"""Trainings that count in steps: the number of a report from its step, and batches that continue after a kill."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trainables.base.training import rng_state, set_rng_state
from trainables.loops.errors import TrainingError

#: The metrics that say where a report stands; the first that a report has counts.
POSITIONS = ("step", "tokens", "samples")


def position_of(metrics: Mapping[str, Any]) -> float | None:
    """The step, or else the tokens or the samples, of a report; None for a report without them."""
    return next((float(metrics[name]) for name in POSITIONS if name in metrics), None)


def report_at(position: float, every: int) -> int:
    """The number of the report at a step; 0 before the first report is due.

    Programs that count steps from 0 report step 99 after 100 steps.

    >>> [report_at(step, 100) for step in (0, 50, 99, 100, 150, 200)]
    [0, 0, 1, 1, 1, 2]
    """
    return int(position) if every == 1 else int(position + 1) // every


def left_out(every: int) -> str:
    """A line for the user about reports that come more often than each `every` steps."""
    return f"reports between multiples of {every} steps are left out; a smaller report_every uses them"


class Batches:
    """The batches of a loader, one pass at a time, with a state.

    The state holds the random generators at the beginning of the pass, from which a loader draws its order, the number
    of batches taken since, and the random generators then. After a restore the next pass draws the same order again,
    leaves out these batches, and sets the generators as they were.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader = loader
        #: The generators at the beginning of the pass, and the number of batches taken; None between two passes.
        self._began: dict[str, Any] | None = None
        self._taken = 0
        #: The state to continue from at the beginning of the next pass.
        self._restored: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __iter__(self) -> Iterator[Any]:
        state, self._restored = self._restored, None
        if state is None or state["began"] is None:
            if state is not None:
                set_rng_state(state["now"])
            self._began, self._taken = rng_state(), 0
            return self._count(iter(self._loader))
        self._began, self._taken = state["began"], state["taken"]
        set_rng_state(state["began"])
        batches = iter(self._loader)
        for _ in range(self._taken):
            next(batches)
        set_rng_state(state["now"])
        return self._count(batches)

    def _count(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self._taken += 1
            yield batch
        self._began, self._taken = None, 0

    def state_dict(self) -> dict[str, Any]:
        """The state, in types that `torch.load(weights_only=True)` admits."""
        try:
            whole = self._taken >= len(self)
        except TypeError:  # the loader has no length
            whole = False
        began, taken = (None, 0) if whole else (self._began, self._taken)
        return {"began": began, "taken": taken, "now": rng_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned. The next pass begins with the next batch."""
        self._restored = state


def endless(batches: Batches) -> Iterator[Any]:
    """The batches of one pass after the other; raises TrainingError if a pass has none."""
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise TrainingError(
                "trial.steps: the batches are used up: give an object that can be iterated again, such as a DataLoader"
            )
