"""The limits that end the trials by their results: a target and a cost budget."""

from typing import Any

import numpy as np
import pytest

from search.core.config import check_config, load_config
from search.core.decision import TrialResult
from search.core.limits import spent
from search.core.outlook import FEWEST
from search.core.overrides import change
from search.core.registry import SCHEDULERS
from search.core.requests import AddTrials, ChangeSettings, Configuration, kind_of, new_id, settle
from search.core.study import Study
from trainables import InputError, Objective

SETS = (
    "search.epochs=9", "search.trials=9", "search.balance=null", "search.scheduler=none", "search.startup_trials=2",
    "search.grace_period=1",
)  # fmt: skip
PRICED = ("resources.price_cpu_hour=3600", "resources.cpus=1")


def study_of(*sets: str, mode: Any = "min", trials: int = 2) -> Study:
    study = Study(load_config("rnn", [*SETS, *sets], profile="demo"), Objective("mse", mode))
    for _ in range(trials):
        study.apply(study.propose())
    return study


def report(study: Study, *results: tuple[int, int, float], seconds: float = 1.0, reserves: bool = True) -> str | None:
    """Reports (trial, epoch, value) as the driver does; returns the limit that ends the trials then."""
    told = [TrialResult(n, epoch, {"val_mse": value, "epoch_seconds": seconds}) for n, epoch, value in results]
    events, _ = study.report(told)
    for event in events:
        study.apply(event)
    for event in study.reach_limit(reserves):
        study.apply(event)
    return study.limit and study.limit["why"]


def take(study: Study, request: Any) -> None:
    content = settle(request, study.config, study.state)
    study.apply({"event": "request", "id": new_id(), "kind": kind_of(request), "content": content, "time": 0})


def changed(study: Study, *sets: str) -> Study:
    """The study as a resume with other settings replays it."""
    config = check_config("rnn", change(study.config.raw, sets), "test")
    again = Study(config, study.state.objective)
    for number, trial in study.state.trials.items():
        again.apply({"event": "trial", "number": number, "params": trial.params, "seed": trial.seed})
        for epoch, metrics in trial.curve.items():
            again.apply({
                "event": "result", "number": number, "epoch": epoch, "metrics": metrics, "diverged": None,
                "outcome": None, "device": "cpu",
            })  # fmt: skip
    for event in study.state.limits:
        again.apply(event)
    return again


@pytest.mark.parametrize(("mode", "near", "there"), [("min", 0.31, 0.3), ("max", 0.29, 0.3)])
def test_target_is_reached_by_the_value_itself(mode, near, there):
    study = study_of("search.target=0.3", mode=mode)
    assert report(study, (0, 1, near)) is None
    assert report(study, (1, 1, there)) == "target"
    assert study.limit["reason"] == "trial 1 has val_mse 0.3000 at epoch 1; the target is 0.3"


@pytest.mark.parametrize("scheduler", SCHEDULERS.names())
def test_target_ends_the_trials_of_every_scheduler(scheduler):
    study = study_of("search.target=0.3", f"search.scheduler={scheduler}")
    assert report(study, (0, 1, 0.5)) is None
    assert report(study, (1, 1, 0.2)) == "target"


def test_target_counts_trials_that_report_together():
    study = study_of("search.target=0.3")
    assert report(study, (0, 1, 0.5), (1, 1, 0.1), (1, 2, 0.4)) == "target"


def test_diverged_trial_reaches_no_target():
    study = study_of("search.target=0.3", mode="min")
    events, _ = study.report([TrialResult(0, 1, {"epoch_seconds": 1.0}, "loss is nan")])
    for event in events:
        study.apply(event)
    assert not study.reach_limit()


def test_reached_target_is_recorded_once():
    study = study_of("search.target=0.3")
    report(study, (0, 1, 0.2))
    report(study, (1, 1, 0.1))
    assert len(study.state.limits) == 1


def test_result_without_the_record_of_its_limit_is_recorded_by_the_next_driver():
    study = study_of("search.target=0.3")
    events, _ = study.report([TrialResult(0, 1, {"val_mse": 0.2, "epoch_seconds": 1.0})])
    for event in events:  # the driver was killed right after it
        study.apply(event)
    assert study.limit is None
    assert [event["why"] for event in study.reach_limit()] == ["target"]


@pytest.mark.parametrize(
    ("sets", "goes_on"),
    [
        ((), False),
        (("search.target=0.1",), True),
        (("search.target=null",), True),
        (("search.trials=20",), True),
        (("search.epochs=12",), True),
        (("search.time_budget=1h",), False),
        (("search.keep_checkpoints=1",), False),
    ],
)
def test_resume_trains_on_only_after_a_change_that_asks_for_it(sets, goes_on):
    study = study_of("search.target=0.3")
    report(study, (0, 1, 0.2))
    again = changed(study, *sets)
    assert not again.reach_limit()
    assert (again.limit is None) == goes_on


