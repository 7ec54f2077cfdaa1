"""Writes the page of a data set: splits, copies across splits, doubtful labels."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from search.core.config import SearchConfig
from search.core.readable import visible
from search.core.redaction import redacted
from search.core.replay import open_search, replay
from search.core.store import Store
from search.reports.pages import render
from trainables import Finding, Splits, Surveyed, Task, get_task
from trainables.base.files import replacing

#: Most doubtful labels in the list.
DOUBTS = 50


@dataclass(frozen=True)
class DataPage:
    """The path of the page, and lines to print: notes, copies, warnings, the path."""

    path: Path
    lines: tuple[str, ...]


def write_data_page(store: Store, config: SearchConfig, splits: Splits) -> DataPage:
    """Writes the page of a data set into the folder `data` of the store."""
    task, info = get_task(config.task), splits.info
    leaks = task.leaks(splits) if isinstance(task, Surveyed) else []
    overview = task.overview(splits) if isinstance(task, Surveyed) else []
    findings = [*leaks, *doubtful_labels(store, config.task, info.fingerprint), *overview]
    copies = _copies(task, config.task, leaks)
    warnings = [f"warning: {finding.warning}" for finding in findings if finding.warning]
    page = render(
        "data.html",
        title=f"{config.task}: data",
        task=config.task,
        source=redacted(info.source),
        sizes=", ".join(f"{count} {name}" for name, count in info.sizes.items()),
        fingerprint=info.fingerprint,
        made=time.strftime("%Y-%m-%d %H:%M"),
        warnings=warnings,
        copies=copies,
        notes=info.notes,
        findings=[_finding_for_page(finding) for finding in findings],
        surveyed=isinstance(task, Surveyed),
    )
    path = store.root / "data" / f"{config.task}-{info.fingerprint}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(page.encode())
    notes = (*info.notes, *(finding.note for finding in findings if finding.note))
    lines = (*(f"note: {note}" for note in notes), copies, *warnings, f"data: {path}")
    return DataPage(path, tuple(visible(redacted(line)) for line in lines))


def _copies(task: Task, name: str, leaks: Sequence[Finding]) -> str:
    """A line on the comparison of validation and test with train."""
    if not isinstance(task, Surveyed):
        return f"not looked for copies across splits: {name} has no method `leaks`"
    return f"looked for copies across splits: {'; '.join(finding.title for finding in leaks) or 'none'}"


def doubtful_labels(store: Store, task: str, fingerprint: str) -> list[Finding]:
    """The test samples with doubtful labels, by the final model of the newest search on this data.

    A label y is doubtful if the model predicts another class c with a probability of at least t(c), the mean
    probability of c among the samples with label c (confident learning, Northcutt et al. 2021, arXiv:1911.00068).

    Args:
        fingerprint: a hash of the data.
    """
    for name, record in sorted(store.records(), key=lambda pair: -pair[1].created):
        if (record.task, record.fingerprint) != (task, fingerprint):
            continue
        folder, _, _ = open_search(store, name)
        final = replay(folder)[0].final
        path = folder.final(final) / "artifacts" / "predictions.csv" if final else None
        if path is None or not path.exists():
            continue
        frame = pd.read_csv(path, keep_default_na=False, dtype={"class": str, "predicted": str})
        if not {"class", "predicted", "probability", "of its label"} <= {*frame.columns}:
            return []
        threshold = frame["predicted"].map(frame.groupby("class")["of its label"].mean())
        doubtful = frame[(frame["class"] != frame["predicted"]) & (frame["probability"] >= threshold)]
        doubtful = doubtful.nlargest(DOUBTS, "probability")
        model = f"The final model of the search {name}, which never saw the test samples,"
        if doubtful.empty:
            return [Finding("Labels to look at again", f"{model} doubts the label of none of the {len(frame)}.")]
        words = (
            f"{model} predicts another class for these {len(doubtful)}, and is as sure of it as it is of that class "
            "elsewhere. Some of them are mistakes of the model, and some of whoever labelled them."
        )
        return [Finding("Labels to look at again", words, doubtful)]
    return []


def _finding_for_page(finding: Finding) -> dict[str, Any]:
    table = pd.DataFrame() if finding.table is None else finding.table
    rows = table.itertuples(index=False)
    return {
        "title": finding.title,
        "words": finding.words,
        "picture": base64.b64encode(finding.picture).decode(),
        "heads": list(table.columns),
        "rows": [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows],
    }
