"""The result of an audit: whether one of the stopped trials would have won. It needs neither Ray nor torch."""

from __future__ import annotations

from typing import Any

from search.core.readable import figure
from search.core.state import SearchState


def audit_rows(state: SearchState) -> list[dict[str, Any]]:
    """A row for each audited trial, sorted by its rank after all epochs.

    Keys:
        `trial`: its number. `epoch`: the epoch at which it was stopped. `then`: its best objective up to that epoch.
        `end`: its best objective over all epochs. `rank_then`, `rank_end`: its rank among all trials by each of the
        two.
    """
    key, loss = state.objective.key, state.objective.loss
    others = {t.number: loss(t.best_value) for t in state.trials.values() if t.can_win}
    rows = []
    for number in state.audited():
        trial = state.trials[number]
        end = min([loss(trial.best_value), *(loss(m[key]) for m in state.audits[number].curve.values() if key in m)])
        rank = {
            when: 1 + sum(value < mine for other, value in others.items() if other != number)
            for when, mine in (("rank_then", loss(trial.best_value)), ("rank_end", end))
        }
        rows.append({"trial": number, "epoch": trial.epoch, "then": trial.best_value, "end": loss(end), **rank})
    return sorted(rows, key=lambda row: row["rank_end"])


def audit_paragraph(rows: list[dict[str, Any]], state: SearchState) -> str:
    """A paragraph about the rows of `audit_rows`; empty if no trial was audited."""
    best = state.best()
    if not rows or best is None:
        return ""
    stopped = sum(t.outcome == "stopped_early" for t in state.trials.values())
    won = [row for row in rows if state.objective.better(row["end"], best.best_value)]
    moved = sum(row["rank_end"] != row["rank_then"] for row in rows)
    metric, first = state.objective.metric, rows[0]
    regret = abs(first["end"] - best.best_value) if won else 0.0
    paragraph = (
        f"Of {stopped} stopped trials {len(rows)} were trained to the end: {len(won)} would have been better than the "
        f"winner, {moved} changed rank; the best came to {metric} {figure(first['end'])} (trial {first['trial']}), the "
        f"winner has {figure(best.best_value)}: a regret of {regret:.2g}."
    )
    if not won and len(rows) < stopped:
        # Exact rule of three: if none of n random trials won, the share of winners is below 1 - 0.05^(1/n) with 95 %
        # confidence.
        paragraph += (
            f" With 95 % confidence fewer than {1 - 0.05 ** (1 / len(rows)):.0%} of the stopped ones would have won."
        )
    return paragraph
