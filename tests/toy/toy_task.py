"""A task outside the two packages: linear regression, or a learning curve from a table, with faults to order."""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import toy_faults
from torch import nn

from trainables import DataInfo, InputError, Learner, Objective, Splits, array_digest, fit_batches, shuffled_batches

#: Validation score by epoch. The first starts slowly and wins in the end.
CURVES = {
    "late-bloomer": [
        [0.50, 0.52, 0.55, 0.60, 0.70, 0.80, 0.90, 0.99],
        [0.45, 0.48, 0.50, 0.52, 0.54, 0.56, 0.58, 0.60],
        [0.60, 0.62, 0.64, 0.65, 0.66, 0.67, 0.68, 0.69],
        [0.40, 0.41, 0.42, 0.43, 0.44, 0.45, 0.46, 0.47],
    ],
}


class ToyTask:
    name = "toy"
    objective = Objective("score", "max")

    def prepare(self, data, source, cache, progress):
        if source is not None:
            raise InputError(f"--data {source}: the toy task makes its own data")
        rng = np.random.default_rng(0)
        x = rng.normal(size=(data["size"], 4)).astype(np.float32)
        y = x @ np.array([1.0, -2.0, 0.5, 0.0], dtype=np.float32)
        parts = {"train": slice(0, 32), "val": slice(32, 48), "test": slice(48, None)}
        split = {name: (x[part], y[part], data["pause"], data["fault"], data["once"]) for name, part in parts.items()}
        digest = array_digest([x, y])
        sizes = {name: len(part[0]) for name, part in split.items()}
        return Splits(split["train"], split["val"], split["test"], DataInfo("toy", digest, digest, sizes))

    def describe_source(self, data):
        return "made by code"

    def check(self, params):
        pass

    def build(self, params, splits, epochs, device):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=params["lr"], momentum=0.9)
        return Learner(model, optimizer, None, device, params)

    def train_epoch(self, learner, split):
        x, y, (pause, fault, once) = torch.tensor(split[0]), torch.tensor(split[1]), split[2:]
        time.sleep(pause)
        index = learner.params["index"]
        if learner.epoch == 2 or fault == "always":
            toy_faults.strike(fault, index, Path(once))
            if toy_faults.diverges(fault, index):
                x = x * float("inf")

        def forward(batch):
            if fault == "memory" and len(batch) > toy_faults.ROOM:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate room for {len(batch)} samples")
            loss = (learner.model(x[batch]).squeeze(1) - y[batch]).square().mean()
            return loss, len(batch), {}

        return fit_batches(learner, shuffled_batches(len(x), 8), forward, clip_norm=1.0)

    @torch.no_grad()
    def evaluate(self, learner, split):
        learner.model.eval()
        loss = (learner.model(torch.tensor(split[0])).squeeze(1) - torch.tensor(split[1])).square().mean().item()
        if learner.params["curve"] != "none":
            return {
                "score": CURVES[learner.params["curve"]][learner.params["index"]][learner.epoch - 1],
                "loss": loss,
            }
        return {"score": -loss, "loss": loss}

    @torch.no_grad()
    def units(self, learner, split):
        squared = (learner.model(torch.tensor(split[0])).squeeze(1) - torch.tensor(split[1])).square().numpy()
        return np.stack([-squared, np.ones_like(squared)], 1)

    def objective_of(self, sums):
        return sums[..., 0] / sums[..., 1]

    def merge(self, splits):
        train, val = splits.train, splits.val
        return np.concatenate([train[0], val[0]]), np.concatenate([train[1], val[1]]), *train[2:]

    def baselines(self, splits):
        return {"zero": -float(np.square(splits.test[1]).mean())}

    def artifacts(self, learner, split, info, folder):
        (folder / "note.txt").write_text("nothing to see")

    def export(self, learner, info, folder):
        torch.save(learner.model.state_dict(), folder / "weights.pt")
        (folder / "params.json").write_text(json.dumps(learner.params))

    def load(self, folder):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
        model.load_state_dict(torch.load(Path(folder) / "weights.pt", weights_only=True))
        return model.eval()

    def inputs(self, arguments):
        return pd.DataFrame([[float(v) for v in a.split(",")] for a in arguments], columns=list("abcd"))

    @torch.no_grad()
    def predict(self, model, frame):
        y = model(torch.tensor(frame.to_numpy(dtype=np.float32))).squeeze(1)
        return pd.DataFrame({"y": y.numpy().astype(float)}, index=frame.index)

    def example(self, split, info):
        return pd.DataFrame(split[0][:2].astype(float), columns=list("abcd"))


TASK = ToyTask()
