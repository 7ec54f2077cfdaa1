"""The model of ranks: what it makes of results, and that a proposal is a function of what was told."""

import math

import numpy as np
import pytest

from search.core.searchers.encoding import Encoding
from search.core.searchers.rank_model import RankModel, chebyshev, expected_improvement, normal_scores, order
from search.core.searchers.rank_searcher import MODELLED, RankSearcher
from search.core.space import parse_space
from search.core.state import Trial
from trainables import Objective

OBJECTIVE = Objective("loss", "min")
SPACE = parse_space(
    {"lr": {"loguniform": [1e-4, 1e-1]}, "opt": {"choice": ["sgd", "adam", None]}, "width": {"int": [8, 64], "step": 8},
     "momentum": {"uniform": [0, 1], "when": {"opt": "sgd"}}, "wide": {"choice": [1, 2], "when": {"width": [56, 64]}},
     "fixed": 3}, "x.yaml",
)  # fmt: skip


def searcher(seed=1, space=SPACE, **more):
    return RankSearcher(space, OBJECTIVE, seed, epochs=16, startup_trials=4, **more)


def told(number, params, epochs=None, outcome=None):
    """A trial that follows from its number and configuration: some stop early, one of nine diverges, one fails."""
    epochs = epochs or (1, 4, 16)[number % 3]
    trial = Trial(number, params, 0)
    for epoch in range(1, epochs + 1):
        loss = abs(math.log10(params["lr"]) + 2.5) + params["width"] / 100 + 1 / epoch
        trial.take(epoch, {"val_loss": loss, "epoch_seconds": float(params["width"])}, OBJECTIVE)
    trial.outcome = outcome or {4: "diverged", 7: "failed"}.get(number % 9, "completed" if epochs == 16 else "paused")
    return trial


def ask_and_tell(search, numbers):
    asked = []
    for number in numbers:
        asked.append(search.ask(number))
        search.tell(told(number, asked[-1]))
    return asked


def test_rows_stand_for_configurations_and_back():
    encoding, rng = Encoding(SPACE), np.random.default_rng(0)
    rows = encoding.draw(rng, 200, {})
    rows = np.concatenate([rows, encoding.near(rng, rows, 0.1, {}), encoding.draw(rng, 50, {"opt": None}, priors=True)])
    for row in rows:
        params = encoding.params(row)
        assert list(params) == ["lr", "opt", "width", "momentum", "wide", "fixed"] and params["fixed"] == 3
        for parameter in SPACE.parameters:
            value = params[parameter.name]
            assert parameter.allows(value) if parameter.exists(params) else value is None
        np.testing.assert_allclose(encoding.row(params), row, atol=1e-12)
    assert all(encoding.params(row)["opt"] is None for row in rows[-50:])
    drawn = [encoding.params(row) for row in rows[:200]]
    assert {p["width"] for p in drawn} == set(range(8, 65, 8)) and {p["opt"] for p in drawn} == {"sgd", "adam", None}


def test_features_tell_choices_apart_and_what_does_not_exist():
    encoding = Encoding(SPACE)
    given = {"lr": 1e-4, "width": 8, "momentum": None, "wide": None, "fixed": 3}
    one, other = encoding.features(np.array([encoding.row({**given, "opt": o}) for o in ("adam", None)]))
    assert np.linalg.norm(one - other) == pytest.approx(1)


def test_scores_are_those_of_a_normal_distribution_and_do_not_mind_outliers():
    scores = normal_scores(np.array([3.0, 1.0, 2.0, np.inf, np.inf]))
    assert scores[1] == pytest.approx(-1.2816, abs=1e-4)  # the quantile of a tenth
    assert scores[3] == scores[4] and scores[2] < scores[0] == pytest.approx(0.0, abs=1e-12)


