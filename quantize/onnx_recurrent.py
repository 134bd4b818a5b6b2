"""ONNX's GRU, LSTM and RNN as torch's own layers, or as those of `nn.py` where torch has none.

ONNX stacks gates in other orders (z r h; i o f c) and directions in an axis of their own; weights are W [D, G*N, M],
R [D, G*N, N], B [D, 2*G*N]. Neighbours: `onnx_ops.py` (all other operators), `nn.py` (a reset-before
GRU, an LSTM with peepholes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from quantize.onnx_ops import Operator, operator
from rtcore.tables import GATE_SLOPES

REVERSED = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
GATES = {"GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1), "RNN": (0,)}  # torch's order (r z n; i f g o) in ONNX's
CONSTANTS = {"hardsigmoid": (0.2, 0.5), "affine": (1.0, 0.0)}  # alpha and beta of the activations that have them
DEFAULTS = {"GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh"), "RNN": ("tanh",)}

Weights = list[Tensor]  # weight_ih, weight_hh and, where there are biases, bias_ih, bias_hh
Run = Callable[[Tensor, list[Tensor], list[Weights], bool], Sequence[Tensor]]  # x, states, per direction, batch_first


class _Activation(NamedTuple):
    """name: in lower case; an Affine of 1 and 0 is "linear". alpha, beta: 0 where it has none."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0


