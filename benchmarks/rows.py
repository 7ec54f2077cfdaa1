"""A results file with a row for each measurement, so that a long benchmark runs in parts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import Pool
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """A CSV file. `fields` are its columns."""

    path: Path
    fields: Sequence[str]

    def read(self) -> list[dict[str, str]]:
        """The rows so far."""
        if not self.path.exists():
            return []
        with self.path.open() as file:
            return list(csv.DictReader(file))

    def add(self, measure: Callable[[Any], Row | list[Row]], wanted: Iterable[Any], processes: int) -> None:
        """Measures each of `wanted` in one of `processes` processes. Its rows are written as soon as they are there."""
        fresh = not self.path.exists()
        with self.path.open("a", newline="") as file, Pool(processes) as pool:
            writer = csv.DictWriter(file, self.fields, lineterminator="\n")
            if fresh:
                writer.writeheader()
            for found in pool.imap_unordered(measure, wanted):
                for row in found if isinstance(found, list) else [found]:
                    writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
                file.flush()


def means_by_task(rows: list[dict[str, str]], system: str, key: str) -> list[float]:
    """The mean of a column over the searches of a system, for each task."""
    by_task: dict[str, list[float]] = {}
    for row in rows:
        if row["system"] == system:
            by_task.setdefault(row["task"], []).append(float(row[key]))
    return [sum(values) / len(values) for values in by_task.values()]


def missing(data: Path, *packages: str) -> str:
    """Why nothing can be measured; empty if the data and the packages are there."""
    if not data.exists():
        return f"{data}: not there, so nothing is measured"
    absent = [name for name in packages if find_spec(name) is None]
    return f"{', '.join(absent)}: not installed; pip install -e '.[bench]'" if absent else ""
