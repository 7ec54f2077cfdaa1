"""A linear classifier on oriented gradients and colours of pictures. The final model mixes a network with it.

On TrashNet the mixture has a test accuracy of 0.886 and 0.896, the network alone 0.876 and 0.886 (benchmarks/tasks.md).
No dependency computes histograms of oriented gradients; scikit-image would be another one. The code here is made of
operations of torch, so that torch.export writes it into the exported model.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from trainables.base.batches import read_only
from trainables.windows.data import ImageSplit
from trainables.windows.model import resized

#: The sides in pixels of a picture and of a cell; 8 pixels and 9 orientations are the choice of Dalal and Triggs 2005.
SIZE, CELL, ORIENTATIONS = 64, 8, 9
#: The number of bins of the histogram of a colour.
COLOUR_BINS = 16
FEATURES = (SIZE // CELL - 1) ** 2 * 4 * ORIENTATIONS + 3 * COLOUR_BINS
#: The number of pictures that are described at a time; it bounds the memory.
CHUNK = 256
#: The largest number of training pictures with which a network is mixed with the classifier. With more pictures the
#: network learns as much alone.
FEW = 3000
#: The possible shares of the classifier in a mixture: 0, 0.05, ..., 0.5.
WEIGHTS = tuple(k / 20 for k in range(11))
#: `C` of the logistic regression is `STRENGTH` / number of pictures. Of values of `C` from 0.0003 to 0.1, 0.01 is the
#: best on validation with 453 training pictures, and 0.003 with 1,690.
STRENGTH = 5.0
#: The largest number of steps of the logistic regression.
MOST_STEPS = 300
#: The logit of a class without a training picture: its probability is practically 0.
ABSENT = -30.0


def describe(pixels: torch.Tensor) -> torch.Tensor:
    """Pictures (n, 3, size, size), floats with whole values from 0 to 255 -> features (n, `FEATURES`)."""
    pixels = resized(pixels, SIZE)
    return torch.cat([_gradients(pixels), _colours(pixels)], 1)


@torch.no_grad()
def described(images: np.ndarray) -> np.ndarray:
    """Pictures uint8 (n, 3, size, size) -> features (n, `FEATURES`)."""
    chunks = torch.from_numpy(np.ascontiguousarray(images)).split(CHUNK)
    return torch.cat([describe(chunk.float()) for chunk in chunks]).numpy()


def _gradients(pixels: torch.Tensor) -> torch.Tensor:
    """Histograms of oriented gradients (Dalal and Triggs 2005), (n, blocks x 4 x ORIENTATIONS).

    The gradient of a pixel is that of the colour with the strongest gradient. Blocks of 2 x 2 cells overlap; the
    histograms of a block have the L2 norm 1.
    """
    pixels = pixels / 255
    across = F.pad(pixels[..., 2:] - pixels[..., :-2], (1, 1))
    down = F.pad(pixels[..., 2:, :] - pixels[..., :-2, :], (0, 0, 1, 1))
    strength, colour = (across**2 + down**2).sqrt().max(1)
    across, down = (gradient.gather(1, colour[:, None])[:, 0] for gradient in (across, down))
    # Opposite directions are one orientation. A gradient is divided between the two nearest orientations: at distance d
    # (in steps between orientations) an orientation gets the share 1 - d.
    angle, half = torch.atan2(down, across) / torch.pi * ORIENTATIONS, ORIENTATIONS / 2
    distances = [((angle - orientation + half) % ORIENTATIONS - half).abs() for orientation in range(ORIENTATIONS)]
    cells = torch.stack([F.avg_pool2d((1 - d).clamp_min(0) * strength, CELL) for d in distances], 1)
    blocks = F.unfold(cells, 2)  # (n, 4 x ORIENTATIONS, blocks)
    return F.normalize(blocks, dim=1).flatten(1)


def _colours(pixels: torch.Tensor) -> torch.Tensor:
    """The histogram of each colour, as shares of the pixels: (n, 3 x COLOUR_BINS)."""
    bins = (pixels.flatten(2) * COLOUR_BINS).long() // 256
    return F.one_hot(bins, COLOUR_BINS).float().mean(2).flatten(1)


class Gradients(nn.Module):
    """Logistic regression on `describe`: pictures -> log-probabilities of the classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures as of `describe` -> (n, classes)."""
        return F.log_softmax(self.linear(describe(pixels)), 1)

    @torch.no_grad()
    def of(self, images: np.ndarray) -> torch.Tensor:
        """Pictures uint8 (n, 3, size, size) -> log-probabilities (n, classes)."""
        return torch.cat([self(chunk.float()) for chunk in read_only(np.asarray(images)).split(CHUNK)])


def fit(split: ImageSplit, classes: int) -> Gradients:
    """Fits the classifier to at most `FEW` pictures of a split."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    drawn = np.sort(np.random.default_rng(0).permutation(len(split))[:FEW])
    labels, scaler = split.labels[drawn], StandardScaler()
    features = scaler.fit_transform(described(split.images[drawn]))
    machine = LogisticRegression(C=STRENGTH / len(labels), max_iter=MOST_STEPS).fit(features, labels)
    rows, shift = machine.coef_, machine.intercept_
    if len(machine.classes_) == 2:  # scikit-learn then has one row, for the difference of the two logits
        rows, shift = np.concatenate([-rows, rows]) / 2, np.concatenate([-shift, shift]) / 2
    rows = rows / scaler.scale_
    classifier = Gradients(classes)
    with torch.no_grad():
        classifier.linear.weight.zero_()
        classifier.linear.bias.fill_(ABSENT)
        classifier.linear.weight[machine.classes_] = torch.from_numpy(rows).float()
        classifier.linear.bias[machine.classes_] = torch.from_numpy(shift - rows @ scaler.mean_).float()
    return classifier.eval().requires_grad_(False)


def mix(network: torch.Tensor, other: torch.Tensor, weight: float) -> torch.Tensor:
    """Log-probabilities (n, classes) of the mixture (1 - weight) * network + weight * other, with `weight` below 1."""
    if not weight:
        return network
    return torch.logaddexp(network + np.log1p(-weight), other + np.log(weight))


def best_weight(network: torch.Tensor, other: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of `other`, one of `WEIGHTS`, with which the mixture has the lowest loss on `labels`."""
    return min(WEIGHTS, key=lambda weight: float(F.nll_loss(mix(network, other, weight), labels)))
