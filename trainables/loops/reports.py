"""What the output of a command reports: metrics in its lines, and which epoch they are of."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import regex

from trainables.loops.errors import TrainingError
from trainables.loops.process import cut

#: What stands before a report: `@search {"epoch": 3, "val_loss": 0.41}`.
MARK = "@search"
#: Seconds of computing after which a pattern is given up on a line. A sound pattern takes a thousandth of one.
MATCH = 5.0
_MARKED = re.compile(rf"{MARK}\s*(?={{)")
#: `1,234.5`: commas between groups of three digits. `0,123` is no such number: its comma is a decimal one.
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
#: Escape sequences by which programs colour their output and move the cursor.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def reported(line: str, pattern: str | None) -> Iterator[dict[str, float]]:
    """The reports in a line; most lines have none.

    Args:
        pattern: a regular expression with named groups; None: the mark, which may stand anywhere in the line, as
            progress bars write without a line's end.

    Raises:
        TrainingError: what is reported is no number, or the pattern does not come to an end.
    """
    line = _ESCAPES.sub("", line)
    if pattern is not None:
        try:
            found = regex.search(pattern, line, timeout=MATCH)
        except TimeoutError:
            raise TrainingError(
                f"pattern {pattern!r}: gave no answer within {MATCH:g} s on the line {cut(line)!r}; repeated groups "
                r"within repeated groups, as in (\d+)+, take for ever"
            ) from None
        if found is not None:
            yield _numbers(found.groupdict(), line)
        return
    marks = list(_MARKED.finditer(line))
    if not marks and line.lstrip().startswith(MARK):
        raise TrainingError(f"{cut(line)}: not JSON after {MARK} (expected {{...}})")
    for mark in marks:
        try:
            told, _ = json.JSONDecoder().raw_decode(line, mark.end())
        except json.JSONDecodeError as error:
            raise TrainingError(f"{cut(line)}: not JSON after {MARK} ({error.msg})") from error
        except (RecursionError, ValueError) as error:  # too many levels, or too many digits
            raise TrainingError(f"{cut(line)}: cannot be read after {MARK} ({error})") from error
        yield _numbers(told, line)


def _numbers(told: Mapping[str, Any], line: str) -> dict[str, float]:
    """The metrics as numbers, without those that have no value: null, and groups that did not take part."""
    try:
        return {name: _number(value) for name, value in told.items() if value is not None}
    except (TypeError, ValueError, OverflowError) as error:
        raise TrainingError(f"{cut(line)}: expected metrics that are numbers ({error})") from error


def _number(value: Any) -> float:
    """A number as programs print it: `0.41,`, `0.41}`, `98.00%` (which is 98) and `1,234.5` too."""
    if isinstance(value, str):
        value = value.strip().lstrip("([{'\"").rstrip(",;%.)]}'\" ")
        if _THOUSANDS.fullmatch(value):
            value = value.replace(",", "")
    return float(value)


class Epochs:
    """Puts reports together to epochs, counted from 1.

    Reports that lack the objective are a part of the next one that has it. A program whose first epoch is 0 counts from
    0 from then on, after a resume too: that is what this keeps in the trial's state. Where reports name no epoch they
    are counted, except for one at step 0, which is of an untrained model. Where earlier reports named their epochs, a
    report without one belongs to the epoch that lacks its objective; where none does, as after the last epoch with the
    best or a test result, it is passed over.
    """

    def __init__(self, objective: str) -> None:
        self._objective = objective
        #: What the program calls its first epoch; None before it named one.
        self.first: int | None = None
        #: Reports so far, and whether this process names their epochs.
        self.count, self.named = 0, False
        self._part: dict[str, float] = {}
        self._part_of: int | None = None
        #: The epoch that was complete last, and its objective.
        self._latest, self._value = 0, math.nan

    def take(self, told: dict[str, float]) -> tuple[int, dict[str, float]] | None:
        """Takes a report in.

        Returns:
            The epoch and its metrics, once they hold the objective.

        Raises:
            TrainingError: an epoch is no whole number, has no objective, or has two.
        """
        epoch = self._epoch(told.pop("epoch")) if "epoch" in told else None
        if epoch is None and told.get("step") == 0:
            return None
        if epoch is None and self.named:
            if self._part_of is None:
                return None
            epoch = self._part_of
        self.named = self.named or epoch is not None
        if self._part_of is not None and epoch is not None and epoch > self._part_of:
            raise TrainingError(self.lacking(f"epoch {self._part_of - 1 + (self.first or 0)}"))
        if self._objective not in told:
            if epoch is None or epoch > self._latest:  # else its epoch is complete already
                self._part |= told
                self._part_of = epoch
            return None
        value = told[self._objective]
        if epoch is not None and epoch == self._latest and value != self._value:
            raise TrainingError(
                f"the command reports epoch {epoch - 1 + (self.first or 0)} twice, with {self._objective} "
                f"{self._value:g} and {value:g}: match the lines of validation alone, or give the training loss "
                "another name; several evaluations of an epoch are reported without `epoch`"
            )
        told, self._part, self._part_of, self._value = self._part | told, {}, None, value
        self.count += 1
        self._latest = self.count if epoch is None else epoch
        return self._latest, told

    def _epoch(self, value: float) -> int:
        if not (math.isfinite(value) and value >= 0 and value == int(value)):
            raise TrainingError(f"the command reports epoch {value:g}: expected a whole number from 0 or 1 on")
        if self.first is None:
            self.first = 0 if value == 0 else 1
        return int(value) + 1 - self.first

    def lacking(self, what: str) -> str:
        """A message: something was reported without the objective."""
        there = ", ".join(self._part) or "nothing else"
        return (
            f"the command reports {what} with {there}, without the objective {self._objective!r}: report that in each "
            "epoch; in epochs without a validation, its last value"
        )

    @property
    def lacks(self) -> bool:
        """Whether something was reported that no objective followed."""
        return bool(self._part)

    def state_dict(self) -> dict[str, int | None]:
        """The command keeps its own state, and goes on where the search knows that it was; see `first`."""
        return {"first": self.first}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        self.first = state.get("first")
