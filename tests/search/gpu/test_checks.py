"""Every task on a GPU, as far as the stand-in is one; and `doctor --gpu` from beginning to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from search.gpu import checks, memory
from search.gpu.checks import Bench
from tests import standin
from trainables import choose_device

ROOT = Path(__file__).parents[3]
#: Small data and models.
SMALL = {
    "windows": ("data.demo.train=50", "data.demo.test=20", "data.size=16", "image_size=16", "width=8", "depth=3",
                "batch_size=4"),
    "rnn": ("data.demo.train=50", "data.demo.test=20", "data.demo.shortest=2", "data.demo.longest=4", "batch_size=4",
            "hidden=8", "layers=2"),
    "tweets": ("data.demo.size=100", "batch_size=4", "data.max_length=12", "model.unfreeze=0"),
    "lyrics": ("data.demo.size=100", "batch_size=4", "data.max_length=12", "model.unfreeze=0", "model.head=cnn",
               "model.filters=4"),
    "wikitext": ("data.corpus=demo", "parts=12", "embedding=12", "heads=2", "hidden=12", "layers=1", "batch_size=20",
                 "bptt=15"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(checks, "SETS", SMALL)
    monkeypatch.setattr(checks, "FUSED", 3)
    for module in (checks, checks.training):
        monkeypatch.setattr(module, "CHECK_EVERY", 4)


@pytest.fixture
def gpu():
    with standin.device() as mode:
        yield mode


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.nightly) if n in ("lyrics", "wikitext") else n for n in SMALL]
)
def test_task_trains_resumes_and_is_exported_on_a_gpu_without_waiting_for_it(gpu, tmp_path, name):
    device = choose_device(1, 1.0, "auto")
    bench = Bench.of(name, device, tmp_path / "cache")
    assert checks.compare(bench, (1.0, "fp32"), (0, "fp32"), 1e-3)["ok"]
    learner = bench.learner(device)
    bench.epoch(learner)
    checks.training.save(learner, tmp_path / "checkpoint.pt")
    assert checks.resume(bench, device, tmp_path / "checkpoint.pt")["ok"]
    found = checks.waits(bench, device, lambda: gpu.waits)
    assert found["steps"] > checks.CHECK_EVERY
    assert found["waits"] == found["steps"] // checks.CHECK_EVERY, "the loss is looked at, nothing else"
    assert checks.round_trip(bench, device, tmp_path)["ok"]
    as_one = checks.together_as_one(bench, device)
    assert (as_one is not None) == (name == "rnn")


def test_share_of_a_gpu_is_that_of_the_largest_configuration(gpu, tmp_path):
    bench = Bench.of("rnn", choose_device(1, 1.0, "fp32"), tmp_path)
    need = memory.measure(bench.config, bench.splits, {"cpus": 1, "gpus": 1.0, "precision": "fp32"})
    assert need.params["variant"] == "padded"
    assert (need.taken, need.total, need.together) == (standin.USED, standin.MEMORY, 15)


def test_waits_that_are_put_into_a_step_are_found(gpu, tmp_path, monkeypatch):
    device = choose_device(1, 1.0, "fp32")
    bench = Bench.of("rnn", device, tmp_path)
    scaled = type(bench.learner(device).model).scaled
    monkeypatch.setattr(
        type(bench.learner(device).model), "scaled", lambda self, x, *rest: scaled(self, x, *rest) * bool(x.any())
    )
    assert not checks.waits(bench, device, lambda: gpu.waits)["ok"]


def doctor(folder, change=""):
    """Runs `doctor --gpu tweets` on the stand-in, small and with another `change` to it; returns what it says and
    writes.

    In a process of its own, as it forks, which a process that has trained on a device must not.
    """
    code = f"""
import sys
sys.modules |= dict.fromkeys(("ray", "mlflow", "optuna"))
from tests import standin
from search.cli.app import main
from search.gpu import checks, examine, limits
checks.SETS = {SMALL!r}
limits.BYTES["cuda"], limits.SIDE["cuda"], limits.STARTS = 2**20, 32, 10
examine.MOST = 2
{change}
with standin.device():
    main()
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--gpu", "tweets", "--store", str(folder)],
        cwd=ROOT, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return ran.returncode, ran.stdout + ran.stderr, json.loads((folder / "gpu.json").read_text())


@pytest.mark.slow
def test_doctor_checks_a_task_from_beginning_to_end(tmp_path):
    code, said, written = doctor(tmp_path)
    assert code == 0, said
    for line in (
        "ok  a process gets no more than its share", "ok  tweets: killed and resumed: the same bits",
        "ok  tweets: artifacts, export", "waits for the GPU in", "ok  tweets: 2 trials together",
        "tweets: kernels: torch's profiler",
    ):  # fmt: skip
        assert line in said
    assert written["machine"]["device"] == "stand-in"
    assert written["tasks"]["tweets"]["speed"]["samples_per_second"] > 0


@pytest.mark.slow
def test_doctor_names_what_is_wrong_and_what_was_not_done(tmp_path):
    change = """
def broken(*_):
    raise RuntimeError("no such kernel")
checks.round_trip, checks.APART = broken, -1.0
started = examine._start
def crashing(name, part, folder):
    process = started(name, part, folder)
    if part == "0":
        process.kill()
    return process
examine._start = crashing
"""
    code, said, written = doctor(tmp_path, change)
    assert code == 1, said
    assert "BAD tweets: follows: RuntimeError: no such kernel" in said
    assert "BAD tweets: an epoch ends at" in said
    assert "BAD tweets: 2 trials together" in said and "ended with -9" in said
    assert written["tasks"]["tweets"]["resumes"]["ok"] is True


def test_doctor_needs_a_gpu_and_neither_ray_nor_mlflow_nor_optuna(tmp_path):
    code = (
        "import sys; sys.modules |= dict.fromkeys(('ray', 'mlflow', 'optuna')); from search.cli.app import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--gpu", "rnn", "--store", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "torch sees no GPU here" in ran.stdout
