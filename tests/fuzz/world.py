"""One search in a world that goes wrong: commands, faults, and what a sequence of them leaves.

`Case` says what is searched, `Go`, `Database` and `Damage` what happens. `play` does it, and ends with one undisturbed
resume. The commands are the real ones, from `search.cli`; `tests/ray_here.py` stands for Ray, and `disk.py` for the
disk.
"""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from rich.console import Console

import trainables
from search import guard, runs, session
from search.cli import commands
from search.core import journal
from search.core.config import check_config, load_config, parse_objective
from search.core.journal import read_events
from search.core.requests import Mailbox, Request
from search.core.state import SearchState
from search.core.store import SearchFolder, Store
from search.programs import Program
from search.runs import RunOptions
from search.tracking import model_registry, tracker
from tests.fuzz import tiny
from tests.fuzz.disk import Disk, Killed, Kind
from tests.fuzz.known import HELD_BACK
from tests.ray_here import LostWorker, ray_here
from trainables import InputError, Objective
from trainables.loops.command import Command

NAME, EARLIER = "s", "earlier"
#: Figures that a clock or the memory of this process decides.
_MEASURED = ("epoch_seconds", "peak_memory_mib", "samples_per_second", "latency_ms")


@dataclass(frozen=True)
class Asked:
    """A request that another process sends as soon as the journal has an epoch of a trial."""

    trial: int
    epoch: int
    request: Request


@dataclass(frozen=True)
class Case:
    """What is searched.

    Attributes:
        kind: `task` is the task of tiny.py, with a final training and a registered model; `function` its function;
            `command` a command of a shell.
        space: further hyperparameters, as a YAML file or `search.run` gives them.
        metrics: further metrics, by name: the values of epoch 1, 2 and so on, over and over.
        faults: by the hyperparameter `case` (0 to 3) and the epoch: raise, diverge, nan or memory (of a task alone).
        keeps: whether the function keeps its state in checkpoints.
        objective: of the function.
        warm: whether an earlier search is in the store, from which this one starts.
        tests: whether the function or command tests its final model and writes it.
        asks: requests to the running search.
        target: the value that ends the trials.
        limits: on outcomes. The hyperparameter `width` of a task makes its parameters, 6 width + 1; a function reports
            its hyperparameter `size` as `latency_ms`.
        objectives: of a search with several; the first is `objective`.
        preference: among them.
    """

    kind: Literal["task", "function", "command"] = "task"
    space: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    faults: dict[tuple[int, int], str] = field(default_factory=dict)
    searcher: str = "random"
    scheduler: str = "none"
    trials: int = 2
    epochs: int = 2
    retrain: bool = True
    keeps: bool = True
    objective: str = "loss min"
    seed: int = 0
    warm: bool = False
    tests: bool = False
    asks: tuple[Asked, ...] = ()
    target: float | None = None
    limits: dict[str, str] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()
    preference: dict[str, float] | None = None

    @property
    def makes_model(self) -> bool:
        """Whether the search ends with a registered model."""
        return self.kind == "task" or self.tests


@dataclass(frozen=True)
class Fault:
    """Something that comes in the middle of a command.

    Attributes:
        kind: one of `disk.Kind` but `call`; `interrupt` (Ctrl-C), `interrupts` (twice); `resume`, `more` or `run`: that
            command is started a second time meanwhile, `more` with `--trials +5`; `raise`, `lost`: an epoch raises, or
            its worker is lost.
        at: at which operation of the disk, counted from 1; for `raise` and `lost`: in which epoch of the trials.
    """

    kind: str
    at: int


@dataclass(frozen=True)
class Go:
    """The command that goes on: `run` if the search has not begun, else `resume`, perhaps with more trials or
    epochs."""

    fault: Fault | None = None
    trials: int = 0
    epochs: int = 0


@dataclass(frozen=True)
class Database:
    """MLflow's database: `back up`, `restore` what was backed up, `delete`, or `other`: the tracking URI changes
    between this database and another."""

    what: Literal["back up", "restore", "delete", "other"]


@dataclass(frozen=True)
class Damage:
    """A file is damaged.

    Attributes:
        file: which; of several the last.
        how: a bit is flipped, the end is cut off, 4 KiB are zeros, or it is deleted.
        where: from 0 (the first byte) to 1.
    """

    file: Literal["journal", "search.json", "delivered", "checkpoint", "final"]
    how: Literal["flip", "truncate", "zero", "delete"]
    where: float = 0.5


