"""Prints lines and tables on a terminal or into a log. Control characters in a text are shown, not obeyed."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Mapping, Sequence
from functools import partial
from math import inf, isinf
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from search.core.readable import Grid, visible

#: Most characters of a heading and of a cell: in the live table, and in tables with names of searches.
WIDE, WIDEST = 12, 32


class Screen(Console):
    """A console that shows control characters of every text instead of obeying them.

    Attributes:
        printed: the time of the last output, by `time.monotonic`; before the first output the time of its creation.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"emoji": False, **options})  # else `:x:` in a text becomes a picture
        self.printed = time.monotonic()

    def print(self, *parts: Any, **options: Any) -> None:
        super().print(*parts, **options)
        self.printed = time.monotonic()

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


def show(console: Console, part: str | Grid, style: str = "") -> None:
    """Prints a table or a line. A terminal wraps the line between words; a log gets it whole."""
    if isinstance(part, str):
        console.print(Text(fitted(console, visible(part)), style=style), soft_wrap=True)
    elif console.is_terminal:
        console.print(_drawn(part))
    else:
        for line in part.markdown():
            say(console, line)


def show_link(console: Console, address: str) -> None:
    """Prints an address on a line of its own, without wrapping. On a terminal it is a hyperlink (OSC 8)."""
    address = visible(address)
    console.print(Text(address, style=Style(link=address)), soft_wrap=True)


def say(console: Console, line: str) -> None:
    """Prints a line without markup and without wrapping."""
    console.print(line, markup=False, soft_wrap=True)


def show_columns(console: Console, grid: Grid, wide: bool = False) -> None:
    """Prints the first columns of a table, as many as fit the terminal.

    Args:
        wide: prints all columns, uncut.
    """
    columns = [(head, [row[place] for row in grid.rows]) for place, head in enumerate(grid.heads)]
    lines = columns_that_fit(columns, inf if wide else console.width, WIDEST)
    for line in lines:
        say(console, line)
    if lines and re.search(r"\+\d+$", lines[0]):
        show(console, "(a wider terminal shows more columns, `--wide` all of them)")


def fitted(console: Console, line: str) -> str:
    """A line wrapped between words to the width of the terminal; a log gets it whole.

    A word longer than the width, such as an address, stays whole, so that it can be copied.
    """
    if not console.is_terminal:
        return line
    indent = " " * (len(line) - len(line.lstrip(" ")) + 2)
    fill = partial(textwrap.fill, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(fill(one, max(20, console.width)) for one in line.split("\n"))


def _drawn(grid: Grid) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for head in grid.heads:
        table.add_column(Text(visible(head)), overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    return table


def columns_that_fit(
    columns: Sequence[tuple[str, list[str]]], width: float, widest: int = WIDE, sizes: Mapping[str, int] | None = None
) -> list[str]:
    """The lines of a table: the headings, and a line for each row.

    If columns do not fit, the last heading is their number, such as `+3`.

    Args:
        columns: headings with their cells, the most important first.
        width: of the terminal; infinite for a log: nothing is cut.
        widest: most characters of a heading and a cell.
        sizes: the least width of a column, by its heading.
    """
    shown: list[list[str]] = []
    used, most = 0, inf if isinf(width) else widest
    for place, (heading, cells) in enumerate(columns):
        column = [cut_to_width(cell, most) for cell in (heading, *cells)]
        size = max(*map(cell_len, column), (sizes or {}).get(heading, 0))
        more = f"+{len(columns) - place}"
        last = place == len(columns) - 1
        if used + size + (0 if last else 2 + len(more)) > width:
            shown.append([more, *("" for _ in cells)])
            break
        numeric = all(not cell or cell == "-" or cell[0].isdigit() or cell[0] in "-." for cell in cells)
        pad = str.rjust if numeric else str.ljust
        shown.append([pad(cell, size + len(cell) - cell_len(cell)) for cell in column])
        used += size + 2
    return ["  ".join(row).rstrip() for row in zip(*shown, strict=True)]


def cut_to_width(text: str, width: float) -> str:
    """The text, cut to `width` columns of the terminal."""
    return text if cell_len(text) <= width else set_cell_size(text, int(width) - 1) + "…"
