from types import SimpleNamespace

import pytest
import torch
from torch import nn

from trainables.base import health
from trainables.base.batches import shuffled_batches
from trainables.base.device import choose_device
from trainables.base.health import MemoryPeak, dead_relus
from trainables.base.optimizers import make_schedule
from trainables.base.training import Diverged, Learner, fit_batches, rng_state, seed_everything, set_rng_state


def learner(model, rate=0.1):
    return Learner(model, torch.optim.SGD(model.parameters(), lr=rate), None, choose_device(1, 0, "fp32"), {})


def test_every_generator_continues_after_its_state_is_set():
    import random

    import numpy as np

    seed_everything(5)
    state = rng_state()
    drawn = (random.random(), np.random.rand(), torch.rand(1).item(), random.gauss(0, 1), np.random.randn())
    set_rng_state(state)
    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item(), random.gauss(0, 1), np.random.randn())


def test_state_survives_a_safe_load(tmp_path):
    from trainables.base import training

    one = learner(nn.Linear(2, 2))
    one.epoch = 7
    training.save(one, tmp_path / "x.pt")
    two = learner(nn.Linear(2, 2))
    training.load(two, tmp_path / "x.pt")
    assert two.epoch == 7
    assert torch.equal(one.model.weight, two.model.weight)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_ends_the_epoch(bad):
    model = nn.Linear(1, 1)
    seen = []

    def forward(batch):
        seen.append(batch)
        loss = model(torch.ones(1, 1)).sum()
        return (loss * bad if len(seen) >= 3 else loss), 1, {}

    with pytest.raises(Diverged):
        fit_batches(learner(model), range(1000), forward)
    assert len(seen) < 50, "it ends in the epoch where it happens, not after it"


def test_fit_batches_means_and_clipping():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)

    def forward(batch):
        return model.weight.sum() * 10 + batch, int(batch), {"ones": torch.tensor(batch)}

    metrics = fit_batches(learner(model, rate=1.0), [1.0, 3.0], forward, clip_norm=0.5)
    assert metrics["ones"] == 1.0
    assert metrics["gradient_norm"] == pytest.approx(10.0)  # before clipping
    assert model.weight.item() == pytest.approx(-1.0)  # two steps of 0.5
    assert metrics["loss"] == pytest.approx((1.0 * 1 + (3.0 - 5.0) * 3) / 4)


def test_dead_relu_units_are_counted_over_all_batches():
    model = nn.Sequential(nn.Linear(1, 4), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-1.0], [1.0], [0.0]]))
        model[0].bias.copy_(torch.tensor([0.0, 0.0, -100.0, -1.0]))
    with dead_relus(model) as fraction:
        model(torch.tensor([[1.0]]))
        model(torch.tensor([[-1.0]]))
        assert fraction() == 0.5  # the third and fourth never fire, the others in one batch each
    assert not model[1]._forward_hooks


def test_last_single_sample_joins_the_batch_before():
    assert [len(b) for b in shuffled_batches(9, 4)] == [4, 5]
    assert [len(b) for b in shuffled_batches(10, 4)] == [4, 4, 2]
    assert [len(b) for b in shuffled_batches(1, 4)] == [1]


def test_cosine_ends_at_a_hundredth():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = make_schedule(optimizer, "cosine", 5)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == 1.0
    assert rates == sorted(rates, reverse=True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_memory_peak_is_that_of_this_trial_not_of_an_earlier_one():
    device = torch.device("cpu")
    before = MemoryPeak(device)
    block = torch.ones(512 * 2**20 // 4)  # more than the heap has free by chance
    high = before.mib()
    del block
    assert MemoryPeak(device).mib() < high - 400


@pytest.mark.parametrize("clip", [None, 0.1])
def test_micro_batches_take_the_same_steps(clip):
    def trained(parts: int) -> tuple[list[torch.Tensor], dict[str, float]]:
        seed_everything(0)
        x, y = torch.randn(50, 3), torch.randn(50)
        one = learner(nn.Linear(3, 1))
        one.micro_batches = parts

        def forward(batch):
            return (one.model(x[batch]).squeeze(1) - y[batch]).square().mean(), len(batch), {}

        metrics = fit_batches(one, shuffled_batches(50, 8), forward, clip)
        return list(one.model.parameters()), metrics

    (whole, metrics), (halves, same) = trained(1), trained(2)
    for a, b in zip(whole, halves, strict=True):
        torch.testing.assert_close(a, b)
    assert metrics["loss"] == pytest.approx(same["loss"])
    assert metrics["samples"] == same["samples"] == 50


def test_energy_is_the_counters_difference_times_the_share(monkeypatch):
    # What NVML and CUDA answer on a machine with a GPU; there is none here.
    counter = iter([7_000, 10_000, 16_000])
    driver = SimpleNamespace(
        nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=lambda uuid: uuid, NVMLError=RuntimeError,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: {"GPU-1f": next(counter)}[handle],
    )  # fmt: skip
    monkeypatch.setattr(health, "pynvml", driver)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1f"))
    meter = health.EnergyMeter(torch.device("cuda"), share=0.25)
    assert meter.measured() == {"energy_joules": 0.25 * 6}


def test_energy_is_left_out_where_nothing_counts_it(monkeypatch):
    assert health.EnergyMeter(torch.device("cpu"), 1.0).measured() == {}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1f"))
    assert health.EnergyMeter(torch.device("cuda"), 1.0).measured() == {}, "there is no driver here"
