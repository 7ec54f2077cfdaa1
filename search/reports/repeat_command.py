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
from urllib.parse import parse_qsl

from omegaconf import OmegaConf

from search.core.config import SearchConfig, load_config
from search.core.overrides import SECTIONS, change
from search.core.program_config import LOOPS_FILE
from search.core.record import SearchRecord
from search.core.redaction import redacted
from search.core.space import is_spec
from search.core.store import SearchFolder
from trainables import runnable_tasks
from trainables.loops import OTHERS

#: The flag of each key that has one.
FLAGS = {
    "search.trials": "--trials", "search.epochs": "--epochs", "search.report_every": "--report-every",
    "search.searcher": "--searcher",
    "search.scheduler": "--scheduler", "search.concurrency": "--concurrency", "search.time_budget": "--time-budget",
    "search.seed": "--seed", "resources.cpus": "--cpus", "search.audit_stopping": "--audit-stopping",
    "search.storage": "--storage", "search.target": "--target", "search.cost_budget": "--cost-budget",
    "search.worth": "--worth",
}  # fmt: skip
#: Arguments of `search.run` that are keys of the section `search`.
ARGUMENTS = (
    "trials", "epochs", "report_every", "time_budget", "target", "cost_budget", "worth", "searcher", "scheduler",
    "concurrency", "seed",
)  # fmt: skip
#: Keys that also change other keys (see `change`). They are set first.
LEADING = ("search.trials", "search.epoch_budget", "search.cost_budget", "search.epochs", "search.deterministic")
#: The name of the file with the space of a command, as the report names it.
SPACE_FILE = "space.yaml"


@dataclass(frozen=True)
class Again:
    """How to repeat a search.

    Attributes:
        command: a line for a shell, or lines of Python; empty if this program cannot repeat the search here.
        space: the content of `SPACE_FILE` for a line with `--command`; else empty.
        words: a sentence to read before the command; may be empty.
    """

    command: str
    space: str = ""
    words: str = ""


def again(folder: SearchFolder, record: SearchRecord, config: SearchConfig, origin: str | None) -> Again:
    """The command that repeats a search with the same configuration.

    Args:
        origin: the value of `--from`, if the searcher got results of earlier searches.
    """
    if record.imported:
        return Again("", words=f"The search was imported from {record.imported}; the tool that made it repeats it.")
    if record.asked:
        return Again("", words="The search is a study: the programs that asked it for trials repeat it.")
    target = _as_given(folder, config)
    if config.is_own_program:
        return _program_again(folder, record, config, target, origin)
    if config.task not in runnable_tasks():
        return Again("", words=f"The task {config.task} is not installed here, so its default settings are unknown.")
    words = ["python", "-m", "search", "run", config.task, *(["--data", record.data] if record.data else [])]
    start = load_config(config.task, profile="data" if record.data else "demo").raw
    words += [*_flags(_changes(start, target)), *_other_flags(record, origin)]
    words += [] if record.retrain else ["--no-retrain"]
    return Again(redacted(shlex.join(words)))


def _program_again(
    folder: SearchFolder, record: SearchRecord, config: SearchConfig, target: dict[str, Any], origin: str | None
) -> Again:
    """The command that repeats a search of a function or a command.

    A command with environment variables needs Python: `run --command` cannot set them.
    """
    source = folder.path.parents[1] / Path(config.data["function"]).with_suffix(".py")
    objective = f"{record.metric} {record.objective.mode}"
    command = _command_of(source)
    start = load_config(config.task, profile="data", file=LOOPS_FILE).raw
    start |= {"space": target["space"], "data": target["data"]}
    if command is not None:  # the command line sets this scheduler for a command, which cannot be paused
        start = change(start, flags={"search.scheduler": "asha"})
    changes = _changes(start, target)
    if command is None or command.get("environment"):
        train = source.stem if command is None else _call("search.Command", [], command)
        words = f"Its source, when the search began, is in {source}."
        words += " Give the values of its environment, which are not shown." if command else ""
        return Again(redacted(_python(train, objective, changes, target, record, origin)), "", words)
    line = ["python", "-m", "search", "run", "--command", command["text"], "--space", SPACE_FILE]
    line += ["--objective", objective]
    line += _command_flags(command)
    line += [*_flags(changes), *_other_flags(record, origin)]
    space = "\n".join(f"{_json(name)}: {_json(spec)}" for name, spec in target["space"].items())
    words = f"In {command['folder']}, with this {SPACE_FILE}:" if command.get("folder") else ""
    return Again(redacted(shlex.join(line)), redacted(space), words)