def test_norm_of_several_losses_by_hand():
    losses = np.array([[0.0, 30.0], [1.0, 20.0], [2.0, 10.0], [3.0, 1e9], [np.inf, np.inf], [2.0, np.inf]])
    scaled = np.array([[0.0, 4 / 3], [2 / 3, 2 / 3], [4 / 3, 0.0], [2.0, 4.0]])  # medians 1.5 and 25
    weights = np.array([0.25, 0.75])
    expected = (weights * scaled).max(1) + 0.05 * (weights * scaled).sum(1)
    norms = chebyshev(losses, weights)
    np.testing.assert_allclose(norms[:4], expected)
    assert np.isinf(norms[4]) and norms[5] == pytest.approx(3 + 0.05 * (0.25 * 4 / 3 + 3)), "missing: as bad as can be"
    assert np.isinf(chebyshev(losses[4:5], weights)).all()
    assert chebyshev(np.ones((3, 2)), weights).tolist() == [0.0] * 3


@pytest.mark.parametrize("place", range(4))
def test_each_trial_of_a_hollow_front_has_weights_with_which_it_is_the_best(place):
    front = np.array([[0.0, 3.0], [1.9, 2.5], [2.5, 1.9], [3.0, 0.0]])  # no weighted sum chooses the two in the middle
    best = {int(chebyshev(front, np.array([w, 1 - w])).argmin()) for w in np.linspace(0.01, 0.99, 99)}
    assert place in best


def test_model_finds_what_matters_and_is_sure_where_it_was_told():
    rng = np.random.default_rng(0)
    x = rng.random((80, 3))
    model = RankModel.fit(x, normal_scores((x[:, 1] - 0.3) ** 2))
    assert model.scales[1] < min(model.scales[0], model.scales[2])
    mean, deviation = model.predict(np.array([[0.5, 0.3, 0.5], [0.5, 0.95, 0.5], [9.0, 9.0, 9.0]]))
    assert mean[0] < -0.8 < 0.8 < mean[1]
    assert deviation[0] < deviation[2]


def test_improvement_is_that_of_sampling():
    rng = np.random.default_rng(0)
    drawn = np.maximum(0, 0.2 - rng.normal(0.5, 0.7, 2_000_000)).mean()
    assert expected_improvement(np.array([0.5]), np.array([0.7]), 0.2)[0] == pytest.approx(drawn, rel=0.01)


def test_scores_that_differ_by_rounding_alone_keep_their_order():
    assert list(order(np.array([0.3, 0.3 + 1e-12, 0.1, 0.5]))) == [3, 0, 1, 2]
    assert list(order(np.zeros(3))) == [0, 1, 2]


def test_replayed_searcher_proposes_what_the_uninterrupted_one_does():
    whole = ask_and_tell(searcher(), range(30))
    resumed = searcher()
    for number, params in enumerate(whole[:17]):
        resumed.replay(told(number, params))
        resumed.tell(told(number, params))
    assert ask_and_tell(resumed, range(17, 30)) == whole[17:]


def test_trial_that_goes_on_after_a_pause_is_told_again():
    search = searcher()
    asked = ask_and_tell(search, range(12))
    search.tell(told(3, asked[3], epochs=16))
    resumed = searcher()
    for number, params in enumerate(asked):
        resumed.replay(told(number, params))
        resumed.tell(told(number, params))
    resumed.tell(told(3, asked[3], epochs=16))
    assert search.ask(12) == resumed.ask(12)


def test_it_comes_closer_than_chance():
    seeds = range(4)
    best = [min(told(n, p, 16, "completed").best_value for n, p in enumerate(ask_and_tell(searcher(s), range(25))))
            for s in seeds]  # fmt: skip
    rows = [Encoding(SPACE).draw(np.random.default_rng(s), 25, {}) for s in seeds]
    chance = [min(told(0, Encoding(SPACE).params(row), 16, "completed").best_value for row in drawn) for drawn in rows]
    assert np.mean(best) < np.mean(chance)


def test_stopped_trials_are_not_held_to_be_as_bad_as_their_last_epoch_looks():
    """Of two widths one is better at every epoch, but only the other has been trained to the end."""
    space = parse_space({"x": {"uniform": [0, 1]}}, "x.yaml")
    search = RankSearcher(space, OBJECTIVE, 0, epochs=16, startup_trials=4)
    for number, x in enumerate(np.linspace(0, 1, 24)):
        trial = Trial(number, {"x": float(x)}, 0, outcome="paused")
        for epoch in range(1, (17 if x > 0.5 and number % 2 else 2)):
            trial.take(epoch, {"val_loss": (x > 0.5) * 0.2 + 2 / epoch}, OBJECTIVE)
        search.replay(trial)
        search.tell(trial)
    asked = [search.ask(number)["x"] for number in range(24, 44)]
    assert np.mean(np.array(asked) < 0.5) > 0.5


