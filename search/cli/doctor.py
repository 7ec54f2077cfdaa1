"""Checks whether this machine can run a search, and prints advice where it cannot."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import psutil
import torch
from rich.console import Console

import search
from search.cli.finish import DONE, FAILED
from search.core.config import load_config
from search.core.redaction import redacted
from search.core.store import Store
from search.live.screen import say
from search.runtime.placement import local_cpus
from trainables import get_task, task_names
from trainables.base.task import source_line

PACKAGES = ("ray", "torch", "optuna", "mlflow", "transformers")
#: The oldest and the newest Ray on which .ci/nightly ran the end-to-end tests.
RAY = ("2.50.0", "2.60.0")
#: A warning appears below these GB of free disk and shared memory.
DISK, SHARED_MEMORY = 5.0, 1.0
#: The small search: two trials of one epoch on a small demo.
SMOKE = (
    "run", "rnn", "--name", "smoke", "--trials", "2", "--epochs", "1", "--no-retrain", "--scheduler", "none",
    "--set", "data.demo.train=100", "--set", "data.demo.test=20", "--set", "data.demo.longest=10",
    "--set", "search.compare_seeds=0", "--set", "resources.dashboard=false", "--set", "variant=vanilla",
    "--set", "search.balance=null",
)  # fmt: skip


def doctor(console: Console, store: Store, on_gpu: Sequence[str] | None = None) -> int:
    """Checks this machine and prints advice where a check fails; returns 1 if a small search fails.

    Args:
        on_gpu: checks these tasks on a GPU instead; an empty list: all tasks. This needs no Ray, MLflow or Optuna.
    """
    if on_gpu is not None:
        from search.gpu.examine import examine

        store.root.mkdir(parents=True, exist_ok=True)
        return examine(console, on_gpu, store.root / "gpu.json")
    for line in (f"software: {software()}", *_ray(), *_hardware(), *_places(store), *_sources()):
        say(console, line)
    seconds, errors = _smoke()
    if errors:
        say(console, f"search: a small one fails after {seconds:.0f} s:\n{errors}")
        return FAILED
    say(console, f"search: a small one runs, start and end included, in {seconds:.0f} s")
    return DONE


def software() -> str:
    """A line with the versions of this program, Python, and the packages that results may depend on."""
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return f"trial-search {search.__version__}, Python {platform.python_version()}, {versions}"


def _ray() -> Iterator[str]:
    """Lines on the version of Ray. Ray Tune is in maintenance: a later version may lack functions that trials need."""
    installed, oldest, newest = (_major_minor(text) for text in (version("ray"), *RAY))
    if not oldest <= installed <= newest:
        yield f"ray: {version('ray')} is not tested; Ray {RAY[0]} to {RAY[1]} are"
        yield f"  -> where something fails: pip install 'ray[default,tune]=={RAY[1]}'"
    if importlib.util.find_spec("ray._private.authentication") is None:
        yield f"ray: {version('ray')} asks for no token: whoever has an account on this machine can use its dashboard"
        yield "  -> a newer one does: pip install --upgrade 'ray[default,tune]'"
    if installed >= (2, 61):
        yield "ray: from 2.61 on every cluster asks for a token: ray get-auth-token, and RAY_AUTH_TOKEN on its machines"


def _major_minor(text: str) -> tuple[int, ...]:
    """The first two numbers of a version: `(2, 50)` for `2.50.0`."""
    return tuple(int(part) for part in text.split(".")[:2])


def _hardware() -> Iterator[str]:
    memory = psutil.virtual_memory()
    yield f"machine: {local_cpus()} cores, {memory.available / 2**30:.0f} of {memory.total / 2**30:.0f} GB memory free"
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            yield f"gpu {number}: {properties.name}, {properties.total_memory / 2**30:.0f} GB"
    elif shutil.which("nvidia-smi"):
        built = torch.version.cuda or "no CUDA"
        yield f"gpu: torch sees none, though nvidia-smi is here (torch is built with {built})"
        yield "  -> install the torch build for this driver's CUDA: https://pytorch.org/get-started"
    else:
        yield "gpu: none; trials run on the cores"
    shared = Path("/dev/shm")  # noqa: S108 - Ray's object store lies there
    if shared.exists() and (free := shutil.disk_usage(shared).free / 2**30) < SHARED_MEMORY:
        yield f"shared memory: {free:.1f} GB free; Ray puts the data there, and uses the slower disk where it is full"
        yield "  -> in a container: docker run --shm-size=8g"


def _places(store: Store) -> Iterator[str]:
    root = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
    free = shutil.disk_usage(root).free / 2**30
    yield f"store: {store.root}, {free:.0f} GB free"
    if not os.access(root, os.W_OK):
        yield "  -> it cannot be written to; choose another: --store DIR, or SEARCH_STORE"
    elif free < DISK:
        yield "  -> little room for checkpoints: another disk (--store DIR), or --set search.max_checkpoint_gb=1"
    if store.is_local:
        yield f"mlflow: {store.tracking_uri}"
    else:
        answers = "://" not in store.tracking_uri or _answers(f"{store.tracking_uri.rstrip('/')}/health")
        yield f"mlflow: {redacted(store.tracking_uri)} {'answers' if answers else 'does not answer'}"
        if not answers:
            yield "  -> start it, correct MLFLOW_TRACKING_URI, or unset it to keep runs in the store"
    if address := os.environ.get("RAY_ADDRESS"):
        yield f"ray: RAY_ADDRESS={address}: trials run on that cluster (`--address local`: here)"
    hub = _answers(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    yield f"model hub: {'answers' if hub else 'does not answer'}"
    if not hub:
        yield "  -> the encoder of texts then comes from the local cache or the installed package; see below"


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - of the user's own environment
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _sources() -> Iterator[str]:
    for name in task_names():
        yield f"{name}: {source_line(get_task(name), load_config(name).data)}"


def _smoke() -> tuple[float, str]:
    """Runs a small search. Returns its seconds, and the last lines of its output if it failed, else an empty text."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="search-doctor-") as folder:
        environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
        run = subprocess.run(
            [sys.executable, "-m", "search", *SMOKE, "--store", folder, "--debug"],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    errors = "" if run.returncode == 0 else "\n".join((run.stdout + run.stderr).strip().splitlines()[-10:])
    return time.perf_counter() - begun, redacted(errors)
