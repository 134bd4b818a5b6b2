"""ONNX's GRU, LSTM and RNN as torch's own layers, or as those of `nn.py` where torch has none.

ONNX stacks gates in other orders (z r h; i o f c) and directions in an axis of their own; weights are W [D, G*N, M],
R [D, G*N, N], B [D, 2*G*N]. Neighbours: `onnx_ops.py` (all other operators), `nn.py` (a reset-before
GRU, an LSTM with peepholes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quantize.onnx_ops import Operator, operator

REVERSED = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
GATES = {"GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1), "RNN": (0,)}  # torch's order (r z n; i f g o) in ONNX's
DEFAULTS = {"GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh"), "RNN": ("tanh",)}

Weights = list[Tensor]  # weight_ih, weight_hh and, where there are biases, bias_ih, bias_hh
Run = Callable[[Tensor, list[Tensor], list[Weights], bool], Sequence[Tensor]]  # x, states, per direction, batch_first


@dataclass
class _Layer:
    """What the three have in common, read off a node."""

    n: Operator
    x: Tensor
    weights: list[Weights]  # per direction
    batch_first: bool
    reversed: tuple[bool, ...]
    activations: list[tuple[str, ...]]  # per direction

    @property
    def units(self) -> int:
        return self.weights[0][1].shape[1]

    def zeros(self) -> Tensor:
        streams = self.x.shape[0 if self.batch_first else 1]
        return torch.zeros(len(self.reversed), streams, self.units, dtype=self.x.dtype)

    def state(self, given: Any) -> Tensor:
        """An initial state as torch has it, [D, B, N]; constant zeros, of any batch, are zeros."""
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
    weights = []
    for i in range(len(reversed_)):
        parts = [w[i], r[i], *([] if b is None else b[i].chunk(2))]
        weights.append([_reordered(part, GATES[op]) for part in parts])
    return _Layer(n, x, weights, batch_first, reversed_, _activations(n, len(reversed_)))


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


def _activations(n: Operator, directions: int) -> list[tuple[str, ...]]:
    """Per direction, in lower case; ONNX's Affine with alpha 1 and beta 0 is linear."""
    defaults = DEFAULTS[n.step.op]
    given = n.attr("activations")
    if not given:
        return [defaults] * directions
    names = [name.lower() for name in given]
    if len(names) != len(defaults) * directions:
        raise n.refusal(f"has {len(names)} activations, not {len(defaults) * directions}")
    alphas, betas = list(n.attr("activation_alpha", [])), list(n.attr("activation_beta", []))
    for i, name in enumerate(names):
        if name == "affine" and (alphas or [1.0])[0] == 1 and (betas or [0.0])[0] == 0 and "affine" not in names[:i]:
            names[i] = "linear"
    size = len(defaults)
    return [tuple(names[i * size : (i + 1) * size]) for i in range(directions)]


def _refuse_activations(layer: _Layer, wanted: str) -> None:
    given = ", ".join(name for names in layer.activations for name in names)
    raise layer.n.refusal(f"has the activations {given}; the kernels have {wanted}")


def _flat(weights: list[Weights]) -> Weights:
    return [tensor for direction in weights for tensor in direction]


# --- GRU ------------------------------------------------------------------------------------------------------------


def _torch_gru(x: Tensor, states: list[Tensor], weights: list[Weights], batch_first: bool) -> Sequence[Tensor]:
    biased = len(weights[0]) == 4
    return torch.gru(x, states[0], _flat(weights), biased, 1, 0.0, False, len(weights) == 2, batch_first)


def _own_gru(activation: str, reset_after: bool) -> Run:
    def run(x: Tensor, states: list[Tensor], weights: list[Weights], batch_first: bool) -> Sequence[Tensor]:
        parameters = [*weights[0], *[None] * (4 - len(weights[0]))]
        return torch.ops.rtcore.gru(x, states[0], *parameters, activation, reset_after, batch_first)

    return run


@operator("GRU", plain=(5,))
def _gru(n: Operator, x: Tensor, w: Tensor, r: Tensor, b: Any = None, lengths: Any = None, h0: Any = None) -> Any:
    layer = _layer(n, x, w, r, b, lengths)
    after = bool(n.attr("linear_before_reset", 0))
    runs = []
    for gates, candidate in layer.activations:
        if gates != "sigmoid" or candidate not in ("tanh", "relu", "sigmoid", "linear"):
            _refuse_activations(layer, "Sigmoid gates and Tanh, Relu, Sigmoid or linear candidates")
        runs.append(_torch_gru if after and candidate == "tanh" else _own_gru(candidate, after))
    return layer.run([layer.state(h0)], runs)


# --- LSTM -----------------------------------------------------------------------------------------------------------


def _torch_lstm(x: Tensor, states: list[Tensor], weights: list[Weights], batch_first: bool) -> Sequence[Tensor]:
    biased = len(weights[0]) == 4
    return torch.lstm(x, states, _flat(weights), biased, 1, 0.0, False, len(weights) == 2, batch_first)


def _own_lstm(peepholes: np.ndarray | None, coupled: bool) -> Run:
    """peepholes: [3N] in ONNX's order i o f. Coupled gates have no forget gate of their own: f = 1 - i."""

    def run(x: Tensor, states: list[Tensor], weights: list[Weights], batch_first: bool) -> Sequence[Tensor]:
        parameters = [_without_forget(rows) if coupled else rows for rows in weights[0]]
        parameters += [None] * (4 - len(parameters))
        rows = None
        if peepholes is not None:
            to_i, to_o, to_f = torch.tensor(peepholes, dtype=x.dtype).chunk(3)
            rows = torch.cat([to_i, to_o] if coupled else [to_i, to_f, to_o])
        return torch.ops.rtcore.lstm(x, *states, *parameters, rows, coupled, batch_first)

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
    if any(names != DEFAULTS["LSTM"] for names in layer.activations):
        _refuse_activations(layer, "Sigmoid, Tanh, Tanh")
    if isinstance(peepholes, Tensor):
        raise n.refusal("takes its peepholes from the data; only constant weights are supported")
    if peepholes is not None and not peepholes.any():
        peepholes = None
    coupled = bool(n.attr("input_forget", 0))
    runs = [_torch_lstm] * len(layer.reversed)
    if coupled or peepholes is not None:
        rows = [None if peepholes is None else peepholes[i] for i in range(len(layer.reversed))]
        runs = [_own_lstm(row, coupled) for row in rows]
    return layer.run([layer.state(h0), layer.state(c0)], runs)


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
    if any(name not in _torch_rnns for (name,) in layer.activations):
        _refuse_activations(layer, "Tanh and Relu")
    return layer.run([layer.state(h0)], [_torch_rnns[name] for (name,) in layer.activations])


TORCH = (_torch_gru, _torch_lstm, *_torch_rnns.values())  # those that run both directions at once
