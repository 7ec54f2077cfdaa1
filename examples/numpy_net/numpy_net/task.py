"""Handwritten digits (those that scikit-learn ships) by a network in NumPy."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from torch import nn

import trainables
from numpy_net.layers import Dropout, Layer, squared_error


class NumpyNet:
    name, objective = "numpy_net", trainables.Objective("accuracy", "max")

    def prepare(self, data, source, cache, progress):
        if source is not None:
            raise trainables.InputError(f"--data {source}: this task has its own data")
        x, y = load_digits(return_X_y=True)
        x, order = (x / 16).astype(np.float32), np.random.default_rng(data["split_seed"]).permutation(len(y))
        train, val, test = ((x[part], y[part]) for part in np.split(order, [1100, 1450]))
        sizes = {"train": len(train[1]), "val": len(val[1]), "test": len(test[1])}
        digests = trainables.array_digest([x, order]), trainables.array_digest(test)
        info = trainables.DataInfo("scikit-learn's digits", *digests, sizes)
        return trainables.Splits(train, val, test, info)

    def describe_source(self, data):
        return "scikit-learn's digits"

    def check(self, params): ...

    def build(self, params, splits, epochs, device):
        return trainables.Learner(
            net := build_net(params), trainables.make_optimizer(net.parameters(), params), None, device, params
        )

    def train_epoch(self, learner, split):
        x, y = split[0], np.eye(10, dtype=np.float32)[split[1]]
        losses, norms = [], []
        learner.model.train()
        for batch in trainables.shuffled_batches(len(x), learner.params["batch_size"]):
            loss, gradient = squared_error(learner.model(x[batch]), y[batch])
            for layer in reversed(learner.model):
                gradient = layer.backward(gradient)
            losses.append(loss)
            norms.append(np.sqrt(sum(p.grad.square().sum().item() for p in learner.model.parameters())))
            learner.optimizer.step()
        if diverged := trainables.not_finite(np.mean(losses), np.mean(norms)):
            raise diverged
        return {"loss": float(np.mean(losses)), "gradient_norm": float(np.mean(norms)), "samples": float(len(x))}

    def evaluate(self, learner, split):
        answer = learner.model.eval()(split[0])
        loss, _ = squared_error(answer, np.eye(10, dtype=np.float32)[split[1]])
        return {"loss": loss, "accuracy": float((answer.argmax(1) == split[1]).mean())}

    def merge(self, splits):
        return tuple(np.concatenate(pair) for pair in zip(splits.train, splits.val, strict=True))

    def baselines(self, splits):
        return {"most frequent": float((splits.test[1] == np.bincount(splits.train[1]).argmax()).mean())}

    def artifacts(self, learner, split, info, folder):
        wrong = learner.model.eval()(split[0]).argmax(1) != split[1]
        pd.DataFrame(split[0][wrong]).assign(digit=split[1][wrong]).to_csv(folder / "mistakes.csv", index=False)

    def export(self, learner, info, folder):
        torch.save((learner.params, learner.model.state_dict()), folder / "net.pt")

    def load(self, folder):
        params, weights = torch.load(Path(folder) / "net.pt", weights_only=True)
        (net := build_net(params)).load_state_dict(weights)
        return net.eval()

    def inputs(self, arguments):
        return pd.concat([pd.read_csv(path) for path in arguments])[[str(pixel) for pixel in range(64)]].astype(float)

    def predict(self, model, frame):
        return pd.DataFrame({"digit": model(frame.to_numpy(np.float32)).argmax(1)}, index=frame.index)

    def example(self, split, info):
        return pd.DataFrame(split[0][:2].astype(float), columns=[str(pixel) for pixel in range(64)])


def build_net(params):
    layers, width = [], 64
    for _ in range(params["layers"]):
        layers += [Layer(width, params["width"], params["activation"]), Dropout(params["dropout"])]
        width = params["width"]
    return nn.Sequential(*layers, Layer(width, 10))


TASK = NumpyNet()
