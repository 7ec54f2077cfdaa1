"""Many-to-one regression on sequences of different lengths."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from trainables import (
    Allowed,
    DataInfo,
    Device,
    Finding,
    InputError,
    Learner,
    Numbers,
    Objective,
    Params,
    Progress,
    Splits,
    Stack,
    check_params,
    fit_batches,
    make_optimizer,
    make_schedule,
)  # fmt: skip
from trainables.base import plots
from trainables.base.batches import Rows, rows_on
from trainables.base.exported import finished, load_weights, read_about, write_model
from trainables.base.optimizers import ALLOWED as OPTIMIZED
from trainables.base.values import BELOW_ONE, COUNT, SWITCH
from trainables.rnn import data as reading
from trainables.rnn import portable
from trainables.rnn.baselines import baselines
from trainables.rnn.data import SequenceSplit
from trainables.rnn.look import overview, shared_steps
from trainables.rnn.model import (
    ACTIVATIONS,
    CELLS,
    INITS,
    VARIANTS,
    SequenceRegressor,
    Sequences,
    is_gated,
    layout,
    steps_of,
)  # fmt: skip
from trainables.rnn.ridge import Ridge, fit_ridge

#: The number of sequences of a batch of the evaluation; it changes no result.
EVAL_BATCH = 256
#: Shuffled sequences are sorted by length within buckets of this many batches, which keeps padding small.
BUCKET = 8
#: The hyperparameters that must be equal in trials that train as one batched model.
SHAPE = ("variant", "keep", "align", "hidden", "layers", "activation", "ridge", "optimizer", "batch_size")


@dataclass(frozen=True)
class Batch:
    """The sequences `index` (batch,), and the noise (time, batch, features) for their scaled features."""

    index: Rows
    noise: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.index)

    def chunk(self, parts: int) -> list[Batch]:
        """Cuts the batch into parts."""
        noises = [None] * parts if self.noise is None else self.noise.tensor_split(parts, dim=1)
        return [Batch(index, noise) for index, noise in zip(self.index.chunk(parts), noises, strict=True)]


#: The allowed values of the hyperparameters.
ALLOWED: Allowed = {
    **OPTIMIZED, "variant": VARIANTS, "cell": CELLS, "keep": ("first", "last"), "align": ("start", "end"),
    "ridge": SWITCH, "hidden": COUNT, "layers": COUNT, "dropout": BELOW_ONE, "activation": ACTIVATIONS,
    "init": INITS, "input_noise": Numbers(), "clip_norm": Numbers(above=True, null=True), "batch_size": COUNT,
}  # fmt: skip


class RnnTask:
    name = "rnn"
    objective = Objective("mse", "min")
    allowed = ALLOWED
    onnx = True

    def prepare(self, data: dict[str, Any], source: Path | None, cache: Path, progress: Progress) -> Splits:
        return reading.prepare(data, source)

    def describe_source(self, data: dict[str, Any]) -> str:
        demo = data["demo"]
        return f"demo: {demo['train']} + {demo['test']} sequences made by code (--data FILE|FOLDER|ZIP for your own)"

    def leaks(self, splits: Splits) -> list[Finding]:
        return shared_steps(splits)

    def overview(self, splits: Splits) -> list[Finding]:
        return overview(splits)

    def build(self, params: Params, splits: Splits, epochs: int, device: Device) -> Learner:
        check_params(self.allowed, params)
        # One time step is too little work for several threads: they wait for each other, and stall on a busy machine.
        torch.set_num_threads(1)
        train: SequenceSplit = splits.train
        steps = steps_of(params, train.lengths)
        model = SequenceRegressor(train.values.shape[1], steps, params)
        extra: dict[str, Any] = {"steps": steps, "start": None}
        start = np.zeros(len(train), dtype=np.float32)
        if params.get("ridge"):  # old configurations lack it
            extra["ridge"], left_out = fit_ridge(train)
            start = left_out.astype(np.float32)
            extra["start"] = torch.as_tensor(start, device=device.torch_device)
        model.fit_scaling(train.values, train.targets - start)
        model.to(device.torch_device)
        optimizer = make_optimizer(model.parameters(), params)
        schedule = make_schedule(optimizer, params["schedule"], epochs)
        return Learner(model, optimizer, schedule, device, params, extra=extra)

    def train_epoch(self, learner: Learner, split: SequenceSplit) -> dict[str, float]:
        def forward(batch: Batch) -> tuple[torch.Tensor, int, dict[str, torch.Tensor]]:
            return _losses(learner.model, learner, split, batch.index, batch.noise)

        return fit_batches(learner, self.epoch_batches(learner, split), forward, learner.params["clip_norm"])

    def evaluate(self, learner: Learner, split: SequenceSplit) -> dict[str, float]:
        return _figures(predictions(learner.model, learner, split), split)

    def shape(self, params: Params) -> Hashable:
        return None if is_gated(params) else tuple(params.get(key) for key in SHAPE)

    def epoch_batches(self, learner: Learner, split: SequenceSplit) -> list[Batch]:
        batches = bucketed_batches(split.lengths, learner.params["batch_size"], learner.epoch)
        rows = rows_on(learner.device.torch_device, batches)
        return [Batch(index, _noise(learner, split, index.here)) for index in rows]

    def fused_losses(
        self, stack: Stack, split: SequenceSplit, batches: Sequence[Batch]
    ) -> tuple[torch.Tensor, int, dict[str, torch.Tensor]]:
        noise, noises = None, {member: b.noise for member, b in enumerate(batches) if b.noise is not None}
        if noises:  # the number of steps differs from member to member
            longest = max(noises.values(), key=len)
            noise = longest.new_zeros(len(longest), len(batches), *longest.shape[1:])
            for member, own in noises.items():
                noise[: len(own), member] = own
        index = Rows(np.stack([b.index.here for b in batches]), torch.stack([b.index.there for b in batches]))
        return _losses(stack.model, stack.learners[0], split, index, noise)

    def fused_evaluate(self, stack: Stack, split: SequenceSplit) -> list[dict[str, float]]:
        return [_figures(row, split) for row in predictions(stack.model, stack.learners[0], split, len(stack.learners))]

    def errors(self, learner: Learner, split: SequenceSplit) -> pd.DataFrame:
        squared = (predictions(learner.model, learner, split) - split.targets) ** 2
        return pd.DataFrame({"sequence length": split.lengths, "squared error": squared})

    def answer(self, learner: Learner, split: SequenceSplit) -> Callable[[], object]:
        longest = split.take(np.array([split.lengths.argmax()]))
        return lambda: predictions(learner.model, learner, longest)

    def units(self, learner: Learner, split: SequenceSplit) -> np.ndarray:
        """(sequences, 2): the squared error of each sequence, and 1."""
        squared = self.errors(learner, split)["squared error"].to_numpy()
        return np.stack([squared, np.ones_like(squared)], 1)

    def objective_of(self, sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / sums[..., 1]

    def merge(self, splits: Splits) -> SequenceSplit:
        return reading.join([splits.train, splits.val])

    def baselines(self, splits: Splits) -> dict[str, float]:
        return baselines(splits.train, splits.test)

    def artifacts(self, learner: Learner, split: SequenceSplit, info: DataInfo, folder: Path) -> None:
        predicted = predictions(learner.model, learner, split)
        table = pd.DataFrame({"length": split.lengths, "target": split.targets, "predicted": predicted})
        table["error"] = table["predicted"] - table["target"]
        table.to_csv(folder / "predictions.csv", index_label="sequence")
        figure = plots.new_figure(10, 4)
        left, right = figure.subplots(1, 2)
        left.scatter(table["target"], table["predicted"], s=6)
        left.axline((float(table["target"].mean()),) * 2, slope=1, color="grey")
        left.set(xlabel="target", ylabel="predicted")
        right.scatter(table["length"], table["error"].abs(), s=6)
        right.set(xlabel="sequence length", ylabel="absolute error")
        plots.save_figure(figure, folder / "predictions.png")

    def export(self, learner: Learner, info: DataInfo, folder: Path) -> None:
        model: Any = learner.model
        ridge: Ridge | None = learner.extra.get("ridge")
        about = {"params": learner.params, "steps": learner.extra["steps"], "features": len(model.x_mean)}
        if ridge:
            about["ridge"] = ridge.described()
        write_model(folder, about, model)
        portable.write(model, learner.extra["steps"], learner.params, ridge, folder)

    def load(self, folder: Path) -> Learner:
        """Loads an exported model. The scaling is a part of its weights."""
        about = read_about(folder)
        params, steps = about["params"], about["steps"]
        model = SequenceRegressor(about["features"], steps, params)
        load_weights(model, folder / "weights.pt")
        extra = {"steps": steps}
        if "ridge" in about:
            extra["ridge"] = Ridge.from_description(about["ridge"])
        return finished(model, params, extra)

    def inputs(self, arguments: Sequence[str]) -> pd.DataFrame:
        """A frame with a column `sequence`, from files, folders and zips in the formats of training data."""
        named: list[tuple[str, np.ndarray]] = []
        for argument in arguments:
            path = Path(argument)
            if not path.is_file() and not path.is_dir():
                raise InputError(f"{argument}: no such file or folder")
            named += reading.read_inputs(path)
        return pd.DataFrame(
            {"sequence": [sequence.tolist() for _, sequence in named]}, index=[name for name, _ in named]
        )

    def predict(self, model: Learner, frame: pd.DataFrame) -> pd.DataFrame:
        """A frame with a column `sequence`, each (length, features), -> `prediction` in the target's units."""
        sequences = [np.stack([np.asarray(step, dtype=np.float32) for step in s]) for s in frame["sequence"]]
        width = len(model.model.x_mean)  # type: ignore[arg-type]
        for index, sequence in zip(frame.index, sequences, strict=True):
            if sequence.shape[1:] != (width,):
                raise InputError(
                    f"{index}: shape {sequence.shape}; expected (length, {width}): the {width} inputs of training in "
                    "their order"
                )
        split = reading.pack(sequences, np.zeros(len(sequences)))
        return pd.DataFrame({"prediction": predictions(model.model, model, split).astype(float)}, index=frame.index)

    def example(self, split: SequenceSplit, info: DataInfo) -> pd.DataFrame:
        return pd.DataFrame({"sequence": [split.sequence(i).astype(float).tolist() for i in range(min(2, len(split)))]})


