"""The interface of schedulers: the rules that stop, pause and promote trials.

A scheduler stores no results. It reads them from a `View` of the study, so a resumed search, `why`, `simulate` and the
report make the same decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from search.core.decision import CONTINUE, Decision
from search.core.schedulers.rungs import Losses
from search.core.state import Trial

if TYPE_CHECKING:
    from search.core.settings import SearchSection
    from trainables.base.unit import Unit


class View(Protocol):
    """The trials that a scheduler compares with each other. `Study` has a view for each balanced value.

    A loss is the objective, or the negative objective if larger is better. With several objectives it is the place of
    the trial among all trials at this epoch; see `Standings`. Diverged trials have no losses.
    """

    @property
    def unit(self) -> Unit:
        """The unit in which reasons name an epoch: `study.unit.at(trial.epoch)` is `epoch 3` or `step 300`."""
        ...

    @property
    def losses(self) -> Mapping[int, dict[int, float]]:
        """Epoch -> trial number -> loss, in the order of the reports."""
        ...

    def loss(self, trial: Trial) -> float:
        """The trial's loss at its last epoch."""
        ...

    def before(self, trial: Trial) -> float:
        """The trial is compared only with trials of smaller numbers; infinity unless the search is deterministic."""
        ...

    def paused(self) -> dict[int, int]:
        """The epoch of each paused trial, by its number."""
        ...

    @property
    def is_last(self) -> bool:
        """Whether only paused trials are left: no trial runs, and no new trial will begin."""
        ...

    def prefer(self, waiting: Sequence[int]) -> int | None:
        """The paused trial that may end best by the searcher's model; None without a model.

        Args:
            waiting: numbers of trials that are paused at the same rung, the best first.
        """
        ...


class Scheduler:
    """Decides whether a trial continues after an epoch. In this class each trial trains all its epochs.

    A scheduler of another package subclasses it and overrides `decides` and `decide` (and `next_promotion` if it pauses
    trials). The package offers it as an entry point of the group `search.schedulers`.
    """

    #: Whether it pauses trials. A paused trial continues from its checkpoint, perhaps on another worker.
    pauses_trials = False
    #: Whether it compares trials, from the epoch `search.grace_period` on.
    compares = False

    @classmethod
    def from_settings(cls, settings: SearchSection) -> Scheduler:
        """Makes the scheduler of a configuration's section `search`."""
        return cls()

    def decides(self, number: int, epoch: int) -> bool:
        """Whether trial `number` may have to stop or pause after this epoch.

        The answer must never change: workers get these epochs in advance, and wait for a decision only then.
        """
        return False

    def decide(self, study: View, trial: Trial) -> Decision:
        """The decision on a trial after its last epoch; changes nothing.

        Args:
            study: its losses include the last epoch of the trial.
        """
        return CONTINUE

    def next_promotion(self, study: View) -> int | None:
        """The number of the paused trial that continues now, or None; changes nothing."""
        return None

    def rungs(self, study: View) -> Losses:
        """The losses at each rung; empty for a rule without rungs."""
        return {}
