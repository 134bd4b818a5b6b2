"""The float reference: runs an imported graph in float64 (or float32) on numpy alone.

This is what calibration observes and what the fixed-point net is compared with, so that neither needs torch or the
length that an export saw. Streams are computed side by side, steps one after the other.

Neighbours: `graph.py` (what runs), `float_windows.py` (convolutions and other moves over positions), `signature.py`
(axes), `ranges.py` (observes), `firmware_sim/compare.py` (compares).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from quantize.errors import QuantizeError
from quantize.float_windows import WINDOW_OPS
from quantize.functions import evaluate
from quantize.graph import Graph, Node, lstm_form
from quantize.signature import from_frames, to_frames

Observe = Callable[[str, np.ndarray], None]
Op = Callable[[Node, list[np.ndarray], Any], np.ndarray]  # node, inputs [S, T, width], the _Run


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) in the dtype of x, accurate in both tails and without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, e.dtype.type(1), e) / (1 + e)


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(x, 0)


def linear(x: np.ndarray) -> np.ndarray:
    """x itself: the activation of a layer that has none."""
    return x


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": linear,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "relu": relu,
}


def gate_of(node: Node) -> Callable[[np.ndarray], np.ndarray]:
    """The gates' activation of a gru or lstm node: sigmoid, or the hard one of its slope."""
    slope = node.attrs.get("gate_slope", 0.0)
    return (lambda x: np.clip(x.dtype.type(slope) * x + x.dtype.type(0.5), 0, 1)) if slope else sigmoid


