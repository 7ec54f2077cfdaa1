"""Writes the command that repeats a search, with every setting that differs from the defaults of the task."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from search.core.config import SearchConfig, load_config
from search.core.overrides import SECTIONS, change
from search.core.program_config import LOOPS_FILE
from search.core.record import SearchRecord
from search.core.redaction import redacted
from search.core.space import is_spec
from search.core.store import SearchFolder
from trainables import task_names

#: The flag of each key that has one.
FLAGS = {
    "search.trials": "--trials", "search.epochs": "--epochs", "search.searcher": "--searcher",
    "search.scheduler": "--scheduler", "search.concurrency": "--concurrency", "search.time_budget": "--time-budget",
    "search.seed": "--seed", "resources.cpus": "--cpus", "search.audit_stopping": "--audit-stopping",
    "search.storage": "--storage",
}  # fmt: skip
#: Arguments of `search.run` that are keys of the section `search`.
ARGUMENTS = ("trials", "epochs", "time_budget", "searcher", "scheduler", "concurrency", "seed")
#: Keys that change other keys too (see `change`): they are set first.
LEADING = ("search.trials", "search.epoch_budget", "search.epochs", "search.deterministic")
#: The name that the page gives to the file with the space of a command.
SPACE_FILE = "space.yaml"


@dataclass(frozen=True)
class Again:
    """How a search is repeated.

    Attributes:
        command: a line for a shell, or lines of Python; empty if only another tool can repeat the search.
        space: the content of `SPACE_FILE` for a line with `--command`; else empty.
        words: a sentence about what has to be done before; may be empty.
    """

    command: str
    space: str = ""
    words: str = ""


def again(folder: SearchFolder, record: SearchRecord, config: SearchConfig, origin: str | None) -> Again:
    """How the search is repeated with the same configuration.

    Args:
        origin: the value of `--from`, if the searcher got results of earlier searches.
    """
    if record.imported:
        return Again("", words=f"The search was imported from {record.imported}; the tool that made it repeats it.")
    wanted = _as_given(folder, config)
    if "function" not in config.data:
        if config.task not in task_names():
            return Again(
                "", words=f"The task {config.task} is not installed here, so its default settings are unknown."
            )
        return Again(redacted(shlex.join(_task_command(record, config, wanted, origin))))
    source = folder.path.parents[1] / Path(config.data["function"]).with_suffix(".py")
    objective = f"{record.metric} {record.objective.mode}"
    command = _command_of(source)
    known = load_config(config.task, profile="data", file=LOOPS_FILE).raw
    start = {**known, "space": wanted["space"], "data": wanted["data"]}
    if command is not None and not command.get("environment"):
        # The command line sets this scheduler for a command: a command cannot be paused.
        start = change(start, flags={"search.scheduler": "asha"})
        line = ["python", "-m", "search", "run", "--command", command["text"], "--space", SPACE_FILE]
        line += ["--objective", objective]
        line += ["--pattern", command["pattern"]] if command.get("pattern") else []
        line += [*_flags(_changes(start, wanted)), *_others(record, config, origin)]
        before = f"In {command['folder']}, with this {SPACE_FILE}:" if command.get("folder") else ""
        space = "\n".join(f"{_json(name)}: {_json(spec)}" for name, spec in wanted["space"].items())
        return Again(redacted(shlex.join(line)), redacted(space), before)
    if command is not None:
        start = change(start, flags={"search.scheduler": "asha"})
        train = _call("search.Command", [], command)
    else:
        train = source.stem
    words = f"Its source, when the search began, is in {source}."
    return Again(redacted(_python(train, objective, _changes(start, wanted), wanted, record, origin)), "", words)


def _as_given(folder: SearchFolder, config: SearchConfig) -> dict[str, Any]:
    """The configuration as the user gave it: a run adds the folder of the search to `search.storage`."""
    storage = config.raw["search"].get("storage")
    if storage is None:
        return config.raw
    given = re.sub(rf"/{re.escape(folder.name)}-[0-9a-f]{{8}}$", "", storage)
    return {**config.raw, "search": {**config.raw["search"], "storage": given}}


def _task_command(record: SearchRecord, config: SearchConfig, wanted: dict[str, Any], origin: str | None) -> list[str]:
    data = record.data
    words = ["python", "-m", "search", "run", config.task, *(["--data", str(data)] if data else [])]
    start = load_config(config.task, profile="data" if data else "demo").raw
    return [*words, *_flags(_changes(start, wanted)), *_others(record, config, origin)]


def _others(record: SearchRecord, config: SearchConfig, origin: str | None) -> list[str]:
    """The flags that are not part of the configuration."""
    words = ["--from", origin] if origin else []
    words += ["--address", str(record.address)] if record.address else []
    own = "function" in config.data  # a search of a function has no final training
    return [*words, *(["--no-retrain"] if not record.retrain and not own else [])]


def _changes(start: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The keys and values with which `change` turns the configuration `start` into `wanted`, as few as possible."""
    given: dict[str, Any] = {}
    while True:
        reached = change(start, [_set(key, value) for key, value in given.items()])
        left = {k: v for k, v in _differences(reached, wanted) if k not in given}
        if not left:
            return given
        key = min(left, key=lambda k: LEADING.index(k) if k in LEADING else len(LEADING))
        given[key] = left[key]


