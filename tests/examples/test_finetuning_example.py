"""examples/finetuning: LoRA with a plain loop and with a Trainer, on a tiny model."""

import importlib
import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import CODE, ROOT
from tests.outcomes import assert_logged_once, outcome_of, results
from trainables import seed_everything
from trainables.base import checkpoint_files, training
from trainables.base.device import Device
from trainables.loops.task import LoopTask
from trainables.loops.trial import Loop, Trial

pytest.importorskip("peft")
pytest.importorskip("accelerate")

FOLDER = ROOT / "examples" / "finetuning"
PARAMS = {"lr": 3e-3, "rank": 2, "alpha": 8, "targets": "q_proj v_proj"}
PROGRAMS = {"classifier": "val_loss", "language_model": "eval_loss"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    subprocess.run([sys.executable, "tiny.py", folder], cwd=FOLDER, check=True, capture_output=True)
    return folder


@pytest.fixture
def modules(tiny, monkeypatch):
    """Imports a module of the example."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setitem(PARAMS, "model", str(tiny))
    yield importlib.import_module
    for name in ("lora", "texts", *PROGRAMS):
        sys.modules.pop(name, None)


def loop(function, objective, folder, epochs=3, **params):
    seed_everything(1)
    trial = Trial(PARAMS | params, 1, epochs, torch.device("cpu"))
    trial.folder = folder
    return Loop(function, trial, Device(torch.device("cpu")), objective)


def curve(learner, epochs, objective):
    task = LoopTask("mine", objective, "min")
    return [training.run_epoch(task, learner, None, None)[objective] for _ in range(epochs)]


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_resumed_trial_has_the_same_bits(modules, tmp_path, name):
    objective, train = PROGRAMS[name], modules(name).train
    whole = curve(loop(train, objective, tmp_path / "whole"), 3, objective)
    assert whole[2] < whole[0], "it learns"
    other = loop(train, objective, tmp_path / "other", targets="all-linear", rank=4)
    assert curve(other, 1, objective)[0] != whole[0]
    del other
    learner = loop(train, objective, tmp_path / "cut")
    assert curve(learner, 1, objective) == whole[:1], "no trial changes the base that it shares"
    file = io.BytesIO()
    training.write(learner, file)
    if files := training.files_of(learner):
        checkpoint_files.link(checkpoint_files.flat(files), tmp_path / "kept")
    del learner
    assert len(file.getvalue()) < 300_000
    file.seek(0)
    again = loop(train, objective, tmp_path / "cut")
    training.load(again, file, tmp_path / "kept" if files else None)
    assert curve(again, 2, objective) == whole[1:]


@pytest.mark.slow
def test_trials_share_the_weights_of_the_file(modules, tiny, tmp_path):
    lora, trial = modules("lora"), loop(None, "x", tmp_path).trial
    first, second = (lora.adapted(trial, "AutoModelForCausalLM", "CAUSAL_LM") for _ in range(2))
    for (name, one), (_, two) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert (one.data_ptr() == two.data_ptr()) == ("lora" not in name), name
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line for line in maps if line.endswith(f"{tiny}/model.safetensors")]
    spans = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in mapped]
    places = [p.data_ptr() for name, p in first.named_parameters() if "lora" not in name]
    assert places and all(any(low <= place < high for low, high in spans) for place in places)


def without_timing(command):
    """The outcome of the search, without the seconds that the Trainer measures."""
    outcome = outcome_of(command, "language-model")
    timing = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    for _, _, _, metrics in outcome["curves"]:
        for name in timing:
            metrics.pop(name)
    return outcome


@pytest.mark.nightly
def test_searches_run_and_one_is_killed_and_resumed(command, tiny):
    env = {**command.env, "MODEL": str(tiny), "PYTHONPATH": CODE}
    copies = {}
    for folder in ("whole", "cut"):
        (command.folder / folder).mkdir()
        copies[folder] = replace(command, folder=command.folder / folder, env=env)
        for name in PROGRAMS:
            text = (FOLDER / f"{name}.py").read_text()
            short = text.replace("trials=6, epochs=4", "trials=2, epochs=3, concurrency=1")
            assert short != text
            (command.folder / folder / f"{name}.py").write_text(short)
        for name in ("lora.py", "texts.py"):
            (command.folder / folder / name).write_text((FOLDER / name).read_text())
    whole, cut = copies["whole"], copies["cut"]
    assert "best: trial" in replace(whole, program=("classifier.py",)).run()
    assert "best: trial" in replace(whole, program=("language_model.py",)).run()
    printed = "".join(whole.run("logs", "classifier", str(number), "--lines", "0") for number in range(2))
    assert len(re.findall("reads .* for AutoModelForSequenceClassification", printed)) == 1, "one worker, one base"
    replace(cut, program=("language_model.py",)).kill_when("language-model", lambda events: len(results(events)) >= 2)
    cut.run("resume", "language-model")
    assert without_timing(cut) == without_timing(whole)
    assert_logged_once(cut, "train", "language-model")