def run_graph(graph: Graph, inputs: Any, dtype: Any = np.float64, observe: Observe | None = None) -> Any:
    """Run the graph on what the model takes; return what the model returns, as arrays of `dtype`.

    inputs:  see `signature.to_frames`: any batch size, any time length, a single stream with or without its batch axes.
    dtype:   float64 or float32; everything is computed in it.
    observe: called as observe(name, array) for every tensor, inputs first and then in execution order, with
             [S, T, width]. For each gru node also, under "NODE:gates_input" and "NODE:gates_recurrent" (W x + b_ih and
             U h + b_hh of r and z, [S, T, 2N]), "NODE:candidate_input" and "NODE:candidate_recurrent" (the same of n,
             before r multiplies when reset_after, from r * h otherwise), "NODE:candidate" (the sum that the activation
             takes), each [S, T, N]. For lstm and rnn nodes the halves of all pre-activations, "NODE:gates_input" and
             "NODE:gates_recurrent" [S, T, 4N] or [S, T, N]; "NODE:cell" [S, T, N] for lstm. "NODE:initial" [S, N] (and
             "NODE:cell:initial") where the model takes an initial state. Arrays are the run's own: do not write to
             them.

    Raises QuantizeError for input that the model cannot take (see `to_frames`) and for any other dtype.
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise QuantizeError(f"the float reference runs in float64 or float32, not {dtype}")
    frames, states, restore = to_frames(graph.signature, inputs, dtype)
    notify: Observe = observe or (lambda name, array: None)
    values = dict(frames)
    for name, array in values.items():
        notify(name, array)
    run = _Run(states, notify, dtype)
    for node in graph.nodes:
        values[node.output] = OPS[node.op](node, [values[name] for name in node.inputs], run)
        notify(node.output, values[node.output])
    return from_frames(graph.signature, values, restore)


class _Run:
    """What operations need besides their inputs: initial states [S, rows, N], the observer, and the dtype."""

    def __init__(self, states: dict[str, np.ndarray], observe: Observe, dtype: np.dtype) -> None:
        self.states = states
        self.observe = observe
        self.dtype = dtype
        self.cells: dict[str, np.ndarray] = {}  # output of an lstm node -> [S, T, N]
        self.finals: dict[str, np.ndarray] = {}  # output of a recurrent node over a window -> [S, T, N]
        self.given: dict[str, np.ndarray | None] = {}  # row -> states of the streams inside windows

    def initial(self, row: str, start: tuple[str, int] | None, streams: int, n: int) -> np.ndarray:
        """The state [S, N] that a row begins with: of an argument, or zeros."""
        h = self.given.get(row)
        if h is None:
            if start is None:
                return np.zeros((streams, n), self.dtype)
            argument, index = start
            h = self.states[argument][:, index]
        self.observe(f"{row}:initial", h)
        return h

    def params(self, node: Node, *names: str) -> list[np.ndarray]:
        return [node.params[name].astype(self.dtype) for name in names]


def _rows(node: Node, x: np.ndarray) -> np.ndarray:
    """[S, T, rows, features] of a node that treats rows alike."""
    return x.reshape(*x.shape[:2], node.attrs.get("rows", 1), -1)


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(*x.shape[:2], -1)


def _linear(node: Node, inputs: list[np.ndarray], run: _Run) -> np.ndarray:
    weight, bias = run.params(node, "weight", "bias")
    return _flat(_rows(node, inputs[0]) @ weight.T + bias)


def _over_window(step: Op) -> Op:
    """A recurrent operation, over a stream or over a window that each step of the run holds whole: there every step is
    a stream of its own, from the states that the further inputs give."""

    def op(node: Node, inputs: list[np.ndarray], run: _Run) -> np.ndarray:
        window = node.attrs.get("window")
        if not window:
            return step(node, inputs, run)
        x, *given = inputs
        streams, steps, _ = x.shape
        frames = x.reshape(streams * steps, window, -1)
        starts = {key: h.reshape(streams * steps, -1) for key, h in zip(node.attrs["starts"], given, strict=True)}
        inner = _Run(run.states, run.observe, run.dtype)
        inner.given = {node.name: starts.get("initial"), f"{node.name}:cell": starts.get("initial_cell")}
        y = step(node, [frames[:, ::-1] if node.attrs["reverse"] else frames], inner)
        run.finals[node.output] = y[:, -1].reshape(streams, steps, -1)
        for output, cell in inner.cells.items():
            run.cells[output] = cell[:, -1].reshape(streams, steps, -1)
            run.observe(f"{node.name}:cell", run.cells[output])
        return (y[:, ::-1] if node.attrs["reverse"] else y).reshape(streams, steps, -1)

    return op


def _gru(node: Node, inputs: list[np.ndarray], run: _Run) -> np.ndarray:
    """h' = n + z * (h - n), the formulas of `quantize.nn.GRU`."""
    weight_ih, weight_hh, bias_ih, bias_hh = run.params(node, "weight_ih", "weight_hh", "bias_ih", "bias_hh")
    act, gate = ACTIVATIONS[node.attrs["activation"]], gate_of(node)
    x = inputs[0]
    streams, steps, _ = x.shape
    n = weight_hh.shape[1]
    h = run.initial(node.name, node.attrs["initial"], streams, n)
    from_input = x @ weight_ih.T + bias_ih
    y = np.empty((streams, steps, n), run.dtype)
    recurrent = np.empty((streams, steps, 3 * n), run.dtype)
    candidate = np.empty((streams, steps, n), run.dtype)
    gates_hh, candidate_hh = np.ascontiguousarray(weight_hh[: 2 * n].T), np.ascontiguousarray(weight_hh[2 * n :].T)
    for t in range(steps):
        recurrent[:, t, : 2 * n] = h @ gates_hh + bias_hh[: 2 * n]
        gates = gate(from_input[:, t, : 2 * n] + recurrent[:, t, : 2 * n])
        r, z = gates[:, :n], gates[:, n:]
        if node.attrs["reset_after"]:
            recurrent[:, t, 2 * n :] = h @ candidate_hh + bias_hh[2 * n :]
            candidate[:, t] = from_input[:, t, 2 * n :] + r * recurrent[:, t, 2 * n :]
        else:
            recurrent[:, t, 2 * n :] = (r * h) @ candidate_hh + bias_hh[2 * n :]
            candidate[:, t] = from_input[:, t, 2 * n :] + recurrent[:, t, 2 * n :]
        new = act(candidate[:, t])
        h = new + z * (h - new)
        y[:, t] = h
    run.observe(f"{node.name}:gates_input", from_input[..., : 2 * n])
    run.observe(f"{node.name}:gates_recurrent", recurrent[..., : 2 * n])
    run.observe(f"{node.name}:candidate_input", from_input[..., 2 * n :])
    run.observe(f"{node.name}:candidate_recurrent", recurrent[..., 2 * n :])
    run.observe(f"{node.name}:candidate", candidate)
    return y


def _lstm(node: Node, inputs: list[np.ndarray], run: _Run) -> np.ndarray:
    """c' = f * c + i * g; h' = o * tanh(c'), through the projection where there is one. Peepholes show c to i and f, c'
    to o; coupled gates have f = 1 - i."""
    weight_ih, weight_hh, bias_ih, bias_hh = run.params(node, "weight_ih", "weight_hh", "bias_ih", "bias_hh")
    projection = run.params(node, "weight_hr")[0].T if "weight_hr" in node.params else None
    x = inputs[0]
    streams, steps, _ = x.shape
    n, coupled = lstm_form(node)
    gate = gate_of(node)
    (peephole,) = (
        run.params(node, "weight_peephole") if "weight_peephole" in node.params else [np.zeros(3 * n, run.dtype)]
    )
    to_i, to_f, to_o = peephole[:n], peephole[n:-n], peephole[-n:]
    h = run.initial(node.name, node.attrs["initial"], streams, weight_hh.shape[1])
    c = run.initial(f"{node.name}:cell", node.attrs["initial_cell"], streams, n)
    from_input = x @ weight_ih.T + bias_ih
    recurrent = np.empty_like(from_input)
    y = np.empty((streams, steps, weight_hh.shape[1]), run.dtype)
    cell = np.empty((streams, steps, n), run.dtype)
    across = np.ascontiguousarray(weight_hh.T)
    for t in range(steps):
        recurrent[:, t] = h @ across + bias_hh
        a_i, *a_f, a_g, a_o = np.split(from_input[:, t] + recurrent[:, t], 4 - coupled, axis=1)
        a_i = a_i + to_i * c
        f = gate(-a_i) if coupled else gate(a_f[0] + to_f * c)
        c = f * c + gate(a_i) * np.tanh(a_g)
        h = gate(a_o + to_o * c) * np.tanh(c)
        h = h if projection is None else h @ projection
        cell[:, t], y[:, t] = c, h
    run.observe(f"{node.name}:gates_input", from_input)
    run.observe(f"{node.name}:gates_recurrent", recurrent)
    run.observe(f"{node.name}:cell", cell)
    run.cells[node.output] = cell
    return y


