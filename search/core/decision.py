"""The decision on a trial after an epoch, with its reason."""

from __future__ import annotations

from typing import Literal, NamedTuple

from search.core.events import Outcome

Kind = Literal["continue", "pause", "stop"]


class Decision(NamedTuple):
    """Whether a trial continues, pauses or stops.

    Attributes:
        kind: `continue`, `pause` or `stop`.
        reason: words and figures for a person, such as `3rd of 8 at this rung, where the best 3 go on`. The journal
            has it too. Empty if the trial continues because no rule compares trials at this epoch.
        ends_as: the outcome of a trial that stops, such as `completed` or `diverged`.

    >>> stop("3rd of 3 at this rung, where the best goes on").outcome
    'stopped_early'
    """

    kind: Kind
    reason: str = ""
    ends_as: Outcome = "stopped_early"

    @property
    def outcome(self) -> Outcome | None:
        """The outcome for the `result` event; None if the trial continues."""
        return {"continue": None, "pause": "paused", "stop": self.ends_as}[self.kind]


#: The decision of a rule that does not compare trials at this epoch.
CONTINUE = Decision("continue")


def go_on(reason: str) -> Decision:
    """The trial continues."""
    return Decision("continue", reason)


def pause(reason: str) -> Decision:
    """The trial waits until it is promoted."""
    return Decision("pause", reason)


def stop(reason: str, ends_as: Outcome = "stopped_early") -> Decision:
    """The trial ends with the outcome `ends_as`."""
    return Decision("stop", reason, ends_as)
