"""Sums a search up in lines of text, for the terminal and the report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from search.algorithms.pareto import front, value_of
from search.config.load import SearchConfig
from search.finals import audit, finalists, variant_comparison
from search.record.state import FinalRun, SearchState, Trial
from trainables import Objective


def summary(state: SearchState, config: SearchConfig) -> list[str]:
    """The lines at the end of a search: outcomes, what early stopping saved, the best trial, test figures."""
    metric = state.objective.metric
    lines = [f"trials: {tally(t.outcome for t in state.trials.values())}"]
    stopped = [t for t in state.trials.values() if t.outcome == "stopped_early"]
    if stopped:
        full = config.search.epochs
        saved = sum(full - t.epoch for t in stopped)
        spent = sum(t.epoch for t in state.trials.values())
        lines.append(f"early stopping: {saved} epochs saved, {spent} trained ({saved / (saved + spent):.0%} less)")
    if said := audit.words(audit.table(state), state):
        lines.append(said)
    best = state.best()
    if best is None:
        return [*lines, "no trial succeeded"]
    if state.compared:
        name = str(config.search.balance)
        frame = variant_comparison.figures(state.repeats.values(), state.objective)
        if not frame.empty:
            lines += [*variant_comparison.table(frame, name), variant_comparison.words(frame, name, state.objective)]
    lines.append(f"best: trial {best.number}, val {metric} {best.best_value:.4f} at epoch {best.best_epoch}")
    lines.append(f"  {configuration(best, config)}")
    if config.objectives:
        lines.append(f"Pareto front of {', '.join(config.search.objective or ())}:")
        for trial in front(state.trials.values(), config.objectives):
            reached = "  ".join(f"{o.metric} {value_of(trial, o):.4g}" for o in config.objectives)
            lines.append(f"  trial {trial.number}: {reached}  {configuration(trial, config)}")
    if state.final is None:
        return lines
    if state.final.trial != best.number and config.window > 1 and not state.decision and state.final.merged:
        lines.append(
            f"trained again is trial {state.final.trial}: its best {config.window} neighbouring epochs are the best on "
            "average, and a single one may be lucky"
        )
    if state.decision:
        lines += [*finalists.table(state.decision, metric), finalists.words(state.decision, state.objective)]
    tested = state.tested(state.final.trial)
    for final in tested:
        how = f"retrained on train+validation, {final.epochs} epochs, seed {final.seed}"
        if not final.merged:
            how = f"its own model of epoch {final.epochs}, trained on train alone as the budget holds no more"
        lines.append(f"test (trial {final.trial}, {how}): {shown(final.test or {}, '')}")
    lines += _beside_baselines(state.final, state.objective)
    if len(tested) > 1:
        values = [f.test[metric] for f in tested if f.test]
        mean = sum(values) / len(values)
        spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
        lines.append(f"test {metric} over {len(values)} seeds: {mean:.4f} +- {spread:.4f} (standard deviation)")
    return lines


def trials_of(total: float) -> str:
    """`20 trials`, or that the budget decides."""
    if math.isinf(total):
        return "as many trials as the budget holds"
    return f"{int(total)} trial{'s' if total != 1 else ''}"


def tally(outcomes: Iterable[str | None]) -> str:
    """Counts outcomes, such as `2 completed, 6 stopped_early`; None stands for a running trial."""
    counts = Counter(outcome or "running" for outcome in outcomes)
    return ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))


def _beside_baselines(final: FinalRun, objective: Objective) -> list[str]:
    """The figures of the baselines, and a warning if the model does not beat the best of them."""
    metric = objective.metric
    if not final.baselines or final.test is None:
        return []
    figures = ", ".join(f"{name} {value:.4f}" for name, value in final.baselines.items())
    lines = [f"baselines (test {metric}): {figures}"]
    best = min(final.baselines, key=lambda name: objective.loss(final.baselines[name]))
    if not objective.better(final.test[metric], final.baselines[best]):
        lines.append(f"the searched model does NOT beat the baseline {best!r}")
    return lines


def configuration(trial: Trial, config: SearchConfig) -> str:
    """A trial's hyperparameters, without those that are the same in all trials."""
    fixed = config.space.fixed()
    chosen = {k: v for k, v in trial.params.items() if v is not None and k not in fixed}
    return " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in chosen.items())


def shown(metrics: dict[str, float], prefix: str) -> str:
    """Metrics whose name begins with `prefix`, without those of single parts, such as `accuracy/CLASS`."""
    return "  ".join(f"{k} {v:.4f}" for k, v in metrics.items() if k.startswith(prefix) and "/" not in k)