Action = Go | Database | Damage


class Broken(AssertionError):
    """A promise does not hold; the message begins with its name."""


def broken(promise: str, text: str) -> Broken:
    return Broken(f"{promise}: {text}")


@dataclass(frozen=True)
class Ended:
    """How a command ended: `done` with its exit code, `refused` in a line, `interrupted`, `killed`; `raw`: with an
    error that is none of these."""

    how: Literal["done", "refused", "interrupted", "killed", "raw"]
    text: str = ""
    error: BaseException | None = None


class World:
    """A store with one search, and everything that happens to it."""

    def __init__(self, root: Path, case: Case, empty: Path, tracked: bool = True) -> None:
        """
        Args:
            root: a folder of its own, which is emptied.
            empty: a database of MLflow without runs.
            tracked: whether MLflow is told; an undisturbed search is only compared.
        """
        _clear(root)
        self.root, self.case, self.empty, self.tracked = root, case, empty, tracked
        self.store, self.disk = Store(root / "store"), Disk(root)
        for folder in ("store", "here", "scratch"):
            (root / folder).mkdir()
        self.other = False
        #: What was given, request by request: the trials and epochs in all.
        self.requests: list[tuple[int, int]] = []
        #: Whether an undisturbed search with the same requests has to be the same.
        self.exact = True
        #: Whether lines of the journal that MLflow had are gone, so that their epochs were trained and told again.
        self.told_again = False
        #: Whether the search was finished as the command began that runs now.
        self._finished = False
        self.acknowledged: list[dict[str, Any]] = []
        self._trackers: list[Any] = []
        self._epochs_left: int | None = None
        self._strike, self._faulty = "", False
        #: What the last command printed.
        self._output = io.StringIO()
        #: What a second command broke while the first stood still.
        self._breach: Broken | None = None
        #: The requests that were sent.
        self._sent: list[Asked] = []
        self._put_database()
        if case.warm:
            self.tracked = False
            self._check_ended(self._command(partial(self.run, EARLIER)))
            self.tracked = tracked
            self.acknowledged.clear()

    @property
    def last_output(self) -> str:
        """What the last command printed."""
        return self._output.getvalue()

    @property
    def folder(self) -> SearchFolder:
        return self.store.search(NAME)

    @property
    def database(self) -> Path:
        """MLflow's database that the next command uses."""
        return self.root / "other.db" if self.other else self.store.database

    def do(self, action: Action) -> None:
        """Does one action; raises Broken."""
        match action:
            case Go():
                self._go(action)
            case Database():
                self._change(action.what)
            case Damage():
                self._damage(action)

    # commands

    def _go(self, action: Go) -> None:
        begun, self._finished = self.folder.exists, self._is_finished()
        more = {"trials": f"+{action.trials}" if action.trials else None,
                "epochs": f"+{action.epochs}" if action.epochs else None}  # fmt: skip
        command = partial(self.resume, more) if begun else self.run
        if begun:  # a kill may have come between the epoch and the request
            self._ask(list(read_events(self.folder.journal)))
        kept = self._description()
        ended = self._command(command, action.fault)
        self._check_ended(ended)
        if ended.how == "refused" and begun and self._description() != kept and not action.fault:
            raise broken("refused", f"{ended.text!r}, and yet search.json changed")
        self._note_request()

    def _note_request(self) -> None:
        """Notes the trials and epochs of search.json, if the command that ended has changed them.

        `_finished` tells whether the search was finished as that command began. Trials for a search that is not
        finished belong to the request before.
        """
        extent = self._extent()
        if self.case.asks and extent is not None:
            extent = self.case.trials, self.case.epochs  # a request may change what the file names
        if extent is None or (self.requests and extent == self.requests[-1]):
            return
        if not self.requests or self._finished:
            self.requests.append(extent)
        else:
            # The trials that were added are the ones that a larger search would have had, if nothing that was decided
            # depends on their number. A grid is tried in random order if it has more points than the search has trials.
            ordered = self.case.scheduler in ("none", "asha", "median", "hyperband") and self.case.searcher != "grid"
            self.exact &= ordered and self.requests[-1][1] == extent[1]
            self.requests[-1] = extent

    def run(self, name: str = NAME) -> None:
        """The command that starts the search."""
        case, source = self.case, None
        if name == EARLIER:
            case = replace(case, trials=3, epochs=2)
        elif case.warm:
            source = EARLIER if case.searcher in ("tpe", "ranks") else "auto"
        options = RunOptions(None, name, None, case.retrain and name == NAME, source)
        space = {"case": {"int": [0, 3]}, **case.space}
        if case.kind == "function":
            others = {"test": tiny.test, "export": tiny.export} if case.tests else {}
            program = Program(tiny.train, space, case.objective, _flags(case), others=others)
            commands.run_command(self._console(), self.store, program, options)
            return
        if case.kind == "command":
            command = Command(tiny.SHELL, final=f"{tiny.SHELL} test" if case.tests else None)
            program = Program(command, space, case.objective, _flags(case))
            commands.run_command(self._console(), self.store, program, options)
            return
        raw = {**load_config("tiny", flags=_flags(case)).raw, "space": space}
        commands.run(self._console(), self.store, check_config("tiny", raw, "tests/fuzz"), options)

    def resume(self, more: dict[str, str | None]) -> None:
        """The command that goes on."""
        commands.resume(self._console(), self.store, NAME, more, None)

    def _console(self) -> Console:
        return Console(file=self._output, highlight=False)

    def _command(self, command: Callable[[], Any], fault: Fault | None = None) -> Ended:
        """Runs a command as a process of its own."""
        self._put_database()
        self._output = io.StringIO()
        kind, at, call = _placed(fault, self)
        self._epochs_left = fault.at if fault and kind is None else None
        self._strike, self._faulty = fault.kind if fault else "", fault is not None
        with self._process(), self.disk.watched():
            self.disk.begin(kind, at, call)
            try:
                ended = self._ended(command)
            finally:
                dead = self.disk.dead
                self.disk.dead = True  # what is left of the process does nothing any more
                for one in self._trackers:
                    with suppress(Killed, RuntimeError):  # a thread that never began cannot be waited for
                        one.close(0.2)
                        one.await_thread()  # on a busy machine it would go on in the next command
                self._trackers.clear()
                self.disk.end()
                _let_go()
        if self._breach:
            raise self._breach
        return Ended("killed") if dead else ended

    def _ended(self, command: Callable[[], Any]) -> Ended:
        try:
            return Ended("done", str(command()))
        except InputError as error:
            return Ended("refused", str(error), error)
        except KeyboardInterrupt:
            return Ended("interrupted")
        except (Killed, LostWorker):
            return Ended("killed")
        except Exception as error:
            return Ended("raw", f"{type(error).__name__}: {error}", error)

    def second(self, command: Callable[[], Any]) -> None:
        """Runs a second command while the first stands still.

        Where the first does not hold the lock yet, or no longer, the second is a request of its own.
        """
        self._note_request()
        before, self._finished = self._description(), self._is_finished()
        with self.disk.other_process():
            ended = self._ended(command)
        self._note_request()
        self._finished = self._is_finished()
        try:
            self._check_ended(ended)
            if ended.how == "refused" and self._description() != before:
                raise broken("second command", f"refused with {ended.text!r}, and yet search.json changed")
        except Broken as error:  # here the first command would take it for an error of its own
            self._breach = error

    def strike(self) -> None:
        """Called by each epoch of a trial."""
        if self._epochs_left is None or self.disk._paused:
            return
        self._epochs_left -= 1
        if self._epochs_left == 0:
            self._epochs_left = None
            if self._strike == "lost":
                raise LostWorker
            raise RuntimeError("an epoch raises, once")

    def _check_ended(self, ended: Ended) -> None:
        if ended.how == "raw":
            raise broken("no raw error", ended.text) from ended.error
        if ended.how == "refused" and (not ended.text.strip() or "\n" in ended.text):
            raise broken("one line", repr(ended.text))

    @contextmanager
    def _process(self) -> Iterator[None]:
        """What a process of its own has for itself, and what takes too long in every sequence."""
        environment, here = dict(os.environ), Path.cwd()
        with pytest.MonkeyPatch.context() as patch, ray_here():
            plan = tiny.Plan(self.case.metrics, self.case.faults, self.case.keeps,
                             self.case.objective.rpartition(" ")[0], self.strike)  # fmt: skip
            for name in vars(plan):
                patch.setattr(tiny.PLAN, name, getattr(plan, name))
            os.environ["SEARCH_TASKS"] = "tiny=tests.fuzz.tiny:TASK"
            os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{self.root / 'other.db'}" if self.other else ""
            os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
            os.chdir(self.root / "here")
            patch.setattr(tempfile, "tempdir", str(self.root / "scratch"))
            patch.setattr(threading, "excepthook", lambda about: None)
            patch.setattr(gc, "freeze", lambda: None)
            patch.setattr(runs, "commit_here", lambda: "none")
            patch.setattr(trainables, "entry_points", lambda **_: [])
            _spare_time(patch)
            self._watch_journal(patch)
            self._watch_tracker(patch)
            try:
                yield
            finally:
                os.environ.clear()
                os.environ.update(environment)
                os.chdir(here)

    def _watch_journal(self, patch: pytest.MonkeyPatch) -> None:
        append, acknowledged = journal.Journal.append, self.acknowledged

        def noted(this: Any, *events: Any) -> Any:
            written = append(this, *events)
            if not self.disk.dead and this.path == self.folder.journal:
                self._ask(this.events)
            acknowledged.extend(json.loads(json.dumps(event)) for event in written)
            return written

        patch.setattr(journal.Journal, "append", noted)

    def _ask(self, events: Sequence[Any]) -> None:
        """Sends the requests whose epoch is in the journal."""
        there = {(event["number"], event["epoch"]) for event in events if event["event"] == "result"}
        for one in self.case.asks:
            if one not in self._sent and (one.trial, one.epoch) in there:
                self._sent.append(one)
                with self.disk.other_process():
                    Mailbox.of(self.folder).put(one.request)

    def _watch_tracker(self, patch: pytest.MonkeyPatch) -> None:
        if not self.tracked:
            patch.setattr(session, "Tracker", _Untracked)
            return
        trackers = self._trackers

        class Watched(tracker.Tracker):
            def __init__(self, *arguments: Any, **named: Any) -> None:
                super().__init__(*arguments, **named)
                trackers.append(self)

            def await_thread(self) -> None:
                self._thread.join(60)
                assert not self._thread.is_alive()

        patch.setattr(session, "Tracker", Watched)
        for name in ("LAG", "FIRST_LAG", "LONGEST_LAG"):  # it delivers at the end, while nothing else happens
            patch.setattr(tracker, name, 1000.0)
        # A fault may last, and MLflow takes nothing then. Without a fault the first attempt may fail on a busy machine.
        patch.setattr(session, "PATIENCE", 0.3 if self._faulty else 3.0)
        # Loading the logged model once more, and copying the whole package beside it, take most of a registration.
        patch.setattr("mlflow.models.utils._validate_serving_input", lambda *_, **__: None)
        patch.setattr("mlflow.utils.environment.warn_dependency_requirement_mismatches", lambda *_, **__: None)
        patch.setattr(model_registry, "_code_copy", _little_code)

    # the world around

    def _change(self, what: str) -> None:
        kept = self.root / ("other.kept" if self.other else "store.kept")
        if what == "back up" and self.database.exists():
            shutil.copy(self.database, kept)
        elif what == "delete":
            self.database.unlink(missing_ok=True)
        elif what == "other":
            self.other = not self.other
        elif kept.exists():
            self.database.unlink(missing_ok=True)
            shutil.copy(kept, self.database)

    def _put_database(self) -> None:
        """Puts the empty database where there is none, which MLflow would make in seconds."""
        if not self.database.exists():
            shutil.copy(self.empty, self.database)

    def _damage(self, damage: Damage) -> None:
        path = self._path(damage.file)
        if path is None or not path.exists() or path.stat().st_size == 0:
            return
        if damage.how == "delete" and damage.file in ("journal", "search.json"):
            return  # a search without them is no search
        whole = path.read_bytes()
        if damage.how == "delete":
            path.unlink()
            return
        before = list(read_events(path)) if damage.file == "journal" else []
        path.write_bytes(_damaged(whole, damage))
        if damage.file == "journal":
            self._check_damaged_journal(path, whole, before)
        elif damage.file == "search.json":
            self._check_damaged_description(path, whole)

    def _check_damaged_journal(self, path: Path, whole: bytes, before: Sequence[Any]) -> None:
        """A damaged journal is refused, and restored from a backup; or what is read of it is what was written."""
        try:
            events = list(read_events(path))
        except InputError as error:
            if str(path) not in str(error) or "line" not in str(error) or "\n" in str(error):
                raise broken("refused journal", f"names no file and line: {error}") from error
            ended = self._command(partial(self.resume, {}))
            if ended.how != "refused":
                raise broken("refused journal", f"resume ended as {ended}") from ended.error
            path.write_bytes(whole)
            return
        except Exception as error:
            raise broken("no raw error", f"a damaged journal: {type(error).__name__}: {error}") from error
        if not all(_same(one, other) for one, other in zip(events, before, strict=False)):
            raise broken("damaged journal", "is read without a word, as other events")
        if len(events) < len(before) and "shortened" in HELD_BACK:
            path.write_bytes(whole)
        elif len(events) < len(before):
            # A last line that is torn is dropped, as a kill may have torn it, and its epochs are trained again.
            self.told_again = True
            left = {repr(event) for event in events}
            self.acknowledged[:] = [one for one in self.acknowledged if repr(one) in left]

    def _check_damaged_description(self, path: Path, whole: bytes) -> None:
        if json.loads(whole) == _parsed(path.read_bytes()):
            return
        ended = self._command(partial(self.resume, {}))
        if ended.how == "refused" and "\n" not in ended.text:
            path.write_bytes(whole)
            return
        self._check_ended(ended)
        raise broken("damaged search.json", f"is read without a word, and resume ended as {ended}")

    def _path(self, file: str) -> Path | None:
        folder = self.folder.path
        found: Sequence[Path] = ()
        match file:
            case "journal":
                return self.folder.journal
            case "search.json":
                return folder / "search.json"
            case "delivered":
                return folder / "delivered"
            case "checkpoint":
                found = sorted(folder.glob("checkpoints/*/*.pt"), key=lambda path: path.stat().st_mtime_ns)
            case "final":
                found = sorted(folder.glob("final/*.pt"))
        return found[-1] if found else None

    # what there is

    def _description(self) -> bytes | None:
        path = self.folder.path / "search.json"
        return path.read_bytes() if path.exists() else None

    def _extent(self) -> tuple[int, int] | None:
        """The trials and epochs that search.json names."""
        found = self._description()
        section = json.loads(found)["config"]["search"] if found else None
        return (section["trials"], section["epochs"]) if section else None

    def _is_finished(self) -> bool:
        return self.folder.exists and self.folder.journal.exists() and self.state().status == "finished"

    def state(self) -> SearchState:
        """The state that the journal adds up to."""
        objective = tiny.TASK.objective
        if self.case.kind != "task":
            metric, _, mode = self.case.objective.rpartition(" ")
            objective = Objective(metric.removeprefix("val_"), "min" if mode == "min" else "max")
        several = [parse_objective(text, "case") for text in self.case.objectives]
        state = SearchState(objective, several, self.case.preference)
        for event in read_events(self.folder.journal):
            state.apply(event)
        return state

    def results(self) -> dict[str, Any]:
        """What a search must come to again: trials, curves, decisions, the final model and its test."""
        state = self.state()
        trials = {
            n: (t.params, t.seed, t.outcome, {e: _lasting(m) for e, m in t.curve.items()})
            for n, t in state.trials.items()
        }
        if state.final is None:
            return {"status": state.status, "trials": trials}
        final, place = state.final, self.folder.final(state.final)
        state_dict = torch.load(place / "checkpoint.pt", weights_only=True)
        if self.case.kind != "task":
            written = sorted((place / "model" / "files").iterdir())
            learnt = {path.name: torch.tensor(list(path.read_bytes())) for path in written}
        else:
            learnt = state_dict["model"]
        return {
            "status": state.status,
            "trials": trials,
            "final": (final.trial, final.seed, final.epochs, final.params, final.test),
            "curve": {epoch: _lasting(metrics) for epoch, metrics in final.curve.items()},
            "weights": {name: tensor.tolist() for name, tensor in learnt.items()},
        }


