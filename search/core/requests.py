"""Requests to a running search, and the mailbox in its folder through which they reach the driver.

`send` is all that a caller needs:

    answer = send(store.search("mine"), StopTrials((3, 5)))

It writes a file into `requests/`. The driver takes it up within a second, writes an event `request` with its id to the
journal before it acts, and writes the answer beside the file. A request whose id is in the journal is never applied
again. While no driver runs, the file waits for the next `resume`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from search.core.changes import CHANGEABLE, resolved, with_changes
from search.core.config import SearchConfig, check_constraints, check_space
from search.core.events import Requested
from search.core.journal import is_held
from search.core.replay import open_search, replay
from search.core.space import Plain
from search.core.state import SearchState, Trial
from search.core.store import SearchFolder, Store
from trainables import Allowed, InputError
from trainables.base.errors import first_line
from trainables.base.files import replacing
from trainables.base.values import refusal, suggestion

#: Seconds between two looks of a sender for its answer.
EVERY = 0.05


@dataclass(frozen=True)
class StopSearch:
    """End the search after the running epochs.

    Attributes:
        retrain: whether the final training follows, as at the end of a time budget; False: as after Ctrl-C.
    """

    retrain: bool = True


@dataclass(frozen=True)
class StopTrials:
    """End these trials now, inside their epoch. Their epochs before count."""

    trials: tuple[int, ...]


@dataclass(frozen=True)
class PauseTrials:
    """Pause these trials after their running epoch, until a request continues them.

    Attributes:
        trials: empty: all running trials, and no new trial starts.
    """

    trials: tuple[int, ...] = ()


@dataclass(frozen=True)
class ContinueTrials:
    """Continue these paused trials. Those that a scheduler paused continue too, whatever their rank.

    Attributes:
        trials: empty: all that requests paused, and new trials start again.
    """

    trials: tuple[int, ...] = ()


@dataclass(frozen=True)
class Configuration:
    """A configuration to try.

    Attributes:
        params: values by hyperparameter. The search chooses the values of those that are missing.
        from_trial: the trial that gives the missing values; None: no trial.
        from_checkpoint: whether the training starts from the latest checkpoint of that trial.
    """

    params: Mapping[str, Plain] = field(default_factory=dict)
    from_trial: int | None = None
    from_checkpoint: bool = False


@dataclass(frozen=True)
class AddTrials:
    """Try these configurations next, beside the trials that the search has."""

    configurations: tuple[Configuration, ...]


@dataclass(frozen=True)
class ChangeSettings:
    """Change settings from now on.

    Attributes:
        settings: new values by name, such as `trials`, `time_budget` or `space.lr`. The text `+20` adds to a number,
            `+1h` to a duration. A range is written as in YAML: `{"loguniform": [1e-4, 1e-2]}`.
    """

    settings: Mapping[str, Any]


Request = StopSearch | StopTrials | PauseTrials | ContinueTrials | AddTrials | ChangeSettings
#: The class of each kind of request, by its name in files and in the journal.
KINDS: dict[str, type[Request]] = {
    "stop search": StopSearch, "stop": StopTrials, "pause": PauseTrials, "continue": ContinueTrials, "add": AddTrials,
    "set": ChangeSettings,
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """The answer to a request.

    Attributes:
        id: of the request.
        done: whether a driver has taken it up; False: it waits for the driver, or for the next `resume`.
        text: a sentence for a person.
    """

    id: str
    done: bool
    text: str


@dataclass(frozen=True)
class Mailbox:
    """The folder `requests` of a search: a file `ID.json` for each request, and `ID.answer` for each answer."""

    folder: Path

    @classmethod
    def of(cls, folder: SearchFolder) -> Mailbox:
        """The mailbox of a search, whose folder need not exist yet."""
        return cls(folder.path / "requests")

    def put(self, request: Request) -> str:
        """Writes a request atomically, and returns its id.

        Raises:
            InputError: a value has the wrong type, or the file cannot be written.
        """
        name = new_id()
        content = to_json(request)
        try:
            self.folder.mkdir(exist_ok=True)
            with replacing(self.folder / f"{name}.json") as file:
                file.write(json.dumps(content).encode())
        except OSError as error:
            raise InputError(f"{self.folder}: no request can be written: {error.strerror}") from error
        return name

    def waiting(self) -> list[str]:
        """The ids of the requests without an answer, the oldest first. It costs one look into the folder."""
        try:
            return sorted(path.stem for path in self.folder.iterdir() if path.suffix == ".json")
        except FileNotFoundError:
            return []

    def read(self, name: str) -> Request:
        """The request of an id; raises InputError if the file holds none."""
        path = self.folder / f"{name}.json"
        try:
            return from_json(json.loads(path.read_bytes()))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: is no request: {first_line(error)}") from error

    def answer(self, name: str, refused: bool, text: str) -> None:
        """Writes the answer, then deletes the request."""
        with replacing(self.folder / f"{name}.answer") as file:
            file.write(json.dumps({"refused": refused, "text": text}).encode())
        (self.folder / f"{name}.json").unlink(missing_ok=True)

    def withdraw_pauses(self, trials: Sequence[int]) -> list[str]:
        """Deletes waiting requests that pause these trials, or all waiting pauses without trials. Returns their ids."""
        withdrawn = []
        for name in self.waiting():
            request = self.read(name)
            if isinstance(request, PauseTrials) and (not trials or {*request.trials} == {*trials}):
                (self.folder / f"{name}.json").unlink(missing_ok=True)
                withdrawn.append(name)
        return withdrawn

    def take_answer(self, name: str) -> Answer | None:
        """Reads and deletes the answer to a request; None while there is none.

        Raises:
            InputError: the driver refused the request; its message says why.
        """
        path = self.folder / f"{name}.answer"
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        path.unlink(missing_ok=True)
        if content["refused"]:
            raise InputError(content["text"])
        return Answer(name, True, content["text"])


def send(folder: SearchFolder, request: Request, timeout: float = 10.0) -> Answer:
    """Sends a request to the driver of a search, and waits for the answer.

    Args:
        timeout: seconds. A driver that reads data or starts Ray answers later; the request stays.

    Raises:
        InputError: there is no such search, or the request asks for something that is wrong or not possible.
    """
    if elsewhere := folder.read().elsewhere:
        raise InputError(f"{folder.name}: {elsewhere}, so no driver takes requests")
    mail = Mailbox.of(folder)
    if not is_held(folder.journal):  # the driver will check it against its own state
        if isinstance(request, ContinueTrials) and (withdrawn := mail.withdraw_pauses(request.trials)):
            return Answer(withdrawn[-1], True, f"{folder.name} is not running: the waiting `pause` is withdrawn")
        _, _, config = open_search(Store(folder.path.parents[1]), folder.name)
        state, _ = replay(folder)
        if state.status == "finished" and not isinstance(request, AddTrials | ChangeSettings):
            verb = kind_of(request).partition(" ")[0]
            raise InputError(
                f"{folder.name}: is finished, so there is nothing to {verb}; more trials: "
                f"`python -m search resume {folder.name} --trials +N`"
            )
        settle(from_json(to_json(request)), config, state)
    name, deadline = mail.put(request), time.monotonic() + timeout
    while is_held(folder.journal):
        if (answer := mail.take_answer(name)) is not None:
            return answer
        if time.monotonic() > deadline:
            return Answer(name, False, f"{folder.name} has not answered yet; the request waits for its trials")
        time.sleep(EVERY)
    if (answer := mail.take_answer(name)) is not None:  # the driver ended right after it
        return answer
    return Answer(name, False, f"{folder.name} is not running: the request takes effect at its next `resume`")


def settle(
    request: Request, config: SearchConfig, state: SearchState, allowed: Allowed | None = None
) -> dict[str, Any]:
    """What follows from a request: the content of its event.

    Args:
        config, state: of the search now.
        allowed: the values of hyperparameters that the task allows.

    Raises:
        InputError: the request asks for something that is wrong or not possible now.
    """
    match request:
        case StopSearch():
            return {"retrain": request.retrain}
        case StopTrials() | PauseTrials():
            if isinstance(request, StopTrials) and not request.trials:
                raise InputError("stop: expected the number of a trial")
            for number in request.trials:
                if (trial := _trial(state, number)).over:
                    raise InputError(
                        f"trial {number}: is over ({trial.outcome}); only a trial that is not over can "
                        f"{'end' if isinstance(request, StopTrials) else 'pause'}"
                    )
            return {"trials": list(request.trials)}
        case ContinueTrials():
            return {"trials": _to_continue(request, state)}
        case AddTrials():
            if not request.configurations or Configuration() in request.configurations:
                raise InputError("add: expected a configuration, such as lr=1e-3")
            return {"configurations": [_added(one, config, state, allowed or {}) for one in request.configurations]}
        case ChangeSettings():
            if not request.settings:
                raise InputError(
                    f"set: expected a setting, such as trials=+20; what can change: {', '.join(CHANGEABLE)}"
                )
            added = state.added_in_all - len(state.added)  # of these, trials began beside `search.trials`
            changes = resolved(config, request.settings, len(state.trials) - added)
            given = {f"space.{name}": f"space.{name}" for name in changes.get("space", {})}
            check_space(with_changes(config, changes), allowed or {}, given)
            return changes


def _trial(state: SearchState, number: int) -> Trial:
    if number not in state.trials:
        there = f"there are 0 to {len(state.trials) - 1}" if state.trials else "there is none yet"
        raise InputError(f"trial {number}: no such trial; {there}")
    return state.trials[number]


def _to_continue(request: ContinueTrials, state: SearchState) -> list[int]:
    if not request.trials and not state.is_held:
        raise InputError("continue: no request paused the search or a trial of it")
    for number in request.trials:
        trial = _trial(state, number)
        if trial.outcome != "paused" and not trial.held_by:
            raise InputError(f"trial {number}: is not paused ({trial.outcome or 'running'})")
    return list(request.trials)


def _added(given: Configuration, config: SearchConfig, state: SearchState, allowed: Allowed) -> dict[str, Any]:
    """The configuration as the event has it: `params`, and `fork` (trial and epoch of a checkpoint, or None)."""
    known = {parameter.name: parameter for parameter in config.space.parameters}
    params: dict[str, Plain] = {}
    fork = None
    if given.from_trial is not None:
        trial = _trial(state, given.from_trial)
        params = {name: value for name, value in trial.params.items() if name in known and value is not None}
        fork = _fork(trial, config) if given.from_checkpoint else None
    elif given.from_checkpoint:
        raise InputError("from_checkpoint: expected the trial whose checkpoint it is (from_trial, --from-trial)")
    for name, value in given.params.items():
        if name not in known:
            raise InputError(
                f"{name}: unknown hyperparameter{suggestion(name, known) or ';'} there are {', '.join(known)}"
            )
        if not known[name].allows(value):
            widen = f"; `set` with space.{name} changes the range" if known[name].searched else ""
            raise InputError(f"{name}={value!r}: expected a value of {known[name].describe()}{widen}")
        if name in allowed and (why := refusal(value, allowed[name])):
            raise InputError(f"{name}={value!r}: {why}")
        params[name] = int(value) if known[name].kind == "int" and isinstance(value, float) else value
    present = config.space.fixed() | params
    for name in given.params:
        for relation in known[name].when:
            values = {other: present[other] for other in relation.names if other in present}
            if len(values) == len(relation.names) and not relation.holds(values):
                shown = ", ".join(map(repr, values.values()))
                raise InputError(f"{name}: exists only with {relation.text}, not {shown}")
    check_constraints(config, "add", params)
    return {"params": params, "fork": fork}


def _fork(trial: Trial, config: SearchConfig) -> list[int]:
    if not trial.checkpoints:
        raise InputError(f"trial {trial.number}: has no checkpoint to start from; leave out from_checkpoint")
    epoch = trial.checkpoints[-1].epoch
    if epoch >= config.search.epochs:
        at = config.search.unit.at(epoch)
        raise InputError(f"trial {trial.number}: its checkpoint is of {at}, the last; nothing is left to train from it")
    return [trial.number, epoch]


def in_words(event: Requested) -> str:
    """What the driver does about a request, in a sentence."""
    content = event["content"]
    match event["kind"]:
        case "stop search":
            end = "then the final training begins" if content["retrain"] else "no final training follows"
            return f"the search ends after the running epochs; {end}"
        case "stop":
            return f"{numbers_in_words(content['trials'])} ended"
        case "pause" if content["trials"]:
            return f"{numbers_in_words(content['trials'])} will pause; a running epoch ends first"
        case "pause":
            return "no new trial starts, and running trials pause after their epoch; the time budget goes on"
        case "continue":
            return f"{numbers_in_words(content['trials']) if content['trials'] else 'the search'} will continue"
        case "add":
            count = len(content["configurations"])
            return f"{count} configuration{' is' if count == 1 else 's are'} tried next"
        case "set":
            return "set " + ", ".join(f"{key}: {value}" for part in content.values() for key, value in part.items())
    return event["kind"]


def to_json(request: Request) -> dict[str, Any]:
    """A request as plain data with its `kind`; raises InputError if a value has the wrong type."""
    kind = kind_of(request)
    content = {"kind": kind, **asdict(request)}
    try:
        json.dumps(content)
    except TypeError as error:
        raise InputError(f"request {kind}: {first_line(error)}; expected texts, numbers, true, false or null") from None
    from_json(content)
    return content


def new_id() -> str:
    """A new id of a request. Ids sort by time."""
    return f"{time.time_ns():019d}-{uuid.uuid4().hex[:8]}"


def kind_of(request: Request) -> str:
    """The name of a request's kind in `KINDS`."""
    return next(kind for kind, cls in KINDS.items() if type(request) is cls)


def from_json(content: Any) -> Request:
    """The request of plain data; raises InputError if it is none."""
    kind = content.get("kind") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"request {kind!r}: unknown; there are {', '.join(KINDS)}")
    fields = json.dumps({key: value for key, value in content.items() if key != "kind"})
    try:  # as JSON, where a list is a tuple although `strict` takes no value of another type
        request: Request = _checker(kind).validate_json(fields, strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"request {kind}: {place}: {first['input']!r}: {first['msg']}") from None
    return request


@cache
def _checker(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS[kind])


def numbers_in_words(numbers: Iterable[int]) -> str:
    """Trials in words: `trial 3`, `trials 3, 5`."""
    numbers = list(numbers)
    return f"trial{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"
