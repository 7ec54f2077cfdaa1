"""Proposes by a model of the ranks of the trials' last losses; see `rank_model`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from search.core.config import SearchConfig
from search.core.feasibility import OutcomeLimit
from search.core.pareto import losses_of
from search.core.schedulers.rungs import Standings, first_reliable_rung, rung_epochs
from search.core.searchers import priors
from search.core.searchers.base import Balance, Searcher, turn_of
from search.core.searchers.encoding import Array, Encoding
from search.core.searchers.limit_model import LimitModel
from search.core.searchers.pace_model import PaceModel
from search.core.searchers.rank_model import (
    DECIMALS,
    RankModel,
    chebyshev,
    expected_improvement,
    normal_scores,
    order,
)
from search.core.space import Space
from search.core.state import Trial
from trainables import Objective, Params

#: The model chooses among DRAWN candidates from the whole space (plus DRAWN / 3 from the priors), and NEAR candidates
#: around each of the BEST best trials.
DRAWN, NEAR, BEST = 300, 60, 5
#: Standard deviations of the candidates around a trial, as shares of a parameter's range. Half of the candidates have
#: each deviation. Neither these values nor the three numbers above were measured.
SPREADS = (0.05, 0.2)
#: Then, `REFINEMENTS` times: REFINED candidates around each of the BEST best candidates, with smaller deviations. If
#: no trial stops early, refinements and `UNIFORM` together save 0.050 of the epochs of random search (95 %: 0.033 to
#: 0.067). That is the mean of 384 searches over the half of the tables for settings. Several sweeps over the length
#: scales save no more.
REFINEMENTS, REFINED = 2, 40
#: The model is fitted to at most this many trials: the best quarter, and the newest. A proposal takes 0.04 s of a core
#: with 50 trials, and 0.06 to 0.1 s with 200 or 600 (benchmark `proposals`, on a slow machine with other load).
MODELLED = 200
#: Share of proposals that are drawn uniformly from the whole space, in a space without priors. With 0.05 instead of 0.2
#: searches save 0.023 of random search's epochs (95 %: 0.003 to 0.043; 192 searches, as above).
UNIFORM = 0.05
#: Lower confidence bound: paused trials are ranked by `mean - OPTIMISM * deviation`, so that a trial with an uncertain
#: forecast continues sooner. With 0, trials that begin slowly were lost as often as by rank.
OPTIMISM = 2.0
#: Paused trials with at least this probability of being within the limits on outcomes come first. Not measured.
LIKELY = 0.5
#: Random draws for a proposal: the first that is new and within the limit on the seconds of an epoch is proposed.
QUICK = 20


#: The weight of each objective, with the sum 1; empty for one objective.
Weights = tuple[float, ...]


@cache
def _libraries() -> ThreadpoolController:
    """The thread pools of the linear algebra libraries. A proposal uses one thread: several threads would wait for the
    cores on which trials train, and take a hundred times as long."""
    import scipy.linalg  # noqa: F401, whose library is then among them

    return ThreadpoolController()


@dataclass(frozen=True)
class _Fitted:
    """A model of the ranks of the trials' last losses."""

    model: RankModel
    #: (trials, features): the configurations of the trials to which the model was fitted.
    features: Array
    #: The largest fidelity of these trials; see `RankSearcher._fidelity`.
    furthest: float
    #: The rows of `features` whose best forecast a proposal has to improve: those of trials within the limits.
    able: Array

    def at_the_end(self, features: Array) -> tuple[Array, Array]:
        """Mean (m,) and standard deviation (m,) of the scores at `furthest`, for configurations (m, features)."""
        return self.model.predict(np.column_stack([features, np.full(len(features), self.furthest)]))


