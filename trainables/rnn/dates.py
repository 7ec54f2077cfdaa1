"""Reads the dates of a column with one order of day, month and year for all rows."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable

import pandas as pd

from trainables import InputError
from trainables.base.errors import one_line

#: The orders in which numbers can mean day (D), month (M) and year (Y). The first possible order is used.
ORDERS = {"MDY": "month-first", "DMY": "day-first", "YMD": "year-first"}
#: Three numbers with the year at the end, or with three numbers of at most two digits. A weekday or a time of day may
#: stand before them.
_NUMBERS = re.compile(
    r"(\s*(?:[A-Za-z]+[.,]*\s+|\d{1,2}:\d\d\S*\s+)?)(\d{1,2})([-/. ])(\d{1,2})\3(\d{4}|\d{1,2})(?!\d)(.*)", re.DOTALL
)
#: POSIX: the two digits 69 to 99 are years of the 20th century.
PIVOT = 69


def read_dates(
    column: pd.Series, sequence: pd.Series, orders_of: Callable[[str], list[str]], place: str, notes: list[str]
) -> pd.Series:
    """The times (rows,) of a column of dates in UTC; NaT for a value that is no date.

    `01/02/2020` is 2 January or 1 February. One order is used for all rows: `13/02/2020` in another row decides for
    day-first. If several orders are possible, they must give the steps of each sequence the same order.

    Args:
        sequence: the sequence of each row.
        orders_of: returns `possible_orders` for the values of this column in all tables; its argument names the column
            in messages. It is called only if a date has another form than ISO 8601.
        notes: gets a sentence if several orders are possible.

    Raises:
        InputError: no order reads all values, or possible orders give the steps of a sequence different orders.
    """
    times = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
    if not times.isna().any():  # "mixed" takes a hundred times as long
        return times
    orders = orders_of(f"{place}: {column.name}")
    first, *others = [_read(column, order) for order in orders]
    for order, other in zip(orders[1:], others, strict=True):
        if other.equals(first):
            continue
        ranks = [times.groupby(sequence).rank("dense") for times in (first, other)]
        differs = (first != other).to_numpy().argmax()
        example = one_line(column.iloc[differs], 40)
        if not ranks[0].equals(ranks[1]):
            raise InputError(
                f"{place}: {column.name} = {example!r}: {ORDERS[orders[0]]} or {ORDERS[order]}? The column can be read "
                "in both ways, and they give the steps different orders; write its dates as YYYY-MM-DD"
            )
        notes.append(
            f"{place}: {column.name} = {example!r} is read {ORDERS[orders[0]]}; {ORDERS[order]} gives the steps the "
            "same order"
        )
    return first


def possible_orders(values: Iterable[object], place: str) -> list[str]:
    """The orders that read all dates of three numbers; raises InputError if dates contradict each other."""
    matches = {value: _NUMBERS.fullmatch(value) for value in dict.fromkeys(values) if isinstance(value, str)}
    numbers = {value: (match[2], match[4], match[5]) for value, match in matches.items() if match}
    possible = {value: {order for order in ORDERS if _date(parts, order)} for value, parts in numbers.items()}
    possible = {value: orders for value, orders in possible.items() if orders}
    orders = [order for order in ORDERS if all(order in own for own in possible.values())]
    if not orders:
        value = next(iter(possible))
        other = min(possible, key=lambda other: len(possible[other] & possible[value]))
        raise InputError(
            f"{place}: no order of day, month and year reads both {one_line(value, 40)!r} and {one_line(other, 40)!r}; "
            "write the dates as YYYY-MM-DD"
        )
    # Nearly each 01.02.20 could be 20 February 2001. The year has fewer values than the day.
    first, _, last = ({parts[i] for parts in numbers.values()} for i in range(3)) if numbers else ("", "", "")
    if len(orders) > 1 and len(first) >= len(last):
        orders = [order for order in orders if order != "YMD"]
    return orders


def _date(parts: tuple[str, str, str], order: str) -> str | None:
    """The ISO date of three numbers in an order; None if the order is impossible."""
    by_role = dict(zip(order, parts, strict=True))
    day, month, year = (int(by_role[role]) for role in "DMY")
    if len(by_role["Y"]) < 4:
        year += 1900 if year >= PIVOT else 2000
    try:
        return datetime.date(year, month, day).isoformat()
    except ValueError:
        return None


def _read(column: pd.Series, order: str) -> pd.Series:
    """The times of a column; NaT for a value that is no date in this order."""
    iso = {value: _iso(value, order) for value in column.unique()}
    return pd.to_datetime(column.map(iso), format="mixed", utc=True, errors="coerce")


def _iso(value: object, order: str) -> object:
    """The value with an ISO date instead of three numbers; None if the order is impossible."""
    if not isinstance(value, str):
        return value
    if match := _NUMBERS.fullmatch(value):
        date = _date((match[2], match[4], match[5]), order)
        return date and f"{match[1]}{date}{match[6]}"
    return value
