"""Finds metrics in the output of a command, and the epoch of each."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import regex

from trainables.loops.errors import TrainingError
from trainables.loops.process import cut
from trainables.loops.steps import position_of, report_at

#: The mark before a report: `@search {"epoch": 3, "val_loss": 0.41}`.
MARK = "@search"
#: The time limit in seconds of a pattern on one line. A sound pattern takes about a millisecond.
MATCH_SECONDS = 5.0
_MARKED = re.compile(rf"{MARK}\s*(?={{)")
#: `1,234.5`: commas between groups of three digits. `0,123` does not match: its comma is a decimal comma.
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
#: Escape sequences by which programs colour their output and move the cursor.
ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def reported(line: str, patterns: Sequence[str]) -> Iterator[dict[str, float]]:
    """Yields the reports of a line; most lines have none.

    Args:
        patterns: regular expressions with named groups. The groups of all that match make one report; the last one
            counts if several have the same group. Without patterns, reports follow `MARK`, which may stand anywhere in
            the line, because progress bars write without a line end.

    Raises:
        TrainingError: a reported value is no number, or a pattern exceeds its time limit.
    """
    line = ESCAPES.sub("", line)
    if patterns:
        report: dict[str, float] = {}
        for pattern in patterns:
            report |= _numbers(_groups(line, pattern), line)
        if report:
            yield report
        return
    marks = list(_MARKED.finditer(line))
    if not marks and line.lstrip().startswith(MARK):
        raise TrainingError(f"{cut(line)}: not JSON after {MARK} (expected {{...}})")
    for mark in marks:
        try:
            report, _ = json.JSONDecoder().raw_decode(line, mark.end())
        except json.JSONDecodeError as error:
            raise TrainingError(f"{cut(line)}: not JSON after {MARK} ({error.msg})") from error
        except (RecursionError, ValueError) as error:  # too many levels, or too many digits
            raise TrainingError(f"{cut(line)}: cannot be read after {MARK} ({error})") from error
        yield _numbers(report, line)


def _groups(line: str, pattern: str) -> dict[str, str | None]:
    """The named groups of a pattern in a line; empty if the line does not match."""
    try:
        match = regex.search(pattern, line, timeout=MATCH_SECONDS)
    except TimeoutError:
        raise TrainingError(
            f"pattern {pattern!r}: gave no answer within {MATCH_SECONDS:g} s on the line {cut(line)!r}; repeated "
            r"groups within repeated groups, as in (\d+)+, can take years"
        ) from None
    return match.groupdict() if match else {}


def _numbers(report: Mapping[str, Any], line: str) -> dict[str, float]:
    """The metrics as numbers, without null values and without groups that did not match."""
    try:
        return {name: _number(value) for name, value in report.items() if value is not None}
    except (TypeError, ValueError, OverflowError) as error:
        raise TrainingError(f"{cut(line)}: expected metrics that are numbers ({error})") from error


def _number(value: Any) -> float:
    """Reads a number in the formats of programs, such as `0.41,`, `0.41}`, `98.00%` (98) and `1,234.5`."""
    if isinstance(value, str):
        value = value.strip().lstrip("([{'\"").rstrip(",;%.)]}'\" ")
        if _THOUSANDS.fullmatch(value):
            value = value.replace(",", "")
    return float(value)


def epochs_of(reports: Iterator[dict[str, float]], objective: str) -> Iterator[tuple[int, dict[str, float]]]:
    """Yields the epochs, from 1, of a command that may report anything: a final command.

    An epoch is all reports that name it. If no report names an epoch, each report with the objective is one. Other
    reports belong to no epoch.
    """
    epoch, first, metrics = 0, 1, dict[str, float]()
    for report in reports:
        named, own = report.get("epoch"), {name: report[name] for name in report.keys() - {"epoch", "step"}}
        if named is not None:
            first = 0 if named == 0 else first
            if metrics and int(named) + 1 - first != epoch:
                yield epoch, metrics
                metrics = {}
            epoch, metrics = int(named) + 1 - first, metrics | own
        elif not metrics and objective in own:
            epoch += 1
            yield epoch, own
    if metrics:
        yield epoch, metrics


class Epochs:
    """Combines reports into epochs, which are counted from 1.

    1. A report without the objective is added to the next report with the objective. If `report_at` names another
       metric, a report with that metric completes the epoch instead.
    2. Reports without `epoch` are counted. A report with `step` 0 is ignored: its model is untrained.
    3. If the first `epoch` is 0, the program counts from 0, also after a resume: the trial's state holds the number.
    4. If earlier reports named their epochs, a report without `epoch` belongs to the epoch that still lacks its
       objective. If no epoch lacks it (a test result after the last epoch, say), the report is ignored.
    """

    def __init__(self, objective: str, report_at: str | None = None) -> None:
        self._objective, self._completes = objective, report_at or objective
        #: The number of the program's first epoch, 0 or 1; None before the program named an epoch.
        self.first: int | None = None
        #: The number of reports so far.
        self.count = 0
        #: Whether this process names its epochs.
        self.named = False
        #: The metrics of reports that wait for the objective, and their epoch.
        self.partial: dict[str, float] = {}
        self._partial_epoch: int | None = None
        #: The latest complete epoch, and its objective.
        self._latest = 0
        self._latest_value = math.nan

    def add(self, report: dict[str, float]) -> tuple[int, dict[str, float]] | None:
        """Adds a report.

        Returns:
            The epoch and its metrics if they hold the objective, else None.

        Raises:
            TrainingError: an epoch is no whole number, has no objective, or has two objectives.
        """
        epoch = self._epoch(report.pop("epoch")) if "epoch" in report else None
        if epoch is None and report.get("step") == 0:
            return None
        if epoch is None and self.named:
            if self._partial_epoch is None:
                return None
            epoch = self._partial_epoch
        self.named = self.named or epoch is not None
        if self._partial_epoch is not None and epoch is not None and epoch > self._partial_epoch:
            raise TrainingError(self.objective_missing(self._shown(self._partial_epoch)))
        if self._completes not in report:
            complete = epoch is not None and epoch <= self._latest
            if not complete:
                self.partial |= report
                self._partial_epoch = epoch
            return None
        metrics = self.partial | report
        if self._objective not in metrics:
            self.partial = metrics
            raise TrainingError(self.objective_missing("metrics" if epoch is None else self._shown(epoch)))
        value = metrics[self._objective]
        if epoch is not None and epoch == self._latest and value != self._latest_value:
            raise TrainingError(
                f"the command reports {self._shown(epoch)} twice, with {self._objective} "
                f"{self._latest_value:g} and {value:g}: match the lines of validation alone, or give the training loss "
                "another name; several evaluations of an epoch are reported without `epoch`"
            )
        self.partial, self._partial_epoch = {}, None
        self.count += 1
        self._latest = self.count if epoch is None else epoch
        self._latest_value = value
        return self._latest, metrics

    def _epoch(self, value: float) -> int:
        if not (math.isfinite(value) and value >= 0 and value == int(value)):
            raise TrainingError(f"the command reports epoch {value:g}: expected a whole number, 0 or more")
        if self.first is None:
            self.first = 0 if value == 0 else 1
        return int(value) + 1 - self.first

    def _shown(self, epoch: int) -> str:
        return f"epoch {epoch - 1 + (self.first or 0)}"

    def objective_missing(self, reported: str) -> str:
        """The error message for reports without the objective, or without the metric that completes an epoch."""
        metrics = ", ".join(self.partial) or "no other metric"
        missing, what = self._objective, "the objective"
        if missing in self.partial:
            missing, what = self._completes, "the metric of report_at"
        return (
            f"the command reports {reported} with {metrics}, without {what} {missing!r}: report it in "
            "each epoch; in epochs without a validation, its last value"
        )

    def state_dict(self) -> dict[str, int | None]:
        """The state that a resume needs: `first`. The command keeps the rest of its state itself."""
        return {"first": self.first}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        self.first = state.get("first")


class Steps(Epochs):
    """Combines the reports of a command that counts in steps.

    1. A report without the objective, or without the metric `report_at`, is added to the next report with it.
    2. The step of a report gives its number (`steps.report_at`). Reports without a step are counted. `epoch` is left
       out.
    3. A report before the next one is due is left out: that of step 0, whose model is untrained, and those between two
       multiples of `every`.
    """

    def __init__(self, objective: str, every: int, report_at: str | None = None) -> None:
        super().__init__(objective, report_at)
        self._every = every
        #: Whether a report between two multiples was left out.
        self.left_out = False

    def add(self, report: dict[str, float]) -> tuple[int, dict[str, float]] | None:
        """Adds a report; returns its number and metrics, or None if it is left out or waits for the objective."""
        position = position_of(report)
        report = {name: value for name, value in report.items() if name not in ("step", "epoch")}
        if self._completes not in report:
            self.partial |= report
            return None
        number = self.count + 1 if position is None else report_at(position, self._every)
        self.named = self.named or position is not None
        if number <= self._latest:
            self.left_out = self.left_out or bool(position)
            return None
        metrics = self.partial | report
        if self._objective not in metrics:
            self.partial = metrics
            raise TrainingError(self.objective_missing("metrics"))
        self.partial = {}
        self.count += 1
        self._latest = number
        return number, metrics
