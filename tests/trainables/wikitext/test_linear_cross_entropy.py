import pytest
import torch
from torch.nn import functional as F

from trainables.wikitext.linear_cross_entropy import ROWS, LinearCrossEntropy


def inputs(count=70, width=12, classes=301):
    torch.manual_seed(0)
    x = torch.randn(count, width, requires_grad=True)
    weight = (torch.rand(classes, width) - 0.5).requires_grad_()
    return x, weight, torch.randn(classes, requires_grad=True), torch.randint(classes, (count,))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_linear_cross_entropy_equals_pytorch(dtype, tolerance):
    x, weight, bias, target = inputs()
    assert len(x) % ROWS, "the last rows are fewer"
    expected = F.cross_entropy(F.linear(x, weight, bias), target)
    wanted = torch.autograd.grad(expected, (x, weight, bias))
    loss = LinearCrossEntropy(dtype)(x, weight, bias, target)
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    for mine, theirs in zip(torch.autograd.grad(loss, (x, weight, bias)), wanted, strict=True):
        assert (mine - theirs).norm() <= tolerance * theirs.norm()


def test_linear_cross_entropy_two_losses():
    x, weight, bias, target = inputs()
    layer = LinearCrossEntropy(torch.bfloat16)
    together = layer(x, weight, bias, target) + layer(2 * x, weight, bias, target.flip(0))
    gradient = torch.autograd.grad(together, weight)[0]
    apart = torch.zeros_like(weight)
    for scale, labels in ((1, target), (2, target.flip(0))):
        apart += torch.autograd.grad(layer(scale * x, weight, bias, labels), weight)[0]
    assert torch.allclose(gradient, apart, atol=1e-7)


def test_loss_without_gradients_is_the_same():
    x, weight, bias, target = inputs()
    layer = LinearCrossEntropy(torch.bfloat16)
    with torch.no_grad():
        assert layer(x, weight, bias, target).item() == pytest.approx(layer(x, weight, bias, target).item())
        value = layer(x, weight, bias, target).item()
    assert layer(x, weight, bias, target).item() == pytest.approx(value, rel=1e-5)


def test_probability_that_underflows_is_a_finite_loss():
    x, weight = torch.full((2, 4), 30.0, requires_grad=True), torch.eye(4, requires_grad=True)
    logits_apart = weight.detach() * 40
    layer = LinearCrossEntropy(torch.bfloat16)
    loss = layer(x, logits_apart.requires_grad_(), torch.tensor([0.0, 9e3, 0.0, 0.0]), torch.tensor([0, 0]))
    assert loss.item() == pytest.approx(9e3, rel=1e-2)
