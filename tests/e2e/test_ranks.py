"""Trials of two processes: DDP and FSDP over gloo, stopped early, killed and resumed."""

import os
import re
import signal
from dataclasses import replace

import psutil
import pytest

from tests.conftest import OWN_RAY, Command
from tests.machines import machines
from tests.outcomes import assert_logged_once, outcome_of, results

SCRIPT = """
import os
import signal
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import search


def train(trial):
    torch.manual_seed(trial.seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))
    if trial.params["kind"] == "ddp":
        model = DistributedDataParallel(model)
    else:
        mesh = distributed.device_mesh.init_device_mesh("cpu", (trial.world_size,))
        model = fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=trial.params["lr"])
    print("process", os.getpid(), "is rank", trial.rank, "of", distributed.get_world_size(), flush=True)
    torch.manual_seed(trial.seed + trial.rank)
    for epoch in trial.epochs(model=model, optimizer=optimizer):
        for _ in range(3):
            x = torch.randn(32, 4)
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
            optimizer.zero_grad()
            if ONCE and not ONCE.exists() and (trial.number, epoch, trial.rank) == (0, 3, 1):
                ONCE.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            loss.backward()
            optimizer.step()
        loss = loss.detach()
        distributed.all_reduce(loss)
        yield {"val_loss": loss / trial.world_size} if trial.rank == 0 else None


def test(trial, model, optimizer):
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():  # in all processes, as each has a part of the weights
        return {"loss": (model(x) - x.sum(1, keepdim=True)).square().flatten()}


def export(trial, folder, model, optimizer):
    (folder / "rank.txt").write_text(str(trial.rank))


ONCE = Path(sys.argv[1]) if len(sys.argv) > 1 else None
if __name__ == "__main__":
    search.run(train, {"lr": search.choice([0.03, 0.0001, 0.01, 0.0003]), "kind": search.choice(["ddp", "fsdp"])},
               "val_loss min", epochs=5, concurrency=1, name="s", searcher="grid", scheduler="asha", test=test,
               export=export,
               resources={"dashboard": False, "processes": 2, "cpus": 1, "gpus": 0,
                          "nodes": int(os.environ.get("NODES", 1))})
"""
TRAINER = """
import torch
import transformers

import search


def train(trial):
    generator = torch.Generator().manual_seed(0)
    data = [{"input_ids": torch.randint(1, 60, (8,), generator=generator), "labels": torch.tensor(i % 2)}
            for i in range(24)]
    shape = dict(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    trainer = transformers.Trainer(
        transformers.BertForSequenceClassification(transformers.BertConfig(**shape)),
        transformers.TrainingArguments(learning_rate=trial.params["lr"], seed=trial.seed, use_cpu=True,
                                       disable_tqdm=True, report_to="none"),
        train_dataset=data, eval_dataset=data,
    )
    assert trainer.args.world_size == trial.world_size == 2
    trial.fit(trainer)


if __name__ == "__main__":
    search.run(train, {"lr": search.choice([1e-2, 1e-4])}, "eval_loss min", epochs=4, concurrency=1, name="s",
               searcher="grid", scheduler="asha", resources={"dashboard": False, "processes": 2, "gpus": 0})
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "mine.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def uninterrupted(module_command, script):
    replace(module_command, program=(str(script),)).run()
    return outcome_of(module_command, "s")


def processes_of(command):
    """The numbers of the processes that trained a trial, as their logs have them."""
    logs = (command.folder / "mlruns" / "searches" / "s" / "trials").glob("*/output*.log")
    return {int(number) for log in logs for number in re.findall(r"process (\d+)", log.read_text())}


@pytest.mark.slow
def test_weak_trials_stop_in_every_process(module_command, uninterrupted):
    events = module_command.events("s")
    assert [event["outcome"] for event in results(events)].count("stopped_early") >= 4
    assert len([event for event in events if event["event"] == "completed"]) >= 2
    assert not [event for event in events if event["event"] in ("retry", "failed")]
    assert len(processes_of(module_command)) == 2, "the processes of the first trial train all trials"


@pytest.mark.slow
def test_final_model_is_trained_tested_and_exported_by_all_processes(module_command, uninterrupted):
    (final,) = [event for event in module_command.events("s") if event["event"] == "final_finished"]
    assert 0 < final["test"]["loss"] < 10
    (exported,) = (module_command.folder / "mlruns/searches/s/final").glob("*/model/**/rank.txt")
    assert exported.read_text() == "0"


@pytest.mark.slow
def test_process_of_a_trial_killed_then_the_driver(command, script, uninterrupted):
    ran = replace(command, program=(str(script), str(command.folder / "once")))
    ran.kill_when("s", lambda events: len(results(events)) >= 8)
    assert [e["why"] for e in command.events("s") if e["event"] == "retry"] == ["lost"]
    command.run("resume", "s")
    assert outcome_of(command, "s") == uninterrupted
    assert_logged_once(command, "train", "s")


@pytest.mark.nightly
def test_all_processes_killed(command, script, uninterrupted):
    ran = replace(command, program=(str(script),))
    process = ran.start(**OWN_RAY)
    ran.until(process, "s", lambda events: len(results(events)) >= 3)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        os.kill(member.pid, signal.SIGKILL)
    process.communicate()
    assert not any(map(psutil.pid_exists, processes_of(command)))
    command.run("resume", "s")
    assert outcome_of(command, "s") == uninterrupted
    assert_logged_once(command, "train", "s")


@pytest.mark.nightly
def test_processes_on_two_machines(tmp_path, script, uninterrupted):
    """The processes of a trial are on different machines, and the results are those of one machine."""
    with machines(head_cpus=1) as there:
        there.add(cpus=1)
        command = Command(tmp_path, there.env, program=(str(script),))
        output = command.run(NODES="2")
    assert "2 CPU a trial for 2 processes on 2 machines, 1 at once" in output
    assert outcome_of(command, "s") == uninterrupted


@pytest.mark.nightly
def test_trainer_in_two_processes_killed_and_resumed(command, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(TRAINER)
    whole, cut = (replace(command, folder=tmp_path / name, program=(str(path),)) for name in ("whole", "cut"))
    for ran in (whole, cut):
        ran.folder.mkdir()
    whole.run()
    cut.kill_when("s", lambda events: len(results(events)) >= 2)
    replace(command, folder=cut.folder).run("resume", "s")
    assert outcome_of(cut, "s") == outcome_of(whole, "s")
    assert_logged_once(cut, "train", "s")
