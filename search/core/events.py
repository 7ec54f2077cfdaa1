"""The kinds of events, which are the lines of the journal, and of notices, with their fields and types.

A reader distinguishes the kinds by `event["event"]`; mypy then knows the fields. With `assert_never` mypy reports every
reader that misses a new kind.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # the one that pydantic checks by, before Python 3.12

from trainables import Params

#: The version of the format, which the first event of a journal has. An old journal has none: it is version 1. From
#: version 2 on each line has a checksum.
VERSION = 2

#: The metrics of an epoch by name.
Metrics = dict[str, float]
#: The outcome of a trial after a result; a trial that continues has None.
Outcome = Literal["completed", "stopped_early", "timed_out", "diverged", "infeasible", "paused"]

#: A limit that ends the trials by their results: the name of its setting, in words.
Limit = Literal["target", "cost budget", "worth"]


class _Event(TypedDict):
    #: Milliseconds since 1970, never decreasing; the journal adds it.
    time: NotRequired[int]
    #: Only in the journal's first event.
    version: NotRequired[int]


class SessionBegun(_Event):
    """A driver started or resumed the search."""

    event: Literal["session"]
    #: With a time budget: the fields of the `TimePlan`, and the start of the command in milliseconds since 1970. They
    #: are for a page that shows the budget; no decision reads them.
    plan: NotRequired[dict[str, Any]]
    began: NotRequired[int]


class Ended(_Event):
    """A session ended. `status` is the status of the search then, such as `finished`."""

    event: Literal["ended"]
    status: str
    #: Epoch -> trial number -> loss.
    rungs: dict[Any, Any]


class EarlierTrial(TypedDict):
    """A trial of another search, for the searcher.

    `values`: its objective by epoch. `others`: its further objectives by epoch and metric. `figures`: the metrics with
    a limit on outcomes (`Trial.judged`).
    """

    params: Params
    outcome: str | None
    values: dict[str, float]
    figures: NotRequired[Metrics]
    others: NotRequired[dict[str, dict[str, float]]]


#: The searcher learns from `trials` of the search `from`, and proposes the configurations `first` before others.
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


class Requested(_Event):
    """The driver took up a request; it acts after this event. See `search.core.requests`."""

    event: Literal["request"]
    id: str
    #: A name of `requests.KINDS`.
    kind: str
    #: What follows from the request: `requests.settle`.
    content: dict[str, Any]


class LimitReached(_Event):
    """A limit ended the trials; the final training follows. See `search.core.limits`."""

    event: Literal["limit"]
    why: Limit
    #: In words and figures.
    reason: str
    #: The settings that it depends on. While they are the same, a resumed search trains no more trials.
    settings: dict[str, Any]


class Proposed(_Event):
    """A trial was proposed."""

    event: Literal["trial"]
    number: int
    params: Params
    seed: int
    #: The source of the configuration. Old journals have no reasons.
    reason: NotRequired[str]
    #: The id of the request that added the trial, and the place of its configuration in the request.
    request: NotRequired[str]
    part: NotRequired[int]
    #: The trial and the epoch of the checkpoint from which its training starts.
    fork: NotRequired[list[int]]
    #: The trial whose configuration it trains again with another seed, in the race at the end.
    rerun_of: NotRequired[int]


class Result(_Event):
    """A trial ended an epoch."""

    event: Literal["result"]
    number: int
    epoch: int
    #: By name. The objective of a function or a command has `val_` before its name too: `acc` is also `val_acc`.
    metrics: Metrics
    #: Why the trial diverged, such as `loss is nan`; None if it did not.
    diverged: str | None
    outcome: Outcome | None
    device: str
    #: Why the trial continues, pauses or stops: `Decision.reason`. Absent if no rule compares trials at this epoch.
    reason: NotRequired[str]
    #: Why the epoch is beyond a limit on outcomes (`search.limits`) and cannot be the best. Absent if it can.
    infeasible: NotRequired[str]
    #: The id of the request that pauses the trial.
    request: NotRequired[str]


class CheckpointWritten(_Event):
    """The state of a trial after an epoch is on disk, in the file `name`."""

    event: Literal["checkpoint"]
    number: int
    epoch: int
    name: str
    bytes: int
    #: The hash of the file (`storage.digest`); journals of version 1 have none.
    digest: NotRequired[str]


class Retried(_Event):
    """A trial failed and is tried again from its last checkpoint."""

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

    `promoted`: it was paused and continues. `stopped_early`: it was paused, and the search ended; or a request stopped
    it. `paused`: it was `stopped_early` and is paused again, as the search was given more; or a request paused it
    while no worker trained it. `timed_out`: it exceeded its time inside an epoch. `interrupted`: it stopped with the
    search and will be resumed; in a study its process gave it back. `reopened`: it was complete, and the search was
    given more epochs; in a study it was given back, and is asked again. `completed`: a training with its own loop, such
    as a function or a command, ended. `infeasible`: a figure that is known before the first epoch is beyond its limit.
    """

    event: Literal[
        "promoted", "stopped_early", "paused", "timed_out", "interrupted", "reopened", "completed", "infeasible"
    ]
    number: int
    #: With `infeasible`: the figures that were known before the first epoch.
    figures: NotRequired[Metrics]
    #: With `completed`: the number of epochs that the trial could have had.
    of: NotRequired[int]
    #: Why it changed, in words and figures.
    reason: NotRequired[str]
    #: The id of the request that changed it.
    request: NotRequired[str]


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
    """A stopped trial is trained for its other epochs, to measure the result that it would have had."""

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
    #: The folder of its files, relative to the folder of the search; without it that of `final_name`.
    folder: NotRequired[str]


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
    #: The epochs that the search had trained before.
    spent: int
    merged: NotRequired[bool]
    #: The hash of each file of the model, by its name in the folder `SearchFolder.final`; version 1 has none.
    digests: NotRequired[dict[str, str]]


