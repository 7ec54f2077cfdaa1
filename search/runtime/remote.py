"""Runs trainings beside the trials on the cluster, as generators: final trainings, repeats and audits."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, cast

import ray

from search.core.events import FileDamaged
from search.runtime.placement import Placement
from search.runtime.search import Search
from search.runtime.transfer import keep
from trainables import Learner
from trainables.base import training
from trainables.base.storage import Storage


def remote(search: Search, train: Callable[..., Iterator[Any]], placement: Placement, role: str) -> Any:
    """Makes `train` a remote generator with the resources of a trial; start it with `.remote(...)`.

    Args:
        role: part of the name that Ray's dashboard shows.
    """
    return ray.remote(train).options(
        num_cpus=placement.cpus, num_gpus=placement.gpus, num_returns="streaming", max_retries=0,
        name=f"{search.config.task}-{search.folder.name}-{role}",
    )  # fmt: skip


def share(value: Any) -> Any:
    """A reference to a value that every training on the cluster can be called with; it is copied there once."""
    return ray.put(value)


def follow(search: Search, starts: Sequence[Callable[[], Any]], at_once: int) -> Iterator[tuple[int, Any]]:
    """Starts remote generators, `at_once` at a time, and yields what they yield as it comes.

    Yields:
        The position in `starts` and the message. Files in a message are written on the way, and of damaged ones the
        listeners are told.

    Raises:
        KeyboardInterrupt: the search was stopped. Running generators are left alone, as an epoch may take an hour.
    """
    waiting = list(enumerate(starts))
    streams: dict[Any, int] = {}
    while waiting or streams:
        while waiting and len(streams) < at_once:
            position, start = waiting.pop(0)
            streams[start()] = position
        found, _ = ray.wait(list(streams), num_returns=1, timeout=0.5)
        if search.cut_off:
            raise KeyboardInterrupt
        for stream in found:
            try:
                message = ray.get(next(stream))
            except StopIteration:
                del streams[stream]
                continue
            if isinstance(message, dict):
                keep(search, message.pop("files", {}))
                if message["event"] == "damaged":
                    search.announce(cast(FileDamaged, message))
                    continue
            yield streams[stream], message


def train_resumably(
    build: Callable[[], Learner], epochs: int, storage: Storage, states: Sequence[tuple[str, str | None]],
    epoch: Callable[[Learner], dict[str, Any]],
) -> Generator[dict[str, Any], None, Learner]:  # fmt: skip
    """Trains up to `epochs` epochs, yields what `epoch(learner)` returns for each, and returns the training.

    The state after each epoch is kept in the file that `states` names first. If the file exists, the training goes on
    from it, and the messages of its epochs are yielded again first: the driver may have been killed before it heard the
    last.

    Args:
        build: makes the training at its beginning.
        states: names and digests of files to go on from; the first sound one counts. A message says which are damaged.
    """
    learner, damaged = training.restore(build, states, storage.open_checked)
    for one in damaged:
        yield {"event": "damaged", "file": one.file, "why": one.why}
    earlier = learner.notes.setdefault("said", [])
    for said in earlier:  # not `yield from`: Ray calls `send`, which a list does not have
        yield said
    progress, _ = states[0]
    while learner.epoch < epochs:
        said = epoch(learner)
        earlier.append(said)
        saved = storage.save(progress, partial(training.write, learner))
        yield {**said, "files": {progress: saved["content"]}} if "content" in saved else said
    return learner
