"""Starts Ray on this machine or joins a cluster."""

from __future__ import annotations

import gc
import importlib.util
import inspect
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import search
import trainables
from search.core.config import SearchConfig
from search.runtime.placement import Placement, local_cpus, machines, place
from trainables import InputError
from trainables.base.errors import first_line

#: The environment of Ray and its workers: they print nothing, and Tune stores no results.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_V2_ENABLED": "0",
    # Tune gives it to its workers, which here take all their variables from this process (`take_variables`).
    "PL_DISABLE_FORK": "1",
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
        address: the address of the cluster; None: that of `RAY_ADDRESS`, or else a new Ray on this machine.
        meanwhile: modules to import while the servers of Ray start.

    Raises:
        InputError: the cluster cannot be reached, or no machine has the resources of a trial.
    """
    if config.resources.autoscaled and not (address or os.environ.get("RAY_ADDRESS")):
        raise InputError("resources.autoscaled: true: is for a cluster, which --address names")
    if not _early:
        start_early(config, address, meanwhile)
    return Cluster(place(config, machines()), _early.pop())


#: The address of the dashboard of the Ray that `start_early` started; empty once `connect` took it.
_early: list[str | None] = []


def start_early(config: SearchConfig, address: str | None, meanwhile: Sequence[str]) -> None:
    """Starts Ray as `connect` does, which takes this Ray then. A command calls it before it imports `meanwhile`."""
    with ThreadPoolExecutor(1) as pool:
        imports = pool.map(import_module, meanwhile)
        _early.append(start_ray(address, config.resources.dashboard, config.task))
        list(imports)


def leave_early() -> None:
    """Shuts down the Ray of `start_early` if no `connect` took it: the command failed in between."""
    if _early:
        disconnect()


class _Surroundings:
    """The state of the process that Ray changes (environment, log levels, signals): `restore` sets it back."""

    LOGGERS = ("ray", "ray.tune", "ray.train", "ray.data")

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._of_tune: dict[str, Any] = {}
        self._levels = {name: logging.getLogger(name).level for name in self.LOGGERS}
        self._in_main = threading.current_thread() is threading.main_thread()
        self._sigterm = signal.getsignal(signal.SIGTERM)
        self._excepthook = sys.excepthook

    def take_variables(self) -> dict[str, str]:
        """The variables that Tune gives each worker by itself, until `restore`; empty with a Ray that has none.

        Tune sets them for each worker. Ray starts a worker with variables of its own as two processes, one after the
        other, and gives it none of the processes that are ready: 2.5 of 23 seconds until the first epoch.
        """
        try:
            from ray.tune.execution import class_cache  # private: Tune has no public way
        except ImportError:
            return {}
        own: dict[str, str] = getattr(class_cache, "DEFAULT_ENV_VARS", {})
        passed: set[str] = getattr(class_cache, "ENV_VARS_TO_PROPAGATE", set())
        if not self._of_tune and own:
            self._of_tune = {"DEFAULT_ENV_VARS": own, "ENV_VARS_TO_PROPAGATE": passed}
            class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
        return {**own, **{name: os.environ[name] for name in passed if name in os.environ}}

    def restore(self) -> None:
        """Sets everything back. Environment variables that are not Ray's stay: the caller may have set them."""
        if self._of_tune:
            vars(import_module("ray.tune.execution.class_cache")).update(self._of_tune)
        for key in {*os.environ, *self._environment}:
            if not key.startswith(("RAY_", "TUNE_")) and key not in ("PYTHONBREAKPOINT", "PL_DISABLE_FORK"):
                continue
            if key in self._environment:
                os.environ[key] = self._environment[key]
            else:
                del os.environ[key]
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)
        sys.excepthook = self._excepthook
        if self._in_main and self._sigterm is not None:
            signal.signal(signal.SIGTERM, self._sigterm)


#: The surroundings of the present session; None while no session is connected.
_surroundings: _Surroundings | None = None