def test_more_trials_after_a_reached_target_are_all_trained():
    study = study_of("search.target=0.3")
    report(study, (0, 1, 0.2))
    again = changed(study, "search.trials=20")
    assert report(again, (1, 1, 0.1)) is None


def test_target_that_a_request_lowers_to_what_is_there_ends_the_trials():
    study = study_of("search.target=0.3")
    report(study, (0, 1, 0.5))
    take(study, ChangeSettings({"target": 0.5}))
    assert [event["why"] for event in study.reach_limit()] == ["target"]


def test_target_that_a_request_raises_lets_the_trials_go_on():
    study = study_of("search.target=0.3")
    report(study, (0, 1, 0.2))
    take(study, ChangeSettings({"target": 0.1}))
    assert study.limit is None
    assert report(study, (0, 2, 0.05)) == "target"


def test_configurations_that_a_request_adds_are_trained_after_the_target():
    study = study_of("search.target=0.3")
    report(study, (0, 1, 0.2))
    take(study, AddTrials((Configuration({"lr": 1e-3}),)))
    assert study.limit is None


def test_cost_budget_counts_the_trials_and_the_final_training():
    study = study_of("search.cost_budget=10", *PRICED)
    assert report(study, (0, 1, 0.5), (1, 1, 0.6), seconds=3.0) is None
    assert spent(study.config, study.state) == 6.0, "and 3 are kept for the final training"
    assert report(study, (1, 2, 0.6), seconds=1.0) == "cost budget"
    reason = "the trials cost 7.000, and the final training will cost about 3.000; the budget is 10"
    assert study.limit["reason"] == reason


def test_cost_budget_keeps_nothing_for_a_final_training_that_does_not_follow():
    study = study_of("search.cost_budget=10", *PRICED)
    assert report(study, (0, 1, 0.5), (1, 1, 0.6), seconds=4.0, reserves=False) is None
    assert report(study, (1, 2, 0.6), seconds=2.0, reserves=False) == "cost budget"


def test_spent_cost_counts_after_a_resume_with_a_larger_budget():
    study = study_of("search.cost_budget=10", *PRICED)
    report(study, (0, 1, 0.5), seconds=6.0)
    assert changed(study, "search.trials=20").limit, "more trials cost more"
    again = changed(study, "search.cost_budget=13")
    assert again.limit is None
    assert report(again, (1, 1, 0.6), seconds=1.0) == "cost budget"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("search.cost_budget=10",), "give resources.price_cpu_hour or resources.price_gpu_hour"),
        (("search.target=.inf",), "search.target"),
        (("search.target=true",), "true is neither a number nor a text"),
        (("search.cost_budget=0", *PRICED), "greater than 0"),
        (
            ("search.target=0.3", "search.searcher=nsga2", "search.objective=[mse min, parameters min]"),
            "needs one objective; there are mse min, parameters min",
        ),
    ],
)
def test_limit_that_cannot_be_reached_is_refused(sets, message):
    with pytest.raises(InputError) as error:
        load_config("rnn", [*SETS, *sets], profile="demo")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_cost_budget_alone_ends_a_search():
    config = load_config("rnn", [*PRICED], {"search.cost_budget": 5.0}, profile="data")
    assert config.search.time_budget is None


def outlooked(study: Study, values, seconds: float = 60.0) -> list[str | None]:
    """Trials one after the other, with the times of a journal; returns the limit after each."""
    limits, at = [], 0
    study.apply({"event": "session", "time": 0})
    for value in values:
        at += int(1000 * seconds)
        study.apply({**study.propose(), "time": at})
        number = len(study.state.trials) - 1
        metrics = {"val_mse": float(value), "epoch_seconds": seconds}
        events, _ = study.report([TrialResult(number, study.config.search.epochs, metrics)])
        for event in [*events, *study.reach_limit()]:
            study.apply({**event, "time": at})
        for event in study.reach_limit():
            study.apply({**event, "time": at})
        limits.append(study.limit and study.limit["why"])
    return limits


def test_search_ends_when_an_hour_is_not_worth_it():
    values = np.random.default_rng(0).normal(size=30)
    cheap = outlooked(study_of("search.worth=1e-6", "search.trials=99", trials=0), values)
    assert set(cheap) == {None}
    limits = outlooked(study_of("search.worth=5.0", "search.trials=99", trials=0), values)
    assert limits[: FEWEST - 1] == [None] * (FEWEST - 1) and limits[FEWEST - 1] == "worth"


def test_recorded_worth_still_holds_when_later_results_are_better():
    study = study_of("search.worth=5.0", "search.trials=99", trials=0)
    outlooked(study, np.random.default_rng(0).normal(size=FEWEST))
    assert study.limit["reason"].startswith("one more hour: -") and study.limit["reason"].endswith("; worth is 5")
    outlooked(study, [-50.0])
    assert study.limit["why"] == "worth" and len(study.state.limits) == 1
