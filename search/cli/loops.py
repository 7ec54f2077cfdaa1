"""Starts the search of a training function or a command, for the command line and for Python."""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from search.cli import commands
from search.cli.commands import RunOptions
from search.core.config import SearchConfig, check_config, digest
from search.core.overrides import argument, flag, lay_over
from search.core.program_config import loop_config, read_space
from search.core.replay import replay
from search.core.space import Space
from search.core.store import Store, read_json
from search.session import DONE, FAILED, INTERRUPTED
from trainables import LOOP_TASK, InputError, registered_address, task_names
from trainables.base.files import file_safe, replacing
from trainables.loops.command import Command
from trainables.loops.task import Code


@commands.tells_full_disk
def start(
    console: Console, store: Store, train: Callable[..., Any], space: Mapping[str, Any], objective: str,
    flags: Mapping[str, Any], options: RunOptions, sets: Sequence[str] | None = None, dry_run: bool = False,
) -> str:  # fmt: skip
    """Searches a training function, or a `Command`, and returns the search's name.

    Args:
        flags, sets: as `load_config` takes them; from Python there are no `sets`.
        dry_run: prints what the search would do, and starts none; its name is then empty.

    Raises:
        InputError: an argument is wrong.
    """
    code, name, place, named = Code.of(train), options.name, "search.run", argument
    if isinstance(train, Command):
        # A process that is paused is ended, and would have to find its way back.
        flags = {"search.scheduler": "asha", **{key: value for key, value in flags.items() if value is not None}}
    if sets is not None:
        place, named = "run --command", flag
    store.check()

    def configured() -> SearchConfig:
        config = loop_config(own_task(store, code), space, objective, flags, sets or (), place, named)
        if isinstance(train, Command):
            values = config.space.choices()
            absent = {p.name for p in config.space.parameters if p.when or None in (values[p.name] or ())}
            train.check(set(values), absent)
        for line in whole_numbers(config.space):
            console.print(line, markup=False, soft_wrap=True)
        return config

    if dry_run:
        commands.dry_run(console, configured(), code.folder)
        return ""
    name = name or commands.new_name(code.name)
    with store.search(name).begin() as journal:
        config = configured()
        function = Path("functions") / name / f"{code.name}.pkl"
        code.write(store.root / function)
        data = {"function": str(function), "folder": code.folder, "here": str(Path.cwd())}
        config = check_config(config.task, lay_over(config.raw, {"data": data}), config.place)
        commands.run(console, store, config, replace(options, name=name), journal)
    return name


def own_task(store: Store, code: Code) -> str:
    """The name of the task that a program of the user's is: its own, unless that is another program's.

    `train`, or where the store has a `train` from elsewhere `folder.train`, then `train-3f2a91`. The store keeps which
    program has which name, so that a program always has the same one.
    """
    path = store.root / "functions" / "tasks.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lost = "delete it: programs of one name may then share a task"
        known: dict[str, str] = read_json(path, lost) if path.exists() else _earlier(store)
        folder = file_safe(Path(code.origin.rpartition(":")[0] or code.origin).parent.name)
        installed = {name for name in task_names() if not (registered_address(name) or "").startswith(LOOP_TASK)}
        names = [name for name, origin in known.items() if origin == code.origin]
        names += [code.name, f"{folder}.{code.name}", f"{code.name}-{digest(code.origin)[:6]}"]
        own = (code.origin, code.folder)
        task = next(name for name in names if name not in installed and known.get(name, code.origin) in own)
        with replacing(path) as file:
            file.write(json.dumps({**known, task: code.origin}, indent=1).encode())
    return task


def _earlier(store: Store) -> dict[str, str]:
    """The tasks of a store whose programs are not kept yet, each with the folder of its program."""
    return {
        record.task: str(record.config.get("data", {}).get("folder", ""))
        for _, record in store.records()
        if record.offered
    }


def whole_numbers(space: Space) -> list[str]:
    """A note on each `loguniform` between two whole numbers, whose values are no whole numbers."""
    return [
        f"note: {p.name}: loguniform [{p.low}, {p.high}] gives numbers such as {math.sqrt(p.low * p.high):.4g}; for a "
        "width or a number of layers take an integer, or round it in the training"
        for p in space.parameters
        if p.kind == "loguniform" and isinstance(p.low, int) and isinstance(p.high, int) and p.low > 1
    ]


def run_command(
    console: Console, store: Store, asked: tuple[str | None, str | None, Path | None, str | None, str | None],
    flags: Mapping[str, Any], sets: Sequence[str], options: RunOptions, dry_run: bool,
) -> int:  # fmt: skip
    """Searches a command as `run --command` describes it; returns the exit code.

    Args:
        asked: the task, which there must not be, the command, the file of its space, its objective and its pattern.

    Raises:
        InputError: one of them is missing, too many, or wrong.
    """
    task, text, space, objective, pattern = asked
    if text is None:
        raise InputError("run: what? a TASK that `python -m search list` shows, or --command")
    if task is not None:
        raise InputError(f"run {task} --command ...: give a task or a command, not both")
    if options.data is not None:
        raise InputError(f"--data {options.data}: a command has its own data")
    if options.plan:
        raise InputError("--plan: only a TASK has a forecast; time a short run: --trials 2 --epochs 2")
    if space is None or objective is None:
        raise InputError("--command: give its --space FILE and its --objective 'val_loss min' too")
    name = start(console, store, Command(text, pattern), read_space(space), objective, flags, options, sets, dry_run)
    if dry_run:
        return DONE
    state, _ = replay(store.search(name))
    return {"finished": DONE, "interrupted": INTERRUPTED}.get(state.status, FAILED)
