"""What an earlier search found out, told to the searcher of a new one."""

import json
import math

import pytest

from search.algorithms.warm_start import from_search
from search.config.load import load_config
from search.config.space import parse_space
from search.engine.search import Search
from search.record.store import Store
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
    assert [t.params for t in again.searcher.study.trials] == [t.params for t in warm.searcher.study.trials]


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
