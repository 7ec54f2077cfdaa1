"""Five hundred trials in one search take no more memory than fifty."""

import re
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.nightly

TRIALS = 500


def resident(process: psutil.Process) -> float:
    """MiB that are the process's own: pages that it shares with others (libraries, the object store) are not."""
    return process.memory_full_info().uss / 2**20


def test_memory_over_500_trials(command, request):
    process = command.start(
        "run", "toy", "--name", "s", "--epochs", "1", "--no-retrain", "--set", f"index={{int: [0, {TRIALS - 1}]}}",
        "--set", "data.pause=0.1",  # or the first fifty are over before all that a driver needs is loaded

    )  # fmt: skip
    driver, curve = psutil.Process(process.pid), []
    worker = None
    while process.poll() is None:
        done = len([e for e in command.events("s") if e["event"] == "result"])
        try:
            if worker is None or not worker.is_running():
                worker = next((p for p in psutil.process_iter() if re.match(r"ray::\w*TaskTrainable", _title(p))), None)
            if worker is not None and done:
                curve.append((done, resident(driver), resident(worker)))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            worker = None
        time.sleep(0.25)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert f"{TRIALS} completed" in output
    at_50 = next(point for point in curve if point[0] >= 50)
    last = curve[-1]
    assert last[0] > TRIALS * 0.9
    request.node.user_properties.append(("memory", curve))
    for name, before, after in (("driver", at_50[1], last[1]), ("worker", at_50[2], last[2])):
        assert after < before * 1.15, f"{name}: {before:.0f} MiB at trial {at_50[0]}, {after:.0f} MiB at {last[0]}"
    if target := request.config.getoption("--fault-table"):
        from trainables.base.plots import new_figure, save_figure

        figure = new_figure(8, 4)
        axes = figure.subplots()
        for column, name in ((1, "driver"), (2, "worker")):
            axes.plot([point[0] for point in curve], [point[column] for point in curve], label=name)
        axes.set(xlabel="trials", ylabel="memory of its own, MiB", ylim=(0, None))
        axes.legend()
        save_figure(figure, Path(target).with_name("memory.png"))


def _title(process: psutil.Process) -> str:
    return " ".join(process.cmdline())
