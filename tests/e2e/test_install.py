"""What a newcomer does first."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT, outside

pytestmark = pytest.mark.slow


def test_wheel_without_checkout(tmp_path):
    pip = [sys.executable, "-m", "pip", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, ROOT], check=True, timeout=200)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True, timeout=200)
    env = {**outside(), "PYTHONPATH": str(site), "SEARCH_STORE": str(tmp_path / "store")}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(site) in python("-c", "import search; print(search.__file__)")
    listed = python("-m", "search", "list")
    for task in ("windows", "rnn", "tweets", "lyrics", "wikitext"):
        assert task in listed
    assert "configuration 0:" in python("-m", "search", "run", "rnn", "--dry-run")
    for marker in ("search/py.typed", "trainables/py.typed"):
        assert (site / marker).exists()


def test_doctor_describes_this_machine(command):
    output = command.run("doctor", RAY_ADDRESS="", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    for line in ("software: trial-search", "machine: ", "gpu", "store: ", "model hub: ", "search: a small one runs"):
        assert line in output
    assert "http://127.0.0.1:9 does not answer\n  -> start it, correct MLFLOW_TRACKING_URI" in output
    for task in ("windows: ", "rnn: ", "tweets: ", "lyrics: ", "wikitext: "):
        assert task in output
    assert output.count("; encoder: ") == 2
    assert "wikitext: corpus: " in output


def test_cli_version_suggestions_no_colours(command):
    assert command.call("--version").startswith("trial-search ")
    assert "did you mean 'windows'?" in command.call("run", "window", code=2)
    assert "did you mean 'epochs'?" in command.call("run", "rnn", "--set", "search.epoch=3", code=2)
    assert "--trials" in command.call("run", "rnn", "--trails", "3", code=2)
    for arguments in (["list"], ["run", "rnn", "--dry-run"], ["--help"]):
        assert "\x1b[" not in command.run(*arguments)
