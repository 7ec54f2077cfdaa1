"""Runs the trainers of other libraries: `transformers.Trainer` and Lightning's `Trainer`.

Each trainer reports an evaluation from a callback and waits there, inside `Trial.report`. Its checkpoint stays in
files: they belong to the trial's state (`TrainerFiles`), and no file is read into memory. A trial of several processes
keeps the content of the files in its state.

A trainer keeps the settings of the user. A line names the values that the search adds to settings without a value of
the user. A setting that contradicts the search is an error.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from trainables.base.checkpoint_files import INDEX, flat, link
from trainables.loops.errors import TrainingError
from trainables.loops.steps import Batches

#: The defaults of these libraries that mean that the user gave no value.
_TRANSFORMERS_EPOCHS, _TRANSFORMERS_FOLDER, _LIGHTNING_EPOCHS = 3, "trainer_output", 1000
#: The name of Lightning's checkpoint in its folder. With some strategies it is a folder too.
_LIGHTNING_FILE = "lightning.ckpt"


class TrainerFiles:
    """The checkpoint of a trainer as a part of a trial's state. The processes of a trial on one machine share it.

    Attributes:
        folder: the folder to which the trainer writes.
        newest: the trainer's newest checkpoint, a file or a folder below `folder`; None before the first.
        needed: other paths below `folder` that a resume needs, such as the trainer's best checkpoint.
    """

    def __init__(self, trial: Any, folder: Path, save: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            save: lets the trainer write a checkpoint and sets `newest`; it does nothing where the trainer saves itself.
        """
        self._trial, self.folder, self._save = trial, folder, save
        self.newest: Path | None = None
        self.needed: list[Path] = []

    def files(self) -> dict[str, Path]:
        """The paths of the checkpoint, by their names below `folder`."""
        paths = [path for path in (self.newest, *self.needed) if path is not None]
        return {path.name: path for path in paths}

    def state_dict(self) -> dict[str, Any]:
        self._save()
        state: dict[str, Any] = {"newest": None if self.newest is None else self.newest.name}
        if self._trial.world_size > 1:
            state["content"] = {name: _bytes(path) for name, path in flat(self.files()).items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "content" in state:
            self.newest = self.folder / state["newest"]
            self._write({self.folder / name: content for name, content in state["content"].items()})
            return
        if "newest" in state:
            kept = self._trial._files
            link(flat({path.name: path for path in kept.iterdir() if path.name != INDEX}), self.folder)
            self.newest = self.folder / state["newest"]
            return
        # A search of an earlier version: the state holds the content of the files.
        is_folder = "trainer_state.json" in state
        self.newest = newest = self.folder / ("checkpoint-0" if is_folder else _LIGHTNING_FILE)
        self._write({newest / name if is_folder else newest: content for name, content in state.items()})

    def _write(self, files: dict[Path, torch.Tensor]) -> None:
        for path, content in files.items() if self._trial.local_rank == 0 else ():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.numpy().tobytes())
        _wait_for_all(self._trial)


def _bytes(path: Path) -> torch.Tensor:
    content = bytearray(path.read_bytes())
    return torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


def _wait_for_all(trial: Any) -> None:
    """Waits until every process of the trial is here."""
    if trial.world_size > 1:
        distributed.barrier()


def fit(trial: Any, trainer: Any, *arguments: Any, **named: Any) -> None:
    """See `Trial.fit`."""
    roots = {kind.__module__.partition(".")[0] for kind in type(trainer).__mro__}
    with _folder(trial) as folder:
        try:
            if "transformers" in roots:
                _fit_transformers(trial, trainer, folder, **named)
            elif roots & {"lightning", "pytorch_lightning"}:
                _fit_lightning(trial, trainer, folder, *arguments, **named)
            else:
                raise TrainingError(
                    f"trial.fit: a {type(trainer).__name__} is neither a transformers.Trainer nor a lightning.Trainer; "
                    "your own loop yields its metrics, and a loop with callbacks calls trial.report"
                )
        finally:
            _remove_checkpoints(trial, folder)


@contextmanager
def _folder(trial: Any) -> Iterator[Path]:
    """The folder for the files of a trainer. The processes of a trial share it."""
    with tempfile.TemporaryDirectory(prefix="trial-") as temporary:
        folder = temporary if trial.folder is None else str(trial.folder / "trainer")
        folders = [folder] * trial.world_size
        if trial.world_size > 1:
            if trial.world_size > int(os.environ["LOCAL_WORLD_SIZE"]):
                raise TrainingError("trial.fit: a trainer's trial has one machine: give nodes=1")
            distributed.all_gather_object(folders, folder)
        yield Path(folders[0])


