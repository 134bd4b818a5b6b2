"""Handlers of torch operations that hold weights: Linear, matrix products, GRU, LSTM, RNN and their cells.

To add a layer, write a function under `@handles("aten.<name>.<overload>")` that emits its graph node; the two walks
need nothing else.

Neighbours: `torch_axes.py` (Value, Builder, the table of handlers), `torch_windows.py` (convolutions), `torch_ops.py`
(the operations without weights), `torch_program.py` (calls them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from quantize.graph import Node
from quantize.torch_axes import Atom, Axis, Builder, Operand, Value, axis_size, handles
from quantize.torch_memory import along, features, innermost, solid
from quantize.torch_moves import joined, taken


def _dense(b: Builder, x: Value, axis: int, weight: Tensor, bias: Tensor | None, drop: bool = False) -> Value:
    """weight [N, M] along one axis of x, which holds features (or is the place of its single one)."""
    x, rows = along(b, x, axis)
    n = weight.shape[0]
    units = Atom(n, "feature")
    axes = list(x.axes)
    axes[axis : axis + 1] = [] if drop else [(units,)]
    params = {
        "weight": b.array(weight, "weight"),
        "bias": np.zeros(n) if bias is None else b.array(bias.reshape(-1).expand(n), "bias"),
    }
    outer = (*(atom for atom in x.memory if atom not in x.axes[axis]), units)
    return b.emit("linear", [x], axes, rows * n, {"rows": rows} if rows > 1 else {}, params, outer)


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


@handles("aten.gru.input", "aten.lstm.input", "aten.rnn_tanh.input", "aten.rnn_relu.input")
def _torch_recurrent(
    b: Builder,
    x: Operand,
    hx: Any,
    params: Sequence[Operand],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, ...]:
    """torch's own, which share their arguments: y and the last states. hx: the initial state; of an LSTM (h, c)."""
    layers = _per_layer(b, params, has_biases, num_layers, dropout, train, bidirectional)
    op, attrs = _kind(b.op)
    start = dict(zip(("initial", "initial_cell"), hx, strict=True)) if op == "lstm" else {"initial": hx}
    return tuple(_recurrent(b, x, start, layers, op, attrs, batch_first, bidirectional))


def _kind(name: str) -> tuple[str, dict[str, Any]]:
    """torch's name of a recurrent operator, of a layer or a cell: the graph's and its attributes."""
    name = name.removesuffix("_cell")
    if name == "gru":
        return "gru", {"activation": "tanh", "reset_after": True}
    return ("lstm", {}) if name == "lstm" else ("rnn", {"activation": name.removeprefix("rnn_")})


