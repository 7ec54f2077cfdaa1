import numpy as np
import pytest
import torch

from trainables.rnn.model import Recurrence, SequenceRegressor, layout, steps_of
from trainables.rnn.task import TASK, _bucketed
from trainables.task import DataInfo, Splits
from trainables.training import choose_device, run_epoch, seed_everything

PARAMS = {
    "variant": "vanilla", "keep": None, "align": None, "hidden": 8, "layers": 2, "activation": "tanh",
    "init": "uniform", "optimizer": "adam", "lr": 0.01, "weight_decay": 0.0, "schedule": "constant", "clip_norm": 1.0,
    "batch_size": 16,
}  # fmt: skip
VARIANTS = [
    {"variant": "vanilla"}, {"variant": "truncated", "keep": "last"}, {"variant": "truncated", "keep": "first"},
    {"variant": "padded", "align": "start"}, {"variant": "padded", "align": "end"},
]  # fmt: skip


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("layers", [1, 3])
def test_hand_written_network_equals_torch_rnn_with_the_same_weights(activation, layers):
    torch.manual_seed(0)
    ours = SequenceRegressor(5, None, 7, layers, activation, "uniform").double()
    theirs = torch.nn.RNN(5, 7, layers, nonlinearity=activation, batch_first=True).double()
    with torch.no_grad():
        for number, layer in enumerate(ours.layers):
            getattr(theirs, f"weight_ih_l{number}").copy_(layer.input_weight.T)
            getattr(theirs, f"weight_hh_l{number}").copy_(layer.hidden_weight.T)
            layer.bias.uniform_(-1, 1)
            getattr(theirs, f"bias_ih_l{number}").copy_(layer.bias)
            getattr(theirs, f"bias_hh_l{number}").zero_()
    x = torch.randn(4, 11, 5, dtype=torch.float64, requires_grad=True)
    expected = ours.readout(theirs(x)[0][:, -1]).squeeze(-1)
    expected.square().sum().backward()
    x_grad, readout_grad = x.grad.clone(), ours.readout.weight.grad.clone()
    x.grad = None
    ours.zero_grad()
    got = ours(x, torch.ones(4, 11))
    got.square().sum().backward()
    assert torch.allclose(got, expected, atol=1e-12)
    assert torch.allclose(x.grad, x_grad, atol=1e-12)
    assert torch.allclose(ours.readout.weight.grad, readout_grad, atol=1e-12)
    for number, layer in enumerate(ours.layers):
        assert torch.allclose(layer.hidden_weight.grad.T, getattr(theirs, f"weight_hh_l{number}").grad, atol=1e-12)
        assert torch.allclose(layer.input_weight.grad.T, getattr(theirs, f"weight_ih_l{number}").grad, atol=1e-12)
        assert torch.allclose(layer.bias.grad, getattr(theirs, f"bias_ih_l{number}").grad, atol=1e-12)


