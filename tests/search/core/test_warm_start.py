"""What an earlier search found out, told to the searcher of a new one."""

import json
import math

import numpy as np
import pytest

from search.core.config import load_config
from search.core.searchers import priors
from search.core.space import parse_space
from search.core.store import Store
from search.core.warm_start import as_trials, from_all, from_search
from search.runtime.search import Search
from trainables.base.errors import InputError


def test_earlier_trials_are_learned_from(tmp_path):
    """Ten trials that say where the optimum is take the place of the random ones, and the first guesses are near it."""

    def searched(name: str, warm=None, sets=()):
        search = Search(load_config("rnn", ["search.balance=null", "search.epochs=4", *sets]), store.search(name))
        search.record({"event": "session"})
        if warm:
            search.record(warm)
        for _ in range(12):
            trial = search.propose()
            loss = abs(math.log(trial.params["lr"]) - math.log(0.004))
            results = [
                {"number": trial.number, "epoch": e, "metrics": {"val_mse": loss, "epoch_seconds": 1.0},
                 "diverged": None, "checkpoint": None} for e in (1, 2, 3, 4)
            ]  # fmt: skip
            for one in results:
                if search.report([one], "cpu"):
                    break
        search.end("finished")
        return search

    store = Store(tmp_path)
    earlier = searched("earlier", sets=["search.seed=5"])
    description = {"task": "rnn", "config": earlier.config.raw, "place": "x", "fingerprint": "abc"}
    (earlier.folder.path / "search.json").write_text(json.dumps(description))
    config = load_config("rnn", ["search.balance=null", "search.epochs=4", "lr={loguniform: [1e-3, 1e-1]}"])
    event, said = from_search(store, "earlier", config, "abc")
    assert "finished trials of earlier taken" in said[0]
    warm = searched("warm", event, ["lr={loguniform: [1e-3, 1e-1]}"])
    cold = searched("cold", None, ["lr={loguniform: [1e-3, 1e-1]}"])

    def first(search):
        losses = [abs(math.log(t.params["lr"]) - math.log(0.004)) for t in search.state.trials.values()]
        return sum(losses[:6]) / 6

    assert first(warm) < first(cold)
    again = Search(warm.config, warm.folder)  # a resume replays what was learned
    again.journal.close()
    assert [t.params for t in again.study.searcher.study.trials] == [t.params for t in warm.study.searcher.study.trials]


def test_earlier_trials_tell_where_the_limits_on_outcomes_are(tmp_path):
    store, sets = Store(tmp_path), ["search.balance=null", "search.epochs=1", "search.searcher=ranks"]
    earlier = Search(load_config("rnn", sets), store.search("earlier"))
    earlier.record({"event": "session"})
    for number in range(8):
        trial = earlier.propose()
        metrics = {"val_mse": 1 / (1 + number), "epoch_seconds": 1.0, "parameters": 1000.0 * number}
        report = {"number": number, "epoch": 1, "metrics": metrics, "diverged": None, "checkpoint": None}
        earlier.report([report], "cpu")
    earlier.end("finished")
    description = {"task": "rnn", "config": earlier.config.raw, "place": "x", "fingerprint": "abc"}
    (earlier.folder.path / "search.json").write_text(json.dumps(description))
    config = load_config("rnn", [*sets, "search.limits.parameters=<= 4500"])
    event, _ = from_search(store, "earlier", config, "abc")
    assert event["first"] == [earlier.state.trials[4].params], "trial 7 is better, and beyond the limit"
    assert [one["figures"]["parameters"] for one in event["trials"]] == [1000.0 * number for number in range(8)]
    trials = as_trials(event, earlier.objective, config.search.outcome_limits)
    assert [trial.can_win for trial in trials] == [True] * 5 + [False] * 3
    free, _ = from_search(store, "earlier", load_config("rnn", sets), "abc")
    assert free["first"] == [earlier.state.trials[7].params] and "figures" not in free["trials"][0]
    assert trial.number == 7


