"""Limits on outcomes: what is within them, which trial ends by them, and which trial is the best."""

from typing import Any

import pytest

from search.core.config import load_config
from search.core.decision import TrialResult
from search.core.feasibility import OutcomeLimit, limits_of, ranked_last
from search.core.overrides import argument
from search.core.registry import SCHEDULERS
from search.core.state import SearchState, Trial
from search.core.study import Study
from trainables import InputError, Objective

SETS = (
    "search.epochs=9", "search.trials=9", "search.balance=null", "search.scheduler=none", "search.startup_trials=2",
    "search.grace_period=1",
)  # fmt: skip
RECALL = 'search.limits={recall: ">= 0.9"}'
PARAMETERS = 'search.limits={parameters: "<= 2e6"}'


def study_of(*sets: str, trials: int = 2) -> Study:
    study = Study(load_config("rnn", [*SETS, *sets], profile="demo"), Objective("mse", "min"))
    for _ in range(trials):
        study.apply(study.propose())
    return study


def report(study: Study, number: int, epoch: int, value: float, **metrics: float) -> Any:
    """Reports an epoch as the driver does; returns its `result` event."""
    told = TrialResult(number, epoch, {"val_mse": value, "epoch_seconds": 1.0, **metrics})
    events, _ = study.report([told])
    for event in events:
        study.apply(event)
    return events[0]


@pytest.mark.parametrize(
    ("text", "within", "beyond", "reason"),
    [
        ("<= 5", (5.0, -7.0), 7.2, "latency_ms 7.2 is over the limit 5"),
        (" >=0.9 ", (0.9, 2.0), 0.75, "latency_ms 0.75 is under the limit 0.9"),
        ("<= 2e6", (2e6,), 3_100_000.0, "latency_ms 3.1e+06 is over the limit 2e+06"),
        ("<= 5", (), 5.00001, "latency_ms 5.00001 is over the limit 5.0"),
        ("<= 5", (), float("nan"), "latency_ms nan is over the limit 5"),
    ],
)
def test_limit_holds_at_its_bound_and_names_what_is_beyond_it(text, within, beyond, reason):
    (limit,) = limits_of({"latency_ms": text})
    assert [limit.reason({"latency_ms": value}) for value in within] == [""] * len(within)
    assert limit.reason({"latency_ms": beyond}) == reason


def test_limit_reads_the_validation_metric_first():
    (limit,) = limits_of({"recall": ">= 0.5"})
    assert limit.reason({"val_recall": 0.6, "train_recall": 0.1, "recall": 0.2}) == ""
    assert limit.excess({"recall": 0.25}) == 0.5 and limit.excess({"train_recall": 1.0}) is None


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ("search.limits={latency_ms: 5}", "--set search.limits={latency_ms: 5}: latency_ms: 5: expected <= or >= and"),
        ('search.limits={latency_ms: "< 5"}', '"<= 5" or ">= 0.9"'),
        ("search.limits.latency_ms=about 5", "latency_ms: 'about 5': expected <= or >= and a number, such as"),
        ('search.limits={a: "<= inf"}', "expected <= or >= and a number"),
        ("search.limits=5", "--set search.limits=5: expected a limit by metric, such as {latency_ms:"),
        ("search.limits=[a <= 5]", "expected a limit by metric"),
    ],
)
def test_wrong_limit_is_refused_with_its_place_and_what_is_allowed(sets, message):
    with pytest.raises(InputError) as refused:
        load_config("rnn", [*SETS, sets])
    assert message in str(refused.value) and "limits" in str(refused.value)


def test_limits_are_set_one_by_one_or_as_a_mapping():
    config = load_config("rnn", [*SETS, "search.limits.a=<= 5", "search.limits.b/c=>= 1"])
    assert config.search.limits == {"a": "<= 5", "b/c": ">= 1"}
    removed = load_config("rnn", [*SETS, "search.limits.a=<= 5", "search.limits.a=null"])
    assert removed.search.limits is None
    named = load_config("rnn", SETS, {"search.limits": {"a": "<= 5"}}, named=argument)
    assert named.search.outcome_limits == (OutcomeLimit("a", "<=", 5.0),)
    assert load_config("rnn", SETS).search.outcome_limits == ()


def test_trial_beyond_a_figure_of_its_configuration_ends_at_once():
    study = study_of(PARAMETERS)
    assert report(study, 0, 1, 0.1, parameters=3e6) | {"metrics": 0} == {
        "event": "result", "number": 0, "epoch": 1, "metrics": 0, "diverged": None, "outcome": "infeasible",
        "device": "cpu", "reason": "parameters 3e+06 is over the limit 2e+06",
        "infeasible": "parameters 3e+06 is over the limit 2e+06",
    }  # fmt: skip
    event = report(study, 1, 1, 0.5, parameters=1e6)
    assert event["outcome"] is None and "infeasible" not in event
    assert study.state.best().number == 1 and study.state.trials[0].over


