"""Runs the trainings after the trials on the cluster: final trainings, repeats and audits.

Each training is a Ray generator: it yields a message after every epoch, and the driver records the messages.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from search.core.events import FileDamaged
from search.runtime.placement import Placement
from search.runtime.search import Search
from search.runtime.transfer import keep
from trainables import Learner, Splits
from trainables.base import training
from trainables.base.checkpoints import Storage
from trainables.base.trainable import sent

Job = TypeVar("Job")


def run_jobs(
    search: Search, splits: Splits, placement: Placement, role: str, jobs: Sequence[Job],
    worker: Callable[..., Iterator[Any]], arguments: Callable[[Job], tuple[Any, ...]],
    on_message: Callable[[Job, Any], None], name_of: Callable[[Job], str],
) -> None:  # fmt: skip
    """Trains each job on the cluster, at most `placement.concurrency` of them at once.

    Args:
        role: a part of the name in Ray's dashboard.
        worker: runs on a worker as `worker(task name, splits, resources, *arguments(job))` and yields messages.
        arguments: is called when the job starts, and may record the start.
        on_message: gets the job and each message. Files in a message are already written. The listeners of the search
            get messages about damaged files instead.
        name_of: returns the name of the job for errors, such as `the audit of trial 3`.

    Raises:
        KeyboardInterrupt: the search was stopped. Running workers are left alone, as an epoch may take an hour.
        ray.exceptions.RayTaskError: a worker failed; the note of the error names the job.
    """
    if not jobs:
        return
    name = f"{search.config.task}-{search.folder.name}-{role}"
    shared, resources, remote_worker = ray.put(splits), placement.training_resources(search.config), ray.remote(worker)
    waiting = list(jobs)
    streams: dict[Any, tuple[Job, PlacementGroup | None]] = {}

    def start(job: Job) -> None:
        options, group = _reserved(placement)
        own = remote_worker.options(num_returns="streaming", max_retries=0, name=name, **options)
        stream = own.remote(search.config.task, shared, resources, *arguments(job))
        streams[stream] = job, group

    while waiting or streams:
        while waiting and len(streams) < placement.concurrency:
            start(waiting.pop(0))
        ready, _ = ray.wait(list(streams), num_returns=1, timeout=0.5)
        search.take_requests()
        if search.cut_off:
            raise KeyboardInterrupt
        for stream in ready:
            job, group = streams[stream]
            try:
                message = ray.get(next(stream))
            except StopIteration:
                del streams[stream]
                _free(group)
                continue
            except ray.exceptions.RayError as error:
                error.add_note(f"this ended {name_of(job)}")
                raise
            if isinstance(message, dict):
                keep(search, message.pop("files", {}))
                if message["event"] == "damaged":
                    search.announce(cast(FileDamaged, message))
                    continue
            on_message(job, message)


def _reserved(placement: Placement) -> tuple[dict[str, Any], PlacementGroup | None]:
    """The resources of a training as options of its Ray task, and the placement group of several processes.

    The task of a group of processes takes no resources itself, as the worker of a trial (`trials.py`).
    """
    if placement.processes == 1:
        return {"num_cpus": placement.cpus, "num_gpus": placement.gpus}, None
    group = placement_group(placement.bundles, strategy=placement.strategy)
    inside = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    return {"num_cpus": 0, "num_gpus": 0, "scheduling_strategy": inside}, group


def _free(group: PlacementGroup | None) -> None:
    if group is not None:
        remove_placement_group(group)


def is_recorded(message: dict[str, Any], curve: dict[int, dict[str, float]]) -> bool:
    """Whether the journal has the epoch of a message already. If it is trained again, the first record stays."""
    return message.get("epoch") in curve


def train_resumably(
    build: Callable[[], Learner], epochs: int, storage: Storage, states: Sequence[tuple[str, str | None]],
    epoch: Callable[[Learner], dict[str, Any]],
) -> Generator[dict[str, Any], None, Learner]:  # fmt: skip
    """Trains up to `epochs` epochs, yields the message `epoch(learner)` after each, and returns the learner.

    The state after each epoch is saved in the first file of `states`. If that file exists, the training continues from
    it and yields the messages of its epochs again, because the driver may have been killed before it recorded them.

    Args:
        build: makes the learner before its first epoch.
        states: names and digests of files to continue from. The first sound file is used; each damaged file yields a
            message.
    """
    scratch = tempfile.TemporaryDirectory(prefix="training-")
    others = partial(storage.others, scratch=Path(scratch.name))
    learner, damaged = training.restore(build, states, storage.open_checked, others)
    for error in damaged:
        yield {"event": "damaged", "file": error.file, "why": error.why}
    messages = learner.notes.setdefault("said", [])
    for message in messages:  # not `yield from`: Ray calls `send`, which a list does not have
        yield message
    progress, _ = states[0]
    while learner.epoch < epochs:
        try:
            message = epoch(learner)
        except training.Ended:  # a training of the user may end before its last epoch
            break
        messages.append(message)
        saved = sent(storage.save(progress, partial(training.write, learner), partial(training.files_of, learner)))
        yield {**message, "files": saved["files"]} if "files" in saved else message
    scratch.cleanup()
    return learner
