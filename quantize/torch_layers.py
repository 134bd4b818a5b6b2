"""Handlers of torch operations that hold weights: Linear, matrix products, GRU, LSTM, RNN.

To add a layer, write a function under `@handles("aten.<name>.<overload>")` that emits its graph node; the two walks
need nothing else.

Neighbours: `torch_axes.py` (Value, Builder, the table of handlers), `torch_ops.py` (the operations without weights),
`torch_program.py` (calls them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from quantize.graph import Node
from quantize.torch_axes import Atom, Axis, Builder, Operand, Value, handles


def _dense(b: Builder, x: Value, axis: int, weight: Tensor, bias: Tensor | None, drop: bool = False) -> Value:
    """weight [N, M] along one axis of x, which must hold its features (or be the place of its single one)."""
    if x.axes[axis]:
        b.bind(x.axes[axis], "feature")
    if b.feature_axis(x) not in (axis, None):
        raise b.refusal("is applied along an axis that is not the feature axis")
    rows = weight.shape[0]
    axes = list(x.axes)
    axes[axis : axis + 1] = [] if drop else [(Atom(rows, "feature"),)]
    params = {
        "weight": b.array(weight, "weight"),
        "bias": np.zeros(rows) if bias is None else b.array(bias.reshape(-1).expand(rows), "bias"),
    }
    return b.emit("linear", [x], axes, rows, params=params)


@handles("aten.linear.default")
def _linear(b: Builder, x: Operand, weight: Operand, bias: Operand | None = None) -> Value:
    if not isinstance(x, Value) or isinstance(weight, Value) or isinstance(bias, Value):
        raise b.refusal("computes its weights from the model's inputs; only constant weights are supported")
    return _dense(b, x, len(x.axes) - 1, weight.reshape(-1, weight.shape[-1]), bias, drop=weight.dim() == 1)


@handles("aten.matmul.default", "aten.mm.default", "aten.mv.default", "aten.bmm.default")
def _matmul(b: Builder, left: Operand, right: Operand) -> Value:
    if isinstance(left, Value) and isinstance(right, Tensor) and right.dim() <= 2:
        weight = right[None] if right.dim() == 1 else right.T
        return _dense(b, left, len(left.axes) - 1, weight, None, drop=right.dim() == 1)
    if isinstance(right, Value) and isinstance(left, Tensor) and left.dim() <= 2:
        axis = max(len(right.axes) - 2, 0)
        return _dense(b, right, axis, left.reshape(-1, left.shape[-1]), None, drop=left.dim() == 1)
    raise b.refusal(
        "multiplies matrices that both depend on the inputs (or stacks of matrices); one must be a constant matrix"
    )


@handles("aten.addmm.default")
def _addmm(b: Builder, bias: Operand, left: Operand, right: Operand, *, beta: float = 1, alpha: float = 1) -> Value:
    constant = isinstance(right, Tensor) and isinstance(bias, Tensor)
    if isinstance(left, Value) and constant and (bias.dim() < 2 or bias.shape[0] == 1):
        return _dense(b, left, 1, right.T * alpha, bias * beta)
    raise b.refusal("is supported as addmm(bias [N], x, constant weight [M, N]) only")


@handles("aten.gru.input")
def _torch_gru(
    b: Builder,
    x: Operand,
    h0: Operand,
    params: Sequence[Operand],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, Value]:
    layers = _per_layer(b, params, has_biases, num_layers, dropout, train, bidirectional)
    attrs = {"activation": "tanh", "reset_after": True}
    y, h_n = _recurrent(b, x, {"initial": h0}, layers, "gru", attrs, batch_first)
    return y, h_n


@handles("aten.lstm.input")
def _torch_lstm(
    b: Builder,
    x: Operand,
    hx: Sequence[Operand],
    params: Sequence[Operand],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, Value, Value]:
    layers = _per_layer(b, params, has_biases, num_layers, dropout, train, bidirectional)
    initial = {"initial": hx[0], "initial_cell": hx[1]}
    y, h_n, c_n = _recurrent(b, x, initial, layers, "lstm", {}, batch_first)
    return y, h_n, c_n


@handles("aten.rnn_tanh.input", "aten.rnn_relu.input")
def _torch_rnn(
    b: Builder,
    x: Operand,
    h0: Operand,
    params: Sequence[Operand],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, Value]:
    layers = _per_layer(b, params, has_biases, num_layers, dropout, train, bidirectional)
    attrs = {"activation": b.op.removeprefix("rnn_")}
    y, h_n = _recurrent(b, x, {"initial": h0}, layers, "rnn", attrs, batch_first)
    return y, h_n


def _per_layer(
    b: Builder,
    params: Sequence[Operand],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> list[dict[str, Operand | None]]:
    """The parameters of each layer, under their names of Node."""
    if bidirectional:
        raise b.refusal("bidirectional=True needs the whole window; use one direction")
    if train and dropout > 0:
        raise b.refusal("was exported in training mode, where dropout acts; call model.eval() before the export")
    count = len(params) // num_layers
    names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if has_biases else []), "weight_hr"]
    layers = [dict(zip(names, params[i * count : (i + 1) * count], strict=False)) for i in range(num_layers)]
    return [{"bias_ih": None, "bias_hh": None} | layer for layer in layers]


@handles("rtcore.gru.default")
def _own_gru(
    b: Builder,
    x: Operand,
    h0: Operand | None,
    weight_ih: Operand,
    weight_hh: Operand,
    bias_ih: Operand | None,
    bias_hh: Operand | None,
    activation: str,
    reset_after: bool,
    batch_first: bool,
) -> tuple[Value, Value]:
    layers = [{"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}]
    attrs = {"activation": activation, "reset_after": reset_after}
    y, h_n = _recurrent(b, x, {"initial": h0}, layers, "gru", attrs, batch_first)
    return y, h_n


@handles("rtcore.lstm.default")
def _own_lstm(
    b: Builder,
    x: Operand,
    h0: Operand | None,
    c0: Operand | None,
    weight_ih: Operand,
    weight_hh: Operand,
    bias_ih: Operand | None,
    bias_hh: Operand | None,
    weight_peephole: Operand | None,
    coupled: bool,
    batch_first: bool,
) -> tuple[Value, Value, Value]:
    layer = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
    layer["weight_peephole"] = weight_peephole
    y, h_n, c_n = _recurrent(b, x, {"initial": h0, "initial_cell": c0}, [layer], "lstm", {}, batch_first)
    return y, h_n, c_n


def _recurrent(
    b: Builder,
    x: Operand,
    start: dict[str, Operand | None],
    layers: list[dict[str, Operand | None]],
    op: str,
    attrs: dict[str, Any],
    batch_first: bool,
) -> list[Value]:
    """One node per layer. start: the initial states, under the names of their attributes in Node. Returns y and the
    last states in the order of `start`."""
    if any(isinstance(p, Value) for layer in layers for p in layer.values()):
        raise b.refusal("computes its weights from the model's inputs; only constant weights are supported")
    if not isinstance(x, Value):
        raise b.refusal("runs over a constant sequence; only sequences that come from the model's inputs are supported")
    batched = len(x.axes) == 3
    time = 1 if batched and batch_first else 0
    streams: Axis = x.axes[1 - time] if batched else ()
    if not x.axes[time] and not b.infer:
        raise b.refusal("runs over the last step (an axis of length 1) instead of the sequence")
    if len(x.axes[time]) > 1:
        raise b.refusal(f"runs over an axis that merges {b.role(x.axes[time]) or 'several axes'} as its time axis")
    b.bind(x.axes[time], "time")
    b.bind(streams, "batch")
    b.bind(x.axes[-1], "feature")
    initial = {key: _initial(b, given, len(layers), streams, batched) for key, given in start.items()}

    width = layers[0]["weight_hh"].shape[1]
    base = b.name()
    axes = (*x.axes[:-1], (Atom(width, "feature"),))
    tensors = x.tensors
    b.check_computable([x])
    rows: dict[str, list[str]] = {key: [] for key in start}
    cells = 0
    for i, layer in enumerate(layers):
        name = base if len(layers) == 1 else b.unique(f"{base}.{i}")
        params = {key: b.array(p, key) for key, p in layer.items() if p is not None}
        for key in ("bias_ih", "bias_hh"):
            params.setdefault(key, np.zeros(len(params["weight_ih"])))
        own = {key: given[i] for key, given in initial.items()}
        for key, row in own.items():
            if row is not None:
                b.claim(row, f"{name}:cell" if key == "initial_cell" else name)
        b.append(Node(op, name, tensors, name, attrs | own, params, b.where), width)
        tensors = (name,)
        rows["initial"].append(name)
        if "initial_cell" in rows:
            cells = params.get("weight_hr", params["weight_hh"]).shape[1]
            cell = b.unique(f"{name}.cell")
            b.append(Node("cell", cell, tensors, cell, {}, {}, b.where), cells)
            rows["initial_cell"].append(cell)
    y = Value(tensors, axes, width)
    lead = ((Atom(len(layers), "layer"),), *([streams] if batched else []))
    widths = {"initial": width, "initial_cell": cells}
    finals = [Value(tuple(rows[key]), (*lead, (Atom(widths[key], "feature"),)), widths[key], "h_n") for key in start]
    return [y, *finals]


def _initial(b: Builder, h0: Operand | None, count: int, streams: Axis, batched: bool) -> list[tuple[str, int] | None]:
    """Per layer the state argument's row that it starts from, or None for zeros."""
    if h0 is None:
        return [None] * count
    if isinstance(h0, Tensor):
        if h0.any():
            raise b.refusal(
                "starts from a constant initial state that is not zero (learned, or set in forward); make the state an "
                "argument of the model, or start from zeros"
            )
        return [None] * count
    if h0.kind not in ("argument", "initial"):
        raise b.refusal(
            "starts from a state that the model computes (another layer's output or final state); the initial state "
            "must be an argument of the model, or zeros"
        )
    if h0.axes[0]:
        b.bind(h0.axes[0], "layer")
    if batched:
        if streams:
            b.join(h0.axes[1], streams)
        elif h0.axes[1]:
            b.bind(h0.axes[1], "one")
    b.bind(h0.axes[-1], "feature")
    if b.infer:
        b.states.update(h0.tensors)
        return [None] * count
    return list(h0.tensors)