def test_balanced_values_take_turns():
    search = searcher(balance=("opt", ("sgd", "adam", None)))
    asked = ask_and_tell(search, range(18))
    assert [params["opt"] for params in asked] == ["sgd", "adam", None] * 6


def test_no_configuration_is_proposed_twice_while_the_model_has_others():
    space = parse_space({"a": {"choice": [1, 2, 3]}, "b": {"choice": [1, 2, 3, 4]}}, "x.yaml")
    search, asked = searcher(space=space), []
    for number in range(14):
        asked.append(search.ask(number))
        trial = Trial(number, asked[-1], 0, outcome="completed")
        trial.take(1, {"val_loss": abs(asked[-1]["a"] - 2.0) + asked[-1]["b"], "epoch_seconds": 1.0}, OBJECTIVE)
        search.tell(trial)
    assert len({tuple(params.values()) for params in asked[:8]}) == 8
    assert len({tuple(params.values()) for params in asked}) == 12, "all there are; only then some again"


def test_what_would_take_too_long_is_not_proposed():
    search = searcher(limit=30.0)
    asked = ask_and_tell(search, range(40))
    assert np.mean([params["width"] <= 32 for params in asked[10:]]) > 0.9


@pytest.mark.parametrize(("limit", "modelled"), [(1000, MODELLED), (60, 60)])
def test_model_is_fitted_to_the_best_quarter_and_the_newest_trials(monkeypatch, limit, modelled):
    """So a proposal takes no longer with 300 trials; the benchmark `proposals` measures it."""
    search, rows = searcher(model_trials=limit), Encoding(SPACE).draw(np.random.default_rng(0), 300, {})
    for number, row in enumerate(rows):
        trial = Trial(number, Encoding(SPACE).params(row), 0, outcome="paused")
        trial.take(1, {"val_loss": abs(number - 50.0), "epoch_seconds": 1.0}, OBJECTIVE)
        search.replay(trial)
        search.tell(trial)
    fitted, fit = [], RankModel.fit
    monkeypatch.setattr(RankModel, "fit", lambda x, y: fitted.append(x) or fit(x, y))
    search.ask(300)
    best = sorted(range(300), key=lambda n: (abs(n - 50.0), n))[: modelled // 4]
    newest = [n for n in range(300) if n not in best][len(best) - modelled :]
    expected = Encoding(SPACE).features(rows[sorted([*best, *newest])])
    assert len(expected) == modelled
    np.testing.assert_allclose(fitted[0][:, :-1], expected, atol=1e-12)


def crossing(number, lr, epochs):
    """A trial whose loss falls the slower and the further the smaller its rate is."""
    trial = Trial(number, {"lr": lr}, 0)
    slowness = -math.log10(lr)  # 1 to 4
    for epoch in range(1, epochs + 1):
        loss = slowness if epoch == 1 else slowness - (slowness - 0.9) * epoch / 6
        trial.take(epoch, {"val_loss": loss, "epoch_seconds": 1.0}, OBJECTIVE)
    trial.outcome = "completed" if epochs == 16 else "paused"
    return trial


def test_a_trial_that_begins_slowly_is_preferred_once_such_ones_were_seen_to_come_out_well():
    space = parse_space({"lr": {"loguniform": [1e-4, 1e-1]}}, "x.yaml")
    rates = 10 ** np.random.default_rng(0).uniform(-4, -1, 16)

    def knowing(complete):
        """A searcher that was told 16 trials, of which so many are complete, and two more: 16 begins better than 17."""
        search = searcher(space=space)
        for number, lr in enumerate([*rates, 9e-2, 2e-4]):
            trial = crossing(number, float(lr), 16 if number < complete else 1)
            search.replay(trial)
            search.tell(trial)
        return search

    search = knowing(complete=8)
    assert search.prefer([16, 17]) == 17
    assert search.ask(18) == knowing(complete=8).ask(18), "a preference changes nothing"
    assert knowing(complete=0).prefer([16, 17]) == 16, "by what was seen, as nothing came further"
    assert searcher(space=space).prefer([1, 2]) is None, "before there are results"
