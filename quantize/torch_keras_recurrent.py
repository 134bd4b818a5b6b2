"""Makers of Keras' recurrent layers: GRU, LSTM, SimpleRNN and Bidirectional.

Keras keeps kernels as [F, gates * N] with the gates z, r, h of a GRU and i, f, c, o of an LSTM; a GRU with reset_after
has two biases, all others one. torch has [gates * N, F], r, z, n and i, f, g, o, and two biases always.

Neighbours: `torch_keras_layers.py` (the table of makers; what a maker is), `nn.py` (the operator of the GRU),
`torch_layers.py` (reads the outcome).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quantize import nn as _operators
from quantize.keras_config import Layer
from quantize.torch_keras_layers import Step, activation_name, made, makes, parameter

GATES = {"GRU": 3, "LSTM": 4, "SimpleRNN": 1}
RNNS = {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}
SINGLE = (True, 1, 0.0, False, False, True)  # biases, layers, dropout, training, bidirectional, batch first
DOUBLE = (True, 1, 0.0, False, True, True)


class Recurrent(nn.Module):
    """One layer, [batch, time, F] to [batch, time, N] or the last [batch, N]; states [batch, N] go in and come out.

    weights: as torch has them, weight_ih [gates * N, F], weight_hh [gates * N, N] and both biases [gates * N].
    """

    states = 1
    torch_has = True  # whether it is an operator of torch's own

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.units = int(layer.option("units"))
        self.kind = layer.kind
        self.sequences = bool(layer.option("return_sequences", False))
        self.returns_state = bool(layer.option("return_state", False))
        self.backwards = bool(layer.option("go_backwards", False))
        if layer.option("stateful", False):
            raise layer.refusal(
                "has stateful=True; build the model with stateful=False and the same weights: a streaming net carries "
                "its state from step to step by itself, until it is reset"
            )
        if layer.option("time_major", False):
            raise layer.refusal("has time_major=True; build it with the batch first and the same weights")
        self.act = activation_name(layer)
        self.weights = nn.ParameterList(parameter(array) for array in self.read(layer))
        self.reversed = Step(lambda x: x.flip(1))
        self.last = Step(lambda y: y[:, -1])

    def read(self, layer: Layer) -> list[np.ndarray]:
        """The four weights in torch's order of gates; refuses activations without a kernel."""
        rows = GATES[layer.kind] * self.units
        kernel = layer.array("cell/vars/0", None, rows)
        biases = [np.zeros(rows, kernel.dtype)] * 2
        if layer.option("use_bias", True):
            if layer.option("reset_after", False):
                biases = list(layer.array("cell/vars/2", 2, rows))
            else:
                biases = [layer.array("cell/vars/2", rows), biases[1]]
        return [kernel.T, layer.array("cell/vars/1", self.units, rows).T, *biases]

    def run(self, x: Tensor, start: Sequence[Tensor] | None) -> Sequence[Tensor]:
        """All outputs, and the last states [1, batch, N]."""
        (h,) = start or [x.new_zeros(1, x.shape[0], self.units)]
        return RNNS[self.act](x, h, list(self.weights), *SINGLE)

    def forward(self, x: Tensor, initial_state: Any = None) -> Any:
        start = None
        if initial_state is not None:
            given = list(initial_state) if isinstance(initial_state, (list, tuple)) else [initial_state]
            start = [state.unsqueeze(0) for state in given]
        y, *finals = self.run(self.reversed(x) if self.backwards else x, start)
        out = y if self.sequences else self.last(y)
        return [out, *(state.squeeze(0) for state in finals)] if self.returns_state else out


@makes("SimpleRNN")
class SimpleRNN(Recurrent):
    """h' = act(W x + U h + b), tanh or ReLU."""

    def read(self, layer: Layer) -> list[np.ndarray]:
        if self.act not in RNNS:
            raise layer.refusal(f"has activation={self.act!r}; retrain it with tanh or relu")
        return super().read(layer)


SLOPES = {"sigmoid": 0.0, "hard_sigmoid": 1 / 6}  # of gates; Keras 3's hard sigmoid is relu6(x + 3) / 6


def _gate_slope(layer: Layer) -> float:
    gate = activation_name(layer, "recurrent_activation")
    if gate not in SLOPES:
        raise layer.refusal(
            f"has recurrent_activation={gate!r}; the kernels' gates are sigmoid or hard_sigmoid: set one of them and "
            "train on for a few epochs"
        )
    return SLOPES[gate]


