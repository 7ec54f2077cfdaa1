"""Proposes by Optuna's samplers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from search.core.config import SearchConfig
from search.core.feasibility import OutcomeLimit
from search.core.pareto import value_of
from search.core.searchers import priors
from search.core.searchers.base import Balance, Searcher, turn_of
from search.core.searchers.pace_model import PaceModel
from search.core.seeds import trial_seed
from search.core.space import Parameter, Plain, Space
from search.core.state import Trial
from trainables import Objective, Params

#: With a limit on the seconds of an epoch: draw at most this many configurations to find one within the limit.
DRAWS = 20
#: The same in a space with constraints. A draw takes 0.02 ms.
CONSTRAINED_DRAWS = 200


class OptunaSearcher(Searcher):
    """Proposes by a sampler of Optuna. A subclass makes the sampler, of Optuna itself or of OptunaHub.

    Optuna gets outcomes in its own terms. A stopped trial is PRUNED, with its intermediate values. A failed trial is
    FAIL. A diverged trial violates a constraint: samplers avoid its region, and it needs no invented value. Each limit
    on outcomes is a constraint too.

    >>> class CmaEsSearcher(OptunaSearcher):
    ...     def make_sampler(self, seed):
    ...         return self.optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=self.startup)
    """

    #: Whether the sampler models the results. Its cost then grows with their number: old trials are removed
    #: (`_forget`). A trial that continues after its result replaces that result.
    models = True
    #: Whether the sampler reads the intermediate values of a pruned trial, as TPE does. Other samplers get the best
    #: value of a stopped trial.
    takes_pruned = False
    #: Whether the sampler needs a value for a diverged trial. It then gets the worst value so far.
    needs_value = False
    #: Whether the sampler stores notes in a trial while it samples, as NSGA-II its generation. Then a replay samples
    #: too.
    writes_notes = False
    learns = True
    uses_priors = True

    def __init__(
        self, space: Space, objectives: Sequence[Objective], seed: int, startup_trials: int,
        model_trials: int, balance: Balance | None = None, limit: float | None = None,
        outcome_limits: Sequence[OutcomeLimit] = (),
    ) -> None:  # fmt: skip
        """
        Args:
            objectives: trials report the first each epoch, and it chooses their best epoch.
            startup_trials: number of random trials before the sampler models the objective.
            model_trials: the largest number of trials that the sampler models; see `_forget`.
            balance: a choice parameter whose values take turns.
            limit: seconds. Configurations whose epochs are predicted to take longer are not proposed.
            outcome_limits: the constraints of the sampler.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        #: The module `optuna`. Importing it takes half a second.
        self.optuna, self.balance = optuna, balance
        self._experts = priors.first_from_priors(space, len(balance[1]) if balance else 1)
        self.space, self.seed, self.startup = space, seed, startup_trials
        self.objective, self.objectives, self.model_trials = objectives[0], objectives, model_trials
        self._outcome_limits = outcome_limits
        self._directions = ["minimize" if objective.mode == "min" else "maximize" for objective in objectives]
        self.study = self._empty_study()
        self._asked: dict[int, Any] = {}
        self._limit = math.inf if limit is None else limit
        #: The configuration and the seconds of an epoch of each trial with results, by number.
        self._paces: dict[int, tuple[Params, float]] = {}

    @classmethod
    def from_config(cls, config: SearchConfig, objectives: Sequence[Objective]) -> OptunaSearcher:
        search = config.search
        return cls(
            config.space, objectives, search.seed, search.startup_trials, search.model_trials, config.turns,
            search.max_epoch_seconds, search.outcome_limits,
        )  # fmt: skip

    def make_sampler(self, seed: int) -> Any:
        """A new sampler. Its proposal must depend only on the seed and on the study."""
        raise NotImplementedError

    def _empty_study(self) -> Any:
        return self.optuna.create_study(directions=self._directions, sampler=self.optuna.samplers.RandomSampler(0))

    def ask(self, number: int) -> Params:
        self._forget()
        seed = trial_seed(self.seed, number)
        self.study.sampler = self.make_sampler(seed)
        turn = turn_of(self.balance, number)
        rng = np.random.default_rng(seed)
        pace = PaceModel(self.space, [] if math.isinf(self._limit) else list(self._paces.values()))
        self.source = self._model_in_words()
        values = self._from_priors(number, turn, rng, pace)
        trial, params = self._ask(turn | values)
        # Optuna's model does not predict seconds. A random draw that violates a constraint is drawn again.
        if not values and (pace.seconds(params) > self._limit or (self._is_random and self.space.violated(params))):
            self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
            trial, params = self._ask(turn | self._from_priors(number, turn, rng, pace, model=False))
        trial.set_user_attr("number", number)
        self._asked[number] = trial
        return params

    def _model_in_words(self) -> str:
        """The source of the next proposal in words, by the rule of Optuna's samplers."""
        if not self.models:
            return "drawn at random"
        name = type(self).__name__.removesuffix("Searcher").lower()
        results = self._results
        if not self._is_random:
            return f"chosen by {name}'s model of {results} results"
        return f"drawn at random, because {name}'s model needs {self.startup} results ({results} so far)"

    @property
    def _results(self) -> int:
        return sum(trial.state.is_finished() for trial in self._trials())

    @property
    def _is_random(self) -> bool:
        """Whether the sampler draws at random, by the rule of Optuna's samplers."""
        return not (self.models or self.writes_notes) or self._results < self.startup

    def _trials(self) -> list[Any]:
        """The trials of Optuna, without proposals that became no trials: a resumed search does not know these."""
        failed = self.optuna.trial.TrialState.FAIL
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if t.state != failed or t.user_attrs.get("number") is not None]

    def _ask(self, values: Params) -> tuple[Any, Params]:
        """Asks Optuna for a trial in which these parameters have these values."""
        if values:
            self._enqueue(values)
        trial = self.study.ask()
        if self.writes_notes:
            _ = trial.relative_params  # the first access samples
        return trial, self.space.sample(lambda parameter: suggest(trial, parameter))

    def _from_priors(
        self, number: int, turn: Params, rng: np.random.Generator, pace: PaceModel, model: bool = True
    ) -> Params:
        """Values from priors, near the best trial or at random; empty if the model proposes. See `priors`.

        Args:
            turn: the balanced parameter with its value for this trial. Trials with another value are ignored.
            pace: predicts seconds. It returns the first draw within the limit, or else the quickest. If none of the
                `DRAWS` draws near the best or from the priors is within the limit, `DRAWS` more are drawn uniformly.
                Draws that violate a constraint do not count.
            model: False: the model may not propose, as its proposal takes too long.
        """
        before = self.begins_at + self._experts
        if (winner := priors.winner(self.space, self.first, number, turn, rng, before)) is not None:
            self.source = "the best configuration of an earlier search"
            return self._searched(winner)
        if model and not (self.uses_priors and self._experts):
            return {}
        space = self.space.fix(turn)
        results = [t for t in self._trials() if t.state.is_finished() and self._rank(t)[0] < 2]
        configurations = [self._params(t) for t in sorted(results, key=self._rank)]
        ranked = [params for params in configurations if turn.items() <= params.items()]
        if number < before:
            params, self.source = priors.prior_configuration(space, rng), "the expert's configuration"
        else:
            source = priors.choose_source(space, ranked, rng)
            source = source if self._experts else "uniform"
            if source == "model" and model:
                return {}
            best = ranked[0] if source in ("best", "model") and ranked and self._experts else None
            self.source = (
                "drawn near the best result so far" if best is not None
                else "drawn from the priors" if source == "prior" else "drawn at random"
            )  # fmt: skip

            def draw() -> Params:
                if best is not None:
                    return priors.draw_near_best(space, best, rng)
                if source == "prior":
                    return priors.draw_from_prior(space, rng)
                return draw_anywhere()

            def draw_anywhere() -> Params:
                return space.sample(lambda parameter: priors.draw_uniform(parameter, rng))

            # If the best trial is far above the limit, no configuration near it may be within the limit.
            draws = CONSTRAINED_DRAWS if space.constraints else DRAWS
            near, anywhere = (draw() for _ in range(DRAWS)), (draw_anywhere() for _ in range(draws))
            allowed = (drawn for drawn in chain(near, anywhere) if not space.violated(drawn))
            params = pace.first_within(self._limit, allowed) or draw_anywhere()
        return self._searched(params)

    def _searched(self, params: Params) -> Params:
        """The values of the searched parameters of this space that exist in `params`."""
        searched = [p.name for p in self.space.parameters if p.searched and p.exists(params)]
        return {name: params[name] for name in searched if name in params}

    def _forget(self) -> None:
        """Removes old trials from the study, as the time of a proposal grows with their number.

        With 1.25 x `model_trials` trials it keeps `model_trials`: a quarter are the best (tpe calls at most 25 of them
        good), the others the newest. Trials without a result stay.
        """
        trials = self._trials()
        if not self.models or len(trials) < self.model_trials * 5 // 4:
            return
        over = [trial for trial in trials if trial.state.is_finished()]
        best = sorted(over, key=self._rank)[: self.model_trials // 4]
        modelled = {trial.number for trial in (*best, *over[len(best) - self.model_trials :])}
        self._rebuild([trial for trial in over if trial.number in modelled])

    def _take_back(self, number: int) -> bool:
        """Removes the result of a trial that continued after it (promoted, or given more epochs).

        Returns:
            Whether the trial can get a new result. Otherwise it was removed before, or the sampler has no model.
        """
        over = [t for t in self._trials() if t.state.is_finished()]
        old = next((t for t in over if t.user_attrs.get("number") == number), None)
        if old is None or not self.models:
            return False
        self._rebuild([t for t in over if t is not old])
        self._ask_for(number, self._params(old))
        return True

    def _rebuild(self, finished: list[Any]) -> None:
        """Makes a new study of these trials of Optuna and of the trials without a result."""
        waiting, self._asked = self._asked, {}
        self.study = self._empty_study()
        self.study.add_trials(finished)
        for number, trial in waiting.items():
            self._ask_for(number, self._params(trial))

    def _params(self, trial: Any) -> Params:
        """The searched parameters of a trial of Optuna. Optuna has the index of an ordered choice."""
        own = {p.name: p for p in self.space.parameters}
        return {name: _from_index(own[name], value) for name, value in trial.params.items()}

    def _enqueue(self, values: Params) -> None:
        own = {p.name: p for p in self.space.parameters}
        self.study.enqueue_trial({name: _to_index(own[name], value) for name, value in values.items()})

    def _rank(self, trial: Any) -> tuple[float, ...]:
        """A sort key in the order of tpe: complete trials by value, pruned trials by last epoch, infeasible trials."""
        states, sign = self.optuna.trial.TrialState, 1 if self.objective.mode == "min" else -1
        if any(violated > 0 for violated in trial.constraints.values()):
            return (3,)
        if trial.state == states.COMPLETE:
            return (0, sign * trial.values[0])
        if trial.state == states.PRUNED and trial.intermediate_values:
            last = max(trial.intermediate_values)
            return (1, -last, sign * trial.intermediate_values[last])
        return (2,)

    def replay(self, trial: Trial) -> None:
        self._forget()
        # Optuna suggests enqueued values unchanged. So the sampler matters only if it writes notes.
        seed = trial_seed(self.seed, trial.number) if trial.number >= 0 else 0
        self.study.sampler = self.make_sampler(seed) if self.writes_notes else self.optuna.samplers.RandomSampler(0)
        self._ask_for(trial.number, self._searched(trial.params))

    def _ask_for(self, number: int, values: Params) -> None:
        """Asks Optuna for a trial with these values of the searched parameters."""
        self._enqueue(values)
        self._asked[number] = asked = self.study.ask()
        asked.set_user_attr("number", number)
        if self.writes_notes:
            _ = asked.relative_params  # the first access samples
        for parameter in self.space.parameters:
            if parameter.name in values:
                suggest(asked, parameter)

    def withdraw(self, number: int) -> None:
        asked = self._asked.pop(number)
        asked.set_user_attr("number", None)
        self.study.tell(asked, state=self.optuna.trial.TrialState.FAIL)

    def tell(self, trial: Trial) -> None:
        if trial.curve:
            self._paces[trial.number] = trial.params, trial.epoch_seconds
        if trial.number not in self._asked and not self._take_back(trial.number):
            return
        asked, states = self._asked.pop(trial.number), self.optuna.trial.TrialState
        if trial.outcome == "failed" and not trial.can_win:
            self.study.tell(asked, state=states.FAIL)
            return
        self._constrain(asked, trial)
        if trial.outcome == "diverged" or (trial.outcome == "infeasible" and not trial.curve):
            self._tell_without_value(asked)
        elif trial.outcome != "completed" and (self._takes_pruned or not trial.curve):
            for epoch, metrics in trial.curve.items():
                asked.report(metrics[self.objective.key], epoch)
            self.study.tell(asked, state=states.PRUNED)
        else:
            self.study.tell(asked, [trial.best_value, *(value_of(trial, other) for other in self.objectives[1:])])

    @property
    def _takes_pruned(self) -> bool:
        """Whether the study has intermediate values. Optuna has none for several objectives."""
        return self.takes_pruned and len(self.objectives) == 1

    def _constrain(self, asked: Any, trial: Trial) -> None:
        """Sets the constraints of a trial, each above 0 where it is violated. All trials need the same constraints."""
        asked.set_constraint("diverged", float(trial.outcome == "diverged"))
        for limit in self._outcome_limits:
            asked.set_constraint(limit.metric, limit.excess(trial.judged) or 0.0)  # 0: not known

    def _tell_without_value(self, asked: Any) -> None:
        """Adds the result of a trial that diverged, or that is infeasible and has not trained.

        tpe accepts an infeasible trial without a value. gp needs a value at every point: it gets the worst feasible
        value so far. Its model of the constraint avoids the region.
        """
        states = self.optuna.trial.TrialState
        complete = [t for t in self.study.trials if t.state == states.COMPLETE] if self.needs_value else []
        values = [t.value for t in complete if t.constraints.get("diverged", 0) <= 0]
        if values:
            self.study.tell(asked, max(values) if self.objective.mode == "min" else min(values))
        else:
            self.study.tell(asked, state=states.PRUNED)


class TpeSearcher(OptunaSearcher):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate and with a constant liar."""

    takes_pruned = True
    several_objectives = True

    def make_sampler(self, seed: int) -> Any:
        return self.optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self.startup, multivariate=True, group=True, constant_liar=True
        )


class GpSearcher(OptunaSearcher):
    """Optuna's `GPSampler`: a Gaussian process with expected improvement."""

    needs_value = True

    def make_sampler(self, seed: int) -> Any:
        return self.optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.startup)


