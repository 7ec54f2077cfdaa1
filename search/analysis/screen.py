"""Prints on a terminal or into a log: texts from elsewhere cannot steer it, and no word is broken."""

from __future__ import annotations

import textwrap
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.record.readable import Grid, visible


class Screen(Console):
    """A console that shows control characters instead of obeying them, whatever is printed."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


def show(console: Console, part: str | Grid, style: str = "") -> None:
    """Prints a line, wrapped between words on a terminal and whole in a log; or a table."""
    if isinstance(part, str):
        console.print(Text(fitted(console, visible(part)), style=style), soft_wrap=True)
    elif console.is_terminal:
        console.print(_drawn(part))
    else:
        for line in part.markdown():
            console.print(line, markup=False, soft_wrap=True)


def fitted(console: Console, line: str) -> str:
    """A line in as many as it takes on this terminal, cut between words; in a log it stays one.

    A word that is longer than the terminal is wide, such as an address, stays whole, so that it can be copied.
    """
    if not console.is_terminal:
        return line
    indent = " " * (len(line) - len(line.lstrip(" ")) + 2)
    return textwrap.fill(
        line, max(20, console.width), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _drawn(grid: Grid) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for head in grid.heads:
        table.add_column(Text(visible(head)), overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    return table