def play(case: Case, actions: Sequence[Action], folder: Path, empty: Path) -> World:
    """Does the actions one after the other, then an undisturbed resume; the caller checks what there is then.

    Args:
        folder: where the search is; it is emptied.
        empty: a database of MLflow without runs.
    """
    world = World(folder, case, empty)
    for action in actions:
        world.do(action)
    world.do(Go())
    return world


def undisturbed(case: Case, requests: Sequence[tuple[int, int]], folder: Path, empty: Path) -> World:
    """The same search with the same requests, and nothing that goes wrong. MLflow is not told."""
    (trials, epochs), *later = requests
    world = World(folder, replace(case, trials=trials, epochs=epochs), empty, tracked=False)
    world.do(Go())
    for more_trials, more_epochs in later:
        world.do(Go(trials=more_trials - trials, epochs=more_epochs - epochs))
        trials, epochs = more_trials, more_epochs
    if world.state().status == "interrupted":
        raise AssertionError(f"nothing disturbed it, and yet it was interrupted:\n{world.last_output}")
    return world


class _Untracked:
    """In the place of the tracker of a search that is only compared."""

    registered: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def start(self, *_: Any) -> None: ...

    def __call__(self, *_: Any) -> None: ...

    def close(self, patience: float) -> int:
        return 0


