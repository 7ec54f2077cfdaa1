"""Puts a search together: runs it, retrains it, and forecasts it. `search.resume` continues it.

No function prints. A function returns an object or raises an error. Its observer receives lines and progress.
"""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.callbacks.on_end import run_on_end
from search.core.config import SearchConfig, check_config, digest
from search.core.events import WarmStarted
from search.core.journal import Journal
from search.core.overrides import lay_over
from search.core.record import SearchRecord, task_fields
from search.core.redaction import conceal, remember
from search.core.registry import WRITERS
from search.core.replay import open_to_run, replay
from search.core.store import SearchFolder, Store
from search.core.warm_start import from_all, from_search
from search.observer import Observer
from search.outcome import SearchOutcome
from search.preparation import (
    NEEDED,
    check_no_secret,
    check_storage,
    check_writable,
    commit_here,
    connect_again,
    fit_epochs,
    prepare_data,
    prepare_data_again,
    share_gpus,
    supported_task,
)
from search.runtime.cluster import Cluster, connect, disconnect
from search.runtime.placement import fits_here
from trainables import InputError, SelfTrained, Splits, Task, get_task
from trainables.base.files import check_source
from trainables.base.storage import is_remote

if TYPE_CHECKING:
    from search.reports.plan import Plan
    from search.runtime.search import Listener
    from search.session import PreparedSearch

#: How a function or a command gets a test.
NO_TEST = (
    "give search.run(..., test=test) a function that tests the final model, or `run --command` a `--final` command"
)
#: The default number of seeds for a comparison of finalists.
FINALIST_SEEDS = 5


@dataclass(frozen=True)
class RunOptions:
    """The arguments of a new search that are not part of its configuration.

    Attributes:
        data: a path or URI; None for the demo data of the task.
        name: the name of the search; None for the task and the time.
        address: the address of a Ray cluster; None starts one on this machine.
        retrain: whether the search ends with a final training.
        start_from: the search (or `auto`) whose trials the searcher learns first.
        gpus: the value of `--gpus`; with a value, a machine without a GPU is refused.
    """

    data: str | None = None
    name: str | None = None
    address: str | None = None
    retrain: bool = True
    start_from: str | None = None
    gpus: str | None = None


def new_name(task: str) -> str:
    """A name for a search without one: the task and the time, such as `rnn-20260131-235959`."""
    return time.strftime(f"{task}-%Y%m%d-%H%M%S")


def without_addresses(config: SearchConfig) -> tuple[SearchConfig, list[str]]:
    """The configuration without the secrets of `search.notify`, and the addresses.

    Raises:
        InputError: the environment lacks a variable, or a package of `search.writers` is missing.
    """
    _check_writers(config)
    given = config.search.notify
    for variable in [address.removeprefix("env:") for address in given if address.startswith("env:")]:
        if not os.environ.get(variable):
            raise InputError(f"search.notify: env:{variable}: there is no environment variable {variable}")
    return replace_addresses(config, given), [resolve_address(address) for address in given]


def replace_addresses(config: SearchConfig, addresses: Sequence[str]) -> SearchConfig:
    """The configuration with these addresses, without their secrets, as `search.notify`."""
    shown = {"notify": [conceal(address) for address in addresses]}
    raw, slow = (lay_over(one, {"search": shown}) if one else one for one in (config.raw, config.slow))
    return replace(config, search=config.search.model_copy(update=shown), raw=raw, slow=slow)


def _check_writers(config: SearchConfig) -> None:
    """Raises InputError if a package of `search.writers` is missing."""
    for name in config.search.writers:
        try:
            WRITERS.get(name)
        except ImportError as error:
            raise InputError(
                f"search.writers: {name}: {error}; install it: pip install 'trial-search[{name}]'"
            ) from error