class RandomSearcher(OptunaSearcher):
    """Random draws, uniform on the scale of each parameter."""

    models = learns = uses_priors = False
    several_objectives = True

    def make_sampler(self, seed: int) -> Any:
        return self.optuna.samplers.RandomSampler(seed=seed)


class Nsga2Searcher(OptunaSearcher):
    """The genetic algorithm NSGA-II (Deb et al. 2002), whose generations have `startup_trials` trials."""

    models = learns = uses_priors = False
    several_objectives = True
    writes_notes = True

    def make_sampler(self, seed: int) -> Any:
        return self.optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, self.startup))

    def _model_in_words(self) -> str:
        return "made by the genetic operators of nsga2"


def suggest(trial: Any, parameter: Parameter) -> Any:
    """The value of a parameter that a trial of Optuna suggests."""
    name, low, high, log = parameter.name, parameter.low, parameter.high, parameter.is_log
    if parameter.kind == "int":
        return trial.suggest_int(name, int(low), int(high), step=int(parameter.step or 1), log=log)
    if (order := _order(parameter)) is not None:
        return order[trial.suggest_int(name, 0, len(order) - 1)]
    if parameter.kind == "choice":
        return trial.suggest_categorical(name, parameter.choices)
    return trial.suggest_float(name, low, high, step=parameter.step, log=log)


def _order(parameter: Parameter) -> Sequence[Plain] | None:
    """The values of an ordered choice; Optuna gets their indices. None for every other parameter."""
    return parameter.levels() if parameter.kind == "choice" and parameter.ordered else None


def _from_index(parameter: Parameter, value: Any) -> Any:
    order = _order(parameter)
    return value if order is None else order[value]


def _to_index(parameter: Parameter, value: Any) -> Any:
    order = _order(parameter)
    return value if order is None else priors.nearest(order, value)


def distribution(parameter: Parameter) -> Any:
    """Optuna's distribution of the values of a searched parameter. Optuna has no ordered choice."""
    from optuna import distributions

    low, high, log = parameter.low, parameter.high, parameter.is_log
    if parameter.kind == "int":
        return distributions.IntDistribution(int(low), int(high), step=int(parameter.step or 1), log=log)
    if parameter.kind == "choice":
        return distributions.CategoricalDistribution(parameter.choices)
    return distributions.FloatDistribution(low, high, step=parameter.step, log=log)