def _flags(case: Case) -> dict[str, Any]:
    return {
        "search.searcher": case.searcher, "search.scheduler": case.scheduler, "search.trials": case.trials,
        "search.epochs": case.epochs, "search.grace_period": 1, "search.reduction_factor": 2.0, "search.brackets": 2,
        "search.startup_trials": 2, "search.concurrency": 1, "search.seed": case.seed, "resources.gpus": 0,
        "resources.dashboard": False, "resources.precision": "fp32",
        "search.trial_timeout": "1h" if case.asks else None,  # each epoch is then reported by itself
        "search.target": case.target, "search.limits": case.limits or None,
        "search.objective": list(case.objectives) or None, "search.preference": case.preference,
    }  # fmt: skip


def _placed(fault: Fault | None, world: World) -> tuple[Kind | None, int, Callable[[], None]]:
    """The fault of the disk that stands for a fault; none where it comes in an epoch."""
    more = {"trials": "+5", "epochs": None}
    seconds = {"resume": partial(world.resume, {}), "more": partial(world.resume, more), "run": world.run}
    if fault is None or fault.kind in ("raise", "lost"):
        return None, 0, lambda: None
    if fault.kind in seconds:
        return "call", fault.at, partial(world.second, seconds[fault.kind])
    if fault.kind in ("interrupt", "interrupts"):
        return "call", fault.at, partial(_interrupt, 1 + (fault.kind == "interrupts"))
    return fault.kind, fault.at, lambda: None  # type: ignore[return-value]


