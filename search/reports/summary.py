"""The summary of a search: lines and tables for the terminal, a log and Markdown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from statistics import fmean, stdev

from search.core.config import SearchConfig
from search.core.feasibility import excess, infeasible
from search.core.limits import in_force
from search.core.outlook import outlook_line
from search.core.pareto import dominated_share, losses_at_best, value_of
from search.core.readable import Grid, figure, value, visible
from search.core.settings import SearchSection
from search.core.state import FinalRun, SearchState, Trial
from search.final import finalist_comparison, variant_comparison
from search.final.audit_result import audit_paragraph, audit_rows
from search.reports.columns import ordered
from trainables import InputError
from trainables.base.unit import Unit

#: The text of each outcome, in the order of `tally`. None: the trial is running.
OUTCOMES = {
    None: "running", "paused": "paused", "interrupted": "interrupted", "completed": "completed",
    "stopped_early": "stopped early", "timed_out": "out of time", "infeasible": "infeasible", "diverged": "diverged",
    "failed": "failed",
    "unknown": "unknown, as the logged search stopped them",
}  # fmt: skip


def parts(state: SearchState, config: SearchConfig) -> list[str | Grid]:
    """The summary of a search: lines and tables, without its `conclusion`.

    The best trial; the test figures; the comparisons; the outcomes of the trials; the savings of early stopping.
    """
    metric, best, final = state.objective.metric, state.best(), state.final
    if best is None:
        return [*_effort(state, config)]
    reached = f"{state.objective.key} {figure(best.best_value)}"
    lines: list[str | Grid] = [
        f"best{by_preference(state)}: trial {best.number}, {at_best(best, config) or reached} at "
        f"{config.search.unit.at(best.best_epoch)}",
        f"  {configuration(best, config)}",
    ]
    if raced := state.losses_over_seeds():
        sign = 1 if state.objective.mode == "min" else -1
        order = sorted(raced, key=lambda number: fmean(raced[number]))
        each = [f"trial {n} {figure(sign * fmean(raced[n]))} ({len(raced[n])})" for n in order]
        lines.append(f"  mean over seeds (their number): {', '.join(each)}")
    if final is not None:
        if final.trial != best.number and config.window > 1 and not state.decision and final.merged:
            lines.append(
                f"trained again is trial {final.trial}: its best {config.window} neighbouring epochs have the best "
                "mean; a single epoch may be lucky"
            )
        lines += _tested(state, final, config)
    if state.compared:
        name = str(config.search.balance)
        frame = variant_comparison.variant_figures(state.repeats.values(), state.objective)
        if not frame.empty:
            lines += variant_comparison.variant_grids(frame, name)
            lines.append(variant_comparison.variants_paragraph(frame, name, state.objective))
    if state.decision:
        lines += [
            finalist_comparison.finalists_grid(state.decision, metric),
            finalist_comparison.finalists_paragraph(state.decision, state.objective),
        ]
    if config.objectives:
        lines += _front(state, config)
    return [*lines, *_effort(state, config)]


def at_best(trial: Trial, config: SearchConfig) -> str:
    """The values of several objectives at the best epoch of a trial; empty for one objective."""
    return "  ".join(f"{o.metric} {figure(value_of(trial, o))}" for o in config.objectives)


def by_preference(state: SearchState) -> str:
    """` by the preference accuracy 2, parameters 1`; empty without a preference."""
    weights = ", ".join(f"{metric} {weight:g}" for metric, weight in (state.preference or {}).items())
    return f" by the preference {weights}" if weights else ""


def share_of_front(state: SearchState) -> str:
    """`83 % of the box between the best and the worst value of each objective`; empty if the box is empty."""
    able = [t for t in state.trials.values() if t.can_win]
    share = dominated_share(losses_at_best(able, state.objectives))
    return "" if math.isnan(share) else f"{share:.0%} of the box between the best and the worst value of each objective"


def _front(state: SearchState, config: SearchConfig) -> list[str]:
    """The trials of the Pareto front with their values, the knee among them, and the hypervolume."""
    lines, knee = [f"Pareto front of {', '.join(config.search.objective or ())}:"], state.knee()
    for trial in state.front():
        mark = "  (knee)" if trial is knee else ""
        lines.append(f"  trial {trial.number}: {at_best(trial, config)}{mark}  {configuration(trial, config)}")
    if share := share_of_front(state):
        lines.append(f"hypervolume: the front dominates {share}")
    return lines


def check_trial(state: SearchState, name: str, number: int) -> None:
    """Raises InputError if the search `name` has no trial of that number."""
    if number not in state.trials:
        trials = f"there are 0 to {len(state.trials) - 1}" if state.trials else "there is none yet"
        raise InputError(f"{name}: no trial {number}; {trials}")


def no_winner(state: SearchState) -> str:
    """The reason why a search has no best trial: its trials failed or diverged, or none has a result yet.

    A trial that diverged has values, but it cannot be the best trial. Nor can a trial beyond a limit on outcomes.
    """
    if state.none_is_feasible:
        return f"no trial is feasible: none of {trials_of(len(state.trials))} is within all limits"
    outcomes = [trial.outcome for trial in state.trials.values()]
    if state.status not in ("finished", "failed"):
        return "no trial has a result yet"
    if outcomes and set(outcomes) == {"diverged"}:
        return f"no trial can be the best: {trials_of(len(outcomes))} diverged"
    return "no trial succeeded"


def conclusion(state: SearchState, unit: Unit) -> tuple[str, bool | None]:
    """The most important line on a search, and whether its model beats the baseline; None if nothing was tested.

    `headline`; without a test figure the best value on validation; without that the reason.
    """
    return headline(state) or (no_winner(state) if state.best() is None else best_so_far(state, unit), None)


def best_so_far(state: SearchState, unit: Unit) -> str:
    """`best val_loss 0.1000 (trial 3, epoch 2)`, or that there is no result yet."""
    best = state.best()
    if best is None:
        return "no trial has a result yet"
    return f"best {state.objective.key} {figure(best.best_value)} (trial {best.number}, {unit.at(best.best_epoch)})"


def headline(state: SearchState) -> tuple[str, bool] | None:
    """The test figure with the best baseline, and whether it beats the baseline; None if nothing was tested.

    >>> headline(state)
    ('test_rmse 0.0912   ridge baseline 0.1384', True)
    """
    final, objective = state.final, state.objective
    if final is None or final.test is None or not final.tested:
        return None
    line = f"{objective.test_key} {figure(final.test[objective.metric])}"
    if not final.baselines:
        return line, True
    name = min(final.baselines, key=lambda name: objective.loss(final.baselines[name]))
    line += f"   {name} baseline {figure(final.baselines[name])}"
    if objective.better(final.test[objective.metric], final.baselines[name]):
        return line, True
    return f"{line}   the searched model does NOT beat the baseline {name!r}", False


def _tested(state: SearchState, final: FinalRun, config: SearchConfig) -> list[str | Grid]:
    """The test figures of each seed, their mean, and the baselines."""
    data = "" if config.is_own_program else " on train+validation"
    metric, tested, unit = state.objective.metric, state.tested(final.trial), config.search.unit
    lines: list[str | Grid] = []
    for run in tested:
        how = f"retrained{data}, {unit.count(run.epochs)}, seed {run.seed}"
        if not run.merged:
            how = f"its own model of {unit.at(run.epochs)}, trained on train alone as the budget holds no more"
        if not run.tested:
            lines.append(f"trial {run.trial}, {how}: it is not tested")
            continue
        lines.append(f"test (trial {run.trial}, {how}): {shown(run.test or {}, '')}")
    if len(tested) > 1 and final.tested:
        values = [run.test[metric] for run in tested if run.test]
        mean, spread = figure(fmean(values)), figure(stdev(values))
        name = state.objective.test_key
        lines.append(f"{name} over {len(values)} seeds: {mean} +- {spread} (standard deviation)")
    if final.baselines:
        figures = ", ".join(f"{name} {figure(value)}" for name, value in final.baselines.items())
        lines.append(f"baselines ({state.objective.test_key}): {figures}")
    return lines


def _effort(state: SearchState, config: SearchConfig) -> list[str]:
    """The outcomes of the trials, the limit that ended them, the savings of early stopping, and an audit's result."""
    lines = [f"trials: {tally(t.outcome for t in state.trials.values())}"]
    if line := limits_line(state, config):
        lines.append(line)
    if limit := in_force(config, state):
        lines.append(f"ended by its {limit['why']}: {limit['reason']}")
    if line := outlook_line(config, state):
        lines.append(line)
    stopped = [t for t in state.trials.values() if t.outcome == "stopped_early"]
    if stopped:
        unit, saved = config.search.unit, sum(config.search.epochs - t.epoch for t in stopped)
        spent = sum(t.epoch for t in state.trials.values())
        lines.append(
            f"early stopping: {unit.count(saved)} saved, {unit(spent)} trained ({saved / (saved + spent):.0%} less)"
        )
    if paragraph := audit_paragraph(audit_rows(state), state):
        lines.append(paragraph)
    return lines


