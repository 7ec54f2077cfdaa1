"""examples/own_script: a script with processes of its own, searched as it is."""

import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.outcomes import assert_logged_once, outcome_of, results

FOLDER = ROOT / "examples" / "own_script"


def processes(name: str) -> list[str]:
    """What still runs of a command after a moment in which launchers end what they started."""
    for _ in range(60):
        listed = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
        running = [line for line in listed.splitlines() if name in line and "search run" not in line]
        if not running:
            break
        time.sleep(0.5)
    return running


def test_copied_file_prints_results(tmp_path):
    code = (
        "from report import folder, known_epochs, params, report\n"
        "v = params(lr=0.1, epochs=2)\nreport(epoch=known_epochs() + 1, loss=v['lr'] * v['epochs'])\nprint(folder())"
    )
    alone = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, check=True, capture_output=True, text=True)
    assert alone.stdout == '@search {"epoch": 1.0, "loss": 0.2}\n.\n'
    told = {"SEARCH_PARAMS": '{"lr": 0.5}', "SEARCH_EPOCHS": "4", "SEARCH_SEED": "7", "SEARCH_EPOCH": "2",
            "SEARCH_FOLDER": str(tmp_path)}  # fmt: skip
    searched = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER, check=True, capture_output=True, text=True, env=told
    )
    assert searched.stdout == f'@search {{"epoch": 3.0, "loss": 2.0}}\n{tmp_path}\n'
    second = subprocess.run([sys.executable, "-c", "from report import report\nreport(loss=1)"], cwd=FOLDER, check=True,
                            capture_output=True, text=True, env={"RANK": "1"})  # fmt: skip
    assert not second.stdout
    assert "\nimport search" not in (FOLDER / "report.py").read_text()


@pytest.mark.nightly
def test_command_stop_ends_all_processes(command):
    """A kill of the command costs nothing."""
    pytest.importorskip("accelerate")
    launch = f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2 {FOLDER}/train.py"
    arguments = (
        "run", "--command", launch, "--space", str(FOLDER / "space.yaml"), "--objective", "eval_loss min", "--trials",
        "4", "--epochs", "4", "--concurrency", "1", "--set", "resources.dashboard=false",
    )  # fmt: skip
    command.run(*arguments, "--name", "whole")
    outcomes = [event["outcome"] for event in results(command.events("whole"))]
    assert "stopped_early" in outcomes and "completed" in outcomes
    assert not processes(f"{FOLDER}/train.py")
    command.kill_when("cut", lambda events: len(results(events)) >= 2, *arguments, "--name", "cut")
    command.run("resume", "cut")
    assert outcome_of(command, "cut") == outcome_of(command, "whole")
    assert_logged_once(command, "train", "cut")
    assert not processes(f"{FOLDER}/train.py")
