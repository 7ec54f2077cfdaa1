"""Where Ray runs, and how many trials fit there."""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

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
    # Tune would let one worker after the other start; importing torch, each takes seconds.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",
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
    if config.resources.autoscaled and not (address or os.environ.get("RAY_ADDRESS")):
        raise InputError("resources.autoscaled: true: is for a cluster, which --address names")
    # Starting Ray is mostly waiting for its servers: what is needed next is imported meanwhile.
    later = ("search.trials", "search.repeats", "search.retrain", "search.delivery", "optuna")
    with ThreadPoolExecutor(1) as pool:
        imports = pool.map(import_module, later)
        dashboard = start_ray(address, config.resources.dashboard, config.task)
        list(imports)
    return Cluster(place(config, machines()), dashboard)


def disconnect() -> None:
    """Leaves the cluster, or ends the one that `connect` started."""
    import ray

    ray.shutdown()


def fits_here(config: SearchConfig) -> Placement:
    """The placement on this machine, without starting anything; raises InputError as `place`."""
    return place(config, [(local_cpus(), local_gpus())])


def start_ray(address: str | None, dashboard: bool, task: str) -> str | None:
    """Connects to a cluster, or starts one here; returns the dashboard's address.

    Raises:
        InputError: nothing answers at the address.
    """
    os.environ.update({key: value for key, value in _QUIET.items() if key not in os.environ})
    import ray

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
            # Workers on other machines need what is installed there, but not this code.
            package, where = trainables.travelling(task)
            folders = [Path(__file__).parent, Path(str(trainables.__file__)).parent, *([package] if package else [])]
            environment = {
                "py_modules": [str(folder) for folder in folders], "env_vars": where, "excludes": ["__pycache__"],
            }  # fmt: skip
            context = ray.init(address=address, runtime_env=environment, **options)
        else:
            # "local": never the cluster that somebody else happens to have started on this machine.
            here = {"include_dashboard": dashboard, "dashboard_host": "127.0.0.1", "num_cpus": local_cpus()}
            context = start_here(**here, **options)
    except Exception as error:  # of every kind, and bare ones
        reason = str(error).strip().split("\n")[0]
        what = f"--address {address}: no Ray cluster answers" if address else "Ray cannot be started here"
        raise InputError(f"{what} ({reason})") from error
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return f"http://{context.dashboard_url}" if context.dashboard_url else None


def start_here(**options: Any) -> Any:
    """Ray's processes wait 15 seconds for each other, which a busy machine may need longer for: they get two tries."""
    import ray

    try:
        return ray.init(address="local", **options)
    except Exception:
        return ray.init(address="local", **options)


def _check_reachable(address: str) -> None:
    """Raises: OSError at once where nothing listens; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def local_cpus() -> int:
    """The cores this process may use, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def machines() -> list[tuple[float, float]]:
    """CPUs and GPUs of each machine of the cluster."""
    import ray

    return [(n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0)) for n in ray.nodes() if n["Alive"]]


def place(config: SearchConfig, there: Sequence[tuple[float, float]]) -> Placement:
    """The resources of a trial on machines of so many CPUs and GPUs; one that takes a GPU needs a machine with one.

    Where the cluster starts machines on demand, a trial takes what the configuration says, and waits for it.

    Raises:
        InputError: a trial fits nowhere, or more are asked for at once than fit, with the arithmetic.
    """
    cpus, share, wanted = config.resources.cpus, config.resources.gpu_share, config.search.concurrency
    if config.resources.autoscaled and wanted:
        return Placement(cpus, share, wanted)
    gpus = share if any(of for _, of in there) else 0.0

    def holds(machine: tuple[float, float]) -> int:
        by_cpu = int(machine[0] / cpus + 1e-9)
        return min(by_cpu, int(machine[1] / gpus + 1e-9)) if gpus else by_cpu

    fits = sum(map(holds, there))
    kinds = Counter(there)
    trial = f"{cpus:g} CPUs and {gpus:g} GPUs"
    have = ", ".join(f"{n} x {c:g} CPUs and {g:g} GPUs" for (c, g), n in sorted(kinds.items(), reverse=True))
    if fits < 1:
        more = "; if the cluster starts machines on demand: --set resources.autoscaled=true --concurrency N"
        workers = any(of for of, _ in there)
        raise InputError(f"resources: a trial takes {trial} of one machine; there are {have}{'' if workers else more}")
    if wanted is not None and wanted > fits:
        raise InputError(f"--concurrency {wanted}: only {fits} trials of {trial} fit at once; there are {have}")
    return Placement(cpus, gpus, wanted or fits)


def local_gpus() -> int:
    """GPUs of this machine, without starting anything."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