def limits_line(state: SearchState, config: SearchConfig) -> str:
    """The number of feasible trials; without any, the trial that is nearest to the limits. Empty without limits."""
    limits = config.search.outcome_limits
    if not limits:
        return ""
    texts = ", ".join(f"{limit.metric} {limit.sign} {value(limit.bound)}" for limit in limits)
    feasible, trials = len(state.ranked()), len(state.trials)
    line = f"limits: {texts}; {feasible} of {trials_of(trials)} {'is' if 1 in (feasible, trials) else 'are'} feasible"
    if not state.none_is_feasible:
        return line
    beyond, number, why = min(
        (excess(limits, metrics), trial.number, infeasible(limits, metrics))
        for trial in state.trials.values()
        for metrics in ([trial.figures] if trial.figures else []) + [*trial.curve.values()]
        if infeasible(limits, metrics)
    )
    return f"{line}; the nearest is trial {number}, {100 * beyond:.3g} % beyond: {why}"


def trials_of(total: float, search: SearchSection | None = None) -> str:
    """`20 trials`; for an infinite number the words `as many trials as 1h holds`.

    Args:
        search: has the budget that ends a search with an infinite number of trials.
    """
    if not math.isinf(total):
        return counted(int(total), "trial")
    limit = "the budget"
    if search is not None and search.epoch_budget:
        limit = f"a budget of {search.unit.count(search.epoch_budget)}"
    if search is not None and search.cost_budget:
        limit = f"a cost budget of {search.cost_budget:g}"
    if search is not None and search.time_budget:
        limit = search.time_budget
    return f"as many trials as {limit} holds"


def counted(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def tally(outcomes: Iterable[str | None]) -> str:
    """The number of trials with each outcome, such as `2 completed, 6 stopped early`; None: the trial is running."""
    counts = Counter(outcomes)
    order = dict.fromkeys([*OUTCOMES, *counts])
    return ", ".join(f"{counts[outcome]} {OUTCOMES.get(outcome, outcome)}" for outcome in order if outcome in counts)


def configuration(trial: Trial, config: SearchConfig) -> str:
    """The hyperparameters of a trial that are not fixed, the most important first."""
    searched = [p for p in config.space.parameters if p.name not in config.space.fixed()]
    named = [p.name for p in ordered(searched, {}) if trial.params.get(p.name) is not None]
    return " ".join(f"{visible(name)}={value(trial.params[name])}" for name in named)


def shown(metrics: dict[str, float], prefix: str) -> str:
    """The metrics whose names begin with `prefix`, as text, without those of a class such as `accuracy/CLASS`."""
    return "  ".join(f"{k} {figure(v)}" for k, v in metrics.items() if k.startswith(prefix) and "/" not in k)
