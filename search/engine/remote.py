"""Runs trainings beside the trials on the cluster, as generators: final trainings, repeats and audits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import ray

from search.engine.placement import Placement
from search.engine.search import Search
from search.engine.transfer import keep
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
        The position in `starts` and the message. Files in a message are written on the way.

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
            yield streams[stream], message


def train_resumably(
    learner: Learner, epochs: int, storage: Storage, progress: str, epoch: Callable[[], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Trains up to `epochs` epochs and yields what `epoch()` returns for each.

    The state after each epoch is kept in the file `progress`. If the file exists, the training goes on from it, and the
    messages of its epochs are yielded again first: the driver may have been killed before it heard the last.
    """
    with suppress(OSError), storage.open(progress) as file:
        training.load(learner, file)
    earlier = learner.notes.setdefault("said", [])
    for said in earlier:  # not `yield from`: Ray calls `send`, which a list does not have
        yield said
    while learner.epoch < epochs:
        said = epoch()
        earlier.append(said)
        saved = storage.save(progress, partial(training.write, learner))
        yield {**said, "files": {progress: saved["content"]}} if "content" in saved else said
