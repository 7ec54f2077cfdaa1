"""What several tests use: the command line as a user types it, in a process and a store of its own.

Commands share one Ray: starting it takes longer than most of the searches here. The tests of what a user sees who has
no cluster start their own with `OWN_RAY`.
"""

import gc
import io
import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from tests.forked import Forked, can_fork, fork

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
#: Where the commands and their workers find this checkout and the toy task, which an entry point names.
CODE = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "toy")])
OWN_RAY = {"RAY_ADDRESS": ""}
COMMAND = ("-m", "search")
_CLUSTER = """
import sys
from search.runtime.cluster import start_here
context = start_here(num_cpus=2, include_dashboard=False, log_to_driver=False)
print("address", context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


def outside() -> dict[str, str]:
    """The environment, without the address of a store that a test left there as it used MLflow in its own process."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}


@dataclass
class Command:
    """`python -m search`, or a script of a user's, run in `folder` with its store there and `env` around it."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    #: An MLflow store without runs to begin with; None: the first command makes it, which takes it seconds.
    empty_store: Path | None = None
    program: tuple[str, ...] = COMMAND
    #: Whether the command may be a fork of a process that has imported torch, MLflow and Ray (forked.py).
    may_fork: bool = True

    def start(self, *arguments: str, **env: str) -> subprocess.Popen | Forked:
        self._put_store()
        own = {"SEARCH_STORE": str(self.folder / "mlruns"), **self.env, **env}
        whole = {**outside(), "PYTHONPATH": CODE, **own}
        if self.may_fork and self.program == COMMAND and can_fork(own):
            return fork(arguments, str(self.folder), whole)
        return subprocess.Popen(
            [sys.executable, *self.program, *arguments], cwd=self.folder, text=True, env=whole,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def _put_store(self) -> None:
        database = self.folder / "mlruns" / "mlflow.db"
        if self.empty_store and not database.exists():
            database.parent.mkdir(exist_ok=True)
            shutil.copy(self.empty_store, database)

    def run(self, *arguments: str, code: int = 0, **env: str) -> str:
        process = self.start(*arguments, **env)
        output, _ = process.communicate(timeout=280)
        assert process.returncode == code, output
        return output

    def call(self, *arguments: str, code: int = 0, **env: str) -> str:
        """As `run`, in the process of the test and without Ray: trials train here, one after the other (ray_here.py).

        A process of its own imports torch and MLflow first, which takes three seconds of a core, and Ray's workers do
        so again. For commands whose processes are not what the test is about.
        """
        from search.cli.app import app
        from tests.ray_here import ray_here

        self._put_store()
        output = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(output), ray_here():
            patch.chdir(self.folder)
            for name in [name for name in os.environ if name.startswith(("MLFLOW_", "RAY_"))]:
                patch.delenv(name)
            for name, value in {"SEARCH_STORE": str(self.folder / "mlruns"), **env}.items():
                patch.setenv(name, value)
            patch.setattr(gc, "freeze", lambda: None)  # as nothing follows in a process of its own
            with pytest.raises(SystemExit) as left:
                app(list(arguments), prog_name="python -m search")
        assert left.value.code == code, output.getvalue()
        return output.getvalue()

    def until(self, process: subprocess.Popen, name: str, ready) -> None:
        """Waits for `ready(events)`, while the command runs."""
        deadline = time.monotonic() + 240
        while not ready(self.events(name)):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "the moment never came"
            time.sleep(0.02)

    def kill_when(self, name: str, ready, *arguments: str) -> None:
        """Starts a command and sends its driver SIGKILL as soon as `ready(events)` holds."""
        process = self.start(*arguments)
        self.until(process, name, ready)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not any(e["event"] == "ended" for e in self.events(name)), "it ended before it was killed"

    def events(self, name: str) -> list[dict]:
        path = self.folder / "mlruns" / "searches" / name / "journal.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def runs(self, experiment: str):
        """Every run of an experiment in this store, as MLflow has it."""
        from mlflow.tracking import MlflowClient

        uri = f"sqlite:///{self.folder / 'mlruns' / 'mlflow.db'}"
        client = MlflowClient(uri, registry_uri=uri)
        found = client.get_experiment_by_name(experiment)
        return client, list(client.search_runs([found.experiment_id], max_results=1000))


def forget_tracking_servers() -> None:
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]


@pytest.fixture(autouse=True, scope="module")
def no_task_of_another_file() -> Iterator[None]:
    """Removes the tasks that the tests of a file registered in this process: searches of functions do."""
    before = os.environ.get("SEARCH_TASKS", "")
    yield
    os.environ["SEARCH_TASKS"] = before


@pytest.fixture(autouse=True)
def no_server_of_another_test() -> Iterator[None]:
    """Removes the `MLFLOW_*` variables that another test left in this process.

    `mlflow.set_tracking_uri` sets `MLFLOW_TRACKING_URI` for the whole process: later tests would use that server.
    """
    forget_tracking_servers()
    yield
    forget_tracking_servers()


@pytest.fixture(scope="session")
def ray_env() -> Iterator[dict[str, str]]:
    """The environment in which commands find the Ray of this test process."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    process = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER], env={**os.environ, "PYTHONPATH": CODE, **token}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    line = next(line for line in process.stdout if line.startswith("address "))
    yield {**token, "RAY_ADDRESS": line.split()[1]}
    process.communicate(timeout=60)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    make = (
        "import pathlib, sys\nfrom search.core.store import Store\nfrom search.tracking.client import mlflow_client\n"
        "mlflow_client(Store(pathlib.Path(sys.argv[1])))"
    )
    subprocess.run([sys.executable, "-c", make, folder], check=True)
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return folder / "mlflow.db"


@pytest.fixture
def command(tmp_path, ray_env, empty_store) -> Command:
    return Command(tmp_path, ray_env, empty_store)


@pytest.fixture
def here(tmp_path, empty_store) -> Command:
    """For tests that only `call` commands: no Ray is started."""
    return Command(tmp_path, OWN_RAY, empty_store)


@pytest.fixture(scope="module")
def module_here(tmp_path_factory, empty_store) -> Command:
    return Command(tmp_path_factory.mktemp("here"), OWN_RAY, empty_store)


@pytest.fixture(scope="module")
def module_command(tmp_path_factory, ray_env, empty_store) -> Command:
    return Command(tmp_path_factory.mktemp("run"), ray_env, empty_store)


def pytest_configure(config):
    """A thread each for the test processes that share the cores: more would wait for each other most of the time."""
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Files with slow tests first, so that the processes that share them end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("nightly")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_addoption(parser):
    parser.addoption("--fault-table", metavar="FILE", help="write the fault suite's table between the marks of FILE")


def pytest_terminal_summary(terminalreporter, config):
    """The fault suite's table, from the rows that its tests left as properties."""
    reports = [r for r in terminalreporter.stats.get("passed", []) if r.when == "call"]
    rows = [value for report in reports for key, value in report.user_properties if key == "fault"]
    if not rows:
        return
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    terminalreporter.write_line("\n".join(lines))
    if target := config.getoption("--fault-table"):
        before, _, rest = Path(target).read_text().partition("<!-- table -->\n")
        _, _, after = rest.partition("<!-- /table -->\n")
        Path(target).write_text(f"{before}<!-- table -->\n" + "\n".join(lines) + f"\n<!-- /table -->\n{after}")