def resolve_address(address: str) -> str:
    """The address itself, or that in the environment variable of `env:NAME`; raises InputError if it is no address."""
    if not address.startswith("env:"):
        return address
    named = os.environ.get(address.removeprefix("env:"), "").strip()
    if not named.startswith(("https://", "http://")):
        raise InputError(f"search.notify: {address}: the variable has no address that begins with https:// or http://")
    conceal(named)
    return named


def addresses_again(config: SearchConfig, given: Sequence[str], observer: Observer) -> list[str]:
    """The addresses of a search that continues: the given ones, else those that are stored whole.

    The observer gets a line for each address that cannot be used.
    """
    _check_writers(config)
    addresses = []
    for address in given or config.search.notify:
        try:
            if address.endswith("/***"):
                raise InputError("its secret is not stored; give it again: --notify URL, or store env:NAME")
            addresses.append(resolve_address(address))
        except InputError as error:
            if given:
                raise
            observer.say(f"notify {address}: gets no message: {error}")
    return addresses


def run(
    store: Store, config: SearchConfig, options: RunOptions, observer: Observer, journal: Journal | None = None,
    listeners: Sequence[Listener] = (),
) -> SearchOutcome:  # fmt: skip
    """Starts a search and runs its first session.

    Args:
        journal: the journal of the search, if the caller reserved its name (`SearchFolder.begin`).
        listeners: they receive each event of the search.

    Raises:
        InputError: the name is taken, or the configuration or the data cannot be used.
    """
    config, notify = without_addresses(config)
    with reports_full_disk(store), _begun(store, config, options, journal) as (folder, held):
        new = _prepare(store, config, options, folder, observer)
        from search.reports.plan import Plan
        from search.session import PreparedSearch

        record = SearchRecord(
            **task_fields(new.config.task),
            config=new.config.raw,
            place=new.config.place,
            id=uuid.uuid4().hex,
            data=options.data if not options.data or is_remote(options.data) else str(Path(options.data).resolve()),
            fingerprint=new.splits.info.fingerprint,
            address=options.address,
            retrain=options.retrain and (not isinstance(new.task, SelfTrained) or new.task.trains_finally),
            start_from=options.start_from,
            plan=asdict(Plan.read(new.plan_file)) if new.plan_file.exists() else None,
            commit=commit_here(),
            created=int(time.time() * 1000),
            **new.measured,
        )
        folder.write(record)
        prepared = PreparedSearch(
            store, folder, new.config, record, new.splits, new.cluster, held, new.warm_start, listeners=listeners,
            notify=notify,
        )  # fmt: skip
        return run_session(prepared, observer)


def check_start(store: Store, config: SearchConfig, options: RunOptions) -> None:
    """Checks what `run` checks before it reads data or starts Ray, for `--dry-run`. It writes nothing.

    Data and checkpoints at a remote address are not looked up.

    Raises:
        InputError: the store, the name, the data, the storage or the search of `--from` cannot be used.
    """
    without_addresses(config)
    store.check()
    store.search(options.name or new_name(config.task)).check_free()
    check_storage(config.search.storage)
    supported_task(config)
    if options.data is not None and not is_remote(options.data):
        check_source(Path(options.data))
    if options.start_from not in (None, "auto"):
        from_search(store, str(options.start_from), config, fingerprint="")


def plan(store: Store, config: SearchConfig, options: RunOptions, observer: Observer) -> Plan:
    """Trains some configurations for two epochs, and forecasts the epochs, hours and disk space of the search.

    No search begins. A later search with the same configuration and data shows the forecast beside its own figures.

    Raises:
        InputError: as `run`, or no trial got through its first epoch.
    """
    from search.reports.plan import measure_plan

    config, _ = without_addresses(config)
    with reports_full_disk(store), _begun(store, config, options, None) as (folder, _):
        new = _prepare(store, config, options, folder, observer)
        with observer.progress("training some configurations for two epochs"):
            forecast = measure_plan(new.config, new.splits, new.cluster.placement)
        forecast.save(new.plan_file)
        disconnect()
        return forecast