def _rnn(node: Node, inputs: list[np.ndarray], run: _Run) -> np.ndarray:
    """h' = act(W x + b_ih + U h + b_hh)."""
    weight_ih, weight_hh, bias_ih, bias_hh = run.params(node, "weight_ih", "weight_hh", "bias_ih", "bias_hh")
    act = ACTIVATIONS[node.attrs["activation"]]
    x = inputs[0]
    streams, steps, _ = x.shape
    h = run.initial(node.name, node.attrs["initial"], streams, len(weight_hh))
    from_input = x @ weight_ih.T + bias_ih
    recurrent, y = np.empty_like(from_input), np.empty_like(from_input)
    for t in range(steps):
        recurrent[:, t] = h @ weight_hh.T + bias_hh
        h = act(from_input[:, t] + recurrent[:, t])
        y[:, t] = h
    run.observe(f"{node.name}:gates_input", from_input)
    run.observe(f"{node.name}:gates_recurrent", recurrent)
    return y


def _activation(node: Node, inputs: list[np.ndarray], run: _Run) -> np.ndarray:
    return ACTIVATIONS[node.attrs["activation"]](inputs[0])


def _affine(node: Node, inputs: list[np.ndarray], run: _Run) -> np.ndarray:
    scale, offset = run.params(node, "scale", "offset")
    return _flat(scale * _rows(node, inputs[0]) + offset)


def _slice(node: Node, inputs: list[np.ndarray], run: _Run) -> np.ndarray:
    return inputs[0][..., node.attrs["start"] : node.attrs["stop"]]


def _prelu(node: Node, inputs: list[np.ndarray], run: _Run) -> np.ndarray:
    (slope,) = run.params(node, "slope")
    x = _rows(node, inputs[0])
    return _flat(np.where(x < 0, slope * x, x))


def _pair(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Op:
    """An elementwise operation of two inputs, which may broadcast row by row."""

    def op(node: Node, inputs: list[np.ndarray], run: _Run) -> np.ndarray:
        if "shapes" not in node.attrs:
            return function(*inputs)
        a, b = (x.reshape(*x.shape[:2], *shape) for x, shape in zip(inputs, node.attrs["shapes"], strict=True))
        return _flat(function(a, b))

    return op


def _concat(node: Node, inputs: list[np.ndarray], run: _Run) -> np.ndarray:
    return _flat(np.concatenate([_rows(node, x) for x in inputs], axis=-1))


def _softmax(node: Node, inputs: list[np.ndarray], run: _Run) -> np.ndarray:
    return np.exp(_log_softmax(node, inputs, run))


def _log_softmax(node: Node, inputs: list[np.ndarray], run: _Run) -> np.ndarray:
    x = _rows(node, inputs[0])
    x = x - x.max(-1, keepdims=True)
    return _flat(x - np.log(np.exp(x).sum(-1, keepdims=True)))


def _layer_norm(node: Node, inputs: list[np.ndarray], run: _Run) -> np.ndarray:
    weight, bias = run.params(node, "weight", "bias")
    x = _rows(node, inputs[0])
    x = x - x.mean(-1, keepdims=True)
    return _flat(x / np.sqrt((x * x).mean(-1, keepdims=True) + run.dtype.type(node.attrs["eps"])) * weight + bias)


OPS: dict[str, Op] = WINDOW_OPS | {
    "linear": _linear,
    "gru": _over_window(_gru),
    "lstm": _over_window(_lstm),
    "rnn": _over_window(_rnn),
    "cell": lambda node, inputs, run: run.cells[node.inputs[0]],
    "final": lambda node, inputs, run: run.finals[node.inputs[0]],
    "activation": _activation,
    "affine": _affine,
    "add": _pair(np.add),
    "sub": _pair(np.subtract),
    "mul": _pair(np.multiply),
    "function": lambda node, inputs, run: evaluate(node.attrs, inputs[0]),
    "clamp": lambda node, inputs, run: np.clip(inputs[0], node.attrs["low"], node.attrs["high"]),
    "prelu": _prelu,
    "minimum": _pair(np.minimum),
    "maximum": _pair(np.maximum),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "layer_norm": _layer_norm,
    "concat": _concat,
    "slice": _slice,
}
