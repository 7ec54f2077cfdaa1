"""Starting configurations: `search.first` in YAML, `start` in Python."""

import pytest

from search.core.config import SearchConfig
from search.core.decision import TrialResult
from search.core.overrides import argument
from search.core.program_config import loop_config
from search.core.study import Study
from trainables import InputError, Objective

SPACE = {
    "lr": {"loguniform": [1e-4, 1e-1], "prior": 1e-3}, "opt": {"choice": ["sgd", "adam"]},
    "width": {"int": [8, 64], "step": 8}, "momentum": {"uniform": [0, 1], "when": {"opt": "sgd"}}, "fixed": 3,
}  # fmt: skip
GRID = {"width": {"choice": [8, 16, 24, 32]}, "lr": 0.01}


def configured(start: object, space: dict = SPACE, **search: object) -> SearchConfig:
    flags = {"search.trials": 8, "search.epochs": 1, "search.first": start} | {
        f"search.{key}": value for key, value in search.items()
    }
    return loop_config("t", space, "loss min", flags, (), "search.run", argument)


def proposals(study: Study, until: int) -> list[dict]:
    """The events of the next trials. Each ends before the next is proposed."""
    events = []
    while len(study.state.trials) < until and (event := study.propose()):
        study.apply(event)
        events.append(event)
        value = abs(event["params"]["lr"] - 0.01) + event["params"].get("width", 0) / 100
        results, _ = study.report([TrialResult(event["number"], 1, {"loss": value, "val_loss": value})])
        for result in results:
            study.apply(result)
        events += results
    return events


def trials(events: list[dict]) -> list[dict]:
    return [event for event in events if event["event"] == "trial"]


@pytest.mark.parametrize("searcher", ["ranks", "tpe"])
def test_starting_configurations_come_first_in_their_order_then_the_priors(searcher):
    whole = {"lr": 0.05, "opt": "sgd", "width": 16, "momentum": 0.5, "fixed": 3}
    study = Study(configured([whole, {"width": 24.0, "opt": "adam"}], searcher=searcher), Objective("loss", "min"))
    first, second, prior, *others = trials(proposals(study, 6))
    assert first["params"] == whole and first["reason"] == "starting configuration 0"
    assert second["params"] == {"lr": 1e-3, "opt": "adam", "width": 24, "momentum": None, "fixed": 3}
    assert isinstance(second["params"]["width"], int)
    assert "priors or chance set 1 hyperparameters" in second["reason"]
    assert prior["params"]["lr"] == 1e-3 and prior["reason"] == "the expert's configuration"
    assert len(others) == 3


@pytest.mark.parametrize("searcher", ["ranks", "tpe", "random", "nsga2", "grid"])
@pytest.mark.parametrize("until", [1, 2, 4])
def test_search_that_is_resumed_proposes_what_the_uninterrupted_one_does(searcher, until):
    space = GRID if searcher == "grid" else SPACE
    config = configured([{"width": 32}, {"width": 16}], space, searcher=searcher, trials=4 if searcher == "grid" else 8)
    uninterrupted = proposals(Study(config, Objective("loss", "min")), 8)
    resumed = Study(config, Objective("loss", "min"), events=uninterrupted[: 2 * until])
    assert uninterrupted[: 2 * until] + proposals(resumed, 8) == uninterrupted


def test_grid_tries_each_point_once_the_starting_ones_first():
    study = Study(configured([{"width": 24}], GRID, searcher="grid", trials=None), Objective("loss", "min"))
    assert [event["params"]["width"] for event in trials(proposals(study, 9))] == [24, 8, 16, 32]


def test_starting_configuration_may_be_the_whole_configuration_of_a_trial():
    """Its hyperparameters without a value have None."""
    study = Study(configured(None), Objective("loss", "min"))
    for event in trials(proposals(study, 5)):
        again = Study(configured([event["params"]]), Objective("loss", "min")).propose()
        assert again is not None and again["params"] == event["params"]


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ([{}, {"lr": 5}], r"start\[1\]: lr: 5: must be a value of loguniform \[0.0001, 0.1\], prior 0.001"),
        ([{"lrr": 5}], r"start\[0\]: lrr: no such hyperparameter; did you mean 'lr'\? there are lr, opt, width"),
        ([{"width": 9}], r"start\[0\]: width: 9: must be a value of int \[8, 64\] step 8"),
        ([{"fixed": 4}], r"start\[0\]: fixed: 4: is fixed at 3"),
        ([{"opt": "adam", "momentum": 0.5}], r"momentum: 0.5: only exists as uniform \[0, 1\] when opt = sgd$"),
        ([{"momentum": 0.5}], r"only exists as uniform \[0, 1\] when opt = sgd; give opt too"),
        ([{}] * 9, "start: 9 starting configurations, and search.trials is 8"),
        ({"lr": 0.1}, r"start={'lr': 0.1}: input should be a valid list"),
        (["lr"], r"start=\['lr'\]: input should be a valid dictionary"),
    ],
)
def test_starting_configuration_that_does_not_fit_is_refused_with_its_place(start, message):
    with pytest.raises(InputError, match=message):
        configured(start)


def test_balanced_values_keep_their_turns():
    space = {"kind": {"choice": ["a", "b"]}, "lr": {"uniform": [0, 1]}}
    with pytest.raises(InputError, match=r"start\[1\]: kind: 'a': search.balance gives trial 1 'b'"):
        configured([{"kind": "a"}, {"kind": "a"}], space, balance="kind")
    study = Study(configured([{"lr": 0.5}, {"lr": 0.5}], space, balance="kind"), Objective("loss", "min"))
    assert [event["params"]["kind"] for event in trials(proposals(study, 3))] == ["a", "b", "a"]


def test_scheduler_ends_a_starting_configuration_and_not_the_one_of_the_priors():
    config = configured([{"lr": 0.05}], scheduler="asha", searcher="tpe", grace_period=1, epochs=9)
    study = Study(config, Objective("loss", "min"))
    for _ in range(5):
        study.apply(study.propose())
    for number, loss in ((2, 1.0), (3, 1.0), (4, 1.0), (0, 5.0), (1, 9.0)):
        events, decisions = study.report([TrialResult(number, 1, {"loss": loss, "val_loss": loss})])
        for event in events:
            study.apply(event)
        if number < 2:
            assert (decisions[number].kind == "stop") == (number == 0), decisions
