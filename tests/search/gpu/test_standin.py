"""The stand-in for a GPU finds the faults that a GPU would show."""

import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests import standin


@pytest.fixture
def gpu():
    with standin.device() as mode:
        yield mode


def test_tensors_compute_and_train_on_the_device(gpu):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).to("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x, y = torch.randn(5, 1, 4, 4, device="cuda"), torch.tensor([0, 1, 0, 1, 1], device="cuda")
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.is_cuda and p.grad.device == torch.device("cuda:0") for p in model.parameters())


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.cat([x, torch.ones(3)]),
        lambda x: torch.ones(3)[x.long()],
        lambda x: x.numpy(),
        lambda x: nn.Linear(3, 1)(x),
        lambda x: x.clone().index_add_(0, torch.tensor([0]), x[:1]),
        lambda x: torch.where(torch.ones(3, dtype=torch.bool), x, x),
    ],
)
def test_tensors_of_two_devices_do_not_meet(gpu, fault):
    with pytest.raises((RuntimeError, TypeError), match=r"cuda:0|on cpu"):
        fault(torch.zeros(3, device="cuda"))


@pytest.mark.parametrize(
    "allowed", [lambda x: x + torch.tensor(2.0), lambda x: x[torch.tensor([0, 1])], lambda x: x.copy_(torch.ones(3))]
)
def test_numbers_indices_and_copies_may_come_from_the_processor(gpu, allowed):
    assert allowed(torch.zeros(3, device="cuda")).is_cuda


@pytest.mark.parametrize(
    ("work", "waits"),
    [
        (lambda x: x.sum(), 0),
        (lambda x: x.masked_fill(x > 0, 1.0), 0),
        (lambda x: torch.repeat_interleave(x, x.long(), output_size=6), 0),
        (lambda x: x.new_zeros(3), 0),
        (lambda x: torch.randperm(3, device="cuda"), 0),
        (lambda x: x.sum().item(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: bool((x > 0).all()), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: x[torch.tensor([0])], 1),
        (lambda x: (x > 0).nonzero(), 1),
        (lambda x: torch.tensor([1.0], device="cuda"), 1),
        (lambda x: x.new_tensor(1.0), 1),
        (lambda x: torch.ones(3).to("cuda"), 1),
        (lambda x: torch.repeat_interleave(x, x.long()), 1),
    ],
)
def test_what_waits_for_the_device_is_counted(gpu, work, waits):
    x = torch.tensor([1.0, 2.0, 3.0], device="cuda")
    before = gpu.waits
    work(x)
    assert gpu.waits - before == waits


def test_devices_have_their_own_generators(gpu):
    torch.manual_seed(0)
    here = torch.rand(3)
    torch.manual_seed(0)
    torch.rand(3, device="cuda")
    assert torch.equal(torch.rand(3), here), "what is drawn there does not move what is drawn here"
    states = torch.cuda.get_rng_state_all()
    there = torch.rand(3, device="cuda")
    torch.cuda.set_rng_state_all(states)
    assert torch.equal(torch.rand(3, device="cuda"), there)


def test_file_is_loaded_to_where_it_is_asked_for(gpu):
    file = io.BytesIO()
    torch.save({"x": torch.ones(2, device="cuda")}, file)
    file.seek(0)
    with pytest.raises(AssertionError, match="map_location"):
        torch.load(file, weights_only=True)
    assert not torch.load(file, map_location="cpu", weights_only=True)["x"].is_cuda


def test_share_of_the_memory_is_a_limit(gpu):
    torch.cuda.set_per_process_memory_fraction(0.25)
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(standin.MEMORY // 2, dtype=torch.uint8, device="cuda")


def test_random_numbers_fork_after_the_stand_in():
    before = torch.get_rng_state()
    with torch.random.fork_rng():
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