class RankSearcher(Searcher):
    """Ranks the last losses of all trials together, and proposes the configuration with the best expected improvement.

    The epoch that a trial reached is an input of the model. So the model does not compare the loss of a stopped trial
    after 3 epochs directly with the loss of a complete trial after 80. Proposals are judged at the furthest epoch that
    any trial reached. A running trial counts with the median rank (a median liar), so that workers spread out. While a
    rung is unreliable (`first_reliable_rung`), the model leaves out trials that did not pass it.

    With several objectives each proposal draws a weight for each of them, and ranks one number for each trial: see
    `rank_model.chebyshev`. Each proposal so aims at another part of the front.
    """

    learns = True
    uses_priors = True
    several_objectives = True

    def __init__(
        self, space: Space, objective: Objective, seed: int, epochs: int, startup_trials: int,
        model_trials: int = MODELLED, balance: Balance | None = None, limit: float | None = None,
        rungs: Sequence[int] = (), outcome_limits: Sequence[OutcomeLimit] = (), further: Sequence[Objective] = (),
    ) -> None:  # fmt: skip
        """
        Args:
            epochs: the epochs of a complete trial.
            startup_trials: number of results before the model proposes.
            model_trials: the largest number of trials that the model is fitted to.
            balance: a choice parameter whose values take turns.
            limit: seconds. Configurations whose epochs are predicted to take longer are not proposed.
            rungs: the epochs at which the scheduler compares trials.
            outcome_limits: the expected improvement is multiplied by the probability of being within them.
            further: objectives beside `objective`.
        """
        self.space, self.objective, self.seed, self.epochs = space, objective, seed, epochs
        self.startup, self.model_trials, self.balance = startup_trials, min(model_trials, MODELLED), balance
        self._limit = math.inf if limit is None else limit
        self._encoding = Encoding(space)
        self._experts = priors.first_from_priors(space, len(balance[1]) if balance else 1)
        #: The configuration of each proposed trial, and the same as a row of the encoding.
        self._params: dict[int, Params] = {}
        self._rows: dict[int, Array] = {}
        self._objectives = (objective, *further)
        #: The last epoch of each trial with results, and its losses there, which are infinite if the trial diverged.
        self._last: dict[int, tuple[int, tuple[float, ...]]] = {}
        #: Trials that failed without a result.
        self._failed: set[int] = set()
        self._rungs, self._standings = rungs, Standings()
        self._within = LimitModel(outcome_limits, self._features, self._fidelity, self.model_trials)
        #: The configuration and the seconds of an epoch of each trial with results.
        self._paces: dict[int, tuple[Params, float]] = {}
        #: The model of the results so far; None until it is needed. The weights of the objectives, for which it holds.
        self._model: _Fitted | None = None
        self._weights: Weights = ()

    @classmethod
    def from_config(cls, config: SearchConfig, objectives: Sequence[Objective]) -> RankSearcher:
        search = config.search
        return cls(
            config.space, objectives[0], search.seed, search.epochs, search.startup_trials, search.model_trials,
            config.turns, search.max_epoch_seconds,
            rung_epochs(search.grace_period, search.reduction_factor, search.epochs), search.outcome_limits,
            objectives[1:],
        )  # fmt: skip

    def ask(self, number: int) -> Params:
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, number]))
        turn, before = turn_of(self.balance, number), self.begins_at + self._experts
        if number < before:
            self.source = "the expert's configuration"
            params = priors.prior_configuration(self.space.fix(turn), rng)
        elif (winner := priors.winner(self.space, self.first, number, turn, rng, before)) is not None:
            self.source, params = "the best configuration of an earlier search", winner
        else:
            rows = self._new(self._candidates(turn, rng))
            pace = PaceModel(self.space, [] if math.isinf(self._limit) else list(self._paces.values()))
            params = pace.first_within(self._limit, map(self._encoding.params, rows)) or {}
            assert params, "there is a candidate"
        self._add(number, params)
        return params

    def prefer(self, waiting: Sequence[int]) -> int | None:
        """The paused trial with the smallest lower confidence bound of its score at the end; see `OPTIMISM`.

        Returns:
            A number of `waiting`; None before there are `startup_trials` results.
        """
        weights = self._draw(np.random.default_rng(np.random.SeedSequence([self.seed, len(self._last), 1])))
        if len(results := self._usable(weights)) < self.startup:
            return None
        with _libraries().limit(limits=1):
            mean, deviation = self._fit(results).at_the_end(self._features(waiting))
            likely = self._within.probability(self._features(waiting)) >= LIKELY
        return waiting[int(np.lexsort((np.round(mean - OPTIMISM * deviation, DECIMALS), ~likely))[0])]

    def _candidates(self, turn: Params, rng: np.random.Generator) -> Array:
        """(`QUICK` or more, parameters): candidates, the most promising first."""
        weights = self._draw(rng)
        results = self._usable(weights)
        known = {n: results.get(n, (0, math.inf)) for n in [*results, *sorted(self._within.known - results.keys())]}
        own = [n for n in known if turn.items() <= self._params[n].items()]
        beyond = {n: self._within.rank(n) for n in own}
        ranked = sorted(own, key=lambda n: (math.isinf(known[n][1]) and not beyond[n], beyond[n], known[n][1], n))
        best = [self._params[n] for n in ranked if math.isfinite(known[n][1]) or beyond[n]]
        if self._experts:
            source = priors.choose_source(self.space.fix(turn), best, rng)
        else:
            source = "uniform" if rng.random() < UNIFORM else "model"
        if source in ("uniform", "prior"):
            self.source = "drawn from the priors" if source == "prior" else "drawn at random"
            return self._encoding.draw(rng, QUICK, turn, priors=source == "prior")
        if len(known) >= self.startup and best:
            named = ", ".join(f"{o.metric} {w:.2f}" for o, w in zip(self._objectives, weights, strict=False))
            self.source = f"chosen by the model of the ranks of {len(known)} results"
            self.source += f" with the weights {named}" if named else ""
            with _libraries().limit(limits=1):
                return self._by_improvement(self._fit(results) if results else None, ranked, turn, rng)
        if self._experts and best:
            self.source = "drawn near the best result so far"
            return self._encoding.near(rng, np.repeat([self._rows[ranked[0]]], QUICK, axis=0), priors.NEAR, turn)
        self.source = f"drawn at random, because the model needs {self.startup} results ({len(known)} so far)"
        if len(known) >= self.startup:
            self.source = "drawn at random, because no trial has a finite result"
        return self._encoding.draw(rng, QUICK, turn)

    def _draw(self, rng: np.random.Generator) -> Weights:
        """A weight for each objective, with the sum 1; empty for one objective, where nothing is drawn."""
        count = len(self._objectives)
        return tuple(rng.dirichlet(np.ones(count)).tolist()) if count > 1 else ()

    def _usable(self, weights: Weights) -> dict[int, tuple[int, float]]:
        """The last epoch and loss of each trial that diverged or reached the first reliable rung."""
        if weights != self._weights:
            self._weights, self._model = weights, None
        reliable = first_reliable_rung(self._rungs, self._standings)
        last = {n: (e, losses) for n, (e, losses) in self._last.items() if e >= reliable or math.isinf(losses[0])}
        if not weights or not last:
            return {n: (epoch, losses[0]) for n, (epoch, losses) in last.items()}
        together = chebyshev(np.array([losses for _, losses in last.values()]), np.array(weights))
        return {n: (last[n][0], loss) for n, loss in zip(last, together.tolist(), strict=True)}

    def _features(self, numbers: Sequence[int]) -> Array:
        return self._encoding.features(np.array([self._rows[n] for n in numbers]))

    def _fit(self, results: dict[int, tuple[int, float]]) -> _Fitted:
        """The model of the results of `_usable`, fitted once for each set of results."""
        if self._model is None:
            trials = list(results)
            if len(trials) > self.model_trials:
                best = sorted(trials, key=lambda n: (results[n][1], n))[: self.model_trials // 4]
                rest = sorted(set(trials) - set(best))
                trials = sorted({*best, *rest[len(best) - self.model_trials :]})
            running = [n for n in self._params if n not in self._last and n not in self._failed]
            features = self._features([*trials, *running])
            fidelities = self._fidelity(np.array([results[n][0] for n in trials] + [1] * len(running)))
            scores = normal_scores(np.array([results[n][1] for n in trials]))
            # A score of 0 is the median rank.
            model = RankModel.fit(
                np.column_stack([features, fidelities]), np.concatenate([scores, np.zeros(len(running))])
            )
            able = np.array([self._within.rank(n) == 0 for n in [*trials, *running]])
            self._model = _Fitted(model, features, float(fidelities[: len(trials)].max()), able)
        return self._model

    def _by_improvement(
        self, fitted: _Fitted | None, ranked: list[int], turn: Params, rng: np.random.Generator
    ) -> Array:
        """(candidates, parameters): candidates by their expected improvement, the largest first.

        Further candidates are drawn around the most promising ones. The expected improvement is multiplied by the
        probability that the candidate is within the limits on outcomes (Gardner et al. 2014). As long as no
        trial is within them, that probability alone counts.

        Args:
            fitted: None if no trial has trained.
            ranked: numbers of trials, the best first.
        """
        encoding = self._encoding
        drawn = [encoding.draw(rng, DRAWN, turn)]
        if self._experts:
            drawn.append(encoding.draw(rng, DRAWN // 3, turn, priors=True))
        centres = np.repeat([self._rows[n] for n in ranked[:BEST]], NEAR // len(SPREADS), axis=0)
        drawn += [encoding.near(rng, centres, spread, turn) for spread in SPREADS]
        candidates = np.concatenate(drawn)
        # None: no trial is within the limits, so only their probability counts.
        within = None if fitted is None or self._within.rank(ranked[0]) else fitted
        best = float(within.at_the_end(within.features[within.able])[0].min()) if within else 0.0

        def scores_of(rows: Array) -> Array:
            features = encoding.features(rows)
            probable = self._within.probability(features)
            if within is None:
                return probable
            mean, deviation = within.at_the_end(features)
            return expected_improvement(mean, deviation, best) * probable

        scores = scores_of(candidates)
        for refinement in range(1, REFINEMENTS + 1):
            centres = np.repeat(candidates[order(scores)[:BEST]], REFINED // len(SPREADS), axis=0)
            near = np.concatenate([encoding.near(rng, centres, spread / refinement, turn) for spread in SPREADS])
            candidates, scores = np.concatenate([candidates, near]), np.concatenate([scores, scores_of(near)])
        return candidates[order(scores)]

    def _new(self, rows: Array) -> Array:
        """The rows that were not proposed before, without repetitions; all rows if there are no new rows."""
        proposed = np.reshape(list(self._rows.values()), (-1, rows.shape[1]))
        both = np.nan_to_num(np.concatenate([proposed, rows]), nan=-1.0)
        _, first = np.unique(np.round(both, DECIMALS), axis=0, return_index=True)
        new = np.sort(first[first >= len(proposed)]) - len(proposed)
        return rows[new] if len(new) else rows

    def _fidelity(self, epochs: np.ndarray) -> Array:
        """log(epochs) / log(epochs of a complete trial): 0 after the first epoch, 1 at the end."""
        return np.log(np.maximum(epochs, 1)) / math.log(max(2, self.epochs))

    def _add(self, number: int, params: Params) -> None:
        self._params[number], self._rows[number], self._model = params, self._encoding.row(params), None

    def replay(self, trial: Trial) -> None:
        self._add(trial.number, trial.params)

    def tell(self, trial: Trial) -> None:
        self._model = None
        self._within.tell(trial)
        if trial.outcome == "diverged":
            self._standings.remove(trial.number)
        else:
            for epoch, metrics in trial.curve.items():
                self._standings.add(trial.number, epoch, losses_of(metrics, self._objectives))
        if trial.curve:
            self._paces[trial.number] = trial.params, trial.epoch_seconds
        if trial.outcome == "diverged":
            self._last[trial.number] = trial.epoch, (math.inf,) * len(self._objectives)
        elif not trial.curve:
            self._failed.add(trial.number)
        else:
            self._last[trial.number] = trial.epoch, losses_of(trial.curve[trial.epoch], self._objectives)
