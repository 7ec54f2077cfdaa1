"""A tracking server as teams run it: PostgreSQL behind it, artifacts through it, no file of it seen by the search."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from tests.outcomes import results
from tests.serving import free_port, tracking_server

pytestmark = pytest.mark.slow
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture
def server(tmp_path_factory) -> Iterator[str]:
    """Its URI."""
    if not BINARIES or not shutil.which("runuser"):
        pytest.skip("no PostgreSQL on this machine")
    folder = tmp_path_factory.mktemp("postgres")
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)  # PostgreSQL refuses to run as root
    shutil.chown(folder, "postgres")
    port, data, tool = free_port(), folder / "data", BINARIES[-1]

    def as_postgres(*command: str) -> None:
        subprocess.run(["runuser", "-u", "postgres", "--", *command], check=True, stdout=subprocess.DEVNULL, cwd="/")

    as_postgres(str(tool / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync")
    settings = f"-p {port} -h 127.0.0.1 -k {folder} -F"
    as_postgres(str(tool / "pg_ctl"), "-D", str(data), "-w", "-o", settings, "-l", str(folder / "log"), "start")
    listening = free_port()
    backend = f"postgresql+psycopg2://postgres@127.0.0.1:{port}/postgres"
    try:
        with tracking_server(listening, backend, tmp_path_factory.mktemp("served")) as process:
            yield f"http://127.0.0.1:{listening}"
            process.terminate()
    finally:
        as_postgres(str(tool / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")


@pytest.mark.nightly
def test_search_killed_and_resumed_on_postgresql(command, server):
    env = {"MLFLOW_TRACKING_URI": server}
    small = ("--trials", "4", "--epochs", "4", "--set", "data.size=24", "--set", "data.demo.train=100",
             "--set", "data.demo.test=30", "--set", "image_size=16")  # fmt: skip
    remote = type(command)(command.folder, {**command.env, **env})
    remote.kill_when("w", lambda events: len(results(events)) >= 5, "run", "windows", "--name", "w", *small)
    output = remote.run("resume", "w")
    assert "is the first champion" in output and "MLflow lacks" not in output
    client = MlflowClient(server)
    runs = client.search_runs([client.get_experiment_by_name("windows").experiment_id])
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert sorted(r.data.tags["role"] for r in runs) == ["final", "parent", *["trial"] * 4]
    for event in results(remote.events("w")):
        run = next(r for r in runs if r.data.tags.get("trial") == str(event["number"]))
        values = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "val_accuracy")}
        assert values[event["epoch"]] == event["metrics"]["val_accuracy"]
    final = next(r for r in runs if r.data.tags["role"] == "final")
    assert final.info.artifact_uri.startswith("mlflow-artifacts:"), "through the server, not by a shared disk"
    assert "confusion_matrix.png" in {a.path for a in client.list_artifacts(final.info.run_id)}
    picture = command.folder / "window.png"
    Image.new("RGB", (24, 24), "white").save(picture)
    assert "window.png" in remote.run("predict", "windows", str(picture))
    assert "best val_accuracy" in remote.run("compare", "windows")
