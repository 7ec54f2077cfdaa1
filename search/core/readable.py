"""Formats figures, values, times and foreign texts for a screen or a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

#: Characters that a terminal or a browser would obey instead of show: control characters (an escape sequence begins
#: with one of them), marks that turn the direction of text, line separators, and halves of a character.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def figure(value: float) -> str:
    """A measured figure with four significant digits; whole numbers up to a million are written out.

    >>> [figure(value) for value in (0.914, 0.0001234, 1e-6, 12345.678, 1234567.0, 0.0)]
    ['0.9140', '0.0001234', '1.000e-06', '12346', '1.235e+06', '0']
    """
    try:
        value = float(value)
    except OverflowError:  # a whole number larger than the largest float
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    if 1000 <= abs(value) < 1_000_000:
        return f"{value:.0f}"
    return f"{value:#.4g}".rstrip(".")


def value(given: object) -> str:
    """A hyperparameter's value in a short line: as `figure`, without zeros at the end; `-` for None.

    >>> [value(given) for given in (0.003, 64, 1e-05, True, None, "adam\\x1b[31m")]
    ['0.003', '64', '1e-05', 'true', '-', 'adam\\\\x1b[31m']
    """
    if given is None:
        return "-"
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, float):
        digits, e, exponent = figure(given).partition("e")
        return (digits.rstrip("0").rstrip(".") if "." in digits else digits) + e + exponent
    return visible(str(given)).replace("\n", "\\n").replace("\t", "\\t")


def size(count: float) -> str:
    """A number of bytes with one unit; a kB has 1024 bytes.

    >>> [size(count) for count in (0, 900, 2048, 5_400_000, 3 * 2**30)]
    ['0 B', '900 B', '2.0 kB', '5.1 MB', '3.0 GB']
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GB"


def age(seconds: float) -> str:
    """As `duration`; a time of two days or more in days.

    >>> age(12240), age(260_000)
    ('3.4 h', '3 d')
    """
    return duration(seconds) if seconds < 2 * 86400 else f"{seconds / 86400:.0f} d"


def duration(seconds: float) -> str:
    """A time with one unit.

    >>> [duration(seconds) for seconds in (0.4, 45, 720, 12240)]
    ['0.4 s', '45 s', '12 min', '3.4 h']
    """
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 or not seconds else f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def clock(seconds: float) -> str:
    """A time as `minutes:seconds` or `hours:minutes:seconds`.

    >>> clock(80), clock(3680)
    ('1:20', '1:01:20')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def visible(text: str) -> str:
    r"""A text of data, a configuration, a script or another store, with visible escapes for control characters.

    Line breaks and tabs stay.

    >>> visible("red \x1b[31m")
    'red \\x1b[31m'
    """
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


@dataclass(frozen=True)
class Grid:
    """A table of texts, for a terminal or a Markdown file."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> list[str]:
        """The lines of a Markdown table."""
        lines = [self.heads, ["---"] * len(self.heads), *self.rows]
        return ["| " + " | ".join(visible(cell).replace("|", r"\|") for cell in line) + " |" for line in lines]
