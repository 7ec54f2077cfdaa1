import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainables.conftest import assert_is_timed, assert_units_add_up
from trainables import DataInfo, Splits
from trainables.base.batches import rows_on
from trainables.base.device import choose_device
from trainables.base.training import run_epoch, seed_everything
from trainables.rnn.data import pack
from trainables.rnn.model import Recurrence, SequenceRegressor, Sequences, layout, steps_of
from trainables.rnn.task import TASK, bucketed_batches

PARAMS = {
    "variant": "vanilla", "keep": None, "align": None, "hidden": 8, "layers": 2, "activation": "tanh",
    "init": "uniform", "optimizer": "adam", "lr": 0.01, "weight_decay": 0.0, "schedule": "constant", "clip_norm": 1.0,
    "batch_size": 16, "input_noise": 0.0,
}  # fmt: skip
VARIANTS = [
    {"variant": "vanilla"}, {"variant": "truncated", "keep": "last"}, {"variant": "truncated", "keep": "first"},
    {"variant": "padded", "align": "start"}, {"variant": "padded", "align": "end"},
]  # fmt: skip


def laid_out(split, index, params, steps):
    cpu = torch.device("cpu")
    return layout(Sequences.of(split, cpu), rows_on(cpu, [index])[0], params, steps)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("layers", [1, 3])
def test_recurrence_equals_torch_rnn(activation, layers):
    torch.manual_seed(0)
    ours = SequenceRegressor(
        5, None, {"hidden": 7, "layers": layers, "activation": activation, "init": "uniform"}
    ).double()
    theirs = torch.nn.RNN(5, 7, layers, nonlinearity=activation).double()
    with torch.no_grad():
        for number, layer in enumerate(ours.layers):
            getattr(theirs, f"weight_ih_l{number}").copy_(layer.input_weight.T)
            getattr(theirs, f"weight_hh_l{number}").copy_(layer.hidden_weight.T)
            layer.bias.uniform_(-1, 1)
            getattr(theirs, f"bias_ih_l{number}").copy_(layer.bias)
            getattr(theirs, f"bias_hh_l{number}").zero_()
    x = torch.randn(11, 4, 5, dtype=torch.float64, requires_grad=True)
    expected = theirs(x)[0][-1] @ ours.readout_weight + ours.readout_bias
    expected.square().sum().backward()
    x_grad, readout_grad = x.grad.clone(), ours.readout_weight.grad.clone()
    x.grad = None
    ours.zero_grad()
    got = ours(x, torch.ones(11, 4), False)
    got.square().sum().backward()
    assert torch.allclose(got, expected, atol=1e-12)
    assert torch.allclose(x.grad, x_grad, atol=1e-12)
    assert torch.allclose(ours.readout_weight.grad, readout_grad, atol=1e-12)
    for number, layer in enumerate(ours.layers):
        assert torch.allclose(layer.hidden_weight.grad.T, getattr(theirs, f"weight_hh_l{number}").grad, atol=1e-12)
        assert torch.allclose(layer.input_weight.grad.T, getattr(theirs, f"weight_ih_l{number}").grad, atol=1e-12)
        assert torch.allclose(layer.bias.grad, getattr(theirs, f"bias_ih_l{number}").grad, atol=1e-12)