def retrain(
    store: Store, name: str, observer: Observer, *, finalists: int = 1, seeds: int | None = None,
    address: str | None = None, data: str | None = None, listeners: Sequence[Listener] = (),
    journal: Journal | None = None, notify: Sequence[str] = (),
) -> SearchOutcome:  # fmt: skip
    """Trains the best configurations of a search on train and validation, and tests them.

    No trial of an interrupted search continues: its results so far count.

    Args:
        finalists: the number of configurations. Several are compared on test.
        seeds: the number of seeds for each; None: `search.retrain_seeds`, at least 5 for several finalists.
        address, data, notify: as of `resume`.
        journal: the journal of the search, if the caller holds it (`SearchFolder.hold`).

    Raises:
        InputError: there is no such search, no trial has a result, or an argument is wrong.
    """
    with reports_full_disk(store), journal or store.search(name).hold(store) as held:
        folder, record, config = open_to_run(store, name)
        if record.elsewhere:
            raise InputError(f"{name}: {record.elsewhere}, so there is nothing to retrain")
        state, _ = replay(folder)
        if state.best() is None:
            from search.reports.summary import no_winner

            ended = state.status in ("finished", "failed")
            hint = "" if ended else f"; go on with `python -m search resume {name}` first"
            raise InputError(f"{name}: {no_winner(state)}{hint}")
        if finalists > 1 and seeds == 1:
            raise InputError("--seeds 1: a comparison of finalists needs at least 2 seeds")
        task = get_task(config.task)
        if finalists > 1 and isinstance(task, SelfTrained) and not task.tests:
            raise InputError(f"{name}: --finalists {finalists}: finalists are compared on test; {NO_TEST}")
        addresses = addresses_again(config, notify, observer)
        splits = prepare_data_again(observer, store, config, task, name, record, data)
        with observer.progress("starting Ray"):
            cluster, record = connect_again(config, record, address)
        folder.write(record)
        from search.session import FinalTrainings, PreparedSearch

        seeds = seeds or max(config.search.retrain_seeds, FINALIST_SEEDS if finalists > 1 else 1)
        prepared = PreparedSearch(
            store, folder, config, record, splits, cluster, held,
            final_trainings=FinalTrainings(seeds, finalists), listeners=listeners, notify=addresses,
        )  # fmt: skip
        return run_session(prepared, observer)


def report(store: Store, name: str) -> Path:
    """Writes the report of a search, logs it to the run of the search in MLflow, and returns its path.

    If the store is read-only, the report is written into the current folder, and MLflow gets no copy.

    Raises:
        InputError: there is no such search, or no trial of it has a result.
    """
    from search.reports.report import report_search
    from search.tracking.results import log_report

    path = report_search(store, name)
    if store.is_writable:
        log_report(store, store.search(name).read(store).id, str(path))
    return path


def promote(store: Store, task: str, version: int) -> str:
    """Makes a registered version of a task's model the champion, which `predict` uses; returns a sentence on it.

    Raises:
        InputError: there is no such version.
    """
    from search.tracking.client import mlflow_client, quick_and_quiet
    from search.tracking.model_registry import promote_version

    with quick_and_quiet():
        return promote_version(mlflow_client(store), task, version)


@dataclass(frozen=True)
class _NewSearch:
    """A new search before its record is written.

    Attributes:
        config: holds the values that were measured or read from the data.
        measured: the fields of the record about the pace.
        plan_file: the file of a forecast for this configuration and data.
    """

    config: SearchConfig
    task: Task
    splits: Splits
    cluster: Cluster
    warm_start: WarmStarted | None
    measured: dict[str, Any]
    plan_file: Path


