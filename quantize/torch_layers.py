"""Handlers of torch operations that hold weights: Linear, matrix products, GRU.

To add a layer, write a function under `@handles("aten.<name>.<overload>")` that emits its graph node; the two walks
need nothing else.

Neighbours: `torch_axes.py` (Value, Builder, the table of handlers), `torch_ops.py` (the operations without weights),
`torch_program.py` (calls them).
"""

from __future__ import annotations

from collections.abc import Sequence

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
    if bidirectional:
        raise b.refusal("bidirectional=True needs the whole window; use one direction")
    if train and dropout > 0:
        raise b.refusal("was exported in training mode, where dropout acts; call model.eval() before the export")
    per_layer = len(params) // num_layers
    layers = [list(params[i * per_layer : (i + 1) * per_layer]) for i in range(num_layers)]
    layers = [layer if has_biases else [*layer, None, None] for layer in layers]
    return _gru(b, x, h0, layers, "tanh", True, batch_first)


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
    layers = [[weight_ih, weight_hh, bias_ih, bias_hh]]
    return _gru(b, x, h0, layers, activation, reset_after, batch_first)


def _gru(
    b: Builder,
    x: Operand,
    h0: Operand | None,
    layers: list[list[Operand | None]],
    activation: str,
    reset_after: bool,
    batch_first: bool,
) -> tuple[Value, Value]:
    """One gru node per layer, each with its weight_ih, weight_hh, bias_ih, bias_hh; (y, h_n)."""
    if any(isinstance(p, Value) for layer in layers for p in layer):
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
    initial = _initial(b, h0, len(layers), streams, batched)

    n = layers[0][1].shape[1]
    base = b.name()
    axes = (*x.axes[:-1], (Atom(n, "feature"),))
    tensors = x.tensors
    b.check_computable([x])
    states = []
    for i, (weight_ih, weight_hh, bias_ih, bias_hh) in enumerate(layers):
        name = base if len(layers) == 1 else b.unique(f"{base}.{i}")
        params = {"weight_ih": b.array(weight_ih, "weight_ih"), "weight_hh": b.array(weight_hh, "weight_hh")}
        for key, bias in (("bias_ih", bias_ih), ("bias_hh", bias_hh)):
            params[key] = np.zeros(3 * n) if bias is None else b.array(bias, key)
        attrs = {"activation": activation, "reset_after": reset_after, "initial": initial[i]}
        if initial[i] is not None:
            b.claim(initial[i], name)
        b.append(Node("gru", name, tensors, name, attrs, params, b.where), n)
        tensors = (name,)
        states.append(name)
    h_axes = ((Atom(len(layers), "layer"),), *([streams] if batched else []), axes[-1])
    return Value(tensors, axes, n), Value(tuple(states), h_axes, n, "h_n")


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
