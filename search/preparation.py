"""The steps before a session: checks, reading the data, connecting to Ray, measuring the pace."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.core.config import SearchConfig, check_config, parse_duration
from search.core.overrides import change
from search.core.record import SearchRecord
from search.core.redaction import has_secrets, remember, without_secrets
from search.core.settings import SearchSection
from search.core.space import check_values
from search.core.store import Store
from search.observer import Observer
from search.reports.summary import counted
from search.runtime.budget import Budget
from search.runtime.cluster import Cluster, connect
from search.runtime.placement import local_cpus, machines, place
from trainables import (
    Checked,
    Fusable,
    InputError,
    Limited,
    Objective,
    Precomputed,
    SelfTrained,
    Splits,
    Surveyed,
    Task,
    Timed,
    get_task,
)
from trainables.base.errors import first_line
from trainables.base.hub import limit_waiting, unreachable
from trainables.base.storage import LocalFiles, fetch, files_at, is_remote

#: Modules that a session needs. They are imported while Ray starts.
NEEDED = ("search.session", "optuna")


def supported_task(config: SearchConfig) -> Task:
    """The task of a configuration; raises InputError if the task does not support a setting of the configuration."""
    task = get_task(config.task)
    own = task.objective
    if config.objectives and config.objectives[0] != Objective(own.metric, own.mode):
        raise InputError(
            f"{config.place}: search.objective: {config.search.objective}: the first must be the task's own, "
            f"{own.metric} {own.mode}: early stopping and the final training use it"
        )
    if isinstance(task, Limited):
        check_values(config.space, task.allowed, lambda name: f"{config.place}: space.{name}")
    if isinstance(task, Checked):
        limit_waiting()
        task.check(config.space.fixed())
    if config.search.report_every is not None and not isinstance(task, SelfTrained):
        place = f"{config.place}: search.report_every: {config.search.report_every}"
        raise InputError(f"{place}: {config.task} counts in epochs; only functions and commands count in steps")
    resources = config.resources
    if not isinstance(task, SelfTrained) and (resources.processes > 1 or resources.gpu_share > 1):
        key, value = ("processes", resources.processes) if resources.processes > 1 else ("gpus", resources.gpus)
        raise InputError(
            f"{config.place}: resources.{key}: {value:g}: {config.task} trains in one process on at most one GPU: give "
            f"{'1' if key == 'processes' else '1 or a fraction'}, and the other GPUs run more trials at once; several "
            "are for functions and commands"
        )
    if "latency_ms" in config.figures_before and not isinstance(task, SelfTrained | Timed):
        raise InputError(f"{config.place}: search.limits: latency_ms: {config.task} has no `answer` to be timed")
    if config.search.fuse > 1 and not isinstance(task, Fusable):
        place = f"{config.place}: search.fuse: {config.search.fuse}"
        raise InputError(f"{place}: {config.task} trains its trials one by one; allowed is 1")
    return task


def read_data(observer: Observer, store: Store, config: SearchConfig, task: Task, data: str | None) -> Splits:
    """The splits of the user's data, or of the task's demo data where `data` is None."""
    settings = config.data
    if isinstance(task, SelfTrained):  # a function may log there; the address may hold a password, so no file has it
        settings = {
            **settings, "tracking": store.tracking_uri, "report_every": config.search.report_every,
            "processes": config.resources.processes,
        }  # fmt: skip
    else:
        limit_waiting(observer.say)
    with observer.progress("reading the data") as progress:
        source = None if data is None else fetch(data, store.cache) if is_remote(data) else Path(data)
        splits = task.prepare(settings, source, store.cache / config.task, progress)
    chosen = {key: value for key, value in splits.info.chosen.items() if value != settings.get(key)}
    if unreachable() and chosen:
        observer.say(f"without the hub: {', '.join(f'data.{key}={value}' for key, value in chosen.items())}")
    return splits


def prepare_data(
    observer: Observer, store: Store, config: SearchConfig, task: Task, data: str | None, warn: bool = False
) -> Splits:
    """The splits, with the features that all trials share.

    Args:
        warn: whether the user's data is searched for near-copies across splits, which become notes.
    """
    splits = read_data(observer, store, config, task, data)
    if warn and data is not None and isinstance(task, Surveyed):
        with observer.progress("looking for near-copies across splits"):
            lines = [finding.line for finding in task.leaks(splits) if finding.line]
        splits = replace(splits, info=replace(splits.info, notes=(*splits.info.notes, *lines)))
    return with_shared_features(observer, store, config, task, splits)


def with_shared_features(
    observer: Observer, store: Store, config: SearchConfig, task: Task, splits: Splits
) -> Splits:  # fmt: skip
    """Adds what the trials of a configuration share, for a task that computes it once for all of them."""
    from trainables import choose_device

    if not isinstance(task, Precomputed):
        return splits
    device = choose_device(local_cpus(), 1, config.resources.precision)
    with observer.progress("computing what all trials share") as progress:
        return task.precompute(splits, config.space.choices(), device, store.cache / config.task, progress)


def prepare_data_again(
    observer: Observer, store: Store, config: SearchConfig, task: Task, name: str, record: SearchRecord,
    data: str | None = None,
) -> Splits:  # fmt: skip
    """The splits of a search that is resumed.

    Args:
        data: the present address of the data; None: the address in the record.

    Raises:
        InputError: the data changed since the search began, or its address lacks a secret.
    """
    source = data or record.data
    if source is not None and data is None and "***" in source:
        raise InputError(
            f"{name}: the address {source} of its data lacks the secret, which is not stored; give the whole address "
            "again with --data URI"
        )
    remember(source)
    splits = prepare_data(observer, store, config, task, source)
    if record.fingerprint != splits.info.fingerprint:
        raise InputError(
            f"{name}: the data at {source} changed since the search began (fingerprint "
            f"{splits.info.fingerprint}, was {record.fingerprint}); put it back, or start a new search"
        )
    return splits


def connect_again(
    config: SearchConfig, record: SearchRecord, address: str | None
) -> tuple[Cluster, SearchRecord]:  # fmt: skip
    """Connects to the cluster of the last session, or to the cluster at `address`.

    Returns:
        The cluster, and the record with its address.

    Raises:
        InputError: the cluster cannot be reached.
    """
    if address is not None:
        record = replace(record, address=None if address == "local" else address)
    try:
        cluster = connect(config, record.address, NEEDED)
    except InputError as error:
        hint = "" if address else "; --address names another cluster, `--address local` starts one here"
        raise InputError(f"{error}{hint}" if record.address else str(error)) from error
    return cluster, record


def share_gpus(
    observer: Observer, config: SearchConfig, splits: Splits, cluster: Cluster
) -> tuple[SearchConfig, Cluster]:
    """Measures the share of a GPU that a trial needs, and replaces `resources.gpus: auto` by it."""
    from search.runtime.gpu_share import measure

    with observer.progress("measuring the GPU memory of a trial"):
        need = measure(config, splits, cluster.placement)
    share = {"resources.gpus": need.share}
    slow = change(config.slow, flags=share) if config.slow else {}
    config = replace(check_config(config.task, change(config.raw, flags=share), config.place), slow=slow)
    observer.say(need.describe())
    return config, replace(cluster, placement=place(config, machines()))


def fit_epochs(
    observer: Observer, store: Store, config: SearchConfig, task: Task, splits: Splits, cluster: Cluster
) -> tuple[SearchConfig, Splits, dict[str, Any]]:
    """Measures the pace of training, and sets the number of epochs that fit the time budget.

    Returns:
        The configuration; the splits with the features that its trials share; and the fields of `SearchRecord` about
        the pace, which later sessions need.
    """
    from search.core.time_plan import Shares, TimePlan, with_epochs
    from search.runtime.pace import measure_pace

    settings, sizes, own = config.search, splits.info.sizes, isinstance(task, SelfTrained)
    most_epochs = Shares.own_epochs if own else settings.epochs
    if cluster.placement.processes > 1:
        epochs = counted(settings.epochs, "epoch")
        observer.say(f"note: trials of several processes are not measured: they have {epochs} (--epochs)")
        return config, splits, {}
    budget = Budget(parse_duration(str(settings.time_budget)))
    patience = TimePlan(budget.seconds).patience_seconds
    with observer.progress("measuring how long an epoch takes"):
        try:
            pace = measure_pace(config, splits, cluster.placement, most_epochs, patience_seconds=patience)
        except InputError as error:
            if not own:
                raise
            observer.say(f"note: {first_line(error)}; so a trial has {settings.epochs} epochs (--epochs)")
            return config, splits, {}
    plan = TimePlan.from_config(
        config, sizes, cluster.placement.concurrency, budget.seconds, most_epochs, pace.alone_ratio,
        pace.worker_start_seconds,
    )  # fmt: skip
    if config.slow and plan.is_too_slow(pace.epoch_seconds, budget.left):
        faster = config.for_slow_machine()
        changes = _changes(config, faster)
        epoch = f"an epoch takes about {pace.epoch_seconds:.0f} s"
        observer.say(f"{epoch}, too long for {settings.time_budget}; so {changes}")
        config, settings, most_epochs = faster, faster.search, faster.search.epochs
        splits = with_shared_features(observer, store, config, task, splits)
        with observer.progress("measuring how long an epoch takes"):
            pace = measure_pace(config, splits, cluster.placement, most_epochs)
    most = most_epochs if own else plan.longest_final_training(most_epochs)
    config = with_epochs(config, plan.trial_epochs(pace.epoch_seconds, most_epochs, settings.grace_period))
    if not pace.reported:
        observer.say(
            f"note: the first configuration reported no epoch within {pace.epoch_seconds:.0f} s; give --epochs, or let "
            'it tell its progress: `trial.progress(done, of)`, `@search {"progress": 0.4}`'
        )
    observer.say(_epochs_in_words(pace.epoch_seconds, config.search, budget.left))
    measured = {
        "alone": pace.alone_ratio, "most_epochs": most, "worker_start": pace.worker_start_seconds,
        "own_epoch": pace.epoch_seconds if own else None,
    }  # fmt: skip
    return config, splits, measured


def _changes(before: SearchConfig, after: SearchConfig) -> str:
    """The values that differ, such as `model.unfreeze=0, search.epochs=40`."""
    space = {name: value for name, value in after.space.fixed().items() if before.space.fixed().get(name) != value}
    search = {
        f"search.{key}": value for key, value in after.raw["search"].items() if before.raw["search"].get(key) != value
    }
    return ", ".join(f"{name}={value}" for name, value in (space | search).items())


def _epochs_in_words(epoch_seconds: float, search: SearchSection, left_seconds: float) -> str:
    """The line on the fitted number of epochs. It says so if the time that is left is too short for a full trial.

    Args:
        epoch_seconds: of one trial.
        left_seconds: until the time budget ends.
    """
    epoch = f"an epoch takes about {epoch_seconds:.1f} s"
    if epoch_seconds * search.epochs > left_seconds:
        return (
            f"{epoch}, and {max(0.0, left_seconds):.0f} s of {search.time_budget} are left after the start: too short "
            f"for a full trial of {counted(search.epochs, 'epoch')}; give more time (--time-budget) or fewer epochs "
            "(--epochs)"
        )
    return (
        f"{epoch}: in {search.time_budget} a trial has up to {counted(search.epochs, 'epoch')}, and weak ones stop "
        f"from epoch {search.grace_period} on (--time-budget, --epochs)"
    )


def check_no_secret(uri: str | None) -> None:
    """Raises InputError if the URI of a storage holds a secret, as `search.json` would hold it too."""
    if uri is not None and has_secrets(uri):
        raise InputError(
            f"--storage {without_secrets(uri)}: the secret in it would be kept with the search; give it in the "
            "environment, such as AWS_SECRET_ACCESS_KEY, or FSSPEC_FTP_PASSWORD for ftp://"
        )


def check_storage(uri: str | None) -> None:
    """Raises InputError if the URI of a storage holds a secret or cannot be reached from here. Writes nothing."""
    check_no_secret(uri)
    if uri is None:
        return
    try:
        files = files_at(uri)
    except Exception as error:  # an unknown protocol, or a package that is missing
        raise InputError(f"--storage {uri}: cannot be used: {type(error).__name__}: {str(error).strip()}") from error
    if isinstance(files, LocalFiles):
        existing = next(path for path in (files.root.absolute(), *files.root.absolute().parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            reason = "is not writable" if existing.is_dir() else "is no folder"
            raise InputError(f"--storage {uri}: cannot be used: {existing} {reason}")


def check_writable(uri: str) -> str:
    """Returns the URI after writing, reading and deleting a file there; raises InputError if that fails."""
    try:
        files = files_at(uri)
        with files.write("probe") as file:
            file.write(b"probe")
        files.open("probe").close()
        files.delete("probe")
    except Exception as error:  # each file system has errors of its own
        raise InputError(f"--storage {uri}: cannot be used: {type(error).__name__}: {str(error).strip()}") from error
    return uri


def commit_here() -> str:
    """The git commit of this program, with `-dirty` if files differ; `none` outside a checkout."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"],  # noqa: S607 - the user's own
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "none"
    return answer.stdout.strip() or "none"