def _remove_checkpoints(trial: Any, folder: Path) -> None:
    """Deletes what a trainer saved in `folder`; the search has given the files that it keeps another name."""
    if trial.local_rank:
        return
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # the folder has other files, or does not exist
        folder.rmdir()


def _contradiction(setting: str, remedy: str) -> TrainingError:
    return TrainingError(f"trial.fit: {setting} contradicts the search: {remedy}")


def _goal(trial: Any) -> str:
    """The length of a trial, as an argument of `search.run`."""
    return f"epochs={trial.of}" if trial.report_every is None else f"steps={trial.max_steps}"


# transformers


def _fit_transformers(trial: Any, trainer: Any, folder: Path, **named: Any) -> None:
    import transformers

    class Report(transformers.TrainerCallback):
        def __init__(self) -> None:
            self.metrics: dict[str, float] = {}

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if stopped:
                control.should_training_stop = True

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # After a resume a loss is a mean since the last checkpoint, so each report begins a new mean.
            control.should_log = control.should_log or control.should_evaluate

        on_epoch_end = on_step_end

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
            if state.global_step == 0:  # the model is untrained
                return
            losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
            self.metrics |= {key: value for key, value in metrics.items() if key != "epoch"}
            self.metrics |= {"train_loss": losses[-1]} if losses else {}
            control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            metrics, self.metrics = self.metrics, {}
            if not metrics:  # a checkpoint of the user's own, between two evaluations
                return
            files.newest = files.folder / f"checkpoint-{state.global_step}"
            best = state.best_model_checkpoint
            files.needed = [Path(best)] if args.load_best_model_at_end and best and Path(best).is_dir() else []
            trial._step = state.global_step if trial.report_every else None
            trial.report(metrics)

    args = trainer.args
    if trainer.eval_dataset is None:
        raise TrainingError("trial.fit: the Trainer has no eval_dataset; the search needs its metrics")
    added = {**_own_folder(trial, args, folder), **_length(trial, args), **_evaluation(trial, args)}
    _check_saving(args)
    if args.save_total_limit is None:
        added["save_total_limit"] = 1
    added["restore_callback_states_from_checkpoint"] = True
    for name, value in added.items():
        kind = type(getattr(args, name))
        setattr(args, name, value if kind is type(None) else kind(value))
    told = ", ".join(f"{name}={value!r}" for name, value in added.items() if name != "output_dir")
    trial.messages.append(
        f"trial.fit adds {told} to the TrainingArguments, and the Trainer logs and saves with each evaluation"
    )
    files = TrainerFiles(trial, Path(args.output_dir))
    _remove_checkpoints(trial, files.folder)  # of an attempt that was killed
    _wait_for_all(trial)
    done = trial.restore(checkpoint=files)
    stopped = bool(done) and _stopped_itself(files)
    report = Report()
    trainer.add_callback(report)
    try:
        trainer.train(resume_from_checkpoint=str(files.newest) if done else None, **named)
    finally:
        trainer.remove_callback(report)


def _own_folder(trial: Any, args: Any, folder: Path) -> dict[str, Any]:
    """The folder of the trial for the trainer's files."""
    given = Path(args.output_dir)
    if trial.folder is not None and given.resolve().is_relative_to(trial.folder.resolve()):
        return {}
    if given != Path(_TRANSFORMERS_FOLDER) and trial.folder is not None:
        raise _contradiction(
            f"output_dir={args.output_dir!r}", "trials would share it: leave it out, or give output_dir=trial.folder"
        )
    return {"output_dir": str(folder)}


def _length(trial: Any, args: Any) -> dict[str, Any]:
    """The number of epochs or steps, if the user gave none."""
    epochs, steps = args.num_train_epochs, args.max_steps
    if trial.report_every is None:
        if steps > 0:
            raise _contradiction(
                f"max_steps={steps}", f"it has {_goal(trial)}; search with steps={steps}, report_every=..., or leave "
                "max_steps out",
            )  # fmt: skip
        if epochs not in (_TRANSFORMERS_EPOCHS, trial.of):
            raise _contradiction(
                f"num_train_epochs={epochs:g}", f"it has {_goal(trial)}: leave it out, or give trial.of"
            )
        return {} if epochs == trial.of else {"num_train_epochs": trial.of}
    if steps > 0:
        if steps != trial.max_steps:
            raise _contradiction(f"max_steps={steps}", f"it has {_goal(trial)}: leave it out, or give trial.max_steps")
        return {}
    if epochs != _TRANSFORMERS_EPOCHS:
        raise _contradiction(f"num_train_epochs={epochs:g}", f"it has {_goal(trial)}: leave it out")
    return {"max_steps": trial.max_steps}


