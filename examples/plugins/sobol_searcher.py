"""A searcher around one of Optuna's samplers: a quasi-random Sobol sequence. A sampler of OptunaHub goes the same way:

sampler = optunahub.load_module("samplers/auto_sampler").AutoSampler(seed=seed)
"""

from typing import Any

from search.core.searchers.optuna_searcher import OptunaSearcher


class SobolSearcher(OptunaSearcher):
    """Points of a Sobol sequence (Sobol 1967), which cover the space more evenly than random draws."""

    models = learns = uses_priors = False  # it does not look at results
    writes_notes = True  # the sampler counts the points in the study

    def make_sampler(self, seed: int) -> Any:
        samplers = self.optuna.samplers
        # All points belong to one sequence, which has the seed of the search. The first trial is drawn at random.
        first = samplers.RandomSampler(seed=seed)
        return samplers.QMCSampler(scramble=True, seed=self.seed, independent_sampler=first)
