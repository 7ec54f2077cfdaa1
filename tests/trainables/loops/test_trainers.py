"""Other libraries' trainers as trainings, and loops that report instead of yielding."""

import threading
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from trainables import seed_everything
from trainables.base import training
from trainables.base.checkpoints import Storage
from trainables.base.device import Device
from trainables.loops.task import LoopTask
from trainables.loops.trial import Loop, TrainingError, Trial

CPU = Device(torch.device("cpu"))


def loop(function, objective, epochs=4, report_every=None, folder=None):
    seed_everything(3)
    trial = Trial({"lr": 3e-3}, 3, epochs, torch.device("cpu"), report_every)
    trial.folder = folder
    return Loop(function, trial, CPU, objective)


def save(one, storage):
    """Saves a training as a worker does; returns the checkpoint's name and digest."""
    written = storage.save("state.pt", partial(training.write, one), partial(training.files_of, one))
    return written["name"], written["digest"]


def restored(make, checkpoint, storage, scratch):
    one, damaged = training.restore(make, [checkpoint], storage.open_checked, partial(storage.others, scratch=scratch))
    assert damaged == []
    return one


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


@pytest.fixture
def storage(tmp_path):
    """The storage of a search on a worker that sees its folder."""
    folder = tmp_path / "search"
    folder.mkdir()
    (folder / "journal.jsonl").write_bytes(b"mark")
    return Storage(folder, b"mark")


@pytest.fixture(scope="module")
def distilbert(tmp_path_factory):
    """A tiny checkpoint as people have one."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("distilbert")
    config = transformers.DistilBertConfig(vocab_size=60, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    transformers.DistilBertForSequenceClassification(config).save_pretrained(folder)
    return folder


def with_transformers(checkpoint, callbacks=(), **arguments):
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
                use_cpu=True, disable_tqdm=True, **arguments,
            ),
            train_dataset=data, eval_dataset=data, callbacks=[make() for make in callbacks],
        )  # fmt: skip
        trial.fit(trainer)

    return train


def with_lightning(trial, **arguments):
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
        enable_model_summary=False, **arguments,
    )  # fmt: skip
    trial.fit(trainer, Module(), DataLoader(data, 8, shuffle=True), DataLoader(data, 20))


@pytest.mark.parametrize("kind", ["reporting", "reporting_without_parts", "transformers", "lightning"])
def test_trainer_resumed_after_any_epoch_same_bits(kind, request, storage, tmp_path):
    objective = "eval_loss" if kind == "transformers" else "val_loss"
    function = {
        "reporting": reporting, "reporting_without_parts": reporting_without_parts, "lightning": with_lightning,
    }.get(kind) or with_transformers(request.getfixturevalue("distilbert"))  # fmt: skip
    whole = curve(loop(function, objective), 4, objective)
    assert len(set(whole)) == 4
    for done in (1, 2, 3):
        one = loop(function, objective)
        assert curve(one, done, objective) == whole[:done]
        checkpoint = save(one, storage)
        again = restored(lambda: loop(function, objective), checkpoint, storage, tmp_path)
        assert curve(again, 4 - done, objective) == whole[done:]


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


@pytest.mark.parametrize("every", [2, 5, 3], ids=["inside an epoch", "at the end of an epoch", "across epochs"])
@pytest.mark.parametrize("library", ["transformers", "lightning"])
def test_trainer_with_evaluation_by_steps_resumed_after_any_report_same_bits(
    library, every, distilbert, storage, tmp_path
):
    objective = "eval_loss" if library == "transformers" else "val_loss"
    function = with_transformers(distilbert) if library == "transformers" else with_lightning

    def make(folder):
        return loop(function, objective, report_every=every, folder=tmp_path / folder)

    whole = curve(make("whole"), 4, objective)
    assert len(set(whole)) == 4
    for done in (1, 2, 3):
        one = make("cut")
        assert curve(one, done, objective) == whole[:done]
        checkpoint = save(one, storage)
        again = restored(lambda: make("cut"), checkpoint, storage, tmp_path / "scratch")
        assert curve(again, 4 - done, objective) == whole[done:]