def _evaluation(trial: Any, args: Any) -> dict[str, Any]:
    """When the trainer evaluates, if the user did not say it."""
    strategy = str(getattr(args.eval_strategy, "value", args.eval_strategy))
    if args.eval_delay:
        raise _contradiction(f"eval_delay={args.eval_delay:g}", "it needs each evaluation: leave it out")
    if trial.report_every is None:
        if strategy == "steps":
            raise _contradiction(
                "eval_strategy='steps'", "it counts in epochs: search with steps=..., "
                f"report_every={args.eval_steps:g}, or give eval_strategy='epoch'",
            )  # fmt: skip
        return {} if strategy == "epoch" else {"eval_strategy": "epoch"}
    if strategy == "no":
        return {"eval_strategy": "steps", "eval_steps": trial.report_every}
    if strategy == "epoch":
        raise _contradiction(
            "eval_strategy='epoch'", f"it has report_every={trial.report_every}: give eval_strategy='steps'"
        )
    steps = args.eval_steps if args.eval_steps >= 1 else math.ceil(trial.max_steps * args.eval_steps)
    if steps != trial.report_every:
        raise _contradiction(
            f"eval_steps={args.eval_steps:g}", f"it has report_every={trial.report_every}: make them equal; "
            "eval_steps=trial.report_every does",
        )  # fmt: skip
    return {}


def _check_saving(args: Any) -> None:
    """Raises TrainingError if a killed trial could not continue from the trainer's checkpoints."""
    if str(getattr(args.save_strategy, "value", args.save_strategy)) == "best":
        raise _contradiction(
            "save_strategy='best'", "a killed trial continues from its last evaluation: leave it out, and give "
            "load_best_model_at_end=True for the best model"
        )  # fmt: skip
    for name in ("save_only_model", "ignore_data_skip"):
        if getattr(args, name):
            raise _contradiction(f"{name}=True", "a killed trial could not continue to the same results: leave it out")


def _stopped_itself(files: TrainerFiles) -> bool:
    """Whether a callback of the user had ended the training at the checkpoint."""
    assert files.newest is not None
    state = json.loads((files.newest / "trainer_state.json").read_text())
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {}).get("args", {})
    return bool(control.get("should_training_stop")) and state["global_step"] < state["max_steps"]


# Lightning


def _fit_lightning(trial: Any, trainer: Any, folder: Path, *arguments: Any, **named: Any) -> None:
    package = "lightning.pytorch" if type(trainer).__module__.startswith("lightning.") else "pytorch_lightning"

    def save() -> None:
        _remove_checkpoints(trial, folder)
        _wait_for_all(trial)
        files.newest = folder / f"checkpoint-{trainer.global_step}"
        trainer.save_checkpoint(files.newest / _LIGHTNING_FILE)

    if added := _lightning_length(trial, trainer):
        trial.messages.append(f"trial.fit adds {', '.join(added)} to the Trainer")
    files = TrainerFiles(trial, folder, save)
    _remove_checkpoints(trial, folder)  # of an attempt that was killed
    _wait_for_all(trial)
    if trial.restore(checkpoint=files):
        assert files.newest is not None
        named["ckpt_path"] = files.newest / _LIGHTNING_FILE if files.newest.is_dir() else files.newest
        if "weights_only" in inspect.signature(trainer.fit).parameters:
            named["weights_only"] = False  # this trial wrote the file
    report = _lightning_report(import_module(f"{package}.callbacks").Callback, trial)
    trainer.callbacks.append(report)
    keeps_place = trial.report_every is not None and trainer.world_size == 1
    try:
        with _resumable(package, trainer, arguments, named) if keeps_place else nullcontext(arguments) as arguments:
            trainer.fit(*arguments, **named)
    finally:
        trainer.callbacks.remove(report)


def _lightning_report(base: Any, trial: Any) -> Any:
    """The callback that reports each epoch or validation.

    Args:
        base: Lightning's class of callbacks.
    """

    class Report(base):
        """Reports a validation at its end. An epoch, and a validation after the last batch of an epoch, is reported at
        the start of the next epoch: Lightning steps the schedules after the end of an epoch."""

        metrics: dict[str, float] | None = None
        #: Whether an epoch is about to begin, and its first batch has not been trained.
        begins = False

        def on_validation_end(self, trainer: Any, module: Any) -> None:
            if trial.report_every and not trainer.sanity_checking:
                self._take(trainer)
                if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
                    self._report()

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            if not trial.report_every:
                self._take(trainer)

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            self.begins = True
            self._report()
            self.begins = False

        def _take(self, trainer: Any) -> None:
            self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            trial._step = trainer.global_step if trial.report_every else None

        def _report(self, *_: Any) -> None:
            metrics, self.metrics = self.metrics, None
            if metrics is not None:
                trial.report(metrics)

        on_train_end = _report

        def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
            if self.begins:
                _begin_epoch(checkpoint["loops"]["fit_loop"], steps=trial.report_every is not None)

    return Report()


