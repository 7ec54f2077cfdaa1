"""Starts the search of a training function or a command, for the command line and for Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from search.cli import commands
from search.cli.commands import RunOptions
from search.config.load import check_config
from search.config.loops import loop_config, read_space
from search.config.overrides import lay_over
from search.record.replay import open_search, replay
from search.record.store import Store
from search.session import DONE, FAILED, INTERRUPTED
from trainables import InputError
from trainables.loops.command import Command
from trainables.loops.task import Code


@commands.tells_full_disk
def start(
    console: Console, store: Store, train: Callable[..., Any], space: Mapping[str, Any], objective: str,
    flags: Mapping[str, Any], options: RunOptions, sets: Sequence[str] = (),
) -> str:  # fmt: skip
    """Searches a training function, or a `Command`, and returns the search's name.

    Args:
        flags, sets: as `load_config` takes them.

    Raises:
        InputError: an argument is wrong.
    """
    code, name = Code.of(train), options.name
    if isinstance(train, Command):
        train.check(set(space))
        # A process that is paused is ended, and would have to find its way back.
        flags = {"search.scheduler": "asha", **{key: value for key, value in flags.items() if value is not None}}
    config = loop_config(code.name, space, objective, flags, sets, "search.run")
    store.check()
    name = name or commands.new_name(code.name)
    if store.search(name).exists:
        raise InputError(
            f"{name}: a search of that name exists; go on with `python -m search resume {name}` or "
            f"search.open({name!r}).resume(), or choose another name"
        )
    function = Path("functions") / name / f"{code.name}.pkl"
    code.write(store.root / function)
    data = {"function": str(function), "folder": code.folder}
    config = check_config(code.name, lay_over(config.raw, {"data": data}), config.place)
    commands.run(console, store, config, replace(options, name=name))
    return name


def run_command(
    console: Console, store: Store, asked: tuple[str | None, str | None, Path | None, str | None, str | None],
    flags: Mapping[str, Any], sets: Sequence[str], options: RunOptions,
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
    if space is None or objective is None:
        raise InputError("--command: give its --space FILE and its --objective 'val_loss min' too")
    name = start(console, store, Command(text, pattern), read_space(space), objective, flags, options, sets)
    state, _ = replay(*open_search(store, name)[::2])
    return {"finished": DONE, "interrupted": INTERRUPTED}.get(state.status, FAILED)
