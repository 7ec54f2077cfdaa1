import pytest
import torch
from torch.nn import functional as F

from trainables.base.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.85])
def test_dropout_rate_and_independence(p):
    torch.manual_seed(0)
    x = torch.ones(400, 251, requires_grad=True)
    y = Dropout(p)(x)
    dropped = y == 0
    assert dropped.float().mean().item() == pytest.approx(p, abs=0.005)
    assert y[~dropped].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-3)
    # The random bits of four neighbours come from one number.
    for shift in (1, 2, 3, 4, 251):
        both = dropped.flatten()[shift:] & dropped.flatten()[:-shift]
        assert both.float().mean().item() == pytest.approx(p * p, abs=0.006)
    by_place = dropped.flatten()[: 400 * 248].view(-1, 4).float().mean(0)
    assert by_place.tolist() == pytest.approx([p] * 4, abs=0.01), "each sixteenth of the bits is as random"
    y.sum().backward()
    assert torch.equal(x.grad, y.detach()), "what is dropped has no gradient"


def test_dropout_seed_and_evaluation():
    torch.manual_seed(1)
    x, layer = torch.randn(7, 5), Dropout(0.3)
    state = torch.get_rng_state()
    first = layer(x)
    assert not torch.equal(layer(x), first)
    torch.set_rng_state(state)
    assert torch.equal(layer(x), first)
    assert layer.eval()(x) is not None and torch.equal(layer.eval()(x), F.dropout(x, 0.3, False))
    assert torch.equal(Dropout(0.0)(x), x)


def test_low_precision_stays_low():
    assert Dropout(0.5)(torch.ones(8, dtype=torch.bfloat16)).dtype == torch.bfloat16
