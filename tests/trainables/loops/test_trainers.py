"""Other libraries' trainers as trainings, and loops that report instead of yielding."""

import io
import shutil
import threading
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from search.final.retrain import final_worker
from trainables import seed_everything
from trainables.base import checkpoint_files, training
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


def measured_by_model(trial, trainer, model, **others):
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
    task = LoopTask("mine", objective, "min", function, test=measured_by_model)
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
    if kept := training.files_of(whole):
        checkpoint_files.link(checkpoint_files.flat(kept), tmp_path / "kept")
    training.finish(task, whole, everything)
    figures = task.evaluate(whole, splits.test)
    assert set(figures) == {task.objective.metric, *(["seen"] if kind == "transformers" else [])}
    assert task.units(whole, splits.test).shape == (30, 2)
    again = built()
    file.seek(0)
    training.load(again, file, tmp_path / "kept" if kept else None)
    training.finish(task, again, everything)
    assert task.evaluate(again, splits.test) == figures
    (tmp_path / "model").mkdir()
    assert task.export(whole, splits.info, tmp_path / "model") is None
    loaded = task.load(tmp_path / "model").loaded
    assert isinstance(loaded, torch.nn.Module)
    assert sum(p.numel() for p in loaded.parameters()) == whole.parameters > 0


OWN = LoopTask("own", "val_loss", "min", with_lightning, test=measured_by_model)


def test_model_of_a_trial_is_tested_with_the_trainers_files(storage, tmp_path, monkeypatch):
    """The time budget holds no final training: the checkpoint of the trial is tested."""
    monkeypatch.setenv("SEARCH_TASKS", f"own={__name__}:OWN")
    splits = OWN.prepare({}, None, tmp_path, None)
    seed_everything(3)
    learner = OWN.build({"lr": 3e-3}, splits, 2, CPU)
    OWN.place(learner, 0, storage.trial_folder(0))
    for _ in range(2):
        training.run_epoch(OWN, learner, splits.train, None)
    saved = save(learner, storage)
    training.finish(OWN, learner, splits.train)
    figures = OWN.evaluate(learner, splits.test)
    resources = {"cpus": 1, "gpus": 0, "precision": "fp32"}
    states = [("progress.pt", None), saved]
    messages = final_worker("own", splits, resources, 0, {"lr": 3e-3}, 1, 3, 2, "final/own", states, storage)
    (message,) = messages
    assert message["event"] == "final_finished" and message["test"] == figures


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


@pytest.mark.parametrize("library", ["transformers", "lightning"])
def test_checkpoint_of_an_earlier_version_holds_the_files_and_resumes(library, distilbert, storage, tmp_path):
    objective = "eval_loss" if library == "transformers" else "val_loss"
    function = with_transformers(distilbert) if library == "transformers" else with_lightning
    whole = curve(loop(function, objective), 3, objective)
    one = loop(function, objective)
    curve(one, 1, objective)
    name, _ = save(one, storage)
    state = torch.load(storage.folder / name, weights_only=True)
    (newest,) = (storage.folder / "state.files").glob("checkpoint-*")
    state["parts"]["checkpoint"] = {
        path.relative_to(newest).as_posix(): torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
        for path in newest.rglob("*") if path.is_file()
    }  # fmt: skip
    del state["files"]
    shutil.rmtree(storage.folder / "state.files")
    torch.save(state, storage.folder / name)
    again = restored(lambda: loop(function, objective), (name, None), storage, tmp_path)
    assert curve(again, 2, objective) == whole[1:]


def test_trainer_keeps_its_best_model_and_its_callbacks_after_a_resume(distilbert, storage, tmp_path):
    transformers = pytest.importorskip("transformers")
    ended = []

    class Last(transformers.TrainerCallback):
        def on_train_end(self, args, state, control, model=None, **_):
            weights = sum(p.double().sum().item() for p in model.parameters())  # of the best model, which is loaded
            ended.append((state.global_step, state.best_global_step, weights))

    def make(folder):
        arguments = {
            "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss", "greater_is_better": True,
        }  # fmt: skip
        callbacks = [partial(transformers.EarlyStoppingCallback, 3), Last]
        function = with_transformers(distilbert, callbacks, **arguments)
        return loop(function, "eval_loss", epochs=8, report_every=2, folder=tmp_path / folder)

    def rest(one, reports):
        values = []
        with pytest.raises(training.Ended):
            for _ in range(reports):
                values += curve(one, 1, "eval_loss")
        return values

    whole = rest(make("whole"), 9)
    one = make("cut")
    first = curve(one, 2, "eval_loss")
    checkpoint = save(one, storage)
    again = restored(lambda: make("cut"), checkpoint, storage, tmp_path / "scratch")
    assert first + rest(again, 9) == whole
    assert len(ended) == 2 and ended[0] == ended[1]


