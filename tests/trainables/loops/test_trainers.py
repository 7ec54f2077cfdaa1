"""Other libraries' trainers as trainings, and loops that report instead of yielding."""

import io
import threading
from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from trainables import seed_everything
from trainables.base import training
from trainables.base.device import Device
from trainables.loops.task import LoopTask
from trainables.loops.trial import Loop, TrainingError, Trial

CPU = Device(torch.device("cpu"))


def loop(function, objective, epochs=4):
    seed_everything(3)
    return Loop(function, Trial({"lr": 3e-3}, 3, epochs, torch.device("cpu")), CPU, objective)


def curve(one, epochs, objective):
    task = LoopTask("mine", objective, "min")
    return [training.run_epoch(task, one, None, None)[objective] for _ in range(epochs)]


def reporting(trial):
    weight = torch.nn.Linear(2, 1)
    for _ in trial.epochs(weight=weight):
        with torch.no_grad():
            weight.weight.mul_(0.9)
        trial.report({"val_loss": float(weight.weight.sum() + torch.rand(()))})


def reporting_without_parts(trial):
    for _ in range(trial.of):
        trial.report({"val_loss": torch.rand(()).item()})


@pytest.fixture(scope="module")
def distilbert(tmp_path_factory):
    """A tiny checkpoint as people have one."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("distilbert")
    config = transformers.DistilBertConfig(vocab_size=60, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    transformers.DistilBertForSequenceClassification(config).save_pretrained(folder)
    return folder


def with_transformers(checkpoint):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def train(trial):
        generator = torch.Generator().manual_seed(0)
        data = [
            {"input_ids": torch.randint(1, 60, (8,), generator=generator), "labels": torch.tensor(i % 2)}
            for i in range(24)
        ]
        trainer = transformers.Trainer(
            transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint),
            transformers.TrainingArguments(
                learning_rate=trial.params["lr"], per_device_train_batch_size=8, seed=trial.seed, report_to="none",
                use_cpu=True, disable_tqdm=True,
            ),
            train_dataset=data, eval_dataset=data,
        )  # fmt: skip
        trial.fit(trainer)

    return train


def with_lightning(trial):
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))

        def training_step(self, batch, index):
            return (self.net(batch[0]) - batch[1]).square().mean()

        def validation_step(self, batch, index):
            self.log("val_loss", (self.net(batch[0]) - batch[1]).square().mean())

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=trial.params["lr"])
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)]

    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, x.sum(1, keepdim=True))
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trial.fit(trainer, Module(), DataLoader(data, 8, shuffle=True), DataLoader(data, 20))


@pytest.mark.parametrize("kind", ["reporting", "reporting_without_parts", "transformers", "lightning"])
def test_trainer_resumed_after_any_epoch_same_bits(kind, request):
    objective = "eval_loss" if kind == "transformers" else "val_loss"
    function = {
        "reporting": reporting, "reporting_without_parts": reporting_without_parts, "lightning": with_lightning,
    }.get(kind) or with_transformers(request.getfixturevalue("distilbert"))  # fmt: skip
    whole = curve(loop(function, objective), 4, objective)
    assert len(set(whole)) == 4
    for done in (1, 2, 3):
        one = loop(function, objective)
        assert curve(one, done, objective) == whole[:done]
        file = io.BytesIO()
        training.write(one, file)
        file.seek(0)
        again = loop(function, objective)
        training.load(again, file)
        assert curve(again, 4 - done, objective) == whole[done:]


def tested_by_model(trial, trainer, model, **others):
    generator = torch.Generator().manual_seed(7)
    model.eval()
    with torch.no_grad():
        if hasattr(model, "net"):
            x = torch.randn(30, 4, generator=generator)
            return {"test_loss": model.net(x).square().squeeze(1)}
        ids = torch.randint(1, 60, (30, 8), generator=generator)
        logits = model(input_ids=ids).logits
        return {"test_eval_loss": logits[:, 0], "seen": float(trial.final)}


@pytest.mark.parametrize("kind", ["transformers", "lightning"])
def test_trainer_is_tested_and_registered_also_after_a_kill_at_its_end(kind, request, tmp_path):
    objective = "eval_loss" if kind == "transformers" else "val_loss"
    function = with_lightning if kind == "lightning" else with_transformers(request.getfixturevalue("distilbert"))
    task = LoopTask("mine", objective, "min", function, test=tested_by_model)
    splits = task.prepare({}, None, tmp_path, None)
    everything = task.merge(splits)

    def built():
        seed_everything(3)
        learner = task.build({"lr": 3e-3}, replace(splits, train=everything), 2, CPU)
        task.place(learner, 0, tmp_path / "files")
        return learner

    whole, file = built(), io.BytesIO()
    for _ in range(2):
        training.run_epoch(task, whole, everything, None)
    training.write(whole, file)
    training.finish(task, whole, everything)
    figures = task.evaluate(whole, splits.test)
    assert set(figures) == {task.objective.metric, *(["seen"] if kind == "transformers" else [])}
    assert task.units(whole, splits.test).shape == (30, 2)
    again = built()
    file.seek(0)
    training.load(again, file)
    training.finish(task, again, everything)
    assert task.evaluate(again, splits.test) == figures
    (tmp_path / "model").mkdir()
    assert task.export(whole, splits.info, tmp_path / "model") is None
    loaded = task.load(tmp_path / "model").loaded
    assert isinstance(loaded, torch.nn.Module)
    assert sum(p.numel() for p in loaded.parameters()) == whole.parameters > 0


def test_trial_that_ends_early_ends_its_loop_and_what_it_holds():
    ended = []

    def train(trial):
        try:
            for _ in range(trial.of):
                trial.report({"val_loss": 1.0})
        finally:
            ended.append(True)

    one = loop(train, "val_loss")
    curve(one, 2, "val_loss")
    assert not ended and any(thread.name == "trial" for thread in threading.enumerate())
    del one
    assert ended and not any(thread.name == "trial" for thread in threading.enumerate())


def test_error_inside_a_loop_that_reports_is_the_trials():
    def train(trial):
        trial.report({"val_loss": 1.0})
        raise ZeroDivisionError("mine")

    one = loop(train, "val_loss")
    curve(one, 1, "val_loss")
    with pytest.raises(ZeroDivisionError, match="mine"):
        curve(one, 1, "val_loss")


def test_mistakes_are_told_in_a_line(distilbert):
    def both(trial):
        yield {"val_loss": 1.0}
        trial.report({"val_loss": 1.0})

    one = loop(both, "val_loss")
    curve(one, 1, "val_loss")
    with pytest.raises(TrainingError, match="a function that yields its metrics cannot report them too"):
        curve(one, 1, "val_loss")
    with pytest.raises(TrainingError, match=r"trial.fit: a dict is neither a transformers.Trainer nor a lightning"):
        curve(loop(lambda trial: trial.fit({}), "val_loss"), 1, "val_loss")
    one = loop(lambda trial: [trial.report(1.0) for _ in range(2)], "val_loss")
    assert curve(one, 2, "val_loss") == [1.0, 1.0]
    with pytest.raises(training.Ended):
        curve(one, 1, "val_loss")
