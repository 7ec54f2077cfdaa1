"""Searches that count in steps: a function, a command, a transformers Trainer and a Lightning module, killed and
resumed."""

from dataclasses import replace

import pytest

import search
from tests.outcomes import assert_logged_once, outcome_of, results

FUNCTION = """
import time

import torch
from torch.utils.data import DataLoader, TensorDataset

import search


def train(trial):
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(x, x.prod(1, keepdim=True)), 8, shuffle=True)
    model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=trial.params["lr"])
    for step, (inputs, targets) in trial.steps(loader, model=model, optimizer=optimizer):
        time.sleep(0.01)
        loss = (model(inputs) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % trial.report_every == 0:
            yield {"val_loss": loss}


if __name__ == "__main__":
    search.run(train, {"lr": search.loguniform(1e-3, 1e-1)}, "val_loss min", trials=4, steps=24, report_every=3,
               concurrency=1, name="s", scheduler="asha", resources={"dashboard": False})
"""
HUGGING_FACE = """
import torch
import transformers

import search


def train(trial):
    generator = torch.Generator().manual_seed(0)
    data = [{"input_ids": torch.randint(1, 60, (8,), generator=generator), "labels": torch.tensor(i % 2)}
            for i in range(40)]
    config = transformers.DistilBertConfig(vocab_size=60, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    trainer = transformers.Trainer(
        transformers.DistilBertForSequenceClassification(config),
        transformers.TrainingArguments(learning_rate=trial.params["lr"], seed=trial.seed, use_cpu=True,
                                       disable_tqdm=True, report_to="none", eval_strategy="steps", eval_steps=3,
                                       save_steps=3, max_steps=18, load_best_model_at_end=True,
                                       metric_for_best_model="eval_loss", output_dir=trial.folder / "out"),
        train_dataset=data, eval_dataset=data,
    )
    trial.fit(trainer)


if __name__ == "__main__":
    search.run(train, {"lr": search.loguniform(1e-4, 1e-2)}, "eval_loss min", trials=3, steps=18, report_every=3,
               concurrency=1, name="s", scheduler="asha", resources={"dashboard": False})
"""
LIGHTNING = """
import lightning.pytorch as lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

import search


class Module(lightning.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.lr = lr
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))

    def training_step(self, batch, index):
        return (self.net(batch[0]) - batch[1]).square().mean()

    def validation_step(self, batch, index):
        self.log("val_loss", (self.net(batch[0]) - batch[1]).square().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def train(trial):
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, x.sum(1, keepdim=True))
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=24,
                                val_check_interval=3, check_val_every_n_epoch=None, enable_progress_bar=False,
                                enable_model_summary=False)
    trial.fit(trainer, Module(trial.params["lr"]), DataLoader(data, 8, shuffle=True), DataLoader(data, 20))


if __name__ == "__main__":
    search.run(train, {"lr": search.loguniform(1e-4, 1e-2)}, "val_loss min", trials=4, steps=24, report_every=3,
               concurrency=1, name="s", scheduler="asha", resources={"dashboard": False})
"""
SCRIPT = """
import json
import os
import sys
import time
from pathlib import Path

lr, steps, every = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
state = Path(os.environ["SEARCH_FOLDER"], "state.json")
step, weight = json.loads(state.read_text()) if state.exists() else (0, 1.0)
if step == 0:
    print('@search {"step": 0, "val_loss": 9.0}', flush=True)
while step < steps:
    time.sleep(0.01)
    step, weight = step + 1, weight * (1 - lr)
    print(f"step {step}", flush=True)
    if step % every == 0:
        part = state.with_suffix(".part")
        part.write_text(json.dumps([step, weight]))
        part.replace(state)
        print("@search " + json.dumps({"step": step, "val_loss": weight}), flush=True)
"""


def prepared(command, kind, folder):
    """The program that begins the search, and its arguments."""
    folder.mkdir()
    if kind != "command":
        path = folder / "mine.py"
        path.write_text({"function": FUNCTION, "transformers": HUGGING_FACE, "lightning": LIGHTNING}[kind])
        return replace(command, folder=folder, program=(str(path),)), ()
    (folder / "train.py").write_text(SCRIPT)
    (folder / "space.yaml").write_text("lr: {loguniform: [1.0e-3, 1.0e-1]}\n")
    arguments = (
        "run", "--command", "python train.py {lr} {steps} {report_every}", "--space", "space.yaml", "--objective",
        "val_loss min", "--trials", "4", "--steps", "24", "--report-every", "3", "--concurrency", "1", "--name", "s",
        "--set", "resources.dashboard=false",
    )  # fmt: skip
    return replace(command, folder=folder), arguments


@pytest.mark.parametrize("kind", [
    "command", pytest.param("function", marks=pytest.mark.slow),
    pytest.param("transformers", marks=pytest.mark.nightly), pytest.param("lightning", marks=pytest.mark.nightly),
])  # fmt: skip
def test_search_by_steps_killed_twice_and_resumed(command, tmp_path, kind):
    if kind in ("transformers", "lightning"):
        pytest.importorskip(kind)
    whole, arguments = prepared(command, kind, tmp_path / "whole")
    cut, _ = prepared(command, kind, tmp_path / "cut")
    said = whole.run(*arguments)
    reports = len(results(whole.events("s")))
    assert (", step 24: " in said and "at step " in said) or kind == "transformers"
    assert any(event["outcome"] == "stopped_early" for event in results(whole.events("s")))
    resumed = replace(cut, program=("-m", "search"))
    cut.kill_when("s", lambda events: len(results(events)) >= 4, *arguments)
    resumed.kill_when("s", lambda events: len(results(events)) >= reports - 4, "resume", "s")
    resumed.run("resume", "s")
    ours, theirs = outcome_of(cut, "s"), outcome_of(whole, "s")
    for curves in (ours["curves"], theirs["curves"]):  # what the trainers measure of this machine
        for _, _, _, metrics in curves:
            for name in [name for name in metrics if "runtime" in name or "per_second" in name]:
                del metrics[name]
    assert ours == theirs
    task = "train"
    assert_logged_once(cut, task, "s")
    curves = search.open("s", cut.folder / "mlruns").curves()
    assert curves["step"].min() == 3 and curves["step"].max() == (18 if kind == "transformers" else 24)
