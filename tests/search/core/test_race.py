"""The race at the end of a time budget: which configuration trains again, and what its values change."""

import pytest

from search.core.decision import TrialResult
from search.core.program_config import loop_config
from search.core.study import Study
from search.core.time_plan import TimePlan
from search.reports import summary
from trainables import Objective

LOSS = Objective("loss", "min")
EPOCHS = 3


def study(**flags) -> Study:
    space = {"lr": {"uniform": [0, 1], "prior": 0.5}}
    given = {
        "search.epochs": EPOCHS,
        "search.scheduler": "asha",
        "search.grace_period": EPOCHS,
        "search.seed": 0,
        **flags,
    }
    config = loop_config("t", space, "loss min", given, (), "here")
    return Study(config, LOSS)


def applied(search: Study, *events):
    for event in events:
        search.apply({"time": 0, **event})
    return events[-1]


def train(search: Study, number: int, *losses: float, diverged: str | None = None) -> None:
    for epoch, loss in enumerate(losses, 1):
        result = TrialResult(number, epoch, {"val_loss": loss}, diverged if epoch == len(losses) else None)
        events, _ = search.report([result])
        applied(search, *events)


def with_trials(*values: float) -> Study:
    """A search whose trials have trained to the end with these losses; trial 0 has the configuration of the priors."""
    search = study()
    for number, loss in enumerate(values):
        applied(search, search.propose())
        train(search, number, *[loss] * EPOCHS)
        assert search.state.trials[number].outcome == "completed"
    return search


def rerun(search: Study, loss: float, **more) -> int:
    """Trains the next configuration of the race to this loss; returns the number of its first trial."""
    event = applied(search, search.propose())
    train(search, event["number"], *[loss] * EPOCHS, **more)
    return event["rerun_of"]


def test_without_a_race_nothing_trains_again():
    search = with_trials(0.4, 0.3, 0.2)
    assert search.next_rerun() is None
    assert "rerun_of" not in search.propose()


def test_best_three_and_the_configuration_of_the_priors_train_again_in_turn():
    search = with_trials(0.9, 0.1, 0.2, 0.3, 0.8)
    search.races = search.closed = True
    assert [rerun(search, loss) for loss in (0.5, 0.5, 0.5, 0.5, 0.5)] == [1, 2, 3, 0, 1]


def test_rerun_has_another_seed_and_the_same_values():
    search = with_trials(0.3, 0.1)
    search.races = search.closed = True
    event = applied(search, search.propose())
    first, again = search.state.trials[1], search.state.trials[event["number"]]
    assert again.params == first.params and again.seed != first.seed
    assert "trial 1" in event["reason"] and "another seed" in event["reason"]


def test_best_mean_wins_and_trials_that_did_not_race_follow():
    search = with_trials(0.5, 0.1, 0.2, 0.3, 0.31)
    assert search.state.best().number == 1
    search.races = search.closed = True
    assert [rerun(search, loss) for loss in (0.9, 0.2, 0.4, 0.5)] == [1, 2, 3, 0]
    assert [trial.number for trial in search.state.ranked()] == [2, 3, 0, 1, 4]
    assert search.state.finalists(1)[0][0].number == 2
    lines = summary.parts(search.state, search.config)
    assert "  mean over seeds (their number): trial 2 0.2000 (2), trial 3 0.3500 (2)" in "\n".join(map(str, lines))


def test_configuration_that_is_clearly_behind_leaves_the_race():
    search = with_trials(0.101, 0.1, 0.5)
    search.races = search.closed = True
    assert {rerun(search, loss) for loss in (0.102, 0.101, 0.5)} == {0, 1, 2}
    assert {rerun(search, 0.1 + n / 1000) for n in range(4)} == {0, 1}


def test_rerun_that_diverges_counts_as_the_worst():
    search = with_trials(0.2, 0.1)
    search.races = search.closed = True
    assert rerun(search, 0.1, diverged="loss is nan") == 1
    assert [trial.number for trial in search.state.ranked()] == [0, 1]
    assert search.next_rerun() is None, "one configuration is left"


def test_one_rerun_alone_is_compared_with_the_values_of_single_seeds():
    search = with_trials(0.25, 0.1, 0.2)
    search.races = search.closed = True
    assert rerun(search, 0.16) == 1
    assert search.state.best().number == 1
    search = with_trials(0.25, 0.1, 0.2)
    search.races = search.closed = True
    assert rerun(search, 0.9) == 1
    assert search.state.best().number == 2


def test_rerun_is_not_compared_and_the_searcher_does_not_see_it():
    search = with_trials(0.2, 0.1)
    rungs, told = search.rungs(), []
    search.searcher.tell = told.append
    search.races = search.closed = True
    event = applied(search, search.propose())
    events, decisions = search.report([TrialResult(event["number"], 1, {"val_loss": 9.0})])
    assert decisions[event["number"]].kind == "continue"
    applied(search, *events)
    for epoch in (2, EPOCHS):
        applied(search, *search.report([TrialResult(event["number"], epoch, {"val_loss": 9.0})])[0])
    assert search.rungs() == rungs and not told


def test_reruns_do_not_count_as_trials_of_the_search():
    search = study(**{"search.trials": 4})
    for number in range(2):
        applied(search, search.propose())
        train(search, number, *[0.1 * (number + 1)] * EPOCHS)
    search.races = True
    rerun(search, 0.1)
    assert search.total == 5 and search.has_more


def test_replay_of_a_race_gives_the_same_state():
    search, events = study(), []
    record = search.apply
    search.apply = lambda event: (events.append(event), record(event))[1]
    for number in range(3):
        applied(search, search.propose())
        train(search, number, *[0.1 * (number + 1)] * EPOCHS)
    search.races = search.closed = True
    for loss in (0.5, 0.2, 0.3):
        rerun(search, loss)
    again = Study(search.config, LOSS, events=events)
    again.races = again.closed = True
    assert again.propose() == search.propose()
    assert [t.number for t in again.state.ranked()] == [t.number for t in search.state.ranked()]


@pytest.mark.parametrize(("epoch_seconds", "seconds"), [(1, 90), (8, 144), (12, 216), (13, 0)])
def test_race_has_its_share_of_the_budget_or_is_not_held(epoch_seconds, seconds):
    """A tenth of 900 s, or more for four trainings of nine epochs on two workers, but a quarter at most."""
    plan = TimePlan(budget_seconds=900, full_trial_epochs=9, workers=2)
    assert plan.race_seconds(epoch_seconds, runs=4) == seconds
    assert TimePlan(budget_seconds=900, full_trial_epochs=9, retrain=False).race_seconds(1, 4) == 0
