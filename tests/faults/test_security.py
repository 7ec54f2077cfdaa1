"""Nobody without the token gets in, and no secret gets out."""

import importlib.util
import os
import signal
import stat
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import psutil
import pytest

from search.runtime.cluster import protect_token
from tests.conftest import Command
from tests.serving import free_port

pytestmark = pytest.mark.slow


def ports_of(pid: int) -> set[int]:
    """The ports at which a process and those below it listen to other machines."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    sockets = [socket for process in family for socket in process.net_connections("tcp")]
    return {s.laddr.port for s in sockets if s.status == psutil.CONN_LISTEN and s.laddr.ip != "127.0.0.1"}


def asked_without_token(port: int) -> grpc.StatusCode:
    """The answer of a server of Ray to calls without the token: list the nodes, run a task, read a value."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        codes = []
        for method in (
            "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
            "/ray.rpc.NodeManagerService/RequestWorkerLease",
            "/ray.rpc.CoreWorkerService/PushTask",
            "/ray.rpc.InternalKVGcsService/InternalKVGet",
        ):
            try:
                channel.unary_unary(method)(b"", timeout=5)
                codes.append(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                codes.append(error.code())
    for code in (grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED):
        if code in codes:
            return code
    return codes[0]


def test_ray_token_permissions(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    protect_token()
    token = tmp_path / ".ray" / "auth_token"
    made = token.read_text()
    assert len(made) == 64 and stat.S_IMODE(token.stat().st_mode) == 0o600
    token.chmod(0o644)
    protect_token()
    assert token.read_text() == made and stat.S_IMODE(token.stat().st_mode) == 0o600


def test_dashboard_is_local_and_needs_token(tmp_path):
    if importlib.util.find_spec("ray._private.authentication") is None:
        pytest.skip("this Ray is too old for tokens, as doctor says")
    command = Command(tmp_path, {"HOME": str(tmp_path), "RAY_ADDRESS": ""})
    process = command.start(
        "run", "toy", "--name", "s", "--epochs", "99", "--set", "data.pause=1", "--set", "resources.dashboard=true"
    )
    try:
        line = next(line for line in process.stdout if line.startswith("Ray dashboard: "))
        url, _, job = line.split()[2].partition("/#/jobs/")
        assert job == "01000000"
        assert url.startswith("http://127.0.0.1:")
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{url}/api/version", timeout=10)
        assert error.value.code == 401
        file = tmp_path / ".ray" / "auth_token"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        token = file.read_text().strip()
        request = urllib.request.Request(f"{url}/api/version", headers={"Authorization": f"Bearer {token}"})
        assert urllib.request.urlopen(request, timeout=10).status == 200
        refused = [asked_without_token(port) for port in ports_of(process.pid)]
        assert grpc.StatusCode.UNAUTHENTICATED in refused, "at least Ray's own servers were asked"
        assert grpc.StatusCode.OK not in refused
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_tracking_password_is_redacted(command):
    uri = f"http://ann:correct-horse@127.0.0.1:{free_port()}"
    output = command.run("run", "toy", "--name", "s", "--no-retrain", "--epochs", "1", MLFLOW_TRACKING_URI=uri)
    assert "MLflow cannot be written" in output and "http://***@127.0.0.1" in output
    assert "correct-horse" not in output
    for path in (command.folder / "mlruns").rglob("*"):
        if path.is_file():
            assert b"correct-horse" not in path.read_bytes(), path