def test_figure_that_grows_beyond_its_limit_ends_a_trial_that_was_feasible():
    study = study_of('search.limits={peak_memory_mib: "<= 100"}')
    report(study, 0, 1, 0.1, peak_memory_mib=90.0)
    assert report(study, 0, 2, 0.05, peak_memory_mib=101.0)["outcome"] == "infeasible"
    assert study.state.best() is None and study.state.none_is_feasible


def test_trial_ends_before_its_first_epoch_if_a_figure_is_known_then():
    study = study_of(PARAMETERS)
    (event,) = study.begin({0: {"parameters": 3e6}, 1: {"parameters": 2e6}})
    assert event == {
        "event": "infeasible", "number": 0, "reason": "parameters 3e+06 is over the limit 2e+06",
        "figures": {"parameters": 3e6},
    }  # fmt: skip
    study.apply(event)
    trial = study.state.trials[0]
    assert (trial.outcome, trial.epoch, trial.figures, trial.over) == ("infeasible", 0, {"parameters": 3e6}, True)
    assert study.begin({0: {"parameters": 3e6}}) == [], "it is told once"


def test_metric_that_may_come_back_ends_no_trial_and_only_its_feasible_epochs_can_be_best():
    study = study_of(RECALL, "search.epochs=3")
    for epoch, (value, recall) in enumerate([(0.1, 0.2), (0.4, 0.9), (0.3, 0.95)], 1):
        event = report(study, 0, epoch, value, val_recall=recall)
        assert ("infeasible" in event) == (epoch == 1)
    assert event["outcome"] == "completed"
    trial = study.state.best()
    assert (trial.number, trial.best_epoch, trial.best_value) == (0, 3, 0.3)
    assert study.state.finalists(1) == [(trial, 3)]


def test_trial_without_a_feasible_epoch_cannot_win_and_shows_its_best():
    study = study_of(RECALL, "search.epochs=1")
    report(study, 0, 1, 0.1, val_recall=0.2)
    report(study, 1, 1, 0.7, val_recall=0.95)
    first, second = study.state.trials.values()
    assert (first.outcome, first.best_value, first.can_win) == ("completed", 0.1, False)
    assert study.state.ranked() == [second] and study.state.best() is second


def test_metric_that_no_epoch_has_is_an_error_that_names_those_there_are():
    study = study_of('search.limits={recal: ">= 0.9"}')
    with pytest.raises(InputError, match=r"search\.limits: 'recal': no metric of this task; there are .*mse, recall"):
        report(study, 0, 1, 0.1, val_recall=0.2)


def test_epochs_within_limits_rank_before_all_others():
    limits = limits_of({"recall": ">= 0.5"})
    losses = [ranked_last(limits, {"recall": recall}, loss) for recall, loss in ((0.6, 1e9), (0.4, -5.0), (0.1, -9.0))]
    assert losses == sorted(losses) and len(set(losses)) == 3
    assert ranked_last((), {}, 0.25) == 0.25


@pytest.mark.parametrize("scheduler", ["asha", "asha-promote", "asha-predict", "hyperband", "median"])
def test_scheduler_ends_no_feasible_trial_for_a_better_one_beyond_the_limits(scheduler):
    assert scheduler in SCHEDULERS.names()
    study = study_of(RECALL, f"search.scheduler={scheduler}", "search.brackets=1", trials=7)
    for number in range(6):
        report(study, number, 1, 0.1, val_recall=0.1 * number)
    event = report(study, 6, 1, 0.8, val_recall=0.9)
    assert "1st of 7" in event.get("reason", "") or scheduler == "median"
    assert event["outcome"] in (None, "paused")
    if event["outcome"] == "paused":
        assert study.promote() == 6
    assert all(loss < 1 for rung in study.rungs().values() for loss in rung.values()), "people see the objective"


def test_trial_that_is_infeasible_for_good_is_compared_with_none():
    study = study_of(PARAMETERS, "search.scheduler=asha", trials=4)
    for number in range(3):
        assert report(study, number, 1, 0.1, parameters=3e6)["outcome"] == "infeasible"
    assert "1st of 1" in report(study, 3, 1, 0.9, parameters=1e6)["reason"]


def test_journal_without_limits_has_no_new_fields():
    study = study_of()
    assert not {"infeasible", "figures"} & report(study, 0, 1, 0.1, parameters=1e9).keys()


def test_state_of_an_old_journal_has_feasible_trials_alone():
    state = SearchState(Objective("mse", "min"))
    state.apply({"event": "trial", "number": 0, "params": {}, "seed": 0})
    state.apply({
        "event": "result", "number": 0, "epoch": 1, "metrics": {"val_mse": 0.5}, "diverged": None, "outcome": None,
        "device": "cpu",
    })  # fmt: skip
    assert state.best().can_win and not state.none_is_feasible


def test_final_epochs_are_chosen_among_feasible_epochs():
    trial, objective = Trial(0, {}, 0), Objective("mse", "min")
    for epoch in range(1, 25):
        if epoch > 20:
            trial.infeasible[epoch] = "over"
        trial.take(epoch, {"val_mse": 1 / epoch}, objective)
    assert trial.best_epoch == 20
    assert trial.steady(3, objective)[1] == 19
