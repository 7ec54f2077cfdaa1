import math

import pytest

from search.core.config import load_config
from search.core.registry import SEARCHERS
from search.core.searchers import make_searcher, searcher_note
from search.core.searchers.base import Searcher
from search.core.searchers.optuna_searcher import TpeSearcher
from search.core.seeds import trial_seed
from search.core.space import parse_space
from search.core.state import Trial
from trainables.base.task import Objective

SPACE = parse_space(
    {"lr": {"loguniform": [1e-4, 1e-1]}, "opt": {"choice": ["sgd", "adam"]}, "width": {"int": [8, 64], "step": 8},
     "momentum": {"uniform": [0, 1], "when": {"opt": "sgd"}}, "fixed": 3}, "x.yaml",
)  # fmt: skip


def searcher(kind: str, model_trials: int = 1000) -> Searcher:
    objectives = [Objective("loss", "min"), Objective("size", "min")][: 2 if kind == "nsga2" else 1]
    return SEARCHERS.get(kind)(SPACE, objectives, seed=1, startup_trials=3, model_trials=model_trials)


def finish(number: int, params: dict) -> Trial:
    """A trial with an outcome and a loss that follow from its number and configuration."""
    trial = Trial(number, params, trial_seed(1, number))
    loss = abs(params["lr"] - 0.01) + params["width"] / 100
    trial.curve = {1: {"val_loss": loss + 1, "size": 0.0}, 2: {"val_loss": loss, "size": float(params["width"] % 24)}}
    trial.outcome = ("completed", "stopped_early", "completed", "diverged", "completed", "failed")[number % 6]
    trial.best_epoch, trial.best_value = 2, loss
    return trial


def ask_and_tell(search: Searcher, numbers: range) -> list[dict]:
    configurations = []
    for number in numbers:
        configurations.append(search.ask(number))
        search.tell(finish(number, configurations[-1]))
    return configurations


def replayed(search, configurations):
    """A searcher that was told these trials by a replay."""
    for number, params in enumerate(configurations):
        trial = finish(number, params)
        search.replay(trial)
        search.tell(trial)
    return search


@pytest.mark.parametrize(("kind", "told", "count"), [("tpe", 9, 14), ("random", 9, 14), ("gp", 4, 5), ("nsga2", 9, 14)])
def test_replayed_searcher_proposes_what_the_uninterrupted_one_does(kind, told, count):
    """gp, whose proposals take longest, models the fourth and the fifth trial. The fourth diverged."""
    uninterrupted = ask_and_tell(searcher(kind), range(count))
    resumed = replayed(searcher(kind), uninterrupted[:told])
    assert ask_and_tell(resumed, range(told, count)) == uninterrupted[told:]


def test_what_is_modelled_is_bounded_and_keeps_the_best_the_newest_and_what_is_asked_for():
    search = searcher("tpe", model_trials=20)
    told = []
    for number in range(40):
        told.append(finish(number, search.ask(number)))
        search.tell(told[-1])
        assert len(search.study.trials) <= 25
    waiting = [search.ask(number) for number in range(40, 50)]
    known = [trial.params for trial in search.study.trials]
    complete = sorted((t for t in told if t.outcome == "completed"), key=lambda t: t.best_value)
    for trial in (*complete[:5], *told[-5:]):
        assert {k: v for k, v in trial.params.items() if k != "fixed" and v is not None} in known
    for number, params in enumerate(waiting, 40):
        search.tell(finish(number, params))
    assert not search._asked, "those asked for before and after were told"


def test_replayed_searcher_forgets_what_the_uninterrupted_one_did():
    uninterrupted = ask_and_tell(searcher("tpe", 20), range(36))
    resumed = replayed(searcher("tpe", 20), uninterrupted[:28])
    assert ask_and_tell(resumed, range(28, 36)) == uninterrupted[28:]


def test_nsga2_breeds_from_the_front():
    params = ask_and_tell(searcher("nsga2"), range(60))
    late = params[30:]
    assert len({(p["width"], p["opt"]) for p in late}) < len({(p["width"], p["opt"]) for p in params})
    assert sum(p["width"] % 24 + p["width"] for p in late) < sum(p["width"] % 24 + p["width"] for p in params[:30])


