"""Nobody without the token gets in, and no secret gets out."""

import importlib.util
import os
import signal
import urllib.error
import urllib.request

import pytest

from tests.conftest import Command
from tests.serving import free_port

pytestmark = pytest.mark.slow


def test_dashboard_listens_here_alone_and_asks_for_the_token(tmp_path):
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
        token = (tmp_path / ".ray" / "auth_token").read_text().strip()
        request = urllib.request.Request(f"{url}/api/version", headers={"Authorization": f"Bearer {token}"})
        assert urllib.request.urlopen(request, timeout=10).status == 200
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_password_of_the_tracking_server_is_nowhere(command):
    uri = f"http://ann:correct-horse@127.0.0.1:{free_port()}"
    output = command.run("run", "toy", "--name", "s", "--no-retrain", "--epochs", "1", MLFLOW_TRACKING_URI=uri)
    assert "MLflow cannot be written" in output and "http://***@127.0.0.1" in output
    assert "correct-horse" not in output
    for path in (command.folder / "mlruns").rglob("*"):
        if path.is_file():
            assert b"correct-horse" not in path.read_bytes(), path
