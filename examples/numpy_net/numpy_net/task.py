"""Handwritten digits (those that scikit-learn ships) by a network in NumPy."""

import numpy as np
from sklearn.datasets import load_digits
from torch import nn

from numpy_net.layers import Dropout, Layer, squared_error
from trainables import Learner, Objective, Splits, make_optimizer, shuffled_batches


class NumpyNet:
    name, objective = "numpy_net", Objective("accuracy", "max")

    def prepare(self, data, source, cache, progress):
        x, y = load_digits(return_X_y=True)
        x, order = (x / 16).astype(np.float32), np.random.default_rng(data["split_seed"]).permutation(len(y))
        return Splits.of("scikit-learn's digits", *((x[part], y[part]) for part in np.split(order, [1100, 1450])))

    def build(self, params, splits, epochs, device):
        layers, width = [], 64
        for _ in range(params["layers"]):
            layers += [Layer(width, params["width"], params["activation"]), Dropout(params["dropout"])]
            width = params["width"]
        net = nn.Sequential(*layers, Layer(width, 10))
        return Learner(net, make_optimizer(net.parameters(), params), None, device, params)

    def train_epoch(self, learner, split):
        x, y, losses = split[0], np.eye(10, dtype=np.float32)[split[1]], []
        learner.model.train()
        for batch in shuffled_batches(len(x), learner.params["batch_size"]):
            loss, gradient = squared_error(learner.model(x[batch]), y[batch])
            for layer in reversed(learner.model):
                gradient = layer.backward(gradient)
            learner.optimizer.step()
            losses.append(loss)
        return {"loss": float(np.mean(losses))}

    def evaluate(self, learner, split):
        answer = learner.model.eval()(split[0])
        loss, _ = squared_error(answer, np.eye(10, dtype=np.float32)[split[1]])
        return {"loss": loss, "accuracy": float((answer.argmax(1) == split[1]).mean())}

    def merge(self, splits):
        return tuple(np.concatenate(pair) for pair in zip(splits.train, splits.val, strict=True))


TASK = NumpyNet()
