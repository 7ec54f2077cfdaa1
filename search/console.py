"""What a person sees: a live table on a terminal, plain lines when piped, a summary at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from search import audit, comparison, finalists
from search.config import SearchConfig
from search.engine import Search
from search.front import front, value_of
from search.journal import Event
from search.redaction import redacted
from search.state import FinalRun, SearchState, Trial
from trainables.task import Objective

#: Rows of the live table: what runs, then the best of what is over.
ROWS = 16


class Reporter:
    """Follows one search on a console."""

    def __init__(self, console: Console, search: Search) -> None:
        self.console, self.search = console, search
        self.begun = time.monotonic()
        self._epochs_before = sum(t.epoch for t in search.state.trials.values())
        self._live: Live | None = None
        self._final = ""

    def live(self) -> AbstractContextManager[Any]:
        """The table while the block runs; nothing where output is no terminal."""
        if not self.console.is_terminal:
            return nullcontext()
        self._live = Live(
            get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        return self._live

    def __call__(self, event: Event, state: SearchState) -> None:
        """A listener of the search."""
        kind = event["event"]
        if kind == "stopping":
            self.say(f"stopping ({event['why']}): running trials finish their epoch and save"
                     + ("; Ctrl-C again stops at once" if event["why"] == "interrupted" else ""))  # fmt: skip
        elif kind == "stalled":
            numbers = ", ".join(map(str, event["numbers"]))
            self.say(
                f"trial {numbers} ended no epoch within {event['limit']} (search.stall_timeout): its worker is ended"
            )
        elif kind == "timed_out":
            self.say(f"trial {event['number']} is over its time (search.trial_timeout) and ends with what it has")
        elif kind == "unclean":
            self.say(f"a new worker: {_last_line(event['traceback'])}")
        elif kind == "apart":
            numbers = ", ".join(map(str, event["numbers"]))
            self.say(f"trials {numbers} failed together; each goes on alone: {_last_line(event['traceback'])}")
        elif kind == "retry":
            halved = f", in {event['micro_batches']} parts a batch" if event["why"] == "memory" else ""
            self.say(f"trial {event['number']} failed and is taken up again{halved}: {_reason(event)}")
        elif kind == "failed":
            self.say(f"trial {event['number']} failed: {_reason(event)}")
        elif kind == "final_result":
            which = f"trial {event['trial']}, seed {event['seed']}"
            self._final = f"final training of {which}: epoch {event['epoch']} of {event['epochs']}"
            if not self._live:
                self.say(f"{self._final}  {_shown(event['metrics'], 'train_')}")
            for line in event.get("samples", ()):
                self.say(f"  epoch {event['epoch']}: {line}")
        elif kind == "audit_result":
            self._final = (
                f"audit of trial {event['number']}: epoch {event['epoch']} of {self.search.config.search.epochs}"
            )
            if not self._live:
                self.say(f"{self._final}  {_shown(event['metrics'], 'val_')}")
        elif kind == "repeat_result":
            self._final = f"comparison: {event['value']}, epoch {event['epoch']} of {self.search.config.search.epochs}"
        elif kind == "repeat_finished":
            self.say(f"comparison: {event['value']}, seed {event['seed']}: {_shown(event['test'], '')} on test")
        elif kind == "result" and not self._live:
            trial, best = state.trials[event["number"]], state.best()
            line = f"trial {trial.number:3d}  epoch {event['epoch']:3d}  {_shown(event['metrics'], 'val_')}"
            line += f"  {event['outcome']}" if event["outcome"] else ""
            self.say(line + (f"  best {best.best_value:.4f} (trial {best.number})" if best else ""))

    def say(self, text: str) -> None:
        self.console.print(Text(redacted(text)), soft_wrap=True)

    def _render(self) -> Group:
        state, search = self.search.state, self.search
        metric = search.objective.metric
        table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
        for heading, width in (("trial", 5), ("epoch", 7), (f"val {metric}", 14), ("best", 8), ("outcome", 13)):
            table.add_column(heading, no_wrap=True, width=width)
        table.add_column("configuration", no_wrap=True, overflow="ellipsis", ratio=1)
        running = [t for t in state.trials.values() if t.outcome is None]
        over = [t for t in state.ranked() if t.outcome is not None]
        rest = [t for t in state.trials.values() if t.outcome is not None and not t.can_win]
        best = state.best()
        for trial in [*running, *over, *rest][:ROWS]:
            last = trial.curve.get(trial.epoch, {}).get(f"val_{metric}")
            table.add_row(
                f"{trial.number}",
                f"{trial.epoch}/{search.config.search.epochs}",
                "" if last is None else f"{last:.4f}",
                f"{trial.best_value:.4f}" if trial.best_epoch else "",
                trial.outcome or "running",
                _configuration(trial, search.config),
                style="green" if trial is best else ("dim" if trial.over else ""),
            )
        rungs = "  ".join(f"epoch {epoch}: {len(rung)}" for epoch, rung in search.scheduler.rungs().items())
        lines = [
            f"{len(state.trials)} of {search.total} trials: {tally(t.outcome for t in state.trials.values())}",
            f"best {best.best_value:.4f} by trial {best.number}" if best else "no result yet",
            *([f"rungs  {rungs}"] if rungs else []),
            f"elapsed {_clock(time.monotonic() - self.begun)}, about {self._estimate()} to go",
            *([self._final] if self._final else []),
        ]
        return Group(table, Text("\n".join(lines), style="cyan"))

    def _estimate(self) -> str:
        """Trials to come are taken to last as many epochs as those that are over."""
        state = self.search.state
        over = [t for t in state.trials.values() if t.over]
        trained = sum(t.epoch for t in state.trials.values()) - self._epochs_before
        if not over or not trained:
            return "?"
        each = sum(t.epoch for t in over) / len(over)
        missing = (self.search.total - len(state.trials)) * each
        missing += sum(max(0.0, each - t.epoch) for t in state.trials.values() if not t.over)
        return _clock((time.monotonic() - self.begun) / trained * missing)


def data_progress(console: Console) -> tuple[Progress, Any]:
    """A progress bar, and the function that tasks call while they read data."""
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    bars: dict[str, Any] = {}

    def progress(done: int, total: int, what: str) -> None:
        if what not in bars:
            bars[what] = bar.add_task(what, total=total)
        bar.update(bars[what], completed=done)

    return bar, progress


def summary(state: SearchState, config: SearchConfig) -> list[str]:
    """What came out of a search: best configuration, figures, what early stopping saved."""
    metric = state.objective.metric
    lines = [f"trials: {tally(t.outcome for t in state.trials.values())}"]
    stopped = [t for t in state.trials.values() if t.outcome == "stopped_early"]
    if stopped:
        full = config.search.epochs
        saved = sum(full - t.epoch for t in stopped)
        spent = sum(t.epoch for t in state.trials.values())
        lines.append(f"early stopping: {saved} epochs saved, {spent} trained ({saved / (saved + spent):.0%} less)")
    if said := audit.words(state):
        lines.append(said)
    best = state.best()
    if best is None:
        return [*lines, "no trial succeeded"]
    if state.compared:
        name = str(config.search.balance)
        frame = comparison.figures(state.repeats.values(), state.objective)
        if not frame.empty:
            lines += [*comparison.table(frame, name), comparison.words(frame, name, state.objective)]
    lines.append(f"best: trial {best.number}, val {metric} {best.best_value:.4f} at epoch {best.best_epoch}")
    lines.append(f"  {_configuration(best, config)}")
    if config.objectives:
        lines.append(f"Pareto front of {', '.join(config.search.objective or ())}:")
        for trial in front(state.trials.values(), config.objectives):
            reached = "  ".join(f"{o.metric} {value_of(trial, o):.4g}" for o in config.objectives)
            lines.append(f"  trial {trial.number}: {reached}  {_configuration(trial, config)}")
    if state.final is None:
        return lines
    if state.decision:
        lines += [*finalists.table(state.decision, metric), finalists.words(state.decision, state.objective)]
    tested = state.tested(state.final.trial)
    for final in tested:
        shown = _shown(final.test or {}, "")
        how = f"retrained on train+validation, {final.epochs} epochs, seed {final.seed}"
        lines.append(f"test (trial {final.trial}, {how}): {shown}")
    lines += _beside_baselines(state.final, state.objective)
    if len(tested) > 1:
        values = [f.test[metric] for f in tested if f.test]
        mean = sum(values) / len(values)
        spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
        lines.append(f"test {metric} over {len(values)} seeds: {mean:.4f} +- {spread:.4f} (standard deviation)")
    return lines


def tally(outcomes: Iterable[str | None]) -> str:
    """How many of each, by name; None is a trial that runs."""
    counts = Counter(outcome or "running" for outcome in outcomes)
    return ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))


def _beside_baselines(final: FinalRun, objective: Objective) -> list[str]:
    """The baselines' figures, and plain words where the network does not beat the best of them."""
    metric = objective.metric
    if not final.baselines or final.test is None:
        return []
    shown = ", ".join(f"{name} {value:.4f}" for name, value in final.baselines.items())
    lines = [f"baselines (test {metric}): {shown}"]
    best = min(final.baselines, key=lambda name: objective.loss(final.baselines[name]))
    if not objective.better(final.test[metric], final.baselines[best]):
        lines.append(f"the searched model does NOT beat the baseline {best!r}")
    return lines


def _configuration(trial: Trial, config: SearchConfig) -> str:
    fixed = config.space.fixed()
    chosen = {k: v for k, v in trial.params.items() if v is not None and k not in fixed}
    return " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in chosen.items())


def _shown(metrics: dict[str, float], prefix: str) -> str:
    """Without what is measured for one part of many, such as `accuracy/CLASS`: MLflow has room for it."""
    return "  ".join(f"{k} {v:.4f}" for k, v in metrics.items() if k.startswith(prefix) and "/" not in k)


def _reason(event: Event) -> str:
    return "its worker was lost" if event["why"] == "lost" else _last_line(event["traceback"])


def _last_line(traceback: str) -> str:
    return traceback.strip().split("\n")[-1].strip()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