def test_recurrence_equal_weights_of_steps():
    torch.manual_seed(0)
    shared, own = Recurrence(3, 4, None, "tanh", "xavier"), Recurrence(3, 4, 6, "tanh", "xavier")
    with torch.no_grad():
        for name in ("input_weight", "hidden_weight", "bias"):
            getattr(own, name).copy_(getattr(shared, name).expand_as(getattr(own, name)))
    x = torch.randn(6, 1, 2, 3)
    assert torch.allclose(own(x), shared(x), atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("padding", [1e6, float("nan"), float("inf")])
def test_padding_values_change_no_output_and_no_gradient(variant, padding):
    seed_everything(0)
    params = {**PARAMS, **variant}
    rng = np.random.default_rng(0)
    ragged = pack([rng.normal(size=(n, 3)) for n in (2, 5, 9, 9)], np.zeros(4))
    steps = steps_of(params, ragged.lengths)
    model = SequenceRegressor(3, steps, {"hidden": 8, "layers": 2, "activation": "tanh", "init": "uniform"})
    x, mask, front = laid_out(ragged, np.arange(4), params, steps)

    def outcome(values):
        model.zero_grad()
        out = model(values, mask, front)
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
    ragged = pack([rng.normal(size=(n, 3)) for n in (2, 5, 9)], np.zeros(3))
    for variant in VARIANTS:
        params = {**PARAMS, **variant}
        steps = steps_of(params, ragged.lengths)
        model = SequenceRegressor(3, steps, {"hidden": 8, "layers": 1, "activation": "tanh", "init": "uniform"})
        together = model(*laid_out(ragged, np.arange(3), params, steps))
        for row in range(3):
            alone = model(*laid_out(ragged, np.array([row]), params, steps))
            assert torch.allclose(alone, together[row : row + 1], atol=1e-6)


def test_layouts_by_hand():
    split = pack([np.full((4, 1), 9.0), np.array([[1.0], [2.0], [3.0]])], np.zeros(2))

    def values(params, steps):
        x, mask, _ = laid_out(split, np.array([1]), params, steps)
        return np.where(mask, x[:, :, 0], 0)[:, 0].tolist(), mask[:, 0].tolist()

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
    batches = bucketed_batches(lengths, 16, epoch=1)
    assert sorted(np.concatenate(batches)) == list(range(300))
    spread = np.mean([np.ptp(lengths[b]) for b in batches])
    assert spread < 15, "a batch holds similar lengths"
    others = bucketed_batches(lengths, 16, epoch=1)
    assert any(set(a) != set(b) for a, b in zip(batches, others, strict=True)), "who meets is drawn anew"
    assert [len(b) for b in batches] == [len(b) for b in others], "short and long batches come in the same order"
    apart = [abs(lengths[a].mean() - lengths[b].mean()) for a, b in zip(batches, others, strict=True)]
    assert np.mean(apart) < 3


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_learns_and_its_export_predicts_the_same(sequences, variant, tmp_path):
    seed_everything(0)
    learner = TASK.build({**PARAMS, **variant, "layers": 1}, sequences, 8, choose_device(1, 0, "fp32"))
    curve = [run_epoch(TASK, learner, sequences.train, sequences.val)["val_mse"] for _ in range(8)]
    # The first steps of a sequence say little: all that is asked there is not to be worse than the mean.
    assert min(curve) < (1.05 if variant.get("keep") == "first" else 0.7) * np.var(sequences.val.targets)
    assert_units_add_up(TASK, learner, sequences.test)
    TASK.export(learner, sequences.info, tmp_path)
    model = TASK.load(tmp_path)
    assert TASK.evaluate(model, sequences.test) == TASK.evaluate(learner, sequences.test)
    example = TASK.example(sequences.test, sequences.info)
    again = TASK.predict(model, example)["prediction"].to_numpy()
    laid = laid_out(sequences.test, np.arange(2), learner.params, learner.extra["steps"])
    with torch.no_grad():
        assert np.allclose(again, learner.model(*laid).numpy(), atol=1e-5)


@pytest.mark.parametrize("cell", ["simple", "gru", "lstm"])
def test_any_precision_trains(sequences, cell):
    learner = TASK.build({**PARAMS, "cell": cell, "layers": 2}, sequences, 1, choose_device(1, 0, "bf16"))
    assert np.isfinite(run_epoch(TASK, learner, sequences.train, sequences.val)["val_mse"])


def test_scaling_is_fitted_on_train_and_travels_with_the_weights(sequences):
    learner = TASK.build(PARAMS, sequences, 1, choose_device(1, 0, "fp32"))
    assert torch.allclose(learner.model.x_mean, torch.tensor(sequences.train.values.mean(0)), atol=1e-5)
    assert "y_std" in learner.model.state_dict()
    assert learner.model.y_std.item() == pytest.approx(sequences.train.targets.std(), rel=1e-4)


def test_units_of_the_target_and_of_inputs_change_nothing(sequences):
    def error(scale):
        parts = (
            replace(part, values=part.values * np.float32(scale), targets=part.targets * np.float32(scale))
            for part in (sequences.train, sequences.val, sequences.test)
        )
        scaled = Splits(*parts, sequences.info)
        seed_everything(0)
        learner = TASK.build(PARAMS, scaled, 1, choose_device(1, 0, "fp32"))
        found = run_epoch(TASK, learner, scaled.train, scaled.val)["val_mse"] / scale**2
        return found, TASK.baselines(scaled)["ridge"] / scale**2

    assert error(2.0**-50) == pytest.approx(error(1.0), rel=1e-3), "nanometres given in metres, say"


def test_ridge_beats_the_constant_and_is_told(sequences):
    figures = TASK.baselines(sequences)
    assert figures["ridge"] < 0.6 * figures["constant"]
    assert figures["constant"] == pytest.approx(np.var(sequences.test.targets), rel=0.1)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gated_cells_read_each_sequence_to_its_own_end(cell):
    """Padding behind a sequence changes nothing, whatever it holds; an export predicts the same."""
    params = {**PARAMS, "cell": cell, "dropout": 0.2, "layers": 2}
    rng = np.random.default_rng(0)
    short, long = rng.normal(size=(3, 2)), rng.normal(size=(9, 2))
    seed_everything(0)
    model = SequenceRegressor(2, None, params).eval()
    alone, together = pack([short], np.zeros(1)), pack([short, long], np.zeros(2))
    one = model(*laid_out(alone, np.array([0]), params, None))
    x, mask, front = laid_out(together, np.array([0, 1]), params, None)
    x[3:, 0] = np.nan
    both = model(x, mask, front)
    assert torch.allclose(one[0], both[0], atol=1e-6)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gated_cells_train_continue_and_are_exported(cell, tmp_path):
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(n, 2)) for n in rng.integers(3, 9, 40)]
    split = pack(sequences, np.array([s[-1, 0] for s in sequences]))
    splits = Splits(split, split, split, DataInfo("s", "f", "t", {}))
    params = {**PARAMS, "cell": cell, "dropout": 0.2, "momentum": None}

    def learner():
        seed_everything(0)
        return TASK.build(params, splits, 4, choose_device(1, 0, "fp32"))

    whole = learner()
    first = run_epoch(TASK, whole, split, split)
    saved = copy.deepcopy(whole.state_dict())
    second = run_epoch(TASK, whole, split, split)
    assert second["val_mse"] < first["val_mse"]
    resumed = learner()
    resumed.load_state_dict(saved)
    assert run_epoch(TASK, resumed, split, split)["val_mse"] == second["val_mse"]
    TASK.export(whole, splits.info, tmp_path)
    frame = TASK.example(split, splits.info)
    assert np.allclose(TASK.predict(TASK.load(tmp_path), frame), TASK.predict(whole, frame))
    assert TASK.shape(params) is None, "a stack has no such cells"


@pytest.mark.parametrize("variant", VARIANTS)
def test_latency_of_a_sequence(sequences, variant):
    learner = TASK.build({**PARAMS, **variant}, sequences, 8, choose_device(1, 0, "fp32"))
    assert_is_timed(TASK, learner, sequences.val)
