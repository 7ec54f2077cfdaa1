"""Textbook examples worked by hand: the figures stand here, and the parts that tasks are built of have to give them."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainables.base.device import Device
from trainables.base.health import dead_relus
from trainables.base.training import Learner, fit_batches
from trainables.wikitext.model import Block
from trainables.windows.model import ResidualBlock, norm_layer


def train_once(model: nn.Module, rate: float, loss) -> dict[str, float]:
    """One step of gradient descent through the loop that every task trains with."""
    learner = Learner(model, torch.optim.SGD(model.parameters(), lr=rate), None, Device(torch.device("cpu")), {})
    return fit_batches(learner, [None], lambda _: (loss(model), 1, {}))


def test_a_feed_forward_pass_with_relu_and_softmax():
    hidden = torch.tensor([[0.2, 0.15, 0.7], [0.1, 0.0, 0.3], [0.0, 0.5, 0.4]])
    output = torch.tensor([[0.45, 0.3, 0.9], [1.0, -1.0, 1.0]])
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    model.load_state_dict({"0.weight": hidden, "2.weight": output})
    x = torch.tensor([[9.0, 0, 4], [3, 5, 3], [2, 7, 0]])
    by_hand = torch.tensor([[4.6, 2.1, 1.6], [3.45, 1.2, 3.7], [1.45, 0.2, 3.5]])
    torch.testing.assert_close(model[:2](x), by_hand)
    torch.testing.assert_close(model(x), torch.tensor([[4.14, 4.1], [5.2425, 5.95], [3.8625, 4.75]]))
    # Of two classes the softmax is the logistic function of the difference.
    first = [1 / (1 + math.exp(-difference)) for difference in (0.04, -0.7075, -0.8875)]
    torch.testing.assert_close(model(x).softmax(1)[:, 0], torch.tensor(first))
    with dead_relus(model) as fraction:
        model(x)
        assert fraction() == 0


def test_gradients_through_gaussian_units_and_a_sigmoid():
    """h_i = exp(-(w_i x)^2), o = sigmoid(v . h), L = (o - t)^2; by the chain rule
    dL/dv_i = 2 (o - t) o (1 - o) h_i and dL/dw_i = 2 (o - t) o (1 - o) v_i h_i (-2 w_i x^2)."""

    class Gaussian(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([0.5, -1.0]))
            self.v = nn.Parameter(torch.tensor([2.0, -1.5]))

        def forward(self, x: float) -> torch.Tensor:
            return torch.sigmoid(self.v @ torch.exp(-((self.w * x) ** 2)))

    model, x, t, rate = Gaussian(), 0.8, 1.0, 0.1
    w, v = (0.5, -1.0), (2.0, -1.5)
    h = [math.exp(-((one * x) ** 2)) for one in w]
    assert h == pytest.approx([0.852144, 0.527292], abs=1e-6)
    o = 1 / (1 + math.exp(-sum(a * b for a, b in zip(v, h, strict=True))))
    common = 2 * (o - t) * o * (1 - o)
    dv = [common * one for one in h]
    dw = [common * a * b * -2 * c * x * x for a, b, c in zip(v, h, w, strict=True)]
    told = train_once(model, rate, lambda m: (m(x) - t) ** 2)
    assert told["loss"] == pytest.approx((o - t) ** 2)
    assert told["gradient_norm"] == pytest.approx(math.sqrt(sum(g * g for g in (*dv, *dw))))
    np.testing.assert_allclose(model.v.detach(), [a - rate * g for a, g in zip(v, dv, strict=True)], rtol=1e-5)
    np.testing.assert_allclose(model.w.detach(), [a - rate * g for a, g in zip(w, dw, strict=True)], rtol=1e-5)


def test_a_relu_that_dies_is_flagged_and_never_learns_again():
    model = nn.Sequential(nn.Linear(3, 1, bias=False), nn.ReLU())
    model.load_state_dict({"0.weight": torch.tensor([[0.2, -0.3, 0.5]])})
    h, target = torch.tensor([[0.1, 0.5, 10.0]]), 0.7

    def loss(net: nn.Module) -> torch.Tensor:
        return 0.5 * (net(h) - target).square().sum()

    def dead() -> float:
        with dead_relus(model) as fraction:
            model(h)
            return fraction()

    assert model(h).item() == pytest.approx(4.87) and dead() == 0.0
    train_once(model, 0.1, loss)
    torch.testing.assert_close(model[0].weight.grad, torch.tensor([[0.417, 2.085, 41.7]]))
    after = torch.tensor([[0.1583, -0.5085, -3.67]])
    torch.testing.assert_close(model[0].weight.detach(), after)
    assert model(h).item() == 0 and dead() == 1.0
    for _ in range(5):
        assert train_once(model, 0.1, loss)["gradient_norm"] == 0
    torch.testing.assert_close(model[0].weight.detach(), after)


def test_a_convolution_with_a_laplacian_kernel():
    matrix = [[0, 6, 1, 1, 6], [7, 9, 3, 7, 7], [3, 5, 3, 8, 3], [8, 6, 8, 0, 2], [4, 3, 2, 9, 1]]
    block = ResidualBlock(1, 1, 1, "group")
    kernel = torch.ones(1, 1, 3, 3)
    kernel[0, 0, 1, 1] = -8
    block.conv1.weight.data = kernel
    # The sum over a cell and its neighbours (zeros outside) less nine times the cell.
    expected = [
        [22, -28, 18, 16, -33],
        [-33, -44, 16, -24, -31],
        [11, 7, 22, -31, 0],
        [-43, -12, -28, 36, 5],
        [-15, 4, 10, -59, 3],
    ]
    answer = block.conv1(torch.tensor(matrix, dtype=torch.float32)[None, None])[0, 0]
    assert answer.tolist() == expected


def test_shapes_and_parameters_of_a_transformer_layer():
    batch, length, width, heads, hidden = 10, 90, 20, 5, 80
    block = Block(width, heads, hidden, dropout=0.0, norm_first=False)
    projections = 3 * (width * width + width) + (width * width + width)
    feed = (width * hidden + hidden) + (hidden * width + width)
    norms = 2 * 2 * width
    assert projections + feed + norms == 1680 + 3300 + 80 == 5060
    assert sum(p.numel() for p in block.parameters()) == 5060
    shapes = {}
    for name, module in block.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape)}))
    assert block(torch.randn(batch, length, width), None).shape == (10, 90, 20)
    assert shapes["in_projection"] == (10, 90, 60), "queries, keys and values of five heads of width four"
    assert shapes["linear1"] == (10, 90, 80) and shapes["norm2"] == (10, 90, 20)


IMAGES = torch.arange(36, dtype=torch.float32).reshape(3, 3, 2, 2).square() % 17


def normed(images: torch.Tensor, over: tuple[int, ...]) -> torch.Tensor:
    """The usual definition: less the mean, over the root of the biased variance plus 1e-5."""
    mean = images.mean(over, keepdim=True)
    return (images - mean) / ((images - mean).square().mean(over, keepdim=True) + 1e-5).sqrt()


def test_batch_layer_instance_and_group_norm():
    torch.testing.assert_close(norm_layer("batch", 3)(IMAGES), normed(IMAGES, (0, 2, 3)))
    # Of three channels `group` makes one group: layer norm over channel, height and width.
    torch.testing.assert_close(norm_layer("group", 3)(IMAGES), normed(IMAGES, (1, 2, 3)))
    torch.testing.assert_close(norm_layer("group", 3)(IMAGES), F.layer_norm(IMAGES, IMAGES.shape[1:]))
    # Of eight channels eight groups: a channel a group is instance norm.
    wide = IMAGES.repeat(1, 3, 1, 1)[:, :8]
    torch.testing.assert_close(norm_layer("group", 8)(wide), normed(wide, (2, 3)))
    torch.testing.assert_close(norm_layer("group", 8)(wide), F.instance_norm(wide))


def test_weights_before_batch_norm_have_no_gradient_along_themselves():
    """Batch norm undoes their scale, so the loss does not change along w: w.grad . w = 0 (up to the epsilon)."""
    torch.manual_seed(0)
    block = ResidualBlock(3, 4, 1, "batch")
    block(torch.randn(8, 3, 6, 6)).square().sum().backward()
    for weight in (block.conv1.weight, block.conv2.weight):
        along = (weight.grad * weight).sum().abs() / (weight.grad.norm() * weight.norm())
        assert along < 1e-4
    head = nn.Linear(4, 2)
    F.cross_entropy(head(torch.randn(8, 4)), torch.zeros(8, dtype=torch.long)).backward()
    assert (head.weight.grad * head.weight).sum().abs() / (head.weight.grad.norm() * head.weight.norm()) > 1e-2
