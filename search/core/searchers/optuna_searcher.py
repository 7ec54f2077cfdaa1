"""Proposals from Optuna's samplers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from search.core.config import SearchConfig
from search.core.pareto import value_of
from search.core.searchers import priors
from search.core.searchers.base import Searcher
from search.core.searchers.pace_model import PaceModel
from search.core.seeds import trial_seed
from search.core.space import Parameter, Plain, Space
from search.core.state import Trial
from trainables import Objective, Params

#: Draws among which one is looked for whose epochs do not take too long.
DRAWS = 20


class OptunaSearcher(Searcher):
    """Proposes by a sampler of Optuna. A subclass makes the sampler, of Optuna itself or of OptunaHub.

    Optuna is told outcomes in its own terms. A stopped trial is pruned, with its intermediate values. A failed trial
    has failed. A diverged trial violates a constraint, so that samplers avoid its region without a made-up value.

    >>> class CmaEsSearcher(OptunaSearcher):
    ...     def make_sampler(self, seed):
    ...         return self.optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=self.startup)
    """

    #: Whether the sampler models the trials that it was told. Its cost then grows with their number, so old trials are
    #: forgotten (`_forget`), and a trial that continued after it was told is told again.
    models = True
    #: Whether the sampler takes a pruned trial with its intermediate values, as TPE does. Other samplers are told the
    #: best value of a stopped trial.
    takes_pruned = False
    #: Whether the sampler needs a value for a trial that diverged. It gets the worst value so far.
    needs_value = False
    #: Whether the sampler writes notes on a trial while it samples, such as NSGA-II its generation. A replay then
    #: samples too.
    writes_notes = False
    learns = True
    uses_priors = True

    def __init__(
        self, space: Space, objectives: Sequence[Objective], seed: int, startup_trials: int,
        model_trials: int, balance: tuple[str, tuple[Plain, ...]] | None = None, limit: float | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            objectives: the first is what trials report each epoch and what their best epoch is chosen by.
            startup_trials: trials that are sampled at random before the sampler models the objective.
            model_trials: most trials that the sampler models; see `_forget`.
            balance: a choice parameter and its values, which trials take in turn instead of sampling it.
            limit: seconds of an epoch; configurations that are predicted to take longer are not proposed.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        #: The module, which takes half a second to import.
        self.optuna, self.balance = optuna, balance
        self._experts = priors.first_from_priors(space, len(balance[1]) if balance else 1)
        self.space, self.seed, self.startup = space, seed, startup_trials
        self.objective, self.objectives, self.model_trials = objectives[0], objectives, model_trials
        self._directions = ["minimize" if objective.mode == "min" else "maximize" for objective in objectives]
        self.study = self._empty_study()
        self._asked: dict[int, Any] = {}
        self._limit = math.inf if limit is None else limit
        #: Configuration and seconds of an epoch of each told trial, by number.
        self._paces: dict[int, tuple[Params, float]] = {}
        self._first: Sequence[Params] = ()

    @classmethod
    def from_config(cls, config: SearchConfig, objectives: Sequence[Objective]) -> OptunaSearcher:
        search = config.search
        return cls(
            config.space, objectives, search.seed, search.startup_trials, search.model_trials, config.turns,
            search.max_epoch_seconds,
        )  # fmt: skip

    def make_sampler(self, seed: int) -> Any:
        """A new sampler; a proposal must depend on its seed and on the study alone."""
        raise NotImplementedError

    def _empty_study(self) -> Any:
        return self.optuna.create_study(directions=self._directions, sampler=self.optuna.samplers.RandomSampler(0))

    def ask(self, number: int) -> Params:
        self._forget()
        seed = trial_seed(self.seed, number)
        self.study.sampler = self.make_sampler(seed)
        turn = {} if self.balance is None else {self.balance[0]: self.balance[1][number % len(self.balance[1])]}
        rng = np.random.default_rng(seed)
        pace = PaceModel(self.space, [] if math.isinf(self._limit) else list(self._paces.values()))
        self.source = self._model_in_words()
        values = self._from_priors(number, turn, rng, pace)
        trial, params = self._ask(turn | values)
        if not values and pace.seconds(params) > self._limit:  # of the model, which knows nothing of time
            self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
            trial, params = self._ask(turn | self._from_priors(number, turn, rng, pace, model=False))
        trial.set_user_attr("number", number)
        self._asked[number] = trial
        return params

    def _model_in_words(self) -> str:
        """What the sampler draws from, as Optuna's samplers decide it."""
        if not self.models:
            return "chance"
        name = type(self).__name__.removesuffix("Searcher").lower()
        results = sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))
        if results >= self.startup:
            return f"{name}'s model of {results} results"
        return f"chance, as {name} has a model from {self.startup} results on"

    def _ask(self, values: Params) -> tuple[Any, Params]:
        """Asks Optuna for a trial in which these parameters have these values."""
        if values:
            self.study.enqueue_trial(values)
        trial = self.study.ask()
        return trial, self.space.sample(lambda parameter: suggest(trial, parameter))

    def _from_priors(
        self, number: int, turn: Params, rng: np.random.Generator, pace: PaceModel, model: bool = True
    ) -> Params:
        """Values that do not come from the model, but from priors, the best trial or at random; see `priors`.

        Args:
            turn: the balanced parameter with the value whose turn it is; trials of other values do not count.
            pace: of several draws the first is taken that is not predicted to take too long, else the quickest.
            model: False where the model's proposal would take too long: then there always are values.
        """
        if (winner := priors.winner(self.space, self._first, number, turn, rng, self._experts)) is not None:
            self.source = "the best of an earlier search"
            return self._searched(winner)
        if model and not (self.uses_priors and self._experts):
            return {}
        space = self.space.fix(turn)
        told = [t for t in self.study.get_trials(deepcopy=False) if t.state.is_finished() and self._rank(t)[0] < 2]
        mine = [t for t in told if turn.items() <= t.params.items()]
        ranked = [t.params for t in sorted(mine, key=self._rank)]
        if number < self._experts:
            params, self.source = priors.prior_configuration(space, rng), "what an expert would try first"
        else:
            source = priors.choose_source(space, ranked, rng)
            if source == "model" and model:
                return {}
            best = ranked[0] if source in ("best", "model") and ranked and self._experts else None
            self.source = (
                "the neighbourhood of the best result so far" if best is not None
                else "the priors" if source == "prior" else "chance"
            )  # fmt: skip
            drawn: list[Params] = []
            while len(drawn) < DRAWS:
                drawn.append(
                    priors.draw_near_best(space, best, rng) if best is not None
                    else priors.draw_from_prior(space, rng) if source == "prior"
                    else space.sample(lambda parameter: priors.draw_uniform(parameter, rng))
                )  # fmt: skip
                if pace.seconds(drawn[-1]) <= self._limit:
                    break
            params = drawn[-1] if pace.seconds(drawn[-1]) <= self._limit else min(drawn, key=pace.seconds)
        return self._searched(params)

    def _searched(self, params: Params) -> Params:
        return {p.name: params[p.name] for p in self.space.parameters if p.searched and p.exists(params)}

    def learn(self, trials: list[Trial], first: Sequence[Params] = ()) -> None:
        """Takes in another search's trials, which are numbered below zero; parameters of other spaces are left out."""
        self._first = first
        super().learn(trials, first)

    def _forget(self) -> None:
        """Bounds the cost of a proposal, which grows with the number of trials in the model.

        Once there are a quarter more than `model_trials`, only `model_trials` are kept: a quarter of them the best, of
        which tpe calls at most 25 good, the others the newest. Trials that were asked for and not told yet stay.
        """
        trials = self.study.get_trials(deepcopy=False)
        if not self.models or len(trials) < self.model_trials * 5 // 4:
            return
        over = [trial for trial in trials if trial.state.is_finished()]
        best = sorted(over, key=self._rank)[: self.model_trials // 4]
        kept = {trial.number for trial in (*best, *over[len(best) - self.model_trials :])}
        self._rebuild([trial for trial in over if trial.number in kept])

    def _take_back(self, number: int) -> bool:
        """Asks again for a trial that was told and has gone on since (promoted, or given more epochs).

        Returns:
            Whether it can be told anew: it may be forgotten, and samplers without a model keep what they were told.
        """
        over = [t for t in self.study.get_trials(deepcopy=False) if t.state.is_finished()]
        told = next((t for t in over if t.user_attrs.get("number") == number), None)
        if told is None or not self.models:
            return False
        self._rebuild([t for t in over if t is not told])
        self._ask_for(number, told.params)
        return True

    def _rebuild(self, told: list[Any]) -> None:
        """Makes a new study of these trials and of those that are asked for and not told yet."""
        asked, self._asked = self._asked, {}
        self.study = self._empty_study()
        self.study.add_trials(told)
        for number, one in asked.items():
            self._ask_for(number, one.params)

    def _rank(self, trial: Any) -> tuple[float, ...]:
        """A sort key in tpe's order: complete trials by value, pruned by last epoch, infeasible last."""
        states, sign = self.optuna.trial.TrialState, 1 if self.objective.mode == "min" else -1
        if any(violated > 0 for violated in trial.constraints.values()):
            return (3,)
        if trial.state == states.COMPLETE:
            return (0, sign * trial.value)
        if trial.state == states.PRUNED and trial.intermediate_values:
            last = max(trial.intermediate_values)
            return (1, -last, sign * trial.intermediate_values[last])
        return (2,)

    def replay(self, trial: Trial) -> None:
        self._forget()
        # Enqueued values are suggested as they stand, so the sampler matters only where it writes notes.
        seed = trial_seed(self.seed, trial.number) if trial.number >= 0 else 0
        self.study.sampler = self.make_sampler(seed) if self.writes_notes else self.optuna.samplers.RandomSampler(0)
        had = [p for p in self.space.parameters if p.searched and p.name in trial.params and p.exists(trial.params)]
        self._ask_for(trial.number, {p.name: trial.params[p.name] for p in had})

    def _ask_for(self, number: int, values: Params) -> None:
        """Asks Optuna for a trial with these values of the searched parameters."""
        self.study.enqueue_trial(values)
        self._asked[number] = asked = self.study.ask()
        asked.set_user_attr("number", number)
        if self.writes_notes:
            _ = asked.relative_params  # worked out when it is first read
        for parameter in self.space.parameters:
            if parameter.name in values:
                suggest(asked, parameter)

    def withdraw(self, number: int) -> None:
        self.study.tell(self._asked.pop(number), state=self.optuna.trial.TrialState.FAIL)

    def tell(self, trial: Trial) -> None:
        if trial.curve:
            self._paces[trial.number] = trial.params, trial.seconds / trial.epoch
        if trial.number not in self._asked and not self._take_back(trial.number):
            return
        asked, states = self._asked.pop(trial.number), self.optuna.trial.TrialState
        if trial.outcome == "failed" and not trial.can_win:
            self.study.tell(asked, state=states.FAIL)
        elif trial.outcome == "diverged":
            asked.set_constraint("diverged", 1.0)
            self._tell_diverged(asked)
        elif trial.outcome != "completed" and (self.takes_pruned or not trial.curve):
            for epoch, metrics in trial.curve.items():
                asked.report(metrics[self.objective.key], epoch)
            asked.set_constraint("diverged", 0.0)
            self.study.tell(asked, state=states.PRUNED)
        else:
            asked.set_constraint("diverged", 0.0)
            self.study.tell(asked, [trial.best_value, *(value_of(trial, other) for other in self.objectives[1:])])

    def _tell_diverged(self, asked: Any) -> None:
        """Tells a diverged trial. tpe takes an infeasible trial without a value. gp's model needs a value at every
        point: it gets the worst feasible one so far, and the constraint's own model keeps the region out."""
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

    def make_sampler(self, seed: int) -> Any:
        return self.optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self.startup, multivariate=True, group=True, constant_liar=True
        )


class GpSearcher(OptunaSearcher):
    """A Gaussian process with expected improvement, as Optuna's `GPSampler` has it."""

    needs_value = True

    def make_sampler(self, seed: int) -> Any:
        return self.optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.startup)


class RandomSearcher(OptunaSearcher):
    """Random draws, on each parameter's own scale."""

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
        return "the genetic operators of nsga2"


def suggest(trial: Any, parameter: Parameter) -> Any:
    """Asks a trial of Optuna for the value of a parameter."""
    if parameter.kind == "int":
        return trial.suggest_int(parameter.name, int(parameter.low), int(parameter.high), step=parameter.step)
    if parameter.kind == "choice":
        return trial.suggest_categorical(parameter.name, parameter.choices)
    return trial.suggest_float(parameter.name, parameter.low, parameter.high, log=parameter.kind == "loguniform")


def distribution(parameter: Parameter) -> Any:
    """The distribution in Optuna of a searched parameter."""
    from optuna import distributions

    if parameter.kind == "int":
        return distributions.IntDistribution(int(parameter.low), int(parameter.high), step=parameter.step)
    if parameter.kind == "choice":
        return distributions.CategoricalDistribution(parameter.choices)
    return distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.kind == "loguniform")
