"""The programs of docs/howto/from-other-tools.md: each runs (other tools with fewer trials); ours survives kills."""

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


#: How each says its number of trials, and how it says six; W&B's program is one trial.
TRIALS = {"Ray Tune": ("num_samples=30", "num_samples=6"), "Optuna": ("n_trials=30", "n_trials=6"), "W&B": ("", "")}


@pytest.mark.nightly
@pytest.mark.parametrize("title", TRIALS)
def test_program_for_another_tool_runs(title, tmp_path):
    pytest.importorskip("wandb" if title == "W&B" else "sklearn")
    program, (said, short) = programs()[title], TRIALS[title]
    assert said in program
    (tmp_path / "training.py").write_text(programs()["training"])
    (tmp_path / "tune_digits.py").write_text(program.replace(said, short))
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


@pytest.mark.nightly
def test_program_for_here_killed_anywhere_ends_with_the_same_best_trial(monkeypatch):
    monkeypatch.setattr(os, "environ", outside())
    whole = run("Here")
    assert whole.value > 0.9
    assert run("Here", 31).said == whole.said  # benchmarks/killed.py does so at three epochs
