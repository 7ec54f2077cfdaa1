"""The test figures of a function or a command."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trainables.base.task import Objective
from trainables.loops.errors import TrainingError, shown

#: Samples drawn with repetition: of fewer, some draws are empty.
FEWEST = 20


class _Measured(Protocol):
    """What `TestFigures.of` reads of a task: `metric` is the name of the objective in the user's program."""

    metric: str
    objective: Objective


@dataclass(frozen=True)
class TestFigures:
    """The figures of a model on test.

    Attributes:
        means: the figure of each metric, by its name without `test_`.
        samples: the objective (samples,) of each sample; None if only its mean is known, or for fewer than `FEWEST`.
    """

    __test__ = False  # for pytest it would be a class of tests

    means: dict[str, float]
    samples: np.ndarray | None = None

    @classmethod
    def of(cls, answer: Any, task: _Measured, place: str) -> TestFigures:
        """Reads what a program measured.

        The objective `val_loss` may have the names `test_loss`, `loss` and `val_loss`; the first of them counts.

        Args:
            answer: a number or an array with one value per sample, by name.
            place: the beginning of messages, such as "`test` returned".

        Raises:
            TrainingError: the answer is no mapping, a value is neither, or the objective is missing.
        """
        if not isinstance(answer, Mapping):
            raise TrainingError(f"{place} {shown(answer)}: expected a dictionary of test figures")
        values = {str(name): _values(name, value, place) for name, value in answer.items()}
        metric = task.objective.metric
        names = [name for name in (f"test_{metric}", metric, task.metric) if name in values]
        if not names:
            raise TrainingError(
                f"{place} {', '.join(values) or 'nothing'}, without the objective {metric!r} on test: name it "
                f"'test_{metric}' or '{metric}'"
            )
        objective = values[names[0]]
        # Without the copies of the objective under its other names: they are of validation, perhaps.
        others = {name: value for name, value in values.items() if name not in (*names, f"val_{metric}")}
        means = {metric: float(objective.mean())}
        means |= {name.removeprefix("test_"): float(value.mean()) for name, value in others.items()}
        return cls(means, objective if len(objective) >= FEWEST else None)


def _values(name: Any, value: Any, place: str) -> np.ndarray:
    """A figure as an array: (1,) for a number, (samples,) for an array, a tensor, a series or a list."""
    value = value.detach().cpu() if hasattr(value, "detach") else value
    try:
        values = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        values = np.empty(0)
    is_text = isinstance(value, str | bytes) or not (
        isinstance(value, numbers.Real) or hasattr(value, "__len__") or hasattr(value, "dtype")
    )
    if is_text or values.ndim > 1 or values.size == 0:
        raise TrainingError(
            f"{place} for {name!r} {shown(value)}: expected a number, or an array with one value per sample"
        )
    return values.reshape(-1)
