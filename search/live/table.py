"""The rows of the live table: the columns of a trial, its trend, and the bar of the budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from search.core.readable import clock, figure, value, visible
from search.core.settings import SearchSection
from search.core.space import Parameter
from search.core.state import Trial
from search.live.screen import WIDE, columns_that_fit, cut_to_width
from search.reports.summary import OUTCOMES

#: Columns of a terminal with room for the latest value and for four digits of a hyperparameter; for the time of a
#: trial; for its outcome.
ROOMY, NARROW, NARROWER = 100, 56, 48
#: The number of hyperparameters that come before the trend where room is short.
FIRST = 3
#: Most characters of a hyperparameter, and of the epochs of a full trial, on a terminal that is not `ROOMY`.
SHORT_VALUE, SHORT_EPOCHS = 8, 3
#: Fewest and most marks of a trend, and of the bar of the budget.
TREND_SIZE, BAR_SIZE = (5, 8), (8, 30)
#: The widths of columns before they hold the texts that most trials come to.
USUAL = {"": len("running"), "time": len("10:00"), "best": len("0.1234"), "latest": len("0.1234")}
#: The marks of a trend, from low to high, and of the bar: used, free, reserved. The second ones are for a terminal
#: without Unicode.
TREND_MARKS, BAR_MARKS = ("▁▂▃▄▅▆▇█", "_.-=^"), ("█░▒", "#.=")
#: Shorter words than those of `OUTCOMES`, for the live table.
SHORT = {"stopped_early": "stopped", "completed": "done"}

Column = tuple[str, list[str]]


class TrialTable:
    """Lays out the trials in columns. A column never becomes narrower, unless the terminal gets another width."""

    def __init__(self, key: str, plain: bool) -> None:
        """
        Args:
            key: the objective on validation, such as `val_loss`.
            plain: whether the terminal has no Unicode.
        """
        self.key, self._marks = key, TREND_MARKS[plain]
        self._width = 0
        #: The width of each column, by its heading.
        self._sizes: dict[str, int] = {}

    def lines(
        self, trials: Sequence[Trial], parameters: Sequence[Parameter], search: SearchSection, width: int
    ) -> list[str]:
        """The headings, and a line for each trial.

        Args:
            parameters: the searched hyperparameters, the most important first.
            width: of the terminal.
        """
        if width != self._width:
            self._width, self._sizes = width, {**USUAL}
        first, last = self._figures(trials, search)
        params = [self._hyperparameter(parameter, trials) for parameter in parameters]
        needed = sum(self._size(column) + 2 for column in (*first, *last, *params[:FIRST]))
        needed += len(f"+{len(params)}") if len(params) > FIRST else -2
        least, most = TREND_SIZE
        if (room := min(most, width - needed - 2)) >= least:
            curves = [[metrics.get(self.key, math.nan) for metrics in trial.curve.values()] for trial in trials]
            first.append(("trend", [trend(curve[-room:], self._marks).ljust(room) for curve in curves]))
        return columns_that_fit([*first, *last, *params], width, sizes=self._sizes)

    def _figures(self, trials: Sequence[Trial], search: SearchSection) -> tuple[list[Column], list[Column]]:
        """The columns before and behind the trend."""
        unit, roomy = search.unit, self._width >= ROOMY
        full = str(unit(search.epochs))
        most = f"/{full}" if roomy or len(full) <= SHORT_EPOCHS else ""
        outcomes = [SHORT.get(trial.outcome or "", OUTCOMES.get(trial.outcome, "")) for trial in trials]
        latest = [trial.curve.get(trial.epoch, {}).get(self.key) for trial in trials]
        first = [
            ("trial", [str(trial.number) for trial in trials]),
            *([("", outcomes)] if self._width >= NARROWER else []),
            (unit.name, [f"{unit(trial.epoch)}{most}" for trial in trials]),
            *([("time", [_time(trial.seconds) for trial in trials])] if self._width >= NARROW else []),
        ]
        last = [
            *([("latest", ["" if one is None else figure(one) for one in latest])] if roomy else []),
            ("best", [figure(trial.best_value) if trial.best_epoch else "" for trial in trials]),
        ]
        return first, last

    def _hyperparameter(self, parameter: Parameter, trials: Sequence[Trial]) -> Column:
        """Its values: with four digits, or with three where the terminal has less room."""
        roomy = self._width >= ROOMY
        widest = WIDE if roomy else SHORT_VALUE

        def shown(given: object) -> str:
            short = float(f"{given:.3g}") if isinstance(given, float) and not roomy else given
            return cut_to_width(value(short), widest)

        heading = cut_to_width(visible(parameter.name), widest)
        usual = {"choice": parameter.choices, "int": [int(parameter.high)]}.get(parameter.kind, ["0" * SHORT_VALUE])
        self._size((heading, [shown(one) for one in usual]))
        return heading, [shown(trial.params.get(parameter.name)) for trial in trials]

    def _size(self, column: Column) -> int:
        """Widens a column to its texts. Returns its width."""
        heading, cells = column
        size = min(WIDE, max(cell_len(cell) for cell in (heading, *cells)))
        self._sizes[heading] = max(size, self._sizes.get(heading, 0))
        return self._sizes[heading]


def trend(values: Sequence[float], marks: str = TREND_MARKS[0]) -> str:
    """A mark for each value, from the lowest to the highest; empty for fewer than two values. NaN has no mark.

    >>> trend([4.0, 3.0, 2.5, 1.0])
    '█▆▅▁'
    """
    known = [value for value in values if math.isfinite(value)]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    step = (high - low) / (len(marks) - 1) or 1.0
    return "".join(marks[round((value - low) / step)] for value in known)


def budget_bar(width: int, used: float, reserved: float, whole: float, words: str, plain: bool = False) -> Text:
    """A bar of a budget and words on it; the words alone where a bar has no room.

    Args:
        width: of the terminal.
        used, reserved, whole: parts of the budget and the whole, in one unit.
        plain: whether the terminal has no Unicode.
    """
    least, most = BAR_SIZE
    if (size := min(most, width - cell_len(words) - 2)) < least:
        return Text(words, "cyan")
    done = min(size, round(size * used / whole))
    kept = min(size - done, math.ceil(size * reserved / whole))
    marks, counts = BAR_MARKS[plain], (done, size - done - kept, kept)
    parts = zip(marks, counts, ("cyan", "dim", "yellow"), strict=True)
    return Text.assemble(*((mark * count, style) for mark, count, style in parts), (f"  {words}", "cyan"))


def _time(seconds: float) -> str:
    """The time of a trial: `4.2 s` or `1:20`; empty before its first epoch."""
    if not seconds:
        return ""
    return clock(seconds) if seconds >= 10 else f"{seconds:.1f} s"
