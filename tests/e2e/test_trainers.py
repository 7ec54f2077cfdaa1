"""Searches of other libraries' trainers, killed and resumed."""

from dataclasses import replace

import pytest

from tests.outcomes import assert_logged_once, outcome_of, results

HUGGING_FACE = """
import sys

import torch
import transformers

import search


def train(trial):
    generator = torch.Generator().manual_seed(0)
    data = [{"input_ids": torch.randint(1, 60, (8,), generator=generator), "labels": torch.tensor(i % 2)}
            for i in range(24)]
    trainer = transformers.Trainer(
        transformers.AutoModelForSequenceClassification.from_pretrained(CHECKPOINT),
        transformers.TrainingArguments(learning_rate=trial.params["lr"], seed=trial.seed, use_cpu=True,
                                       disable_tqdm=True, report_to="none"),
        train_dataset=data, eval_dataset=data,
    )
    trial.fit(trainer)


CHECKPOINT = sys.argv[1] if len(sys.argv) > 1 else None
if __name__ == "__main__":
    search.run(train, {"lr": search.loguniform(1e-4, 1e-2)}, "eval_loss min", trials=3, epochs=6, concurrency=1,
               name="s", scheduler="asha", resources={"dashboard": False})
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
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)]


def train(trial):
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, x.sum(1, keepdim=True))
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False,
                                enable_progress_bar=False, enable_model_summary=False)
    trial.fit(trainer, Module(trial.params["lr"]), DataLoader(data, 8, shuffle=True), DataLoader(data, 20))


if __name__ == "__main__":
    search.run(train, {"lr": search.loguniform(1e-4, 1e-2)}, "val_loss min", trials=4, epochs=8, concurrency=1,
               name="s", scheduler="asha", resources={"dashboard": False})
"""


@pytest.mark.parametrize("library", [
    pytest.param("transformers", marks=pytest.mark.slow), pytest.param("lightning", marks=pytest.mark.nightly),
])  # fmt: skip
def test_trainer_killed_twice_and_resumed(command, tmp_path, library):
    path = tmp_path / "mine.py"
    if library == "transformers":
        transformers = pytest.importorskip("transformers")
        pytest.importorskip("accelerate")
        config = transformers.DistilBertConfig(vocab_size=60, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
        transformers.DistilBertForSequenceClassification(config).save_pretrained(tmp_path / "tiny")
        path.write_text(HUGGING_FACE.replace("sys.argv[1] if len(sys.argv) > 1 else None", repr(f"{tmp_path}/tiny")))
    else:
        pytest.importorskip("lightning")
        path.write_text(LIGHTNING)
    whole = replace(command, folder=tmp_path / "whole", program=(str(path),))
    cut = replace(command, folder=tmp_path / "cut", program=(str(path),))
    resumed = replace(cut, program=("-m", "search"))
    for one in (whole, cut):
        one.folder.mkdir()
    whole.run()
    epochs = len(results(whole.events("s")))
    assert any(event["outcome"] == "stopped_early" for event in results(whole.events("s")))
    cut.kill_when("s", lambda events: len(results(events)) >= 4)
    resumed.kill_when("s", lambda events: len(results(events)) >= epochs - 4, "resume", "s")
    resumed.run("resume", "s")
    ours, theirs = outcome_of(cut, "s"), outcome_of(whole, "s")
    for curves in (ours["curves"], theirs["curves"]):  # what the trainers measure of this machine
        for _, _, _, metrics in curves:
            for name in [name for name in metrics if "runtime" in name or "per_second" in name]:
                del metrics[name]
    assert ours == theirs
    assert_logged_once(cut, "train", "s")
