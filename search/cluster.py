"""Where Ray runs, and how many trials fit there."""

from __future__ import annotations

import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import trainables
from search.config import SearchConfig
from trainables.task import InputError

#: Ray, Tune and their workers keep quiet: this program says itself what there is to say.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_V2_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # The journal is the durable state; Tune's own snapshot would only cost time.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_THRESHOLD_S": "1000000",
}


@dataclass(frozen=True)
class Placement:
    """What a trial takes and how many run at once."""

    cpus: float
    gpus: float
    concurrency: int

    def describe(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus} a trial, {self.concurrency} at once"


@dataclass(frozen=True)
class Cluster:
    """Where this command's trials run."""

    placement: Placement
    dashboard: str | None


def connect(config: SearchConfig, address: str | None) -> Cluster:
    """Starts Ray here or joins the cluster at `address`, and places the trials there; raises InputError."""
    import ray  # before the thread, which imports its parts

    # Starting Ray is mostly waiting for its servers: what is needed next is imported meanwhile.
    with ThreadPoolExecutor(1) as pool:
        imports = pool.map(import_module, ("search.trials", "search.repeats", "search.retrain", "optuna"))
        dashboard = start_ray(address, config.resources.dashboard)
        list(imports)
    there = ray.cluster_resources()
    return Cluster(place(config, there.get("CPU", 0.0), there.get("GPU", 0.0)), dashboard)


def disconnect() -> None:
    """Leaves the cluster, or ends the one that `connect` started."""
    import ray

    ray.shutdown()


def fits_here(config: SearchConfig) -> Placement:
    """The placement on this machine, without starting anything; raises InputError as `place`."""
    return place(config, local_cpus(), local_gpus())


def start_ray(address: str | None, dashboard: bool) -> str | None:
    """Connects to a cluster, or starts one here; returns the dashboard's address.

    Raises:
        InputError: nothing answers at the address.
    """
    os.environ.update({key: value for key, value in _QUIET.items() if key not in os.environ})
    import ray

    address = address or os.environ.get("RAY_ADDRESS")
    options = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if address:
            _check_reachable(address)
            # Workers on other machines need what is installed there, but not this code.
            code = [str(Path(__file__).parent), str(Path(str(trainables.__file__)).parent)]
            environment = {"py_modules": code, "excludes": ["__pycache__"]}
            context = ray.init(address=address, runtime_env=environment, **options)
        else:
            # "local": never the cluster that somebody else happens to have started on this machine.
            here = {"include_dashboard": dashboard, "dashboard_host": "127.0.0.1", "num_cpus": local_cpus()}
            context = ray.init(address="local", **here, **options)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        what = f"--address {address}: no Ray cluster answers" if address else "Ray cannot be started here"
        raise InputError(f"{what} ({reason})") from error
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return f"http://{context.dashboard_url}" if context.dashboard_url else None


def _check_reachable(address: str) -> None:
    """Raises: OSError at once where nothing listens; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def local_cpus() -> int:
    """The cores this process may use, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def place(config: SearchConfig, total_cpus: float, total_gpus: float) -> Placement:
    """The resources of a trial on what there is.

    Raises:
        InputError: a trial fits nowhere, or more are asked for at once than fit, with the arithmetic.
    """
    cpus = config.resources.cpus
    gpus = config.resources.gpus if total_gpus > 0 else 0.0
    by_cpu = int(total_cpus / cpus + 1e-9)
    by_gpu = int(total_gpus / gpus + 1e-9) if gpus else by_cpu
    fits = min(by_cpu, by_gpu)
    have = f"there are {total_cpus:g} CPUs and {total_gpus:g} GPUs"
    if fits < 1:
        raise InputError(f"resources: a trial takes {cpus:g} CPUs and {gpus:g} GPUs, but {have}")
    wanted = config.search.concurrency
    if wanted is not None and wanted > fits:
        raise InputError(
            f"--concurrency {wanted}: only {fits} trials of {cpus:g} CPUs and {gpus:g} GPUs fit at once: {have}"
        )
    return Placement(cpus, gpus, wanted or fits)


def local_gpus() -> int:
    """GPUs of this machine, without starting anything."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