def _per_layer(
    b: Builder,
    params: Sequence[Operand],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> list[dict[str, Operand | None]]:
    """The parameters of each layer and direction, under their names of Node; of a bidirectional one the reverse comes
    second."""
    if bidirectional and not b.window:
        raise b.refusal("bidirectional=True needs the whole window; use one direction")
    if train and dropout > 0:
        raise b.refusal("was exported in training mode, where dropout acts; call model.eval() before the export")
    num_layers *= 1 + bidirectional
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
    gate_slope: float = 0.0,
) -> tuple[Value, Value]:
    layers = [{"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}]
    attrs = {"activation": activation, "reset_after": reset_after, "gate_slope": gate_slope}
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
    gate_slope: float = 0.0,
) -> tuple[Value, Value, Value]:
    layer = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
    layer["weight_peephole"] = weight_peephole
    attrs = {"gate_slope": gate_slope}
    y, h_n, c_n = _recurrent(b, x, {"initial": h0, "initial_cell": c0}, [layer], "lstm", attrs, batch_first)
    return y, h_n, c_n


def _recurrent(
    b: Builder,
    x: Operand,
    start: dict[str, Operand | None],
    layers: list[dict[str, Operand | None]],
    op: str,
    attrs: dict[str, Any],
    batch_first: bool,
    bidirectional: bool = False,
) -> list[Value]:
    """One node per layer and direction. start: the initial states, under the names of their attributes in Node.
    Returns y and the last states in the order of `start`."""
    if any(isinstance(p, Value) for layer in layers for p in layer.values()):
        raise b.refusal("computes its weights from the model's inputs; only constant weights are supported")
    if not isinstance(x, Value):
        raise b.refusal("runs over a constant sequence; only sequences that come from the model's inputs are supported")
    batched = len(x.axes) == 3
    time = 1 if batched and batch_first else 0
    streams: Axis = x.axes[1 - time] if batched else ()
    if not x.axes[time] and not b.infer and not b.window:
        raise b.refusal("runs over the last step (an axis of length 1) instead of the sequence")
    if len(x.axes[time]) > 1 and not b.window:
        raise b.refusal(f"runs over an axis that merges {b.role(x.axes[time]) or 'several axes'} as its time axis")
    b.bind(x.axes[time], "time")
    b.bind(streams, "batch")
    b.bind(x.axes[-1], "feature")
    weights = [_weights(b, layer) for layer in layers]
    if b.window:
        return _over_window(b, x, start, weights, op, attrs, time, streams, bidirectional)
    initial = {key: _initial(b, given, len(layers), streams, batched) for key, given in start.items()}
    x = innermost(b, x, [x.axes[-1]])
    width = layers[0]["weight_hh"].shape[1]
    base = b.name()
    axes = (*x.axes[:-1], (Atom(width, "feature"),))
    tensors = x.tensors
    b.check_computable([x])
    rows: dict[str, list[str]] = {key: [] for key in start}
    cells = 0
    for i, params in enumerate(weights):
        name = base if len(layers) == 1 else b.unique(f"{base}.{i}")
        own = {key: given[i] for key, given in initial.items()}
        for key, row in own.items():
            if row is not None:
                b.claim(row, f"{name}:cell" if key == "initial_cell" else name)
        b.append(Node(op, name, tensors, name, attrs | own, params, b.where), width)
        tensors = (name,)
        rows["initial"].append(name)
        if "initial_cell" in rows:
            cells = _units(params)
            rows["initial_cell"].append(_final(b, "cell", name, cells))
    y = Value(tensors, axes, width)
    lead = ((Atom(len(layers), "layer"),), *([streams] if batched else []))
    widths = {"initial": width, "initial_cell": cells}
    finals = [Value(tuple(rows[key]), (*lead, (Atom(widths[key], "feature"),)), widths[key], "h_n") for key in start]
    return [y, *finals]


def _weights(b: Builder, layer: dict[str, Operand | None]) -> dict[str, np.ndarray]:
    params = {key: b.array(p, key) for key, p in layer.items() if p is not None}
    for key in ("bias_ih", "bias_hh"):
        params.setdefault(key, np.zeros(len(params["weight_ih"])))
    return params


def _units(params: dict[str, np.ndarray]) -> int:
    """Of an LSTM: the cells, which a projection reads."""
    return params.get("weight_hr", params["weight_hh"]).shape[1]


def _final(b: Builder, op: str, node: str, width: int) -> str:
    """A node that gives a recurrent node's cell, or its last state."""
    name = b.unique(f"{node}.{op}")
    b.append(Node(op, name, (node,), name, {}, {}, b.where), width)
    return name


def _over_window(
    b: Builder,
    x: Value,
    start: dict[str, Operand | None],
    weights: list[dict[str, np.ndarray]],
    op: str,
    attrs: dict[str, Any],
    time: int,
    streams: Axis,
    bidirectional: bool,
) -> list[Value]:
    """`_recurrent` over a window that is seen whole: time lies in memory, every node begins anew."""
    directions = 1 + bidirectional
    steps, width = axis_size(x.axes[time]), weights[0]["weight_hh"].shape[1]
    clock = x.axes[time]
    given = {key: _given(b, state, len(weights), streams) for key, state in start.items()}
    finals: dict[str, list[Value]] = {key: [] for key in start}
    base = b.name()
    for layer in range(len(weights) // directions):
        x = innermost(b, x, [clock, x.axes[-1]])
        sides = []
        for direction in range(directions):
            i = layer * directions + direction
            name = base if len(weights) == 1 else b.unique(f"{base}.{layer}{'r' * direction}")
            own = _all_or_none(b, {key: states[i] for key, states in given.items()})
            inputs = (*x.tensors, *(state.tensors[0] for state in own.values()))
            how = attrs | {"initial": None, "window": steps, "reverse": bool(direction), "starts": tuple(own)}
            if "initial_cell" in start:
                how["initial_cell"] = None
            b.check_computable([x, *own.values()])
            b.append(Node(op, name, inputs, name, how, weights[i], b.where), steps * width)
            units = Atom(width, "feature")
            sides.append(Value((name,), (*x.axes[:-1], (units,)), steps * width, order=(*features(clock), units)))
            for key, rows in finals.items():
                size = width if key == "initial" else _units(weights[i])
                last = _final(b, "final" if key == "initial" else "cell", name, size)
                axes = ((), *([streams] if len(x.axes) == 3 else []), (Atom(size, "feature"),))
                rows.append(Value((last,), axes, size))
        x = sides[0] if not bidirectional else joined(b, sides, len(x.axes) - 1)
    return [x, *(joined(b, rows, 0) for rows in finals.values())]


def _all_or_none(b: Builder, states: dict[str, Value | None]) -> dict[str, Value]:
    """The states that a node over a window is given; an LSTM's come together."""
    if not b.infer and len({state is None for state in states.values()}) > 1:
        raise b.refusal("starts from one state that is zero and another that is not; give both, or none")
    return {key: state for key, state in states.items() if state is not None}


def _given(b: Builder, h0: Operand | None, count: int, streams: Axis) -> list[Value | None]:
    """The initial states of a window's layers: parts of a tensor, or None for zeros."""
    if isinstance(h0, Value):
        if len(h0.axes) == 3 and h0.axes[1]:
            b.bind(h0.axes[1], "batch")
        b.bind(h0.axes[0], "feature")
        b.bind(h0.axes[-1], "feature")
        if b.infer:
            return [None] * count
        return [solid(b, taken(b, h0, 0, i, i + 1, drop=True)) for i in range(count)]
    return _initial(b, h0, count, streams, False)


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


# --- cells ----------------------------------------------------------------------------------------------------------


@handles("aten.gru_cell.default", "aten.rnn_tanh_cell.default", "aten.rnn_relu_cell.default")
def _torch_cell(b: Builder, x: Operand, h: Operand, *params: Operand) -> Value:
    return _cell(b, x, {"initial": h}, params, *_kind(b.op))[0]


@handles("aten.lstm_cell.default")
def _lstm_cell(b: Builder, x: Operand, hc: Sequence[Operand], *params: Operand) -> tuple[Value, ...]:
    return tuple(_cell(b, x, {"initial": hc[0], "initial_cell": hc[1]}, params, *_kind(b.op)))


def _cell(
    b: Builder,
    x: Operand,
    start: dict[str, Operand],
    params: Sequence[Operand],
    op: str,
    attrs: dict[str, Any],
) -> list[Value]:
    """One step of a recurrent layer: the new states, in the order of `start`. In a stream its state has to be the
    model's argument; in a window it may be anything, and a loop over the steps becomes one layer again (fold.py)."""
    if any(isinstance(p, Value) for p in params) or not isinstance(x, Value):
        raise b.refusal("computes its weights from the model's inputs; only constant weights are supported")
    weights = _weights(b, dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), params, strict=False)))
    streams: Axis = x.axes[0] if len(x.axes) == 2 else ()
    b.bind(x.axes[-1], "feature")
    b.bind(streams, "batch")
    units = weights["weight_hh"].shape[1]
    name = b.name()
    if b.window:
        own = _all_or_none(b, {key: _cell_state(b, h, streams) for key, h in start.items()})
        x = innermost(b, x, [x.axes[-1]])
        b.check_computable([x, *own.values()])
        how = attrs | {"window": 1, "reverse": False, "starts": tuple(own)} | dict.fromkeys(start)
        inputs = (*x.tensors, *(state.tensors[0] for state in own.values()))
    else:
        x = innermost(b, x, [x.axes[-1]])
        how = attrs | {key: _claimed(b, h, streams, key, name) for key, h in start.items()}
        inputs = x.tensors
    b.append(Node(op, name, inputs, name, how, weights, b.where), units)
    axes = (*x.axes[:-1], (Atom(units, "feature"),))
    outputs = [Value((name,), axes, units)]
    if "initial_cell" in start:
        outputs.append(Value((_final(b, "cell", name, units),), axes, units))
    return outputs


def _cell_state(b: Builder, h: Operand, streams: Axis) -> Value | None:
    if not isinstance(h, Value):
        return _initial(b, h, 1, streams, False)[0]
    b.bind(h.axes[-1], "feature")
    if len(h.axes) == 2:
        b.bind(h.axes[0], "batch")
    return solid(b, h)


def _claimed(b: Builder, h: Operand, streams: Axis, key: str, node: str) -> tuple[str, int] | None:
    """The state argument that a cell of a stream begins with."""
    if not isinstance(h, Value) or h.kind not in ("argument", "initial"):
        raise b.refusal(
            "is one step of a loop inside the model; as a stream its state must be an argument of the model and a "
            "result, and the loop yours: one call per frame"
        )
    if streams and len(h.axes) == 2:
        b.join(h.axes[0], streams)
    b.bind(h.axes[-1], "feature")
    if b.infer:
        b.states.update(h.tensors)
        return None
    (row,) = h.tensors
    b.claim(row, f"{node}:cell" if key == "initial_cell" else node)
    return row
