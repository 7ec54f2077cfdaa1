"""Proposals from a model of the ranks of what trials have shown; see `rank_model`."""

from __future__ import annotations

import math

import numpy as np

from search.algorithms import priors
from search.algorithms.encoding import Array, Encoding
from search.algorithms.pace_model import PaceModel
from search.algorithms.rank_model import RankModel, expected_improvement, normal_scores, order
from search.config.space import Plain, Space
from search.record.state import Trial
from trainables import Objective, Params

#: Configurations that the model chooses from: drawn from the whole space, and near each of the best trials.
DRAWN, NEAR, BEST = 300, 60, 5
#: Standard deviations of what is drawn near them, in units of a range.
SPREADS = (0.05, 0.2)
#: Trials that the model is fitted to, at most: the best quarter, and the newest.
MODELLED = 200
#: Candidates among which one is looked for whose epochs do not take too long.
QUICK = 20


class RankSearcher:
    """Ranks in one pot what every trial has shown last, and proposes where the rank is expected to improve most.

    Trials that run count as if they were to come out in the middle (a median liar), so that workers spread out.
    """

    def __init__(
        self, space: Space, objective: Objective, seed: int, startup_trials: int, model_trials: int = MODELLED,
        balance: tuple[str, tuple[Plain, ...]] | None = None, limit: float | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            startup_trials: so many have a result before the model is asked.
            model_trials: most trials that the model is fitted to.
            balance: a choice parameter and its values, which trials take in turn instead of sampling it.
            limit: seconds of an epoch; configurations that are predicted to take longer are not proposed.
        """
        self.space, self.objective, self.seed, self.startup = space, objective, seed, startup_trials
        self.model_trials, self.balance = min(model_trials, MODELLED), balance
        self._limit = math.inf if limit is None else limit
        self._encoding = Encoding(space)
        self._rows: dict[int, Array] = {}
        #: What each told trial has shown last, infinite where it diverged; NaN where it failed.
        self._losses: dict[int, float] = {}
        self._paces: dict[int, tuple[Params, float]] = {}
        self.source = ""

    def ask(self, number: int) -> Params:
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, number]))
        turn = {} if self.balance is None else {self.balance[0]: self.balance[1][number % len(self.balance[1])]}
        pace = PaceModel(self.space, [] if math.isinf(self._limit) else list(self._paces.values()))
        params = self._propose(number, turn, rng, pace)
        self._rows[number] = self._encoding.row(params)
        return params

    def _propose(self, number: int, turn: Params, rng: np.random.Generator, pace: PaceModel) -> Params:
        has_priors = any(p.has_prior for p in self.space.parameters)
        if has_priors and number < (len(self.balance[1]) if self.balance else 1):
            self.source = "what an expert would try first"
            return priors.prior_configuration(self.space.fix(turn), rng)
        known = [n for n, loss in self._losses.items() if not math.isnan(loss)]
        if len(known) < self.startup or not np.isfinite([self._losses[n] for n in known]).any():
            self.source = f"{'the priors' if has_priors else 'chance'}, as the model starts from {self.startup} results"
            return self._quickest(self._encoding.draw(rng, QUICK, turn, has_priors), pace)
        self.source = f"the model of the ranks of {len(known)} results"
        return self._quickest(self._candidates(known, turn, rng, has_priors), pace)

    def _candidates(self, known: list[int], turn: Params, rng: np.random.Generator, has_priors: bool) -> Array:
        """Configurations by expected improvement, the best first."""
        ranked = sorted(known, key=lambda n: (self._losses[n], n))
        if len(known) > self.model_trials:
            best = ranked[: self.model_trials // 4]
            known = sorted({*best, *sorted(set(known) - set(best))[len(best) - self.model_trials :]})
        scores = normal_scores(np.array([self._losses[n] for n in known]))
        running = [n for n in self._rows if n not in self._losses]
        rows = np.array([self._rows[n] for n in [*known, *running]])
        model = RankModel.fit(self._encoding.features(rows), np.concatenate([scores, np.zeros(len(running))]))
        drawn = [self._encoding.draw(rng, DRAWN, turn)]
        if has_priors:
            drawn.append(self._encoding.draw(rng, DRAWN // 3, turn, priors=True))
        centres = np.repeat([self._rows[n] for n in ranked[:BEST]], NEAR // len(SPREADS), axis=0)
        drawn += [self._encoding.near(rng, centres, spread, turn) for spread in SPREADS]
        candidates = np.concatenate(drawn)
        mean, deviation = model.predict(self._encoding.features(candidates))
        incumbent = float(model.predict(model.x)[0].min())
        return candidates[order(expected_improvement(mean, deviation, incumbent))[:QUICK]]

    def _quickest(self, rows: Array, pace: PaceModel) -> Params:
        """The first of the rows that is not predicted to take too long, else the one that takes least."""
        if math.isinf(self._limit):
            return self._encoding.params(rows[0])
        drawn = [self._encoding.params(row) for row in rows]
        return next((one for one in drawn if pace.seconds(one) <= self._limit), min(drawn, key=pace.seconds))

    def replay(self, trial: Trial) -> None:
        self._rows[trial.number] = self._encoding.row(trial.params)

    def learn(self, trials: list[Trial]) -> None:
        for trial in trials:
            self.replay(trial)
            self.tell(trial)

    def tell(self, trial: Trial) -> None:
        if trial.curve:
            self._paces[trial.number] = trial.params, trial.seconds / trial.epoch
        loss = math.nan
        if trial.outcome == "diverged":
            loss = math.inf
        elif trial.curve and trial.outcome != "failed":
            loss = self.objective.val_loss(trial.curve[trial.epoch])
        self._losses[trial.number] = loss