def _begin_epoch(loops: dict[str, Any], steps: bool) -> None:
    """Changes the counts of a checkpoint that is saved at the start of an epoch, so that a resume trains this epoch."""
    if steps:  # with `max_steps`, Lightning would end the epoch at once
        batches = loops["epoch_loop.batch_progress"]
        batches["current"] = dict.fromkeys(batches["current"], 0)
        batches["is_last_batch"] = False
    else:  # Lightning counts the epoch as begun, and would skip its first batch
        for kind in ("total", "current"):
            loops["epoch_progress"][kind]["ready"] -= 1


@contextmanager
def _resumable(package: str, trainer: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Any]:
    """The arguments of `fit` with train loaders that keep their place within an epoch: Lightning's checkpoint then
    holds it, and a resume leaves out the batches that were trained."""
    combined = import_module(f"{package}.utilities").CombinedLoader
    bound = inspect.signature(trainer.fit).bind(*arguments, **named)
    given = bound.arguments.get("train_dataloaders")
    owner = given if hasattr(given, "train_dataloader") else bound.arguments.get("datamodule")

    def wrapped(loaders: Any) -> Any:
        loaders = loaders if isinstance(loaders, combined) else combined(loaders, "max_size_cycle")
        loaders.flattened = [Batches(loader) for loader in loaders.flattened]
        return loaders

    if owner is None and given is not None:
        named.pop("train_dataloaders", None)
        yield (arguments[0], wrapped(given), *arguments[2:])
        return
    owner = arguments[0] if owner is None else owner
    make = owner.train_dataloader
    owner.train_dataloader = lambda: wrapped(make())
    try:
        yield arguments
    finally:
        del owner.train_dataloader


def _lightning_length(trial: Any, trainer: Any) -> list[str]:
    """Sets the number of epochs or steps and the validation, if the user gave none; returns the arguments as text."""
    steps, epochs = trainer.max_steps, trainer.max_epochs
    every, interval, per_epoch = trial.report_every, trainer.val_check_interval, trainer.check_val_every_n_epoch
    if every is None:
        if steps != -1:
            raise _contradiction(
                f"max_steps={steps}", f"it has {_goal(trial)}: search with steps={steps}, report_every=..., or leave "
                "max_steps out",
            )  # fmt: skip
        if epochs not in (_LIGHTNING_EPOCHS, -1, None, trial.of):
            raise _contradiction(f"max_epochs={epochs}", f"it has {_goal(trial)}: leave it out, or give trial.of")
        if interval != 1.0 or per_epoch is None:
            raise _contradiction(
                f"val_check_interval={interval}", "it counts in epochs: search with steps=..., report_every=..., or "
                "leave it out",
            )  # fmt: skip
        trainer.fit_loop.max_epochs = trial.of
        return [] if epochs == trial.of else [f"max_epochs={trial.of}"]
    added = []
    if steps not in (-1, trial.max_steps):
        raise _contradiction(f"max_steps={steps}", f"it has {_goal(trial)}: leave it out, or give trial.max_steps")
    if steps == -1:
        trainer.fit_loop.epoch_loop.max_steps = trial.max_steps
        added.append(f"max_steps={trial.max_steps}")
        if epochs == _LIGHTNING_EPOCHS:
            trainer.fit_loop.max_epochs = -1
    batches = every * trainer.accumulate_grad_batches
    if interval == 1.0 and per_epoch == 1:
        trainer.val_check_interval, trainer.check_val_every_n_epoch = batches, None
        added.append(f"val_check_interval={batches}, check_val_every_n_epoch=None")
    elif per_epoch is None and interval != batches:
        raise _contradiction(
            f"val_check_interval={interval}", f"it has report_every={every}, which are {batches} batches: make them "
            "equal",
        )  # fmt: skip
    return added


def handed(trainer: Any) -> dict[str, Any]:
    """The objects that `test` and `export` get after `trial.fit`: the trainer and its model.

    For a `transformers.Trainer` with a tokenizer or a processor, this is `tokenizer`.
    """
    if hasattr(trainer, "lightning_module"):
        return {"trainer": trainer, "model": trainer.lightning_module}
    tokenizer = getattr(trainer, "processing_class", None)
    return {"trainer": trainer, "model": trainer.model, **({} if tokenizer is None else {"tokenizer": tokenizer})}