def disconnect() -> None:
    """Leaves the cluster, or shuts down the Ray that `connect` started, and restores the state of this process."""
    global _surroundings
    import ray

    _early.clear()
    # MLflow's thread runs meanwhile. If it collects garbage that refers to an object of Ray between the shutdown of
    # Ray's core and that of its Python side, the process crashes without a message (seen once, Ray 2.60).
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()
        if _surroundings is not None:
            _surroundings.restore()
            _surroundings = None


def start_ray(address: str | None, dashboard: bool, task: str) -> str | None:
    """Connects to a cluster, or starts one here.

    Args:
        task: the name of the task. Workers on other machines get the code of a task of another package.

    Returns:
        The address of this job in the dashboard; None without a dashboard.

    Raises:
        InputError: no cluster answers at the address, or Ray cannot be started.
    """
    global _surroundings
    _surroundings = _surroundings or _Surroundings()
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
            package, where = trainables.package_for_workers(task)
            own = [Path(str(module.__file__)).parent for module in (search, trainables)]
            folders = [*own, *([package] if package else [])]
            variables = {**_surroundings.take_variables(), **where}
            environment = {
                "py_modules": [str(folder) for folder in folders], "env_vars": variables, "excludes": ["__pycache__"],
            }  # fmt: skip
            context = ray.init(address=address, runtime_env=environment, **options)
        else:
            # "local" never joins a cluster that another user started on this machine.
            here = {"include_dashboard": dashboard, "dashboard_host": "127.0.0.1", "num_cpus": local_cpus()}
            context = start_here(**here, **options)
            _surroundings.take_variables()  # its workers inherit this environment
    except Exception as error:  # Ray raises many kinds, bare Exception among them
        reason = first_line(error)
        what = f"--address {address}: no Ray cluster answers" if address else "Ray cannot be started here"
        raise InputError(f"{what} ({reason})") from error
    for name in _Surroundings.LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    job = ray.get_runtime_context().get_job_id()
    return f"http://{context.dashboard_url}/#/jobs/{job}" if context.dashboard_url else None


def start_here(**options: Any) -> Any:
    """Starts Ray on this machine. It tries twice, as Ray's processes wait only 15 seconds for each other."""
    import ray

    protect_token()
    with _own_servers():
        try:
            return ray.init(address="local", **options)
        except Exception:
            return ray.init(address="local", **options)


@contextmanager
def _own_servers() -> Iterator[None]:
    """Starts the servers of Ray as this program needs them.

    - The monitor and the log monitor are left out. The monitor starts machines of a cluster. The log monitor sends the
      output of workers to the driver. Each imports Ray for a second while the workers start.
    - The servers are a process group of their own. `timeout`, systemd and batch systems send SIGTERM to the group of
      this process. Servers that end with it would leave the search without its orderly end.
    """
    from ray._private import parameter, services  # private: `ray.init` has no such options

    whole, start = parameter.RayParams, services.ConsolePopen
    if {"no_monitor", "include_log_monitor"} <= set(inspect.signature(whole).parameters):
        parameter.RayParams = partial(whole, no_monitor=True, include_log_monitor=False)
    if sys.platform != "win32":
        services.ConsolePopen = partial(start, process_group=0)
    try:
        yield
    finally:
        parameter.RayParams, services.ConsolePopen = whole, start


def protect_token() -> None:
    """Makes sure that only this user can read the token of Ray's clusters.

    Ray listens on all interfaces, and anybody with the token can run code as this user. Ray 2.60 itself creates the
    file with read access for everybody.
    """
    named = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if importlib.util.find_spec("ray._private.authentication") is None or any(os.environ.get(name) for name in named):
        return  # this Ray has no tokens, or the user has a token elsewhere
    token = Path.home() / ".ray" / "auth_token"
    with suppress(OSError):  # the home folder is not writable: Ray reports it
        token.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            file = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(file, secrets.token_hex(32).encode())
            os.close(file)
        except FileExistsError:
            if token.stat().st_mode & 0o077:
                token.chmod(0o600)


def _check_reachable(address: str) -> None:
    """Raises OSError at once if nothing listens at the address; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