def test_network_with_own_weights_equals_shared_ones_when_all_steps_agree():
    torch.manual_seed(0)
    shared, own = Recurrence(3, 4, None, "tanh", "xavier"), Recurrence(3, 4, 6, "tanh", "xavier")
    with torch.no_grad():
        for name in ("input_weight", "hidden_weight", "bias"):
            getattr(own, name).copy_(getattr(shared, name).expand_as(getattr(own, name)))
    x, mask = torch.randn(2, 6, 3), torch.ones(2, 6)
    assert torch.allclose(own(x, mask), shared(x, mask), atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("padding", [1e6, float("nan"), float("inf")])
def test_padding_values_change_no_output_and_no_gradient(variant, padding):
    seed_everything(0)
    params = {**PARAMS, **variant}
    rng = np.random.default_rng(0)
    ragged = [rng.normal(size=(n, 3)).astype(np.float32) for n in (2, 5, 9, 9)]
    steps = steps_of(params, np.array([2, 5, 9, 9]))
    model = SequenceRegressor(3, steps, 8, 2, "tanh", "uniform")
    x, mask = (torch.from_numpy(a) for a in layout(ragged, params, steps))

    def outcome(values):
        model.zero_grad()
        out = model(values, mask)
        out.square().sum().backward()
        return out.detach(), [p.grad.clone() for p in model.parameters()]

    clean = outcome(x)
    dirty = outcome(torch.where(mask.unsqueeze(-1) == 0, torch.tensor(padding), x))
    assert torch.equal(clean[0], dirty[0])
    for a, b in zip(clean[1], dirty[1], strict=True):
        assert torch.equal(a, b)


def test_prediction_does_not_depend_on_what_else_is_in_the_batch():
    seed_everything(0)
    rng = np.random.default_rng(1)
    ragged = [rng.normal(size=(n, 3)).astype(np.float32) for n in (2, 5, 9)]
    for variant in VARIANTS:
        params = {**PARAMS, **variant}
        steps = steps_of(params, np.array([2, 5, 9]))
        model = SequenceRegressor(3, steps, 8, 1, "tanh", "uniform")
        together = model(*(torch.from_numpy(a) for a in layout(ragged, params, steps)))
        for row, sequence in enumerate(ragged):
            alone = model(*(torch.from_numpy(a) for a in layout([sequence], params, steps)))
            assert torch.allclose(alone, together[row : row + 1], atol=1e-6)


def test_layouts_by_hand():
    sequence = np.array([[1.0], [2.0], [3.0]], dtype=np.float32)

    def values(params, steps):
        x, mask = layout([sequence], params, steps)
        return x[0, :, 0].tolist(), mask[0].tolist()

    assert values({"variant": "truncated", "keep": "first"}, 2) == ([1, 2], [1, 1])
    assert values({"variant": "truncated", "keep": "last"}, 2) == ([2, 3], [1, 1])
    assert values({"variant": "truncated", "keep": "last"}, 4) == ([0, 1, 2, 3], [0, 1, 1, 1])
    assert values({"variant": "padded", "align": "start"}, 4) == ([1, 2, 3, 0], [1, 1, 1, 0])
    assert values({"variant": "padded", "align": "end"}, 4) == ([0, 1, 2, 3], [0, 1, 1, 1])
    assert values({"variant": "padded", "align": "start"}, 2) == ([2, 3], [1, 1])
    assert values({"variant": "vanilla"}, None) == ([1, 2, 3], [1, 1, 1])


def test_every_sequence_is_in_one_batch_of_its_kind():
    torch.manual_seed(0)
    lengths = np.random.default_rng(0).integers(1, 50, 300)
    batches = list(_bucketed(lengths, 16))
    assert sorted(np.concatenate(batches)) == list(range(300))
    spread = np.mean([np.ptp(lengths[b]) for b in batches])
    assert spread < 15, "a batch holds similar lengths"


@pytest.fixture(scope="module")
def splits():
    from trainables.rnn import demo
    from trainables.rnn.data import pack

    made, _ = demo.make(train=400, test=100, shortest=4, longest=12, leak=0.9, noise=0.2, seed=0)
    train = pack(*made["train"])
    info = DataInfo("demo", "f", "t", {})
    return Splits(train.take(np.arange(300)), train.take(np.arange(300, 400)), pack(*made["test"]), info)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_learns_and_its_export_predicts_the_same(splits, variant, tmp_path):
    seed_everything(0)
    learner = TASK.build({**PARAMS, **variant, "layers": 1}, splits, 8, choose_device(1, 0, "fp32"))
    curve = [run_epoch(TASK, learner, splits.train, splits.val)["val_mse"] for _ in range(8)]
    # The first steps of a sequence say little: all that is asked there is not to be worse than the mean.
    assert min(curve) < (1.05 if variant.get("keep") == "first" else 0.7) * np.var(splits.val.targets)
    TASK.export(learner, splits.info, tmp_path)
    model = TASK.load(tmp_path)
    assert TASK.evaluate(model, splits.test) == TASK.evaluate(learner, splits.test)
    example = TASK.example(splits.test, splits.info)
    again = TASK.predict(model, example)["prediction"].to_numpy()
    x, mask = layout([splits.test.sequence(i) for i in range(2)], learner.params, learner.extra["steps"])
    with torch.no_grad():
        assert np.allclose(again, learner.model(torch.from_numpy(x), torch.from_numpy(mask)).numpy(), atol=1e-5)


def test_scaling_is_fitted_on_train_and_travels_with_the_weights(splits):
    learner = TASK.build(PARAMS, splits, 1, choose_device(1, 0, "fp32"))
    assert torch.allclose(learner.model.x_mean, torch.tensor(splits.train.values.mean(0)), atol=1e-5)
    assert "y_std" in learner.model.state_dict()
    assert learner.model.y_std.item() == pytest.approx(splits.train.targets.std(), rel=1e-4)


def test_ridge_beats_the_constant_and_is_told(splits):
    figures = TASK.baselines(splits)
    assert figures["ridge"] < 0.6 * figures["constant"]
    assert figures["constant"] == pytest.approx(np.var(splits.test.targets), rel=0.1)