@dataclass
class _Layer:
    """What the three have in common, read off a node."""

    n: Operator
    x: Tensor
    weights: list[Weights]  # per direction
    batch_first: bool
    reversed: tuple[bool, ...]
    activations: list[tuple[_Activation, ...]]  # per direction

    @property
    def units(self) -> int:
        return self.weights[0][1].shape[1]

    def zeros(self) -> Tensor:
        streams = self.x.shape[0 if self.batch_first else 1]
        return torch.zeros(len(self.reversed), streams, self.units, dtype=self.x.dtype)

    def state(self, name: str, given: Any) -> Tensor:
        """An initial state as torch has it, [D, B, N]; constant zeros, of any batch, are zeros."""
        _check_shape(self.n, name, given, (self.units,))
        if given is None or (isinstance(given, np.ndarray) and not given.any()):
            return self.zeros()
        given = given if isinstance(given, Tensor) else torch.tensor(given, dtype=self.x.dtype)
        return given.transpose(0, 1) if self.batch_first else given

    def outputs(self, y: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """torch's y [T, B, D*N] and states [D, B, N] as ONNX has them: Y [T, D, B, N], or with layout 1 [B, T, D, N]
        and [B, D, N]."""
        if len(self.reversed) > 1:
            y = y.unflatten(-1, (2, self.units))
            y = y if self.batch_first else y.transpose(1, 2)
        else:
            y = y.unsqueeze(2 if self.batch_first else 1)
        return (y, *(state.transpose(0, 1) if self.batch_first else state for state in states))

    def run(self, states: list[Tensor], layers: Sequence[Run]) -> tuple[Tensor, ...]:
        """layers: how each direction is computed; torch's computes two of the same kind at once."""
        if len(layers) == 2 and layers[0] is layers[1] and layers[0] in TORCH:
            return self.outputs(*layers[0](self.x, states, self.weights, self.batch_first))
        time = 1 if self.batch_first else 0
        ys, finals = [], []
        for i, (layer, backwards) in enumerate(zip(layers, self.reversed, strict=True)):
            x = self.x.flip(time) if backwards else self.x
            y, *last = layer(x, [state[i : i + 1] for state in states], [self.weights[i]], self.batch_first)
            ys.append(y.flip(time) if backwards else y)
            finals.append(last)
        if len(ys) == 1:
            return self.outputs(ys[0], *finals[0])
        return self.outputs(torch.cat(ys, -1), *(torch.cat(pair, 0) for pair in zip(*finals, strict=True)))


def _layer(n: Operator, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, lengths: Any) -> _Layer:
    op = n.step.op
    if any(i not in n.constants for i in (1, 2)) or (b is not None and 3 not in n.constants):
        raise n.refusal("takes its weights from the data; only constant weights are supported")
    if n.attr("clip") is not None:
        raise n.refusal(
            f"has clip {n.attr('clip')}, which bounds the sums before the activations: no kernel does; train without it"
        )
    batch_first = bool(n.attr("layout", 0))
    _check_lengths(n, lengths, x.shape[1 if batch_first else 0])
    reversed_ = REVERSED[n.attr("direction", "forward")]
    d, units = len(reversed_), n.attr("hidden_size", r.shape[-1])
    rows = len(GATES[op]) * units
    for name, array, shape in (("W", w, (d, rows, x.shape[-1])), ("R", r, (d, rows, units)), ("B", b, (d, 2 * rows))):
        _check_shape(n, name, array, shape)
    weights = []
    for i in range(len(reversed_)):
        parts = [w[i], r[i], *([] if b is None else b[i].chunk(2))]
        weights.append([_reordered(part, GATES[op]) for part in parts])
    return _Layer(n, x, weights, batch_first, reversed_, _activations(n, len(reversed_)))


def _check_shape(n: Operator, name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Of a weight or, in its last axes, of a state. What torch's exporter leaves of a projected LSTM, which ONNX lacks,
    might run, as another network."""
    if array is None or tuple(array.shape)[-len(shape) :] == shape:
        return
    wanted, why = ", ".join(map(str, shape)), ""
    if n.step.op == "LSTM":
        why = (
            "; torch.onnx.export writes an LSTM with proj_size like this, and the file lacks its projection: give the "
            "torch module itself, or its .pt2"
        )
    raise n.refusal(f"has {name} of shape {list(array.shape)}, its other weights ask for [.., {wanted}]{why}")


def _check_lengths(n: Operator, lengths: Any, steps: int) -> None:
    if lengths is None:
        return
    if isinstance(lengths, Tensor):
        raise n.refusal("takes sequence_lens from the data; all sequences must have the length of the input")
    if (np.asarray(lengths) != steps).any():
        raise n.refusal(f"has sequence_lens {np.unique(lengths).tolist()} over {steps} steps; they must be equal")


def _reordered(rows: Tensor, order: tuple[int, ...]) -> Tensor:
    """Gates in torch's order."""
    if len(order) == 1:
        return rows
    blocks = rows.chunk(len(order))
    return torch.cat([blocks[i] for i in order])


def _activations(n: Operator, directions: int) -> list[tuple[_Activation, ...]]:
    """Per direction."""
    defaults = DEFAULTS[n.step.op]
    names = [name.lower() for name in n.attr("activations") or defaults * directions]
    if len(names) != len(defaults) * directions:
        raise n.refusal(f"has {len(names)} activations, not {len(defaults) * directions}")
    alphas, betas = (_constants(n, names, which) for which in ("alpha", "beta"))
    found = [_Activation(name, alphas.get(i, 0.0), betas.get(i, 0.0)) for i, name in enumerate(names)]
    found = [_Activation("linear") if activation == ("affine", 1, 0) else activation for activation in found]
    size = len(defaults)
    return [tuple(found[i * size : (i + 1) * size]) for i in range(directions)]


def _constants(n: Operator, names: Sequence[str], which: str) -> dict[int, float]:
    """Place among the activations -> its alpha or beta. The file's values go to those that have one, in order, and the
    last ones take the default, as onnxruntime reads them; a file that has one for each activation is read if that is
    the same."""
    given = list(n.attr(f"activation_{which}", []))
    taking = [i for i, name in enumerate(names) if name in CONSTANTS]
    if len(given) > len(taking) and [given[i] for i in taking if i < len(given)] != given[: len(taking)]:
        raise n.refusal(
            f"has {len(given)} values in activation_{which} and {len(taking)} activations that take one, in order: "
            "give one for each of these"
        )
    defaults = {i: CONSTANTS[names[i]][("alpha", "beta").index(which)] for i in taking}
    return defaults | dict(zip(taking, given, strict=False))


def _gate_slope(layer: _Layer, gate: _Activation) -> float | None:
    """0 for a sigmoid, its slope for a hard one, None for what is no gate."""
    if gate.name != "hardsigmoid":
        return 0.0 if gate.name == "sigmoid" else None
    low, high = GATE_SLOPES
    if gate.beta != 0.5 or not low <= gate.alpha <= high:
        raise layer.n.refusal(
            f"has HardSigmoid gates with alpha {gate.alpha:g} and beta {gate.beta:g}; the kernels have them with alpha "
            f"{low:g} to {high:g} and beta 0.5: retrain it with those"
        )
    return gate.alpha


def _refuse_activations(layer: _Layer, wanted: str) -> None:
    given = ", ".join(activation.name for activations in layer.activations for activation in activations)
    raise layer.n.refusal(f"has the activations {given}; the kernels have {wanted}")


def _flat(weights: list[Weights]) -> Weights:
    return [tensor for direction in weights for tensor in direction]


# --- GRU ------------------------------------------------------------------------------------------------------------


def _torch_gru(x: Tensor, states: list[Tensor], weights: list[Weights], batch_first: bool) -> Sequence[Tensor]:
    biased = len(weights[0]) == 4
    return torch.gru(x, states[0], _flat(weights), biased, 1, 0.0, False, len(weights) == 2, batch_first)


def _own_gru(activation: str, reset_after: bool, slope: float) -> Run:
    def run(x: Tensor, states: list[Tensor], weights: list[Weights], batch_first: bool) -> Sequence[Tensor]:
        parameters = [*weights[0], *[None] * (4 - len(weights[0]))]
        return torch.ops.rtcore.gru(x, states[0], *parameters, activation, reset_after, batch_first, slope)

    return run


@operator("GRU", plain=(5,))
def _gru(n: Operator, x: Tensor, w: Tensor, r: Tensor, b: Any = None, lengths: Any = None, h0: Any = None) -> Any:
    layer = _layer(n, x, w, r, b, lengths)
    after = bool(n.attr("linear_before_reset", 0))
    runs = []
    for gates, (candidate, *_) in layer.activations:
        slope = _gate_slope(layer, gates)
        if slope is None or candidate not in ("tanh", "relu", "sigmoid", "linear"):
            _refuse_activations(layer, "Sigmoid or HardSigmoid gates and Tanh, Relu, Sigmoid or linear candidates")
        own = not after or candidate != "tanh" or slope
        runs.append(_own_gru(candidate, after, slope) if own else _torch_gru)
    return layer.run([layer.state("initial_h", h0)], runs)


# --- LSTM -----------------------------------------------------------------------------------------------------------


def _torch_lstm(x: Tensor, states: list[Tensor], weights: list[Weights], batch_first: bool) -> Sequence[Tensor]:
    biased = len(weights[0]) == 4
    return torch.lstm(x, states, _flat(weights), biased, 1, 0.0, False, len(weights) == 2, batch_first)


def _own_lstm(peepholes: np.ndarray | None, coupled: bool, slope: float) -> Run:
    """peepholes: [3N] in ONNX's order i o f. Coupled gates have no forget gate of their own: f = 1 - i."""

    def run(x: Tensor, states: list[Tensor], weights: list[Weights], batch_first: bool) -> Sequence[Tensor]:
        parameters = [_without_forget(rows) if coupled else rows for rows in weights[0]]
        parameters += [None] * (4 - len(parameters))
        rows = None
        if peepholes is not None:
            to_i, to_o, to_f = torch.tensor(peepholes, dtype=x.dtype).chunk(3)
            rows = torch.cat([to_i, to_o] if coupled else [to_i, to_f, to_o])
        return torch.ops.rtcore.lstm(x, *states, *parameters, rows, coupled, batch_first, slope)

    return run


def _without_forget(rows: Tensor) -> Tensor:
    """Gates i f g o without f."""
    i, _, g, o = rows.chunk(4)
    return torch.cat([i, g, o])


@operator("LSTM", plain=(5, 6, 7))
def _lstm(
    n: Operator,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Any = None,
    lengths: Any = None,
    h0: Any = None,
    c0: Any = None,
    peepholes: Any = None,
) -> Any:
    layer = _layer(n, x, w, r, b, lengths)
    slopes = [_gate_slope(layer, gates) for gates, *_ in layer.activations]
    if None in slopes or any(one.name != "tanh" for _, *others in layer.activations for one in others):
        _refuse_activations(layer, "Sigmoid or HardSigmoid gates, Tanh, Tanh")
    if isinstance(peepholes, Tensor):
        raise n.refusal("takes its peepholes from the data; only constant weights are supported")
    _check_shape(n, "P", peepholes, (len(layer.reversed), 3 * layer.units))
    if peepholes is not None and not peepholes.any():
        peepholes = None
    coupled = bool(n.attr("input_forget", 0))
    runs = [_torch_lstm] * len(layer.reversed)
    if coupled or peepholes is not None or any(slopes):
        rows = [None if peepholes is None else peepholes[i] for i in range(len(layer.reversed))]
        runs = [_own_lstm(row, coupled, slope) for row, slope in zip(rows, slopes, strict=True)]
    return layer.run([layer.state("initial_h", h0), layer.state("initial_c", c0)], runs)


# --- RNN ------------------------------------------------------------------------------------------------------------


def _torch_rnn(function: Callable[..., Sequence[Tensor]]) -> Run:
    def run(x: Tensor, states: list[Tensor], weights: list[Weights], batch_first: bool) -> Sequence[Tensor]:
        biased = len(weights[0]) == 4
        return function(x, states[0], _flat(weights), biased, 1, 0.0, False, len(weights) == 2, batch_first)

    return run


_torch_rnns = {"tanh": _torch_rnn(torch.rnn_tanh), "relu": _torch_rnn(torch.rnn_relu)}


@operator("RNN", plain=(5,))
def _rnn(n: Operator, x: Tensor, w: Tensor, r: Tensor, b: Any = None, lengths: Any = None, h0: Any = None) -> Any:
    layer = _layer(n, x, w, r, b, lengths)
    names = [activation.name for (activation,) in layer.activations]
    if any(name not in _torch_rnns for name in names):
        _refuse_activations(layer, "Tanh and Relu")
    return layer.run([layer.state("initial_h", h0)], [_torch_rnns[name] for name in names])


@operator("UnrolledRNN")
def _unrolled(n: Operator, x: Tensor, *given: Any) -> Any:
    """See `onnx_unrolled.py`: x [T, B, M], per direction W [M, N], R [N, N], two biases [N] and a state [1, B, N]."""
    weights, starts, backwards = [], [], n.attr("backwards")
    for w, r, b, c, start in (given[i : i + 5] for i in range(0, len(given), 5)):
        biases = [x.new_zeros(r.shape[1]) if bias is None else bias.reshape(-1) for bias in (b, c)]
        weights.append([w.T, r.T, *(biases if b is not None or c is not None else [])])
        starts.append(x.new_zeros(1, x.shape[1], r.shape[1]) if start is None else start)
    if x.shape[0] != n.attr("steps"):
        raise n.refusal(f"is unrolled over {n.attr('steps')} of {x.shape[0]} steps; export the loop over all of them")
    h0 = torch.cat(starts) if len(starts) > 1 else starts[0]
    y, last = _torch_rnns[n.attr("activation")](x.flip(0) if backwards else x, [h0], weights, False)
    if len(weights) == 1:
        return y, y.flip(0) if backwards else y, last
    half = y.shape[-1] // 2
    return y, y[..., :half], last[:1], y[..., half:], last[1:]


TORCH = (_torch_gru, _torch_lstm, *_torch_rnns.values())  # those that run both directions at once
