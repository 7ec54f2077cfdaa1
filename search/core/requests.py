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
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from search.core.journal import is_held
from search.core.space import Plain
from search.core.store import SearchFolder
from trainables import InputError
from trainables.base.errors import first_line
from trainables.base.files import replacing

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
        """Writes a request atomically, and returns its id. Ids sort by time.

        Raises:
            InputError: a value has the wrong type, or the file cannot be written.
        """
        name = f"{time.time_ns():019d}-{uuid.uuid4().hex[:8]}"
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
    folder.read()
    to_json(request)
    mail = Mailbox.of(folder)
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


def to_json(request: Request) -> dict[str, Any]:
    """A request as plain data with its `kind`; raises InputError if a value has the wrong type."""
    kind = next(kind for kind, cls in KINDS.items() if type(request) is cls)
    content = {"kind": kind, **asdict(request)}
    try:
        json.dumps(content)
    except TypeError as error:
        raise InputError(f"request {kind}: {first_line(error)}; expected texts, numbers, true, false or null") from None
    from_json(content)
    return content


def from_json(content: Any) -> Request:
    """The request of plain data; raises InputError if it is none."""
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind not in KINDS:
        raise InputError(f"request {kind!r}: unknown; there are {', '.join(KINDS)}")
    try:
        request: Request = _checker(KINDS[kind]).validate_python({k: v for k, v in content.items() if k != "kind"})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"request {kind}: {place}: {first['input']!r}: {first['msg']}") from None
    return request


@cache
def _checker(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def numbers_in_words(numbers: Iterable[int]) -> str:
    """Trials in words: `trial 3`, `trials 3, 5`."""
    numbers = list(numbers)
    return f"trial{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"
