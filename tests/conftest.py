"""What several tests use: the command line as a user types it, in a process and a store of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
#: Where the commands and their workers find this checkout and the toy task, which an entry point names.
CODE = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "toy")])


@dataclass
class Command:
    """`python -m search`, run in `folder` with its store there and `env` around it."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen:
        # A test that uses MLflow in its own process leaves the store's address in the environment.
        outside = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        return subprocess.Popen(
            [sys.executable, "-m", "search", *arguments], cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            env={**outside, "PYTHONPATH": CODE, "SEARCH_STORE": str(self.folder / "mlruns"), **self.env, **env},
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0, **env: str) -> str:
        process = self.start(*arguments, **env)
        output, _ = process.communicate(timeout=280)
        assert process.returncode == code, output
        return output

    def kill_when(self, name: str, ready, *arguments: str) -> None:
        """Starts a command and sends its driver SIGKILL as soon as `ready(events)` holds."""
        process = self.start(*arguments)
        deadline = time.monotonic() + 120
        while not ready(self.events(name)):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "the moment to kill never came"
            time.sleep(0.02)
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

        client = MlflowClient(f"sqlite:///{self.folder / 'mlruns' / 'mlflow.db'}")
        found = client.get_experiment_by_name(experiment)
        return client, list(client.search_runs([found.experiment_id], max_results=1000))
