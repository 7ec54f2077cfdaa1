"""Starts Ray here or joins a cluster."""

from __future__ import annotations

import gc
import logging
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import search
import trainables
from search.config.load import SearchConfig
from search.engine.placement import Placement, local_cpus, machines, place
from trainables import InputError

#: Environment of Ray and its workers: they print nothing, and Tune writes no records of its own.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_V2_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # The journal is the state; Tune's own snapshots would only cost time.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_THRESHOLD_S": "1000000",
    # By default Tune starts one worker after the other, and each takes seconds to import torch.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",
}


@dataclass(frozen=True)
class Cluster:
    """The placement of this command's trials, and the address of Ray's dashboard."""

    placement: Placement
    dashboard: str | None


def connect(config: SearchConfig, address: str | None, meanwhile: Sequence[str] = ()) -> Cluster:
    """Starts Ray here or joins the cluster at `address`, and places the trials there.

    Args:
        meanwhile: modules to import while Ray's servers start, which is mostly waiting.

    Raises:
        InputError: there is no such cluster, or a trial fits nowhere.
    """
    if config.resources.autoscaled and not (address or os.environ.get("RAY_ADDRESS")):
        raise InputError("resources.autoscaled: true: is for a cluster, which --address names")
    with ThreadPoolExecutor(1) as pool:
        imports = pool.map(import_module, meanwhile)
        dashboard = start_ray(address, config.resources.dashboard, config.task)
        list(imports)
    return Cluster(place(config, machines()), dashboard)


def disconnect() -> None:
    """Leaves the cluster, or shuts down the one that `connect` started."""
    import ray

    # MLflow's thread goes on meanwhile. Were it to collect garbage with a reference of Ray in it, while Ray's core is
    # gone and its Python side does not know yet, this process would end without a word (seen once, Ray 2.60).
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def start_ray(address: str | None, dashboard: bool, task: str) -> str | None:
    """Connects to a cluster, or starts one here.

    Args:
        task: its package travels to the workers, where it is not one of this project.

    Returns:
        The address of this job in the dashboard, if there is one.

    Raises:
        InputError: nothing answers at the address, or Ray cannot be started.
    """
    os.environ.update({key: value for key, value in _QUIET.items() if key not in os.environ})
    import ray

    if ray.is_initialized():
        raise InputError(
            "Ray runs in this process already, by a ray.init() of yours: call ray.shutdown() before the search, which "
            "starts Ray as its trials need it; to train on a cluster name it, as address='auto' or --address auto"
        )
    address = address or os.environ.get("RAY_ADDRESS")
    if address and address.startswith("ray://"):
        raise InputError(
            f"--address {address}: through Ray's client a search would run, and leave its results, elsewhere; start "
            "this command on a machine of the cluster (ray attach, ray job submit) with --address auto"
        )
    options = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if address:
            _check_reachable(address)
            # Workers on other machines find the dependencies there, but not this code.
            package, where = trainables.travelling(task)
            own = [Path(str(module.__file__)).parent for module in (search, trainables)]
            folders = [*own, *([package] if package else [])]
            environment = {
                "py_modules": [str(folder) for folder in folders], "env_vars": where, "excludes": ["__pycache__"],
            }  # fmt: skip
            context = ray.init(address=address, runtime_env=environment, **options)
        else:
            # "local" never joins a cluster that somebody else started on this machine.
            here = {"include_dashboard": dashboard, "dashboard_host": "127.0.0.1", "num_cpus": local_cpus()}
            context = start_here(**here, **options)
    except Exception as error:  # Ray raises many kinds, bare Exception among them
        reason = str(error).strip().split("\n")[0]
        what = f"--address {address}: no Ray cluster answers" if address else "Ray cannot be started here"
        raise InputError(f"{what} ({reason})") from error
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    job = ray.get_runtime_context().get_job_id()
    return f"http://{context.dashboard_url}/#/jobs/{job}" if context.dashboard_url else None


def start_here(**options: Any) -> Any:
    """Starts Ray on this machine, in two tries: its processes wait only 15 seconds for each other."""
    import ray

    try:
        return ray.init(address="local", **options)
    except Exception:
        return ray.init(address="local", **options)


def _check_reachable(address: str) -> None:
    """Raises OSError at once where nothing listens; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