def _sequences(learner: Learner, split: SequenceSplit) -> Sequences:
    ridge: Ridge | None = learner.extra.get("ridge")
    device = learner.device.torch_device
    return learner.resident(split, lambda: Sequences.of(split, device, ridge(split) if ridge else 0.0))


def _losses(
    model: Any, learner: Learner, split: SequenceSplit, index: Rows, noise: torch.Tensor | None
) -> tuple[torch.Tensor, int, dict[str, torch.Tensor]]:
    """The losses of a batch: of one network, or of a stack if `index` is (members, batch).

    Args:
        learner: the learner, or the first of a stack; it gives the layout of the data and the start of outputs.
    """
    data = _sequences(learner, split)
    x, mask, front = layout(data, index, learner.params, learner.extra["steps"])
    if noise is not None:
        scale = model.x_std.reshape(*model.x_std.shape[:-1], 1, -1)
        # The noise was drawn for the whole batch; a part of the batch may be shorter. Padding at its end gets no noise.
        x[: len(noise)].addcmul_(noise[: len(x)], scale)
    targets = data.targets[index.there]
    if (start := learner.extra["start"]) is not None:
        targets = targets - start[index.there]
    loss = (model.scaled(x, mask, front) - (targets - model.y_mean) / model.y_std).square().mean(-1)
    size = len(index)
    return loss, size, {"mse": loss.detach() * model.y_std.square().squeeze(-1) * size}


