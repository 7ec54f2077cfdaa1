"""The programs of docs/migrating.md run as they stand, and ours does what the page says of it."""

import os
import subprocess
import sys

import pytest

from benchmarks.killed import PAGE, programs, run
from tests.conftest import outside


def test_program_for_here_is_not_longer_than_ray_tunes():
    lengths = {title: len(program.strip().splitlines()) for title, program in programs().items()}
    assert lengths["Here"] <= lengths["Ray Tune"], lengths
    assert "| here | 0.9" in PAGE.read_text(), "python -m benchmarks.killed --write fills the table"


@pytest.mark.slow
@pytest.mark.parametrize("title", ["Ray Tune", "Optuna", "W&B"])
def test_program_for_another_tool_runs_as_it_stands(title, tmp_path):
    pytest.importorskip("wandb" if title == "W&B" else "sklearn")
    (tmp_path / "training.py").write_text(programs()["training"])
    (tmp_path / "tune_digits.py").write_text(programs()[title])
    environment = outside() | {"RAY_ADDRESS": "", "WANDB_MODE": "offline", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "tune_digits.py"], cwd=tmp_path, capture_output=True, text=True, timeout=280,
        env={key: value for key, value in environment.items() if value},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if title == "W&B":
        assert list((tmp_path / "wandb").glob("offline-run-*"))
    else:
        assert float(done.stdout.split()[-1]) > 0.9


@pytest.mark.slow
def test_program_for_here_killed_anywhere_ends_with_the_same_best_trial(monkeypatch):
    monkeypatch.setattr(os, "environ", outside())
    whole = run("Here")
    assert whole.value > 0.9
    for epochs in (3, 31):
        assert run("Here", epochs).said == whole.said
