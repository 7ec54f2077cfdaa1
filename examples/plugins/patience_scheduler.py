"""A scheduler that stops a trial whose loss did not improve for three epochs."""

from search.core.decision import CONTINUE, Decision, go_on, stop
from search.core.schedulers.base import Scheduler, View
from search.core.state import Trial

PATIENCE = 3


class PatienceScheduler(Scheduler):
    """Stops a trial after three epochs without a new best loss. It compares a trial with itself alone."""

    def decides(self, number: int, epoch: int) -> bool:
        return epoch > PATIENCE

    def decide(self, study: View, trial: Trial) -> Decision:
        if trial.epoch <= PATIENCE:
            return CONTINUE
        losses = {epoch: rung[trial.number] for epoch, rung in study.losses.items() if trial.number in rung}
        waited = trial.epoch - min(losses, key=lambda epoch: losses[epoch])
        reason = f"its best loss is {waited} epochs old"
        return stop(reason) if waited >= PATIENCE else go_on(reason)