def run_session(prepared: PreparedSearch, observer: Observer) -> SearchOutcome:
    """Runs a session, frees the search, and runs the command of `search.on_end`, however the session ended.

    Making the session imports libraries, replays the journal and opens MLflow's database.
    """
    with observer.progress("opening the journal and MLflow"):
        from search.session import Session

        session = Session(prepared, observer)
    try:
        return session.run()
    finally:
        prepared.journal.close()  # the command may resume, retrain or rename the search
        if command := prepared.config.search.on_end:
            run_on_end(command, prepared.store, prepared.folder, session.status, session.search.state, observer.say)


@contextmanager
def _begun(
    store: Store, config: SearchConfig, options: RunOptions, journal: Journal | None
) -> Iterator[tuple[SearchFolder, Journal]]:
    """Holds the name of a new search while the block runs."""
    store.check()
    remember(options.data)
    check_no_secret(config.search.storage)
    folder = store.search(options.name or new_name(config.task))
    with journal or folder.begin() as held:
        yield folder, held


def _prepare(
    store: Store, config: SearchConfig, options: RunOptions, folder: SearchFolder, observer: Observer
) -> _NewSearch:  # fmt: skip
    """Checks the configuration, reads the data, connects to Ray, and measures what the configuration leaves open."""
    with observer.progress("checking the configuration"):
        task = supported_task(config)
    if not (options.address or os.environ.get("RAY_ADDRESS")):
        fits_here(config)
    splits = prepare_data(observer, store, config, task, options.data, warn=True)
    warm = warm_start_of(store, config, options.start_from, splits, observer) if options.start_from else None
    chosen: dict[str, Any] = {}
    if config.search.storage:
        uri = f"{config.search.storage.rstrip('/')}/{folder.name}-{uuid.uuid4().hex[:8]}"
        with observer.progress("writing a file to the storage"):
            chosen["storage"] = check_writable(uri)
    with observer.progress("starting Ray"):
        cluster = connect(config, options.address, NEEDED)
    if options.gpus is not None and config.resources.gpu_share and not cluster.placement.gpus:
        disconnect()
        raise InputError(
            f"--gpus {options.gpus}: there is no GPU here; leave it out, or give 0, to train on processors"
        )
    if config.search.cost_budget and not (cluster.placement.gpus or config.resources.price_cpu_hour):
        disconnect()
        raise InputError(
            f"--cost-budget {config.search.cost_budget:g}: there is no GPU here, and processors have no price; give "
            "resources.price_cpu_hour"
        )
    if config.resources.gpus == "auto" and cluster.placement.gpus:
        config, cluster = share_gpus(observer, config, splits, cluster)
    plan_file = store.plan(digest([config.raw, splits.info.fingerprint]))  # before values that differ between runs
    measured: dict[str, Any] = {}
    if config.search.fit_epochs and config.search.time_budget:
        config, splits, measured = fit_epochs(observer, store, config, task, splits, cluster)
    # Later sessions use the values that are chosen now.
    if config.search.deterministic:
        chosen["concurrency"] = cluster.placement.concurrency
    raw = {
        **config.raw, "search": {**config.raw["search"], **chosen},
        "data": {**config.raw["data"], **splits.info.chosen},
    }  # fmt: skip
    config = check_config(config.task, raw, config.place)
    return _NewSearch(config, task, splits, cluster, warm, measured, plan_file)


def warm_start_of(
    store: Store, config: SearchConfig, name: str, splits: Splits, observer: Observer
) -> WarmStarted | None:  # fmt: skip
    """The trials of earlier searches for the searcher: of the search `name`, or with `auto` the winners of all."""
    with observer.progress("reading earlier searches"):
        if name == "auto":
            warm, lines = from_all(store, config)
        else:
            warm, lines = from_search(store, name, config, splits.info.fingerprint)
    for line in lines:
        observer.say(line)
    return warm


@contextmanager
def reports_full_disk(store: Store) -> Iterator[None]:
    """Raises InputError if the disk is full, so that a person reads one line instead of a traceback."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = error.filename or store.root
        raise InputError(f"{place}: {error.strerror}; make room and give the command again") from error
