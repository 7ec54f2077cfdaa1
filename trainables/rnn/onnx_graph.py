"""Writes a sequence regressor as an ONNX graph for any number of sequences of any length.

torch.onnx would unroll the loop over steps, and fix their number. The graph is therefore built here: ONNX has operators
for layers of GRU, LSTM and simple cells, and `Scan` for layers with separate weights for each step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainables.rnn.plain import Gated, Layer, Portable

#: The versions of ONNX's operators and of its file format. onnxruntime 1.18 (2024) reads both.
OPSET, FORMAT = 18, 10
#: The order of the gates in ONNX by their positions in torch: GRU r z n -> z r n, LSTM i f g o -> i o f g.
GATES = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}


def write(portable: Portable, path: Path) -> None:
    """Writes a graph with the inputs and the output of `Portable`.

    Inputs: `sequences` float32 (batch, time, features), padded at the end with any values, and `lengths` int64
    (batch,). Output: `predictions` float32 (batch,).
    """
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph()
    graph.add("Identity", _predictions(graph, portable), output="predictions")
    shape = ["batch", "time", len(portable.x_mean)]
    whole = helper.make_graph(
        graph.nodes,
        "model",
        [
            helper.make_tensor_value_info("sequences", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"]),
        ],
        [helper.make_tensor_value_info("predictions", TensorProto.FLOAT, ["batch"])],
        graph.constants,
    )
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FORMAT)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


class _Graph:
    """Nodes and constants of a graph. Methods return the name of a value."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, output: str = "", outputs: int = 1, **attributes: Any) -> str:
        """Adds a node; returns the name of its last output. The outputs before it have no use."""
        from onnx import helper

        name = output or f"{operator}{len(self.nodes)}"
        names = [*(f"{name}_{number}" for number in range(outputs - 1)), name]
        self.nodes.append(helper.make_node(operator, [*inputs], names, **attributes))
        return name

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Adds a constant: an array, a tensor or a number."""
        from onnx import numpy_helper

        array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value, dtype=dtype)
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def whole(self, value: int | list[int]) -> str:
        """Adds a constant of int64."""
        return self.constant(value, np.int64)

    def gather(self, values: str, rows: str, columns: str) -> str:
        """values[rows, columns] for values (time, batch, features), with `rows` and `columns` (..., batch)."""
        columns = self.add("Expand", columns, self.add("Shape", rows))
        last = self.whole([-1])
        pairs = self.add("Concat", *(self.add("Unsqueeze", part, last) for part in (rows, columns)), axis=-1)
        return self.add("GatherND", values, pairs)


def _predictions(graph: _Graph, portable: Portable) -> str:
    """Adds `Portable.forward`; see there."""
    zero, one = graph.whole(0), graph.whole(1)
    steps_first = graph.add("Transpose", "sequences", perm=[1, 0, 2])
    given = graph.add("Squeeze", graph.add("Shape", steps_first, start=0, end=1))
    batch = graph.add("Squeeze", graph.add("Shape", "lengths"))
    columns = graph.add("Range", zero, batch, one)
    time = graph.whole(portable.steps) if portable.steps else given
    used = graph.add("Min", "lengths", time)
    step = graph.add("Unsqueeze", graph.add("Range", zero, time, one), graph.whole([1]))
    if not portable.behind:
        step = graph.add("Sub", step, graph.add("Sub", time, used))
    inside = graph.add("And", graph.add("GreaterOrEqual", step, zero), graph.add("Less", step, used))
    rows = step if portable.first else graph.add("Add", step, graph.add("Sub", "lengths", used))
    x = graph.gather(steps_first, graph.add("Where", inside, rows, zero), columns)
    each = graph.add("Unsqueeze", inside, graph.whole([-1]))
    scaled = graph.add("Div", graph.add("Sub", x, graph.constant(portable.x_mean)), graph.constant(portable.x_std))
    x = graph.add("Where", each, scaled, graph.constant(0.0, np.float32))
    present = graph.add("Cast", each, to=1)
    for layer in portable.layers:
        x = _layer(graph, layer, x, present, used)
    end = graph.add("Sub", used if portable.behind else graph.add("Expand", time, graph.add("Shape", used)), one)
    last = graph.gather(x, end, columns)
    out = graph.add("MatMul", last, graph.constant(portable.readout_weight))
    for operator, value in (("Add", portable.readout_bias), ("Mul", portable.y_std), ("Add", portable.y_mean)):
        out = graph.add(operator, out, graph.constant(value))
    if len(portable.ridge_weights):
        out = graph.add("Add", out, _ridge(graph, portable, steps_first, columns))
    return out


def _layer(graph: _Graph, layer: nn.Module, x: str, present: str, used: str) -> str:
    """The states (time, batch, hidden) of a layer for its inputs x (time, batch, features)."""
    if isinstance(layer, Gated):
        for cell in layer.cells:
            x = _cell(graph, cell, x, used)
        return x
    assert isinstance(layer, Layer)
    if not layer.shared:
        return _separate(graph, layer, x, present)
    weight, recurrent = (w.transpose(1, 2) for w in (layer.input_weight, layer.hidden_weight))
    bias = torch.cat([layer.bias, torch.zeros_like(layer.bias)], 1)
    activations = ["Relu" if layer.relu else "Tanh"]
    return _states(graph, "RNN", [weight, recurrent, bias], x, used, activations=activations)


def _cell(graph: _Graph, cell: Any, x: str, used: str) -> str:
    """The states of an `nn.GRU` or `nn.LSTM` of one layer."""

    def ordered(values: torch.Tensor) -> torch.Tensor:
        parts = values.chunk(len(GATES[cell.mode]))
        return torch.cat([parts[gate] for gate in GATES[cell.mode]])[None]

    weights = [ordered(cell.weight_ih_l0), ordered(cell.weight_hh_l0)]
    biases = torch.cat([ordered(cell.bias_ih_l0), ordered(cell.bias_hh_l0)], 1)
    # torch multiplies the reset gate with the product of state and weights, not with the state.
    attributes = {"linear_before_reset": 1} if cell.mode == "GRU" else {}
    return _states(graph, cell.mode, [*weights, biases], x, used, **attributes)


def _states(graph: _Graph, operator: str, weights: list[torch.Tensor], x: str, used: str, **attributes: Any) -> str:
    """The states of an operator RNN, GRU or LSTM; behind the end of a sequence they are zero."""
    constants = [graph.constant(weight) for weight in weights]
    hidden = weights[1].shape[-1]
    lengths = graph.add("Cast", used, to=6)
    states = graph.add(operator, x, *constants, lengths, hidden_size=hidden, **attributes)
    return graph.add("Squeeze", states, graph.whole([1]))


def _separate(graph: _Graph, layer: Layer, x: str, present: str) -> str:
    """The states of a layer with separate weights for each step, as `Layer.forward`."""
    from onnx import TensorProto, helper

    driven = graph.add("MatMul", x, graph.constant(layer.input_weight))
    driven = graph.add("Add", driven, graph.constant(layer.bias.unsqueeze(1)))
    first = graph.add("Gather", driven, graph.whole(0), axis=0)
    start = graph.add("ConstantOfShape", graph.add("Shape", first))
    parts = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("h", "d", "u", "p")]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("after", "state")]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "u"], ["product"]),
            helper.make_node("Add", ["d", "product"], ["sum"]),
            helper.make_node("Relu" if layer.relu else "Tanh", ["sum"], ["active"]),
            helper.make_node("Mul", ["active", "p"], ["after"]),
            helper.make_node("Identity", ["after"], ["state"]),
        ],
        "step",
        parts,
        results,
    )
    return graph.add(
        "Scan", start, driven, graph.constant(layer.hidden_weight), present, outputs=2, body=body, num_scan_inputs=3
    )


def _ridge(graph: _Graph, portable: Portable, steps_first: str, columns: str) -> str:
    """The predictions of ridge regression, as `Portable.start`."""
    count = len(portable.ridge_weights)
    rows = graph.add("Add", graph.whole(np.arange(-count, 0)[:, None].tolist()), "lengths")
    steps = graph.gather(steps_first, graph.add("Max", rows, graph.whole(0)), columns)
    there = graph.add("Unsqueeze", graph.add("GreaterOrEqual", rows, graph.whole(0)), graph.whole([-1]))
    x = graph.add("Where", there, graph.add("Cast", steps, to=11), graph.constant(portable.ridge_fill, np.float64))
    products = graph.add("Mul", x, graph.constant(portable.ridge_weights, np.float64))
    out = graph.add("ReduceSum", products, graph.whole([0, 2]), keepdims=0)
    out = graph.add("Add", out, graph.constant(portable.ridge_bias, np.float64))
    out = graph.add("Max", out, graph.constant(portable.least, np.float64))
    out = graph.add("Min", out, graph.constant(portable.most, np.float64))
    return graph.add("Cast", out, to=1)