def _noise(learner: Learner, split: SequenceSplit, index: np.ndarray) -> torch.Tensor | None:
    """Noise for a batch, in units of each feature's standard deviation; None without `input_noise`."""
    if not learner.params["input_noise"]:
        return None
    time = learner.extra["steps"] or int(split.lengths[index].max())
    shape = (time, len(index), split.values.shape[1])
    return learner.params["input_noise"] * torch.randn(shape, device=learner.device.torch_device)


def bucketed_batches(lengths: np.ndarray, batch_size: int, epoch: int) -> list[np.ndarray]:
    """Batches of sequences of similar lengths, in random order.

    Torch's global generator draws the sequences of each batch. The order of short and long batches depends on the epoch
    alone: members of a stack have batches of similar lengths at the same time.
    """
    order = torch.randperm(len(lengths)).numpy()
    batches = []
    for start in range(0, len(order), batch_size * BUCKET):
        bucket = order[start : start + batch_size * BUCKET]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += [bucket[begin : begin + batch_size] for begin in range(0, len(bucket), batch_size)]
    return [batches[position] for position in np.random.default_rng(epoch).permutation(len(batches))]


@torch.no_grad()
def predictions(model: Any, learner: Learner, split: SequenceSplit, members: int | None = None) -> np.ndarray:
    """Predictions ([members,] n) float32 in the target's units, in the order of the split."""
    model.eval()
    order = np.argsort(split.lengths, kind="stable")
    data, outputs = _sequences(learner, split), []
    batches = [order[start : start + EVAL_BATCH] for start in range(0, len(order), EVAL_BATCH)]
    for index in rows_on(learner.device.torch_device, batches):
        x, mask, front = layout(data, index, learner.params, learner.extra["steps"])
        if members is not None:
            x, mask = (t.unsqueeze(1).expand(len(t), members, *t.shape[1:]) for t in (x, mask))
        outputs.append(model(x, mask, front))
    predicted = torch.cat(outputs, -1).cpu().numpy()
    out = np.empty_like(predicted)
    out[..., order] = predicted
    return out + data.start


def _figures(predicted: np.ndarray, split: SequenceSplit) -> dict[str, float]:
    errors = (predicted - split.targets).astype(np.float64)
    mse = float(np.mean(errors**2))
    return {"mse": mse, "rmse": mse**0.5, "mae": float(np.abs(errors).mean())}


TASK = RnnTask()