def test_value_from_elsewhere_is_allowed_where_it_could_have_been_drawn():
    space = parse_space(
        {"lr": {"loguniform": [0.01, 0.1]}, "opt": {"choice": ["sgd"]}, "n": {"int": [2, 8], "step": 2}}, "x"
    )
    allowed = {p.name: p.allows for p in space.parameters}
    assert allowed["lr"](0.05) and not allowed["lr"](0.2) and not allowed["lr"]("sgd")
    assert allowed["opt"]("sgd") and not allowed["opt"]("adam")
    assert allowed["n"](4) and not allowed["n"](3) and not allowed["n"](True)


def test_what_cannot_be_learned_from_is_refused_with_the_reason(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(InputError, match="the random searcher learns nothing"):
        from_search(store, "earlier", load_config("rnn", ["search.searcher=random"]), "abc")
    with pytest.raises(InputError, match="earlier: no search of that name"):
        from_search(store, "earlier", load_config("rnn"), "abc")


def finished_in(store, name, lr, created, task="rnn"):
    """A finished search whose best trial has this learning rate."""
    search = Search(load_config(task, ["search.epochs=1", f"lr={lr}"]), store.search(name))
    search.record({"event": "session"})
    trial = search.propose()
    metric = f"val_{search.objective.metric}"
    search.report(
        [{"number": trial.number, "epoch": 1, "metrics": {metric: 0.5, "epoch_seconds": 1.0}, "diverged": None,
          "checkpoint": None}], "cpu",
    )  # fmt: skip
    search.end("finished")
    about = {"task": task, "config": search.config.raw, "place": "x", "fingerprint": name, "created": created}
    (search.folder.path / "search.json").write_text(json.dumps(about))


@pytest.mark.parametrize("searcher", ["tpe", "ranks"])
def test_winners_of_all_earlier_searches_are_tried_first_the_newest_before_others(tmp_path, searcher):
    store = Store(tmp_path)
    assert from_all(store, load_config("rnn"))[0] is None
    for created, (name, lr) in enumerate({"a": 0.002, "b": 0.003, "c": 0.004, "d": 0.005, "e": 0.005}.items()):
        finished_in(store, name, lr, created)
    finished_in(store, "other", 0.007, 9, "windows")
    config = load_config("rnn", ["search.balance=null", f"search.searcher={searcher}"])
    event, said = from_all(store, config)
    assert [params["lr"] for params in event["first"]] == [0.005, 0.004, 0.003]
    assert said == ["warm start: the best configurations of e, c, b are tried first"]
    search = Search(config, store.search("new"))
    search.record({"event": "session"}, event)
    before = int(any(p.has_prior for p in config.space.parameters))
    asked = [search.propose().params for _ in range(before + 4)]
    assert [params["lr"] for params in asked[before:-1]] == [0.005, 0.004, 0.003]
    assert asked[-1]["lr"] not in (0.005, 0.004, 0.003)
    search.journal.close()
    again = Search(config, store.search("new"))
    again.journal.close()
    assert again.study.searcher.ask(before + 4) == search.study.searcher.ask(before + 4)


def test_value_that_a_winner_lacks_or_that_lies_outside_is_the_priors(tmp_path):
    space = parse_space({"lr": {"loguniform": [1e-3, 1e-1], "prior": 1e-2}, "width": {"int": [8, 64]}}, "x")
    rng = np.random.default_rng(0)
    made = priors.winner(space, [{"lr": 0.5, "width": 16}], 1, {}, rng, 1)
    assert made == {"lr": 1e-2, "width": 16}
    assert priors.winner(space, [{"lr": 0.5}], 0, {}, rng, 1) is None, "the priors' own comes before"
    assert priors.winner(space, [{"lr": 0.5}], 2, {}, rng, 1) is None