def test_replay_with_trials_still_running():
    live, resumed = searcher("tpe"), searcher("tpe")
    asked = [live.ask(n) for n in range(6)]
    for number in (0, 2, 3, 4):
        live.tell(finish(number, asked[number]))
    for number in range(6):
        resumed.replay(finish(number, asked[number]))
    for number in (0, 2, 3, 4):
        resumed.tell(finish(number, asked[number]))
    assert resumed.ask(6) == live.ask(6)


def test_configurations_keep_to_the_space():
    for params in ask_and_tell(searcher("tpe"), range(20)):
        assert set(params) == {"lr", "opt", "width", "momentum", "fixed"}
        assert 1e-4 <= params["lr"] <= 1e-1
        assert params["width"] % 8 == 0
        assert (params["momentum"] is None) == (params["opt"] == "adam")
        assert params["fixed"] == 3


def test_diverged_trials_are_told_as_infeasible_not_as_numbers():
    import optuna

    search = searcher("tpe")
    ask_and_tell(search, range(6))
    told = search.study.trials
    assert told[3].constraints == {"diverged": 1.0}
    assert told[3].value is None
    assert told[1].state == optuna.trial.TrialState.PRUNED
    assert told[1].intermediate_values.keys() == {1, 2}
    assert told[5].state == optuna.trial.TrialState.PRUNED, "a failed trial's epochs say as much as a stopped one's"
    assert told[5].intermediate_values.keys() == {1, 2}
    search.tell(Trial(6, search.ask(6), 0, outcome="failed"))
    assert search.study.trials[6].state == optuna.trial.TrialState.FAIL


def test_tpe_avoids_a_region_that_diverges():
    space = parse_space({"lr": {"loguniform": [1e-4, 1e2]}}, "x.yaml")
    search = TpeSearcher(space, [Objective("loss", "min")], seed=0, startup_trials=8, model_trials=1000)
    late = []
    for number in range(40):
        params = search.ask(number)
        trial = Trial(number, params, 0, 0)
        diverged = params["lr"] > 1
        trial.outcome = "diverged" if diverged else "completed"
        trial.best_value = None if diverged else abs(math.log10(params["lr"]) + 2)
        search.tell(trial)
        late += [diverged] if number >= 20 else []
    assert sum(late) < len(late) / 4


GRID = ["search.searcher=grid", "lr={choice: [0.1, 0.2, 0.3, 0.4]}", "dropout={choice: [0.0, 0.1, 0.2, 0.3]}"]
FIXED = [
    "variant=vanilla", "keep=last", "align=end", "hidden=16", "layers=1", "activation=tanh", "init=uniform",
    "optimizer=adam", "weight_decay=0.1", "clip_norm=1.0", "batch_size=32", "search.balance=null",
]  # fmt: skip


def grid_of(trials: int | None) -> tuple[list[tuple[float, float]], str | None]:
    """The 16 points that a search of `trials` trials tries, as (lr, dropout), and its note."""
    config = load_config("rnn", GRID + FIXED, {"search.trials": trials or 16})
    grid, total = make_searcher(config, Objective("mse", "min"))
    tried = [grid.ask(number) for number in range(int(total))]
    return [(params["lr"], params["dropout"]) for params in tried], searcher_note(config)


def test_grid_with_fewer_trials_than_points_spreads_them_and_says_so():
    tried, note = grid_of(8)
    assert len(set(tried)) == 8
    assert len({lr for lr, _ in tried}) >= 3, "the first eight points in order have two values of lr"
    assert note == "the grid has 16 points, of which the search tries 8 in random order (--trials 16 tries all)"


def test_grid_with_a_trial_for_each_point_keeps_the_order_of_the_file():
    tried, note = grid_of(16)
    assert tried == sorted(tried, key=lambda point: (point[1], point[0])) and len(set(tried)) == 16
    assert note is None


def test_grid_that_is_given_more_trials_tries_the_points_that_are_left():
    config = load_config("rnn", GRID + FIXED, {"search.trials": 8})
    first, _ = make_searcher(config, Objective("mse", "min"))
    tried = [first.ask(number) for number in range(8)]
    more, _ = make_searcher(load_config("rnn", GRID + FIXED, {"search.trials": 16}), Objective("mse", "min"))
    for number, params in enumerate(tried):
        more.replay(Trial(number, params, 0))
    tried += [more.ask(number) for number in range(8, 16)]
    assert len({(params["lr"], params["dropout"]) for params in tried}) == 16
