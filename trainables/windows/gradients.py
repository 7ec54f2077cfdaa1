"""Oriented gradients and colours of pictures, and a linear classifier on them that a network is mixed with."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from trainables.base.batches import read_only
from trainables.windows.data import ImageSplit
from trainables.windows.model import resized

#: Pixels of a side that gradients are taken at, and of a cell; orientations of a cell; values of a colour.
SIZE, CELL, ORIENTATIONS, VALUES = 64, 8, 9, 16
FEATURES = (SIZE // CELL - 1) ** 2 * 4 * ORIENTATIONS + 3 * VALUES
#: Pictures that are described at a time.
CHUNK = 256
#: Pictures to train on up to which a network is mixed with the classifier: with more it learns as much by itself.
FEW = 3000
#: Shares that the classifier may have of a mixture.
WEIGHTS = tuple(k / 20 for k in range(11))
#: The inverse of the penalty, for each picture: of 0.0003 to 0.1 for all of them, the best on validation of 453
#: pictures (0.01) and of 1,690 (0.003).
STRENGTH = 5.0


def describe(pixels: torch.Tensor) -> torch.Tensor:
    """Pictures (n, 3, size, size) of whole numbers up to 255, float -> (n, `FEATURES`)."""
    pixels = resized(pixels, SIZE)
    return torch.cat([_gradients(pixels), _colours(pixels)], 1)


@torch.no_grad()
def described(images: np.ndarray) -> np.ndarray:
    """(n, `FEATURES`) of pictures uint8 (n, 3, size, size)."""
    chunks = torch.from_numpy(np.ascontiguousarray(images)).split(CHUNK)
    return torch.cat([describe(chunk.float()) for chunk in chunks]).numpy()


def _gradients(pixels: torch.Tensor) -> torch.Tensor:
    """(n, blocks x 4 x ORIENTATIONS): histograms of oriented gradients (Dalal and Triggs 2005), each pixel's of the
    colour that changes most, in overlapping blocks of two by two cells, each of length 1."""
    pixels = pixels / 255
    across = F.pad(pixels[..., 2:] - pixels[..., :-2], (1, 1))
    down = F.pad(pixels[..., 2:, :] - pixels[..., :-2, :], (0, 0, 1, 1))
    strength, colour = (across**2 + down**2).sqrt().max(1)
    across, down = (gradient.gather(1, colour[:, None])[:, 0] for gradient in (across, down))
    # A gradient counts for the two orientations that it lies between, by how near it is; up is as good as down.
    place, half = torch.atan2(down, across) / torch.pi * ORIENTATIONS, ORIENTATIONS / 2
    apart = [((place - orientation + half) % ORIENTATIONS - half).abs() for orientation in range(ORIENTATIONS)]
    cells = torch.stack([F.avg_pool2d((1 - far).clamp_min(0) * strength, CELL) for far in apart], 1)
    blocks = F.unfold(cells, 2)  # (n, 4 x ORIENTATIONS, blocks)
    return F.normalize(blocks, dim=1).flatten(1)


def _colours(pixels: torch.Tensor) -> torch.Tensor:
    """(n, 3 x VALUES): for each colour, the shares of pixels by value."""
    values = (pixels.flatten(2) * VALUES).long() // 256
    return F.one_hot(values, VALUES).float().mean(2).flatten(1)


class Gradients(nn.Module):
    """Pictures -> log-probabilities of their classes, by logistic regression on `describe`."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, size, size) of whole numbers up to 255, float -> (n, classes)."""
        return F.log_softmax(self.linear(describe(pixels)), 1)

    @torch.no_grad()
    def of(self, images: np.ndarray) -> torch.Tensor:
        """The same of pictures uint8, in chunks to bound memory."""
        return torch.cat([self(chunk.float()) for chunk in read_only(np.asarray(images)).split(CHUNK)])


def fit(split: ImageSplit, classes: int) -> Gradients:
    """The classifier, fitted to at most `FEW` pictures of a split."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    drawn = np.sort(np.random.default_rng(0).permutation(len(split))[:FEW])
    labels, scaler = split.labels[drawn], StandardScaler()
    features = scaler.fit_transform(described(split.images[drawn]))
    machine = LogisticRegression(C=STRENGTH / len(labels), max_iter=300).fit(features, labels)
    # Of two classes scikit-learn has one row, of their difference.
    two = len(machine.classes_) == 2
    rows = np.concatenate([-machine.coef_, machine.coef_]) / 2 if two else machine.coef_
    shift = np.concatenate([-machine.intercept_, machine.intercept_]) / 2 if two else machine.intercept_
    rows = rows / scaler.scale_
    found = Gradients(classes)
    with torch.no_grad():
        found.linear.weight.zero_()
        found.linear.bias.fill_(-30.0)  # of a class that no picture drawn has
        found.linear.weight[machine.classes_] = torch.from_numpy(rows).float()
        found.linear.bias[machine.classes_] = torch.from_numpy(shift - rows @ scaler.mean_).float()
    return found.eval().requires_grad_(False)


def mix(network: torch.Tensor, other: torch.Tensor, weight: float) -> torch.Tensor:
    """Log-probabilities (n, classes) of a mixture in which `other` has the share `weight`, below 1."""
    if not weight:
        return network
    return torch.logaddexp(network + np.log1p(-weight), other + np.log(weight))


def best_weight(network: torch.Tensor, other: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of `other` with which the mixture has the lowest loss."""
    return min(WEIGHTS, key=lambda weight: float(F.nll_loss(mix(network, other, weight), labels)))
