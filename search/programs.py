"""Searches a training function or a command, and gives each program of the user a task of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import lock_descriptor

from search.core.config import SearchConfig, check_config, digest, parse_objective
from search.core.overrides import argument, flag, lay_over
from search.core.program_config import loop_config
from search.core.space import Space
from search.core.store import Store, read_json
from search.observer import Observer
from search.outcome import SearchOutcome
from search.runs import RunOptions, new_name, reports_full_disk, run
from trainables import runnable_tasks
from trainables.base.files import file_safe, replacing
from trainables.loops.command import Command
from trainables.loops.task import Code

if TYPE_CHECKING:
    from search.runtime.search import Listener


#: The types of the values of a flag; None stands for a hyperparameter whose condition does not hold.
TRUTHS = {bool, type(None)}


@dataclass(frozen=True)
class Program:
    """A training function or a command with the settings of its search.

    Attributes:
        space: a spec or a fixed value by hyperparameter.
        objective: such as `val_loss min`.
        flags: values by dotted key, such as `search.trials`; None keeps the default.
        sets: `KEY=VALUE` of the command line. None if Python gives the settings: messages then name arguments instead
            of flags.
        others: the functions `test`, `export` and `predict`, by these names; None for one that there is not.
    """

    train: Callable[..., Any]
    space: Mapping[str, Any]
    objective: str
    flags: Mapping[str, Any]
    sets: Sequence[str] | None = None
    others: Mapping[str, Callable[..., Any] | None] = field(default_factory=dict)

    def pack(self) -> Code:
        """The program for workers and files; raises InputError where it cannot be sent to workers."""
        return Code.of(self.train, self.others)

    def configure(self, store: Store, code: Code, observer: Observer) -> SearchConfig:
        """The checked configuration of the search; raises InputError."""
        flags = self.flags
        if isinstance(self.train, Command):
            # A paused process ends. To resume it would have to train its first epochs again.
            flags = {"search.scheduler": "asha", **{key: value for key, value in flags.items() if value is not None}}
        place, named = ("search.run", argument) if self.sets is None else ("run --command", flag)
        config = loop_config(
            own_task(store, code), self.space, self.objective, flags, self.sets or (), place, named, code.brings
        )
        if isinstance(self.train, Command):
            values = config.space.choices()
            optional = {p.name for p in config.space.parameters if p.when or None in (values[p.name] or ())}
            objective = parse_objective(str(self.objective), "objective").metric
            truths = {name for name, given in values.items() if given and {type(v) for v in given} <= TRUTHS}
            steps = config.search.report_every is not None
            for line in self.train.check(values, optional, objective, truths, steps):
                observer.say(line)
        for line in whole_numbers(config.space):
            observer.say(line)
        return config


def run_program(
    store: Store, program: Program, options: RunOptions, observer: Observer, listeners: Sequence[Listener] = ()
) -> SearchOutcome:
    """Searches a training function or a command; raises InputError where an argument is wrong."""
    code = program.pack()
    store.check()
    name = options.name or new_name(code.name)
    with reports_full_disk(store), store.search(name).begin() as journal:
        config = program.configure(store, code, observer)
        function = Path("functions") / name / f"{code.name}.pkl"
        code.write(store.root / function)
        data = {"function": str(function), "folder": code.folder, "here": str(Path.cwd())}
        config = check_config(config.task, lay_over(config.raw, {"data": data}), config.place)
        return run(store, config, replace(options, name=name), observer, journal, listeners)


def own_task(store: Store, code: Code) -> str:
    """The name of the task of a user's program: the program's own name, unless another program has that name.

    The name is `train`; `folder.train` if the store has another `train`; else `train-3f2a91`. The store's file
    `functions/tasks.json` holds the name of each program, so that a program keeps its name.
    """
    path = store.root / "functions" / "tasks.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        lock_descriptor(lock.fileno())
        remedy = "delete it: programs of one name may then share a task"
        origins: dict[str, str] = read_json(path, remedy) if path.exists() else {}
        folder = file_safe(Path(code.origin.rpartition(":")[0] or code.origin).parent.name)
        installed = runnable_tasks()
        names = [name for name, origin in origins.items() if origin == code.origin]
        names += [code.name, f"{folder}.{code.name}", f"{code.name}-{digest(code.origin)[:6]}"]
        task = next(n for n in names if n not in installed and origins.get(n, code.origin) == code.origin)
        with replacing(path) as file:
            file.write(json.dumps({**origins, task: code.origin}, indent=1).encode())
    return task


def whole_numbers(space: Space) -> list[str]:
    """A note on each `loguniform` between two whole numbers: its values are not whole numbers."""
    return [
        f"note: {p.name}: loguniform [{p.low}, {p.high}] gives numbers such as {math.sqrt(p.low * p.high):.4g}; for a "
        "width or a number of layers take an integer with a log scale, or round it in the training"
        for p in space.parameters
        if p.kind == "loguniform" and isinstance(p.low, int) and isinstance(p.high, int) and p.low > 1
    ]