def _differences(have: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys whose values differ, with the wanted values. The spec of a hyperparameter is one value."""
    for name, value in wanted.items():
        known = have.get(name)
        groups = isinstance(value, Mapping) and isinstance(known, Mapping)
        if groups and not (prefix.startswith("space") and (is_spec(value) or is_spec(known))):
            yield from _differences(known or {}, value, f"{prefix}{name}.")
        elif known != value or isinstance(known, bool) != isinstance(value, bool):
            yield f"{prefix}{name}", value


def _flags(changes: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for key, value in changes.items():
        if key in FLAGS and value is not None:
            words += [FLAGS[key], str(value)]
        elif key == "resources.gpus" and isinstance(
            value, str
        ):  # as its flag gives it; a number is measured, or by --set
            words += ["--gpus", value]
        elif key == "search.deterministic" and value:
            words.append("--deterministic")
        else:
            words += ["--set", _set(key.removeprefix("space.") if _is_plain(key) else key, value)]
    return words


def _is_plain(key: str) -> bool:
    """Whether `--set` accepts the key of a hyperparameter without `space.`."""
    return key.startswith("space.") and key.split(".")[1] not in SECTIONS


def _set(key: str, value: Any) -> str:
    """`KEY=VALUE` with the value as JSON, which YAML reads; a word that YAML reads as text has no quotes."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_]+", value) and _read(value) == value:
        return f"{key}={value}"
    return f"{key}={_json(value)}"


def _json(value: Any) -> str:
    """A value as JSON that YAML reads as the same value; characters that cannot be printed are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def _read(text: str) -> Any:
    return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]


def _command_of(source: Path) -> dict[str, Any] | None:
    """The fields of the searched `Command`, read from its source text; None if a function was searched.

    A report does not open the pickle of the function, because that runs code.
    """
    try:
        call = ast.parse(source.read_text().strip(), mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Command":
            return {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (OSError, SyntaxError, ValueError):
        pass
    return None


def _python(
    train: str, objective: str, changes: Mapping[str, Any], wanted: dict[str, Any], record: SearchRecord,
    origin: str | None,
) -> str:  # fmt: skip
    """The call of `search.run`."""
    named: dict[str, Any] = {"space": wanted["space"], "objective": objective}
    settings, resources = {}, {}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if section == "resources":
            resources[name] = value
        elif name in ARGUMENTS:
            named[name] = value
        else:
            settings[name] = value
    named |= {"settings": settings} if settings else {}
    named |= {"resources": resources} if resources else {}
    named |= {"address": record.address} if record.address else {}
    named |= {"start_from": origin} if origin else {}
    return _call("search.run", [train], named)


def _call(function: str, positional: list[str], named: Mapping[str, Any]) -> str:
    """A call in Python; each entry of the space has a line of its own."""
    lines = [f"    {text}," for text in positional]
    for name, value in named.items():
        if name == "space":
            lines += ["    space={", *(f"        {key!r}: {spec!r}," for key, spec in value.items()), "    },"]
        else:
            lines.append(f"    {name}={value!r},")
    return "\n".join([f"{function}(", *lines, ")"])