class Verdict(TypedDict):
    """The result of a comparison of finalists; see `finalist_comparison.compare_finalists`."""

    champion: int
    winner: bool
    resampled: bool
    seeds: int
    finalists: list[dict[str, Any]]


class Decided(_Event, Verdict):
    """Finalists were compared. The champion's model, trained for `epochs` epochs, stands for the search."""

    event: Literal["decided"]
    epochs: int
    test: Metrics
    spent: int


TrialEvent = Result | CheckpointWritten | Retried | Failed | Moved
RepeatEvent = RepeatStarted | RepeatResult | RepeatFinished
AuditEvent = AuditStarted | AuditResult | AuditFinished
FinalEvent = FinalStarted | FinalResult | FinalFinished
#: Every line of a journal.
Event = (
    SessionBegun
    | Ended
    | WarmStarted
    | Requested
    | LimitReached
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
    #: Why, in words and figures.
    reason: NotRequired[str]


class Stalled(TypedDict):
    """Trials ended no epoch within the limit; their worker is ended."""

    event: Literal["stalled"]
    numbers: list[int]
    limit: str


class Hint(TypedDict):
    """A line for the user about a trial, such as the reason why it cannot be stopped early."""

    event: Literal["hint"]
    number: int
    text: str


class WorkerReplaced(TypedDict):
    """A worker was replaced, as a trial left threads, memory or other things in it."""

    event: Literal["unclean"]
    traceback: str


class TakenApart(TypedDict):
    """Trials that were trained as one batched model failed together; each continues alone."""

    event: Literal["apart"]
    numbers: list[int]
    traceback: str


class FileDamaged(TypedDict):
    """A file is damaged and ignored: a training continues from its state before, or starts again."""

    event: Literal["damaged"]
    file: str
    why: str


class StepsDone(TypedDict):
    """The progress of a long epoch: `done` of `of` steps. A command tells the share that is done: `of` is 1."""

    event: Literal["progress"]
    number: int
    epoch: int
    done: float
    of: float
    loss: NotRequired[float]
    samples_per_second: NotRequired[float]
    #: Seconds until the last step of the epoch.
    left: float


#: Listeners get notices beside the events. A notice changes no state and is not in the journal.
Notice = Stopping | Stalled | Hint | WorkerReplaced | TakenApart | FileDamaged | StepsDone
