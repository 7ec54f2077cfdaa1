"""A champion behind MLflow's own server, asked over HTTP."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow
import pandas as pd

from tests.conftest import ROOT, Command, outside

#: What CI keeps of a run of the tests.
ARTIFACTS = ROOT / "tests" / "artifacts"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert server.poll() is None, server.communicate()[0]
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    server.kill()
    raise AssertionError(f"{url} does not answer")


def tracking_server(port: int, backend: str, artifacts: Path) -> subprocess.Popen:
    """MLflow's server, which answers by now; artifacts go through it."""
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", backend, "--artifacts-destination", str(artifacts)],
        env={**outside(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(f"http://127.0.0.1:{port}/health", server)
    return server


def assert_champion_answers(command: Command, task: str) -> None:
    """What MLflow says to send, sent to `mlflow models serve`, is answered with what the final training predicted."""
    uri = f"sqlite:///{command.folder / 'mlruns' / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    model = Path(mlflow.artifacts.download_artifacts(f"models:/{task}@champion"))
    port = free_port()
    log = command.folder / "served.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", f"models:/{task}@champion", "--host",
             "127.0.0.1", "--port", str(port), "--workers", "1", "--env-manager", "local"],
            env={**outside(), "MLFLOW_TRACKING_URI": uri}, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server)
        sent = (model / "serving_input_example.json").read_bytes()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", sent, headers)
        answer = urllib.request.urlopen(request, timeout=120).read()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    tags = mlflow.MlflowClient().get_model_version_by_alias(task, "champion").tags
    final = command.folder / "mlruns" / "searches" / tags["search"] / "final" / f"trial-{int(tags['trial']):04d}-seed-0"
    predicted = final / "predictions.parquet"
    got, expected = pd.DataFrame(json.loads(answer)["predictions"]), pd.read_parquet(predicted).reset_index(drop=True)
    pd.testing.assert_frame_equal(got[expected.columns], expected, check_dtype=False, rtol=1e-4)


def assert_served_and_reported(command: Command, task: str, name: str, *parts: str) -> None:
    """The champion answers, and the search's report, kept among the artifacts of this run of the tests, has these."""
    assert_champion_answers(command, task)
    command.call("report", name)
    path = command.folder / "mlruns" / "searches" / name / "report.html"
    ARTIFACTS.mkdir(exist_ok=True)
    shutil.copy(path, ARTIFACTS / f"{task}.html")
    page = path.read_text()
    for part in parts:
        assert part in page
