"""What happens before a session: data, cluster, how many epochs fit, where checkpoints go."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

import search
from search.core.config import SearchConfig, check_config, parse_duration
from search.core.overrides import change
from search.core.redaction import has_secrets, remember, without_secrets
from search.core.store import SearchFolder, Store
from search.runtime.cluster import Cluster, connect
from search.runtime.placement import local_cpus, machines, place
from search.session import NEEDED
from trainables import InputError, Precomputed, SelfTrained, Splits, Surveyed, get_task
from trainables.base.storage import fetch, files_at, is_remote


def read_data(console: Console, store: Store, config: SearchConfig, data: str | None) -> Splits:
    """The splits of the user's data, or of the demo's; shows a progress bar."""
    from search.live.console import data_progress

    source = None if data is None else fetch(data, store.cache) if is_remote(data) else Path(data)
    bar, progress = data_progress(console)
    task, settings = get_task(config.task), config.data
    if isinstance(task, SelfTrained):  # a function may log there; the address is not kept, as it may hold a password
        settings = {**settings, "tracking": store.tracking_uri}
    with bar:
        return task.prepare(settings, source, store.cache / config.task, progress)


def prepare_data(console: Console, store: Store, config: SearchConfig, data: str | None, warn: bool = False) -> Splits:
    """The splits with all that trials share.

    Args:
        warn: whether the user's data is looked over for leaks, which become notes.
    """
    from search.live.console import data_progress
    from trainables import choose_device

    task, cache = get_task(config.task), store.cache / config.task
    splits = read_data(console, store, config, data)
    if warn and data is not None and isinstance(task, Surveyed):
        warnings = [finding.warning for finding in task.leaks(splits) if finding.warning]
        splits = replace(splits, info=replace(splits.info, notes=(*splits.info.notes, *warnings)))
    bar, progress = data_progress(console, "computing what all trials share")
    with bar:
        if isinstance(task, Precomputed):
            device = choose_device(local_cpus(), 1, config.resources.precision)
            splits = task.precompute(splits, config.space.choices(), device, cache, progress)
    return splits


def prepare_data_again(
    console: Console, store: Store, config: SearchConfig, folder: SearchFolder, description: dict[str, Any],
    data: str | None = None,
) -> Splits:  # fmt: skip
    """The splits of a search that goes on.

    Args:
        data: where the data is now; None: where it was.

    Raises:
        InputError: the data changed since the search began, or its address lacks a secret.
    """
    source = data or description["data"]
    if source is not None and data is None and "***" in source:
        raise InputError(
            f"{folder.name}: its data is at {source}, whose secret is not kept; give the whole address again with "
            "--data URI"
        )
    remember(source)
    splits = prepare_data(console, store, config, source)
    if description["fingerprint"] not in (splits.info.fingerprint, *splits.info.earlier):
        raise InputError(
            f"{folder.name}: the data at {source} changed since the search began (fingerprint "
            f"{splits.info.fingerprint}, was {description['fingerprint']}); put it back, or start a new search"
        )
    return splits


def connect_again(
    config: SearchConfig, description: dict[str, Any], address: str | None
) -> tuple[Cluster, dict[str, Any]]:
    """Connects to the cluster of the session before, or to `address` from now on; raises InputError.

    Returns:
        The cluster, and the description with its address.
    """
    if address is not None:
        description = {**description, "address": None if address == "local" else address}
    try:
        cluster = connect(config, description["address"], NEEDED)
    except InputError as error:
        hint = "" if address else "; --address names another cluster, `--address local` starts one here"
        raise InputError(f"{error}{hint}" if description["address"] else str(error)) from error
    return cluster, description


def share_gpus(
    console: Console, config: SearchConfig, splits: Splits, cluster: Cluster
) -> tuple[SearchConfig, Cluster]:
    """Measures the share of a GPU that a trial takes, and puts it in the place of `auto`."""
    from search.runtime.gpu_share import measure

    need = measure(config, splits, cluster.placement)
    config = check_config(config.task, change(config.raw, flags={"resources.gpus": need.share}), config.place)
    console.print(need.describe(), markup=False, soft_wrap=True)
    return config, replace(cluster, placement=place(config, machines()))


def fit_epochs(
    console: Console, config: SearchConfig, splits: Splits, cluster: Cluster
) -> tuple[SearchConfig, dict[str, float]]:
    """The configuration with as many epochs as the time budget holds; and what a resume needs for its `TimePlan`."""
    from search.core.time_plan import TimePlan, with_epochs
    from search.runtime.pace import measure_pace

    budget, settings = str(config.search.time_budget), config.search
    pace = measure_pace(config, splits, cluster.placement)
    plan = TimePlan(parse_duration(budget), train_samples=splits.info.sizes["train"])
    most = plan.longest_final_training(settings.epochs)
    config = with_epochs(config, plan.trial_epochs(pace.epoch_seconds, settings.epochs, settings.grace_period))
    console.print(
        f"an epoch takes about {pace.epoch_seconds:.1f} s: in {budget} a trial has up to {config.search.epochs} "
        f"epochs, and weak ones stop from epoch {config.search.grace_period} on (--time-budget, --epochs)",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return config, {"alone": pace.alone_ratio, "most_epochs": most, "worker_start": pace.worker_start_seconds}


def check_no_secret(uri: str | None) -> None:
    """Raises InputError if a storage's URI holds a secret, which would be kept with the search."""
    if uri is not None and has_secrets(uri):
        raise InputError(
            f"--storage {without_secrets(uri)}: the secret in it would be kept with the search; give it in the "
            "environment, such as AWS_SECRET_ACCESS_KEY, or FSSPEC_FTP_PASSWORD for ftp://"
        )


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
    """The commit of this checkout, with `-dirty` if files differ; `none` outside a checkout."""
    here = Path(str(search.__file__)).parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"],  # noqa: S607 - the user's own
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "none"
    return answer.stdout.strip() or "none"
