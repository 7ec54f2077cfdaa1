"""A study with limits on outcomes: its decisions, its result, and what people see of it."""

import optuna
import pytest

import search
from search.core.replay import open_search, replay
from search.core.store import Store
from search.exchange.studies import write_study
from search.reports.why import why
from trainables import InputError

SPACE = {"x": search.uniform(0, 10)}
LIMITS = {"latency_ms": "<= 5", "recall": ">= 0.5"}


def opened(folder, **more):
    named = {"trials": 6, "epochs": 2, "scheduler": "none", "limits": LIMITS, **more}
    return search.open("limited", folder, space=SPACE, objective="loss min", **named)


def told(study, latency, recalls, losses=(0.5, 0.4)):
    """A trial with this latency and these recalls by epoch; returns the last decision."""
    trial = study.ask()
    for epoch, (recall, loss) in enumerate(zip(recalls, losses, strict=True), 1):
        decision = study.tell(trial, epoch, {"loss": loss, "latency_ms": latency, "recall": recall})
        if decision.kind != "continue":
            break
    return decision


@pytest.fixture
def mixed(tmp_path):
    """Trial 0 is too slow. Trial 1 is never within the recall. Trial 2 is at its second epoch. Trial 3 always is."""
    study = opened(tmp_path)
    told(study, 7.2, (0.9, 0.9), (0.1, 0.1))
    told(study, 3.0, (0.1, 0.2), (0.2, 0.2))
    told(study, 4.0, (0.2, 0.6), (0.1, 0.6))
    told(study, 5.0, (0.5, 0.5), (0.8, 0.7))
    return study


def test_tell_stops_a_trial_that_is_too_slow_and_no_other(tmp_path):
    study = opened(tmp_path)
    decision = told(study, 7.2, (0.9, 0.9))
    assert (decision.kind, decision.outcome) == ("stop", "infeasible")
    assert decision.reason == "latency_ms 7.2 is over the limit 5"
    assert told(study, 3.0, (0.1, 0.1)).outcome == "completed"
    assert study.tell(0, 1, {"loss": 0.0}) == decision, "an epoch that is told twice has the same decision"


def test_best_trial_of_a_study_is_within_all_limits(mixed):
    assert (mixed.best.number, mixed.best.epoch, mixed.best.value) == (2, 2, 0.6)
    frame = mixed.result.trials()
    assert frame["feasible"].tolist() == [False, False, True, True]
    assert frame["outcome"].tolist() == ["infeasible", "completed", "completed", "completed"]
    assert frame["loss"].tolist() == [0.1, 0.2, 0.6, 0.7], "the value of an infeasible trial is shown"


def test_compare_ranks_feasible_trials_alone(mixed, tmp_path):
    comparison = search.compare("study-limited", store=tmp_path)
    assert comparison.trials["trial"].tolist()[:2] == [2, 3]
    assert comparison.trials["feasible"].tolist() == [True, True, False, False]
    assert comparison.trials["val_loss"].isna().tolist() == [False, False, True, True]
    assert "feasible" in comparison.markdown(0)[3] + comparison.markdown(0)[4]


def test_why_names_the_limit(mixed, tmp_path):
    slow, weak, late = (why(Store(tmp_path), "limited", number) for number in range(3))
    assert slow[2:] == [
        "epoch 1: infeasible; val_loss 0.1000; latency_ms 7.2 is over the limit 5",
        "in the end: infeasible; never within all limits, so it cannot be the best",
    ]
    assert weak[2] == "epoch 1: continues; val_loss 0.2000; infeasible here, as recall 0.1 is under the limit 0.5"
    assert weak[-1] == "in the end: completed; never within all limits, so it cannot be the best"
    assert late[-1] == "in the end: completed; best val_loss 0.6000 at epoch 2, place 1 of 2"


def test_page_shows_how_many_trials_are_feasible(mixed, tmp_path):
    report = mixed.result.report().read_text()
    assert "latency_ms &lt;= 5" in report or "latency_ms <= 5" in report or "latency_ms \\u003c= 5" in report
    assert "2 of 4 trials are feasible" in report and '"feasible"' in report


def test_study_without_a_feasible_trial_is_finished_and_has_no_best(tmp_path):
    study = opened(tmp_path, trials=2)
    told(study, 7.5, (0.9, 0.9))
    told(study, 6.0, (0.9, 0.9))
    assert study.ask() is None and study.finished
    with pytest.raises(InputError, match="no trial is feasible: none of 2 trials is within all limits"):
        _ = study.best
    assert "none is feasible" in repr(study.result)


def test_optuna_gets_the_limits_as_constraints(mixed, tmp_path):
    url, store = f"sqlite:///{tmp_path / 'optuna.db'}", Store(tmp_path)
    folder, _, config = open_search(store, "limited")
    write_study(config, replay(folder)[0], "limited", url)
    study = optuna.load_study(study_name="limited", storage=url)
    assert study.best_trial.number == 2
    slow, weak, *_ = study.trials
    assert slow.constraints == pytest.approx({"latency_ms": 0.44, "recall": -0.8})
    assert weak.constraints == pytest.approx({"latency_ms": -0.4, "recall": 0.8})
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "COMPLETE", "COMPLETE", "COMPLETE"]


def test_metric_without_the_limited_one_is_refused(tmp_path):
    study = opened(tmp_path)
    with pytest.raises(InputError, match=r"search\.limits: 'recall': no metric of this task; there are .*latency_ms"):
        study.tell(study.ask(), 1, {"loss": 0.1, "latency_ms": 1.0})


def test_study_keeps_its_limits(tmp_path):
    opened(tmp_path)
    with pytest.raises(InputError, match=r"limits: .*: the study limited has .*; choose another name"):
        opened(tmp_path, limits={"latency_ms": "<= 6"})


@pytest.mark.parametrize("wrong", [{"latency_ms": 5}, {"latency_ms": "5"}, "latency_ms <= 5"])
def test_wrong_limit_of_a_study_is_refused(tmp_path, wrong):
    with pytest.raises(InputError, match="limits"):
        opened(tmp_path, limits=wrong)
