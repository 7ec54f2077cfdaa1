"""The kinds of events: everything that can happen in a search, with its fields and their types.

An event is one line of the journal. A reader tells kinds apart by `event["event"]`; mypy then knows the fields, and
`assert_never` makes it name every reader that does not know a kind that is added here.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # the one that pydantic checks by, before Python 3.12

from trainables import Params

#: Of the format that is written now; the first event of a journal carries it. Journals from before it have none, and
#: read as version 1. From version 2 on each line has a checksum.
VERSION = 2

#: What one epoch measured, by name.
Metrics = dict[str, float]
#: What a result can lead to; None: the trial goes on.
Outcome = Literal["completed", "stopped_early", "timed_out", "diverged", "paused"]


class _Event(TypedDict):
    #: Milliseconds since 1970, never decreasing; the journal adds it.
    time: NotRequired[int]
    #: Only in the journal's first event.
    version: NotRequired[int]


class SessionBegun(_Event):
    """A driver took the search up."""

    event: Literal["session"]


class Ended(_Event):
    """A session ended, and the search was then as `status` says."""

    event: Literal["ended"]
    status: str
    #: Epoch -> trial number -> loss.
    rungs: dict[Any, Any]


class EarlierTrial(TypedDict):
    """A trial of another search, as the searcher is told of it: its objective by epoch."""

    params: Params
    outcome: str | None
    values: dict[str, float]


#: The searcher is told of these trials of the search `from`, and tries the configurations `first` before others.
WarmStarted = TypedDict(
    "WarmStarted",
    {
        "event": Literal["warm_start"],
        "from": str,
        "trials": list[EarlierTrial],
        "first": NotRequired[list[Params]],
        "time": NotRequired[int],
        "version": NotRequired[int],
    },
)


class Proposed(_Event):
    """A trial was proposed."""

    event: Literal["trial"]
    number: int
    params: Params
    seed: int
    #: Where the configuration comes from. Journals from before decisions had reasons have none.
    reason: NotRequired[str]


class Result(_Event):
    """A trial ended an epoch."""

    event: Literal["result"]
    number: int
    epoch: int
    metrics: Metrics
    #: Why the epoch's figures are not finite, where they are not.
    diverged: str | None
    outcome: Outcome | None
    device: str
    #: Why the trial continues, pauses or stops: `Decision.reason`. Absent where no rule compares trials at this epoch.
    reason: NotRequired[str]


class CheckpointWritten(_Event):
    """A trial's state after an epoch is on disk."""

    event: Literal["checkpoint"]
    number: int
    epoch: int
    name: str
    bytes: int
    #: Of the file's content (`storage.digest`); journals of version 1 have none.
    digest: NotRequired[str]


class Retried(_Event):
    """A trial failed and is taken up again."""

    event: Literal["retry"]
    number: int
    why: str
    traceback: str
    micro_batches: int


class Failed(_Event):
    """A trial failed for good."""

    event: Literal["failed"]
    number: int
    why: str
    traceback: str


class Moved(_Event):
    """A trial changed its state between two epochs.

    `promoted`: it was paused at a rung and goes on. `stopped_early`: it was paused and never will. `paused`: it was
    stopped and waits again, as the search was given more. `timed_out`: it went over its time inside an epoch.
    `interrupted`: it stopped with the search and will be resumed. `reopened`: it was complete, and the search was
    given more epochs. `completed`: a training that runs by itself, such as a function or a command, came to its end.
    """

    event: Literal["promoted", "stopped_early", "paused", "timed_out", "interrupted", "reopened", "completed"]
    number: int
    #: With `completed`: the number of epochs that the trial could have had.
    of: NotRequired[int]
    #: Why, in words and figures.
    reason: NotRequired[str]


class RepeatStarted(_Event):
    """The best trial of one balanced value is trained again with another seed."""

    event: Literal["repeat_started"]
    value: Any
    trial: int
    seed: int
    params: Params


class RepeatResult(_Event):
    event: Literal["repeat_result"]
    value: Any
    trial: int
    seed: int
    epoch: int
    metrics: Metrics


