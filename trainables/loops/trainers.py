"""Runs the trainers of other libraries: `transformers.Trainer` and Lightning's `Trainer`.

Each trainer reports an epoch from a callback and waits there, inside `Trial.report`. The files of the trainer's own
checkpoint are a part of the trial's state.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from trainables.loops.errors import TrainingError


class _Files:
    """The files of a folder as a part of a trial's state: the bytes of each file by name.

    `write` is called before the files are read.
    """

    def __init__(self, folder: Path, write: Callable[[], None] = lambda: None) -> None:
        self.folder, self._write = folder, write

    def state_dict(self) -> dict[str, torch.Tensor]:
        self._write()
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): _bytes(path) for path in files}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        for name, content in state.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.numpy().tobytes())


def _bytes(path: Path) -> torch.Tensor:
    content = bytearray(path.read_bytes())
    return torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


def fit(trial: Any, trainer: Any, *arguments: Any, **named: Any) -> None:
    """See `Trial.fit`."""
    roots = {kind.__module__.partition(".")[0] for kind in type(trainer).__mro__}
    with tempfile.TemporaryDirectory(prefix="trial-") as folder:
        if "transformers" in roots:
            _fit_transformers(trial, trainer, Path(folder), **named)
        elif roots & {"lightning", "pytorch_lightning"}:
            _fit_lightning(trial, trainer, Path(folder), *arguments, **named)
        else:
            raise TrainingError(
                f"trial.fit: a {type(trainer).__name__} is neither a transformers.Trainer nor a lightning.Trainer; "
                "your own loop yields its metrics, and a loop with callbacks calls trial.report"
            )


def _fit_transformers(trial: Any, trainer: Any, folder: Path, **named: Any) -> None:
    import transformers

    class Report(transformers.TrainerCallback):
        metrics: dict[str, float]

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
            losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
            self.metrics = {key: value for key, value in metrics.items() if key != "epoch"}
            self.metrics |= {"train_loss": losses[-1]} if losses else {}

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            files.folder = folder / f"checkpoint-{state.global_step}"
            trial.report(self.metrics)

    if trainer.eval_dataset is None:
        raise TrainingError("trial.fit: the Trainer has no eval_dataset; the search needs its metrics")
    settings = {
        "output_dir": str(folder), "num_train_epochs": trial.of, "max_steps": -1, "eval_strategy": "epoch",
        "save_strategy": "epoch", "logging_strategy": "epoch", "save_total_limit": 1, "save_only_model": False,
        "load_best_model_at_end": False,
    }  # fmt: skip
    for name, value in settings.items():
        kind = type(getattr(trainer.args, name))
        setattr(trainer.args, name, value if value is None or kind is type(None) else kind(value))
    files = _Files(folder / "checkpoint-0")
    epoch = trial.restore(checkpoint=files)
    trainer.add_callback(Report())
    trainer.train(resume_from_checkpoint=str(files.folder) if epoch else None, **named)


def _fit_lightning(trial: Any, trainer: Any, folder: Path, *arguments: Any, **named: Any) -> None:
    package = "lightning.pytorch" if type(trainer).__module__.startswith("lightning.") else "pytorch_lightning"

    class Report(import_module(f"{package}.callbacks").Callback):  # type: ignore[misc]
        """Reports an epoch at the start of the next one: Lightning steps the schedules after the end of an epoch."""

        metrics: dict[str, float] | None = None
        #: Whether an epoch is about to begin, and its first batch has not been trained.
        begins = False

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            self.begins = True
            self._report()
            self.begins = False

        def on_train_end(self, trainer: Any, module: Any) -> None:
            self._report()

        def _report(self) -> None:
            metrics, self.metrics = self.metrics, None
            if metrics is not None:
                trial.report(metrics)

        def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
            # Lightning counts the epoch as begun, and would skip its first batch after a resume.
            if self.begins:
                for counts in ("total", "current"):
                    checkpoint["loops"]["fit_loop"]["epoch_progress"][counts]["ready"] -= 1

    path = folder / "kept" / "lightning.ckpt"
    files = _Files(path.parent, lambda: trainer.save_checkpoint(path))
    epoch = trial.restore(checkpoint=files)
    trainer.fit_loop.max_epochs = trial.of
    trainer.callbacks.append(Report())
    if epoch:
        named["ckpt_path"] = path
        if "weights_only" in inspect.signature(trainer.fit).parameters:
            named["weights_only"] = False  # this trial wrote the file
    trainer.fit(*arguments, **named)


def handed(trainer: Any) -> dict[str, Any]:
    """The objects that `test` and `export` get after `trial.fit`: the trainer and its model.

    For a `transformers.Trainer` with a tokenizer or a processor, this is `tokenizer`.
    """
    if hasattr(trainer, "lightning_module"):
        return {"trainer": trainer, "model": trainer.lightning_module}
    tokenizer = getattr(trainer, "processing_class", None)
    return {"trainer": trainer, "model": trainer.model, **({} if tokenizer is None else {"tokenizer": tokenizer})}
