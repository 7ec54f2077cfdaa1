"""The interface of schedulers: the rules that stop, pause and promote trials.

A scheduler keeps no results. It reads them from a `View` of the study, so that a resumed search, `why`, `simulate` and
the report come to the same decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from search.core.decision import CONTINUE, Decision
from search.core.schedulers.rungs import Losses
from search.core.state import Trial

if TYPE_CHECKING:
    from search.core.settings import SearchSection


class View(Protocol):
    """The trials that a scheduler compares with each other. `Study.view` makes it.

    Losses are the objective, turned so that smaller is better. Trials that diverged have none.
    """

    @property
    def losses(self) -> Losses:
        """Epoch -> trial number -> loss, in the order in which the trials reported."""
        ...

    def loss(self, trial: Trial) -> float:
        """The trial's loss at its last epoch."""
        ...

    def before(self, trial: Trial) -> float:
        """A trial is compared with trials of smaller numbers than this; infinity outside a deterministic search."""
        ...

    def paused(self) -> dict[int, int]:
        """The paused trials, and the epoch at which each waits."""
        ...

    @property
    def is_last(self) -> bool:
        """Whether no trial runs and no new trial will come: paused trials are all that is left."""
        ...

    def prefer(self, waiting: Sequence[int]) -> int | None:
        """The paused trial that the searcher's model expects to end best; None where it has no model yet.

        Args:
            waiting: numbers of trials that wait at one rung, the best first.
        """
        ...


class Scheduler:
    """Decides whether a trial continues after an epoch. This class lets each trial train all of its epochs.

    A scheduler of another package subclasses it, overrides `decides` and `decide` (and `next_promotion` where it
    pauses trials), and is offered as an entry point of the group `search.schedulers`.
    """

    #: Whether it pauses trials. A paused trial is continued from its checkpoint, perhaps by another worker.
    pauses_trials = False
    #: Whether it compares trials, from the epoch `search.grace_period` on.
    compares = False

    @classmethod
    def from_settings(cls, settings: SearchSection) -> Scheduler:
        """Makes it from the section `search` of a configuration."""
        return cls()

    def decides(self, number: int, epoch: int) -> bool:
        """Whether trial `number` may have to stop or pause after this epoch.

        The answer must never change: workers are told these epochs in advance, and wait for a decision only there.
        """
        return False

    def decide(self, study: View, trial: Trial) -> Decision:
        """The decision on a trial after its last epoch; changes nothing.

        Args:
            study: includes the trial's last epoch.
            trial: its last epoch is the one to judge.
        """
        return CONTINUE

    def next_promotion(self, study: View) -> int | None:
        """The number of the paused trial that continues now; None where none does. Changes nothing."""
        return None

    def rungs(self, study: View) -> Losses:
        """The losses at each epoch at which trials are compared; empty for a rule without rungs."""
        return {}