class RepeatFinished(_Event):
    event: Literal["repeat_finished"]
    value: Any
    trial: int
    seed: int
    best_epoch: int
    parameters: int
    test: Metrics


class Compared(_Event):
    """The comparison of the balanced values is written."""

    event: Literal["compared"]


class AuditStarted(_Event):
    """A stopped trial is trained on, to see what it would have come to."""

    event: Literal["audit_started"]
    number: int


class AuditResult(_Event):
    event: Literal["audit_result"]
    number: int
    epoch: int
    metrics: Metrics


class AuditFinished(_Event):
    event: Literal["audit_finished"]
    number: int
    outcome: str


class FinalStarted(_Event):
    """A configuration is trained on train and validation together, or its trial's own model is tested."""

    event: Literal["final_started"]
    trial: int
    seed: int
    epochs: int
    params: Params
    #: False: the trial's own model, which was trained on train alone.
    merged: NotRequired[bool]


class FinalResult(_Event):
    event: Literal["final_result"]
    trial: int
    seed: int
    epochs: int
    epoch: int
    metrics: Metrics
    samples: NotRequired[list[str]]


class FinalFinished(_Event):
    event: Literal["final_finished"]
    trial: int
    seed: int
    epochs: int
    test: Metrics
    baselines: Metrics
    device: str
    #: Whether this model stands for the search.
    chosen: bool
    #: Epochs that the search had trained by then.
    spent: int
    merged: NotRequired[bool]
    #: Of each file of the model, by its name below the folder `SearchFolder.final`; journals of version 1 have none.
    digests: NotRequired[dict[str, str]]


class Verdict(TypedDict):
    """What a comparison of finalists came to; see `finalists.decide`."""

    champion: int
    winner: bool
    resampled: bool
    seeds: int
    finalists: list[dict[str, Any]]


class Decided(_Event, Verdict):
    """Finalists were compared, and the champion's model, of so many epochs, stands for the search."""

    event: Literal["decided"]
    epochs: int
    test: Metrics
    spent: int


TrialEvent = Result | CheckpointWritten | Retried | Failed | Moved
RepeatEvent = RepeatStarted | RepeatResult | RepeatFinished
AuditEvent = AuditStarted | AuditResult | AuditFinished
FinalEvent = FinalStarted | FinalResult | FinalFinished
#: Everything that stands in a journal.
Event = (
    SessionBegun
    | Ended
    | WarmStarted
    | Proposed
    | TrialEvent
    | RepeatEvent
    | Compared
    | AuditEvent
    | FinalEvent
    | Decided
)


class Stopping(TypedDict):
    """The search takes no new trials."""

    event: Literal["stopping"]
    why: str


class Stalled(TypedDict):
    """Trials ended no epoch within the limit; their worker is ended."""

    event: Literal["stalled"]
    numbers: list[int]
    limit: str


class Hint(TypedDict):
    """A line for the user on a trial, such as what keeps it from being stopped early."""

    event: Literal["hint"]
    number: int
    text: str


class WorkerReplaced(TypedDict):
    """A worker was replaced, as a trial had left something behind in it."""

    event: Literal["unclean"]
    traceback: str


class TakenApart(TypedDict):
    """Trials that were trained as one batched model failed together; each goes on alone."""

    event: Literal["apart"]
    numbers: list[int]
    traceback: str


class FileDamaged(TypedDict):
    """A file is not what was written and is passed over: a training goes on from its state before, or begins anew."""

    event: Literal["damaged"]
    file: str
    why: str


class StepsDone(TypedDict):
    """How far a long epoch of a trial is."""

    event: Literal["progress"]
    number: int
    epoch: int
    done: int
    of: int
    loss: float
    samples_per_second: float
    #: Seconds until the last step of the epoch.
    left: float


#: What listeners are told beside the events: it changes no state and stands in no journal.
Notice = Stopping | Stalled | Hint | WorkerReplaced | TakenApart | FileDamaged | StepsDone