def _command_flags(command: Mapping[str, Any]) -> list[str]:
    """The flags for the fields of a `Command` beside its text."""
    patterns = command.get("pattern") or ()
    words = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        words += ["--pattern", pattern]
    for field, option in (("report_at", "--report-at"), ("template", "--template"), ("final", "--final")):
        words += [option, command[field]] if command.get(field) else []
    return words + (["--shell"] if command.get("shell") else [])


def _as_given(folder: SearchFolder, config: SearchConfig) -> dict[str, Any]:
    """The configuration as the user gave it: without the folder that `run` adds to `search.storage`.

    Addresses of `search.notify` whose secrets are not stored are left out.
    """
    storage = config.raw["search"].get("storage")
    given: dict[str, Any] = {"notify": [address for address in config.search.notify if not address.endswith("/***")]}
    if storage is not None:
        given["storage"] = re.sub(rf"/{re.escape(folder.name)}-[0-9a-f]{{8}}$", "", storage)
    return {**config.raw, "search": {**config.raw["search"], **given}}


def _other_flags(record: SearchRecord, origin: str | None) -> list[str]:
    """The flags of tasks and commands that are not part of the configuration."""
    words = ["--from", origin] if origin else []
    return words + (["--address", record.address] if record.address else [])


def _changes(start: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
    """The smallest set of keys and values with which `change` turns the configuration `start` into `target`."""
    changes: dict[str, Any] = {}
    while True:
        reached = change(start, [_set(key, value) for key, value in changes.items()])
        left = {k: v for k, v in _differences(reached, target) if k not in changes}
        if not left:
            return changes
        key = min(left, key=lambda k: LEADING.index(k) if k in LEADING else len(LEADING))
        changes[key] = left[key]


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys whose values differ, with the new values. The spec of a hyperparameter is one value."""
    for name, value in new.items():
        before = old.get(name)
        groups = isinstance(value, Mapping) and isinstance(before, Mapping)
        if groups and not (prefix.startswith("space") and (is_spec(value) or is_spec(before))):
            yield from _differences(before or {}, value, f"{prefix}{name}.")
        elif before != value or isinstance(before, bool) != isinstance(value, bool):
            yield f"{prefix}{name}", value


def _flags(changes: Mapping[str, Any]) -> list[str]:
    """The words of a command line for changed keys."""
    words: list[str] = []
    for key, value in changes.items():
        if key in FLAGS and value is not None:
            words += [FLAGS[key], str(value)]
        elif key == "resources.gpus" and isinstance(value, str):  # `--gpus` gives a text; `--set` or `auto` a number
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
    """`KEY=VALUE` with the value as JSON, which YAML reads. A word that YAML reads as text has no quotes."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_]+", value) and _read(value) == value:
        return f"{key}={value}"
    return f"{key}={_json(value)}"


def _json(value: Any) -> str:
    """A value as JSON that YAML reads as the same value. Unprintable characters are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def _read(text: str) -> Any:
    return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]


def _command_of(source: Path) -> dict[str, Any] | None:
    """The fields of the searched `Command`, read from its source, with `***` as the values of its environment; None if
    a function was searched.

    A report does not unpickle the function, because a pickle runs code.
    """
    try:
        call = ast.parse(source.read_text().strip(), mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Command":
            fields = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
            hidden = dict.fromkeys(fields.get("environment", {}), "***")
            # `redacted` does not find a secret between the quotes that `shlex.join` adds to quotes.
            texts = {key: redacted(fields[key]) for key in ("text", "final") if key in fields}
            return fields | texts | {"environment": hidden}
    except (OSError, SyntaxError, ValueError):
        pass
    return None


def _python(
    train: str, objective: str, changes: Mapping[str, Any], target: dict[str, Any], record: SearchRecord,
    origin: str | None,
) -> str:  # fmt: skip
    """The call of `search.run`."""
    named: dict[str, Any] = {"space": target["space"], "objective": objective}
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
    return _call("search.run", [train, *(f"{name}={name}" for name in _others(record))], named)


def _others(record: SearchRecord) -> list[str]:
    """The functions that the search has beside its training function: of `test`, `export` and `predict`."""
    brings = dict(parse_qsl((record.offered or "").partition("?")[2])).get("brings", "")
    return [name for name in brings.split("+") if name in OTHERS]


def _call(function: str, positional: list[str], named: Mapping[str, Any]) -> str:
    """A call in Python; each entry of the space has a line of its own."""
    lines = [f"    {text}," for text in positional]
    for name, value in named.items():
        if name == "space":
            lines += ["    space={", *(f"        {key!r}: {spec!r}," for key, spec in value.items()), "    },"]
        else:
            lines.append(f"    {name}={value!r},")
    return "\n".join([f"{function}(", *lines, ")"])
