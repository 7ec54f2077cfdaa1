"""Trainings beside the trials (final ones, repeats, audits): generators on the cluster, so many of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import ray

from search.cluster import Placement
from search.engine import Search
from search.sharing import keep
from trainables import training
from trainables.storage import Storage
from trainables.training import Learner


def remote(search: Search, train: Callable[..., Iterator[Any]], placement: Placement, role: str) -> Any:
    """`train` as a generator on a machine of the cluster, as trials are, to be called with `.remote`."""
    return ray.remote(train).options(
        num_cpus=placement.cpus, num_gpus=placement.gpus, num_returns="streaming", max_retries=0,
        name=f"{search.config.task}-{search.folder.name}-{role}",
    )  # fmt: skip


def follow(search: Search, starts: Sequence[Callable[[], Any]], at_once: int) -> Iterator[tuple[int, Any]]:
    """Which start yielded, and what, as it comes; each is started when its turn comes.

    Raises:
        KeyboardInterrupt: the search was told to stop; an epoch may take an hour, so what runs is left as it is.
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
    """Yields what `epoch()` says of each epoch until the learner has trained so many.

    The state after each is kept in the file `progress`. With that file there already, it goes on after the last epoch,
    and first says again what was said: the driver may have been killed before it heard of the last.
    """
    with suppress(OSError), storage.open(progress) as file:
        training.load(learner, file)
    earlier = learner.notes.setdefault("said", [])
    for said in earlier:  # not `yield from`: Ray sends into its generators, which a list cannot take
        yield said
    while learner.epoch < epochs:
        said = epoch()
        earlier.append(said)
        saved = storage.save(progress, partial(training.write, learner))
        yield {**said, "files": {progress: saved["content"]}} if "content" in saved else said