@makes("GRU")
class GRU(Recurrent):
    """z, r = s(...), h' = z h + (1 - z) act(...), with the reset before or after the recurrent product."""

    def read(self, layer: Layer) -> list[np.ndarray]:
        self.slope = _gate_slope(layer)
        if self.act not in _operators.ACTIVATIONS:
            raise layer.refusal(f"has activation={self.act!r}; supported are {', '.join(_operators.ACTIVATIONS)}")
        self.reset_after = bool(layer.option("reset_after", False))
        self.torch_has = self.act == "tanh" and self.reset_after and not self.slope

        def turned(array: np.ndarray) -> np.ndarray:  # z, r, h -> r, z, n
            z, r, n = np.split(array, 3)
            return np.concatenate([r, z, n])

        return [turned(array) for array in super().read(layer)]

    def run(self, x: Tensor, start: Sequence[Tensor] | None) -> Sequence[Tensor]:
        h = start[0] if start else None
        return torch.ops.rtcore.gru(x, h, *self.weights, self.act, self.reset_after, True, self.slope)


@makes("LSTM")
class LSTM(Recurrent):
    """Gates i, f, c, o; states h and c."""

    states = 2

    def read(self, layer: Layer) -> list[np.ndarray]:
        self.slope = _gate_slope(layer)
        if self.act != "tanh":
            raise layer.refusal(f"has activation={self.act!r}; retrain it with tanh")
        self.torch_has = not self.slope
        return super().read(layer)

    def run(self, x: Tensor, start: Sequence[Tensor] | None) -> Sequence[Tensor]:
        if self.slope:
            return torch.ops.rtcore.lstm(x, *(start or (None, None)), *self.weights, None, False, True, self.slope)
        zeros = [x.new_zeros(1, x.shape[0], self.units)] * 2
        return torch.lstm(x, start or zeros, list(self.weights), *SINGLE)


# --- both directions ------------------------------------------------------------------------------------------------


MERGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "mul": torch.mul,
    "ave": lambda a, b: (a + b) / 2,
    "concat": lambda a, b: torch.cat([a, b], -1),
}


class Bidirectional(nn.Module):
    """Two layers, one of which reads the sequence from its end. Where torch knows both as one operation they become
    it, and no sequence is turned round."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        if any(key not in layer.inner for key in ("layer", "backward_layer")):
            raise layer.refusal("lacks its layers in the file")
        sides = [layer.inner["layer"], layer.inner["backward_layer"]]
        for side in sides:
            if side.kind not in GATES:
                raise layer.refusal(f"wraps {side.kind}; GRU, LSTM and SimpleRNN can be wrapped")
            side.name = f"{layer.name}.{side.name}"
        self.forward_layer, self.backward_layer = one, other = [made(side) for side in sides]
        self.mode = layer.option("merge_mode", "concat")
        if self.mode is not None and self.mode not in MERGES:
            raise layer.refusal(f"has merge_mode={self.mode!r}; supported are None, {', '.join(MERGES)}")
        alike = ("kind", "units", "act", "sequences", "returns_state")
        same = all(getattr(one, key) == getattr(other, key) for key in alike)
        self.fused = same and one.torch_has and other.torch_has and not one.backwards and other.backwards
        self.merge = Step(self._merged)

    def _merged(self, a: Tensor, b: Tensor) -> Any:
        return [a, b] if self.mode is None else MERGES[self.mode](a, b)

    def forward(self, x: Tensor, initial_state: Any = None) -> Any:
        one, other = self.forward_layer, self.backward_layer
        if not self.fused:
            return self._apart(x, initial_state)
        start = [x.new_zeros(2, x.shape[0], one.units)] * one.states
        if initial_state is not None:
            pairs = zip(initial_state[: one.states], initial_state[one.states :], strict=True)
            start = [torch.stack(pair) for pair in pairs]
        weights = [*one.weights, *other.weights]
        if one.kind == "LSTM":
            y, *finals = torch.lstm(x, start, weights, *DOUBLE)
        else:
            y, *finals = (torch.gru if one.kind == "GRU" else RNNS[one.act])(x, start[0], weights, *DOUBLE)
        if not one.sequences:
            out = self.merge(finals[0][0], finals[0][1])
        else:
            out = y if self.mode == "concat" else self.merge(*self.halves(y))
        states = [state[side] for side in (0, 1) for state in finals]
        return self._results(out, states if one.returns_state else [])

    def halves(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs of both directions, of both side by side."""
        half = y.shape[-1] // 2
        return y[..., :half], y[..., half:]

    def _apart(self, x: Tensor, initial_state: Any) -> Any:
        one, other = self.forward_layer, self.backward_layer
        starts: list[Any] = [None, None]
        if initial_state is not None:
            starts = [initial_state[: one.states], initial_state[one.states :]]
        results = [side(x, start) for side, start in zip((one, other), starts, strict=True)]
        (a, *states), (b, *more) = [r if isinstance(r, list) else [r] for r in results]
        b = other.reversed(b) if other.sequences else b
        return self._results(self.merge(a, b), [*states, *more])

    def _results(self, out: Any, states: list[Tensor]) -> Any:
        outputs = out if isinstance(out, list) else [out]
        return [*outputs, *states] if states else out


makes("Bidirectional")(Bidirectional)
