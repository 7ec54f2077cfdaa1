"""Proposals from a model of the ranks of the trials' last losses; see `rank_model`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from search.core.config import SearchConfig
from search.core.schedulers.rungs import Losses, first_reliable_rung, rung_epochs
from search.core.searchers import priors
from search.core.searchers.base import Searcher
from search.core.searchers.encoding import Array, Encoding
from search.core.searchers.pace_model import PaceModel
from search.core.searchers.rank_model import DECIMALS, RankModel, expected_improvement, normal_scores, order
from search.core.space import Plain, Space
from search.core.state import Trial
from trainables import Objective, Params

#: The model chooses among DRAWN candidates from the whole space (plus DRAWN / 3 from the priors), and NEAR candidates
#: around each of the BEST best trials.
DRAWN, NEAR, BEST = 300, 60, 5
#: Standard deviations of the candidates around a trial, as shares of a parameter's range.
SPREADS = (0.05, 0.2)
#: The model is fitted to at most this many trials: the best quarter, and the newest.
MODELLED = 200
#: Share of proposals that are drawn from the whole space, in a space without priors.
UNIFORM = 0.2
#: Lower confidence bound: paused trials are ranked by `mean - OPTIMISM * deviation`, so that a trial with an uncertain
#: forecast continues sooner. With 0, trials that begin slowly were lost as often as by rank.
OPTIMISM = 2.0
#: The first of this many new candidates is proposed whose epochs do not take too long.
QUICK = 20


@cache
def _libraries() -> ThreadpoolController:
    """The linear algebra of this process. With threads of its own it would wait for cores on which trials train, and
    take a hundred times as long."""
    return ThreadpoolController()


@dataclass(frozen=True)
class _Known:
    """A model of the ranks of what trials have shown last."""

    model: RankModel
    #: (trials, features) of the configurations that it was fitted to.
    features: Array
    #: How far the furthest of them came.
    furthest: float

    def at_the_end(self, features: Array) -> tuple[Array, Array]:
        """Mean and standard deviation (m,) of the scores that configurations (m, features) would have there."""
        return self.model.predict(np.column_stack([features, np.full(len(features), self.furthest)]))


class RankSearcher(Searcher):
    """Ranks the last losses of all trials together, and proposes where the rank is expected to improve most.

    The epoch that a trial reached is an input of the model. So the model does not compare the loss of a stopped trial
    after 3 epochs directly with the loss of a complete trial after 80. Proposals are judged at the furthest epoch that
    any trial reached. A running trial counts with the median rank (a median liar), so that workers spread out. While a
    rung is unreliable (`first_reliable_rung`), the model leaves out trials that did not pass it.
    """

    learns = True
    uses_priors = True

    def __init__(
        self, space: Space, objective: Objective, seed: int, epochs: int, startup_trials: int,
        model_trials: int = MODELLED, balance: tuple[str, tuple[Plain, ...]] | None = None, limit: float | None = None,
        rungs: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """
        Args:
            epochs: of a complete trial.
            startup_trials: so many have a result before the model is asked.
            model_trials: most trials that the model is fitted to.
            balance: a choice parameter and its values, which trials take in turn instead of sampling it.
            limit: seconds of an epoch; configurations that are predicted to take longer are not proposed.
            rungs: epochs after which trials are compared.
        """
        self.space, self.objective, self.seed, self.epochs = space, objective, seed, epochs
        self.startup, self.model_trials, self.balance = startup_trials, min(model_trials, MODELLED), balance
        self._limit = math.inf if limit is None else limit
        self._encoding = Encoding(space)
        self._experts = priors.first_from_priors(space, len(balance[1]) if balance else 1)
        #: Every trial that was asked for, also as a row of the encoding; what those that were told have shown last, at
        #: which epoch and the loss, which is infinite where one diverged; those that failed and say nothing.
        self._params: dict[int, Params] = {}
        self._rows: dict[int, Array] = {}
        self._shown: dict[int, tuple[int, float]] = {}
        self._failed: set[int] = set()
        self._rungs, self._losses = rungs, Losses()
        self._paces: dict[int, tuple[Params, float]] = {}
        #: The model of what is known now; None until it is asked.
        self._known: _Known | None = None
        self._first: Sequence[Params] = ()

    @classmethod
    def from_config(cls, config: SearchConfig, objectives: Sequence[Objective]) -> RankSearcher:
        search = config.search
        return cls(
            config.space, objectives[0], search.seed, search.epochs, search.startup_trials, search.model_trials,
            config.turns, search.max_epoch_seconds,
            rung_epochs(search.grace_period, search.reduction_factor, search.epochs),
        )  # fmt: skip

    def ask(self, number: int) -> Params:
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, number]))
        turn = {} if self.balance is None else {self.balance[0]: self.balance[1][number % len(self.balance[1])]}
        if number < self._experts:
            self.source = "what an expert would try first"
            params = priors.prior_configuration(self.space.fix(turn), rng)
        elif (winner := priors.winner(self.space, self._first, number, turn, rng, self._experts)) is not None:
            self.source, params = "the best of an earlier search", winner
        else:
            params = self._quickest(self._fresh(self._candidates(turn, rng))[:QUICK])
        self._take(number, params)
        return params

    def prefer(self, waiting: Sequence[int]) -> int | None:
        """The paused trial that may come out best in the end: by what the model expects, and by how unsure it is.

        Returns:
            None before there are as many results as the model starts from.
        """
        if len(told := self._telling()) < self.startup:
            return None
        with _libraries().limit(limits=1):
            known = self._fitted(told)
            mean, deviation = known.at_the_end(self._features(waiting))
        return waiting[int(np.argmin(np.round(mean - OPTIMISM * deviation, DECIMALS)))]

    def _candidates(self, turn: Params, rng: np.random.Generator) -> Array:
        """(QUICK or more, parameters): rows of which the first is proposed that is new and does not take too long."""
        told = self._telling()
        ranked = sorted((n for n in told if self._is_turn(n, turn)), key=lambda n: (told[n][1], n))
        best = [self._params[n] for n in ranked if math.isfinite(told[n][1])]
        if self._experts:
            source = priors.choose_source(self.space.fix(turn), best, rng)
        else:
            source = "uniform" if rng.random() < UNIFORM else "model"
        if source in ("uniform", "prior"):
            self.source = "the priors" if source == "prior" else "chance"
            return self._encoding.draw(rng, QUICK, turn, priors=source == "prior")
        if len(told) >= self.startup and best:
            self.source = f"the model of the ranks of {len(told)} results"
            with _libraries().limit(limits=1):
                return self._by_improvement(self._fitted(told), ranked, turn, rng)
        if self._experts and best:
            self.source = "the neighbourhood of the best result so far"
            return self._encoding.near(rng, np.repeat([self._rows[ranked[0]]], QUICK, axis=0), priors.NEAR, turn)
        self.source = f"chance, as the model starts from {self.startup} results"
        return self._encoding.draw(rng, QUICK, turn)

    def _telling(self) -> dict[int, tuple[int, float]]:
        """What trials have shown last, as far as it says something of how they would end."""
        since = first_reliable_rung(self._rungs, self._losses)
        return {n: (epoch, loss) for n, (epoch, loss) in self._shown.items() if epoch >= since or math.isinf(loss)}

    def _features(self, numbers: Sequence[int]) -> Array:
        return self._encoding.features(np.array([self._rows[n] for n in numbers]))

    def _fitted(self, told: dict[int, tuple[int, float]]) -> _Known:
        """The model of the results so far, those of `_telling`."""
        if self._known is None:
            known = list(told)
            if len(known) > self.model_trials:
                best = sorted(known, key=lambda n: (told[n][1], n))[: self.model_trials // 4]
                rest = sorted(set(known) - set(best))
                known = sorted({*best, *rest[len(best) - self.model_trials :]})
            running = [n for n in self._params if n not in self._shown and n not in self._failed]
            x = self._features([*known, *running])
            come = self._fidelity(np.array([told[n][0] for n in known] + [1] * len(running)))
            scores = normal_scores(np.array([told[n][1] for n in known]))
            model = RankModel.fit(np.column_stack([x, come]), np.concatenate([scores, np.zeros(len(running))]))
            self._known = _Known(model, x, float(come[: len(known)].max()))
        return self._known

    def _by_improvement(self, known: _Known, ranked: list[int], turn: Params, rng: np.random.Generator) -> Array:
        encoding = self._encoding
        drawn = [encoding.draw(rng, DRAWN, turn)]
        if self._experts:
            drawn.append(encoding.draw(rng, DRAWN // 3, turn, priors=True))
        centres = np.repeat([self._rows[n] for n in ranked[:BEST]], NEAR // len(SPREADS), axis=0)
        drawn += [encoding.near(rng, centres, spread, turn) for spread in SPREADS]
        candidates = np.concatenate(drawn)
        mean, deviation = known.at_the_end(encoding.features(candidates))
        best = float(known.at_the_end(known.features)[0].min())
        return candidates[order(expected_improvement(mean, deviation, best))]

    def _fresh(self, rows: Array) -> Array:
        """The rows that were not proposed before, each once; all of them if there are none."""
        before = np.reshape(list(self._rows.values()), (-1, rows.shape[1]))
        both = np.nan_to_num(np.concatenate([before, rows]), nan=-1.0)
        _, first = np.unique(np.round(both, DECIMALS), axis=0, return_index=True)
        kept = np.sort(first[first >= len(before)]) - len(before)
        return rows[kept] if len(kept) else rows

    def _fidelity(self, epochs: np.ndarray) -> Array:
        """How far a trial has come, from 0 after an epoch to 1 at its end, on a logarithmic scale."""
        return np.log(np.maximum(epochs, 1)) / math.log(max(2, self.epochs))

    def _is_turn(self, number: int, turn: Params) -> bool:
        return turn.items() <= self._params[number].items()

    def _quickest(self, rows: Array) -> Params:
        """The first of the rows that is not predicted to take too long, else the one that takes least."""
        if math.isinf(self._limit):
            return self._encoding.params(rows[0])
        pace = PaceModel(self.space, list(self._paces.values()))
        drawn = [self._encoding.params(row) for row in rows]
        return next((one for one in drawn if pace.seconds(one) <= self._limit), min(drawn, key=pace.seconds))

    def _take(self, number: int, params: Params) -> None:
        self._params[number], self._rows[number], self._known = params, self._encoding.row(params), None

    def replay(self, trial: Trial) -> None:
        self._take(trial.number, trial.params)

    def learn(self, trials: list[Trial], first: Sequence[Params] = ()) -> None:
        self._first = first
        super().learn(trials, first)

    def tell(self, trial: Trial) -> None:
        self._known = None
        for epoch, metrics in trial.curve.items():
            losses = self._losses.setdefault(epoch, {})
            if trial.outcome == "diverged":
                losses.pop(trial.number, None)
            else:
                losses[trial.number] = self.objective.val_loss(metrics)
        if trial.curve:
            self._paces[trial.number] = trial.params, trial.seconds / trial.epoch
        if trial.outcome == "diverged":
            self._shown[trial.number] = trial.epoch, math.inf
        elif not trial.curve:
            self._failed.add(trial.number)
        else:
            self._shown[trial.number] = trial.epoch, self.objective.val_loss(trial.curve[trial.epoch])
