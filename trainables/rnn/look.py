"""Findings about sequences: steps that validation and test share with train, lengths, targets, features."""

from __future__ import annotations

import numpy as np
import pandas as pd

from trainables.base.survey import SHOWN, SPLITS, Finding, histograms, run_hashes
from trainables.base.task import Splits
from trainables.rnn.data import SequenceSplit

#: The length of a run of steps. A sequence is a part of a recording of train if this share of its runs occurs in train.
STEPS, SHARE = 3, 0.5
#: If more than this share of train's runs have several different next steps, the values are too coarse: equal runs do
#: not mean the same recording.
COARSE = 0.2


def shared_steps(splits: Splits) -> list[Finding]:
    """Finds sequences of validation and test that share at least `SHARE` of their runs of `STEPS` steps with train.

    If the values are too coarse for this test, the finding says so.
    """
    train_runs, longer_runs = (np.unique(_runs(splits.train, length)[0]) for length in (STEPS, STEPS + 1))
    if len(longer_runs) * (1 - COARSE) > len(train_runs):
        words = (
            f"Of {len(train_runs)} runs of {STEPS} steps in train, many have several different next steps: the values "
            "are so coarse that equal steps do not mean the same recording. No comparison was made."
        )
        return [Finding("Parts of train cannot be recognised", words)]
    findings = []
    for name in ("val", "test"):
        split: SequenceSplit = getattr(splits, name)
        runs, owner = _runs(split, STEPS)
        counts = np.bincount(owner, minlength=len(split))
        hits = np.bincount(owner, weights=np.isin(runs, train_runs), minlength=len(split))
        share = np.divide(hits, counts, out=np.zeros(len(split)), where=counts > 0)
        same = np.flatnonzero(share >= SHARE)
        if not len(same):
            continue
        table = pd.DataFrame(
            {f"sequence of {name}": same, "length": split.lengths[same], "steps in train": share[same]}
        )
        fact = f"{len(same)} of {len(split)} sequences of {name} have at least half of their steps in train too"
        words = (
            f"{fact}. They are parts of one recording, so that figures on {name} measure known recordings, and not "
            "new ones. An array or column with the recording of each sequence keeps its parts in one split "
            "(data.group=NAME)."
        )
        examples = ", ".join(f"number {i}" for i in same[:2])
        warning = f"{fact}, as {examples}: its figures flatter (--set data.group=NAME keeps a recording in one split)"
        findings.append(Finding(f"Parts of train in {name}", words, table.head(SHOWN), warning=warning))
    return findings


def _runs(split: SequenceSplit, length: int) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each run of `length` steps within a sequence, and the sequence of each run."""
    rows = np.array([hash(row.tobytes()) for row in split.values], dtype=np.int64)
    owner = np.repeat(np.arange(len(split)), split.lengths)
    hashes = run_hashes(rows, length)
    first, last = owner[: len(hashes)], owner[length - 1 :]
    inside = first == last
    return hashes[inside], first[inside]


def overview(splits: Splits) -> list[Finding]:
    """Describes lengths, targets and features."""
    parts: dict[str, SequenceSplit] = {name: getattr(splits, name) for name in SPLITS}
    values, lengths, targets = splits.train.values, splits.train.lengths, splits.train.targets
    spread = values.std(0)
    table = pd.DataFrame({
        "feature": np.arange(values.shape[1]), "mean": values.mean(0), "standard deviation": spread,
        "least": values.min(0), "most": values.max(0),
    })  # fmt: skip
    constant = np.flatnonzero(spread == 0)
    words = "None is constant."
    if len(constant):
        words = f"Constant in train, and of no use: {', '.join(map(str, constant))}."
    return [
        Finding(
            "Lengths",
            f"From {lengths.min()} to {lengths.max()} steps in train; the median is {np.median(lengths):g}.",
            picture=histograms({name: part.lengths for name, part in parts.items()}, "steps"),
        ),
        Finding(
            "Targets",
            f"From {targets.min():.4g} to {targets.max():.4g} in train. Their variance, {targets.var():.4g}, is the "
            "error (mse) of a model that always predicts the mean.",
            picture=histograms({name: part.targets for name, part in parts.items()}, "target"),
        ),
        Finding("Features", f"{values.shape[1]} features, over all steps of train. {words}", table),
    ]