def _interrupt(times: int) -> None:
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)


def _spare_time(patch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes a third of a sequence and changes nothing that the promises are about."""
    # A process for each command, which speaks once the driver is dead; here a dead driver is an exception.
    patch.setattr(guard.Guard, "__enter__", lambda this: this)
    # Without a device torch keeps each seed for later, together with the stack of the call.
    for device in (torch.cuda, torch.xpu, torch.mtia):
        patch.setattr(device, "manual_seed_all", lambda seed: None)


def _clear(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)


def _let_go() -> None:
    """Lets go of MLflow's connections, as the end of a process does, and keeps its stores, which take long to make."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Models
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Runs

    for engine in [*Runs._engine_map.values(), *Models._engine_map.values()]:
        engine.dispose()


def _little_code(target: Path) -> str:
    (target / "trainables").mkdir(parents=True)
    (target / "trainables" / "__init__.py").write_text("")
    return str(target / "trainables")


def _damaged(whole: bytes, damage: Damage) -> bytes:
    changed = bytearray(whole)
    place = min(int(damage.where * len(whole)), len(whole) - 1)
    if damage.how == "flip":
        changed[place] ^= 1 << (place % 7)
    elif damage.how == "truncate":
        del changed[place:]
    else:
        changed[place : place + 4096] = bytes(len(changed[place : place + 4096]))
    return bytes(changed)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _same(one: Any, other: Any) -> bool:
    """Whether two events are the same; NaN is itself here."""
    return repr(one) == repr(other)


def _lasting(metrics: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in metrics.items() if key not in _MEASURED}