def test_trainer_leaves_no_checkpoint_beside_those_of_the_search(distilbert, storage, tmp_path):
    one = loop(with_transformers(distilbert), "eval_loss", epochs=2, folder=tmp_path / "trial")
    curve(one, 1, "eval_loss")
    save(one, storage)
    written = list((tmp_path / "trial" / "trainer").rglob("model.safetensors"))
    (kept,) = (storage.folder / "state.files").rglob("model.safetensors")
    assert len(written) == 1 and kept.samefile(written[0]), "a second name of the same file"
    curve(one, 1, "eval_loss")
    with pytest.raises(training.Ended):
        curve(one, 1, "eval_loss")
    assert kept.exists() and not (tmp_path / "trial" / "trainer").exists()


@pytest.mark.parametrize("arguments, every, message", [
    ({"max_steps": 50}, None, r"max_steps=50 contradicts the search: it has epochs=4; search with steps=50"),
    ({"num_train_epochs": 7}, None, r"num_train_epochs=7 contradicts the search: it has epochs=4"),
    ({"eval_strategy": "steps", "eval_steps": 5}, None, r"search with steps=\.\.\., report_every=5, or"),
    ({"max_steps": 50}, 2, r"max_steps=50 contradicts the search: it has steps=8"),
    ({"num_train_epochs": 1}, 2, r"num_train_epochs=1 contradicts the search: it has steps=8"),
    ({"eval_strategy": "epoch"}, 2, r"it has report_every=2: give eval_strategy='steps'"),
    ({"eval_strategy": "steps", "eval_steps": 5}, 2, r"eval_steps=5 contradicts the search: it has report_every=2"),
    ({"save_strategy": "best", "metric_for_best_model": "loss"}, None, r"save_strategy='best' contradicts"),
    ({"save_only_model": True}, None, r"save_only_model=True contradicts"),
    ({"output_dir": "out"}, None, r"output_dir='out' contradicts the search: trials would share it"),
])  # fmt: skip
def test_arguments_that_contradict_the_search(distilbert, tmp_path, arguments, every, message):
    one = loop(with_transformers(distilbert, **arguments), "eval_loss", report_every=every, folder=tmp_path / "trial")
    with pytest.raises(TrainingError, match=message):
        curve(one, 1, "eval_loss")


@pytest.mark.parametrize("arguments, every, message", [
    ({"max_steps": 50}, None, r"max_steps=50 contradicts the search: it has epochs=4"),
    ({"max_epochs": 7}, None, r"max_epochs=7 contradicts the search: it has epochs=4"),
    ({"val_check_interval": 0.5}, None, r"val_check_interval=0\.5 contradicts the search: it counts in epochs"),
    ({"max_steps": 50}, 2, r"max_steps=50 contradicts the search: it has steps=8"),
    ({"val_check_interval": 3, "check_val_every_n_epoch": None}, 2, r"it has report_every=2, which are 2 batches"),
])  # fmt: skip
def test_lightning_arguments_that_contradict_the_search(arguments, every, message):
    one = loop(partial(with_lightning, **arguments), "val_loss", report_every=every)
    with pytest.raises(TrainingError, match=message):
        curve(one, 1, "val_loss")


def test_a_line_names_what_the_search_adds(distilbert, tmp_path):
    one = loop(with_transformers(distilbert), "eval_loss", report_every=2, folder=tmp_path / "trial")
    curve(one, 1, "eval_loss")
    (line,) = one.messages
    assert "adds max_steps=8, eval_strategy='steps', eval_steps=2, save_total_limit=1" in line
    one = loop(with_lightning, "val_loss", report_every=2)
    curve(one, 1, "val_loss")
    assert one.messages == [
        "trial.fit adds max_steps=8, val_check_interval=2, check_val_every_n_epoch=None to the Trainer"
    ]
