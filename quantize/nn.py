"""Recurrent layers that torch cannot spell: a GRU with a free candidate activation and both reset conventions, an LSTM
with peepholes and coupled gates, hard gates in both.

Each computation is one torch.library operator, `rtcore::gru` or `rtcore::lstm`, so that `torch.export` keeps it as ONE
node and a saved .pt2 carries it; importing this file registers the operators, which a .pt2 that holds one needs before
it loads. They are trainable: the backward pass recomputes the forward in plain torch operations and differentiates
those.

Neighbours: `torch_layers.py` turns a node into a graph node; `float_run.py`, `rtcore/csrc/rtcore_gru_i16.c` and
`rtcore_lstm_i16.c` compute it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from rtcore.errors import slope_of_gates

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "linear": lambda x: x,
}


def _gate(slope: float) -> Callable[[Tensor], Tensor]:
    """The gates' activation: sigmoid for slope 0, else the hard sigmoid of that slope."""
    return (lambda x: torch.clamp(slope * x + 0.5, 0, 1)) if slope else torch.sigmoid


def _frames(x: Tensor, batch_first: bool) -> Tensor:
    """x as [T, B, F]; a single stream has B = 1."""
    if x.dim() == 2:
        return x.unsqueeze(1)
    return x.transpose(0, 1) if batch_first else x


def _first(state: Tensor | None, x: Tensor, streams: int, n: int) -> Tensor:
    """The state [B, N] that the steps begin with."""
    if state is None:
        return x.new_zeros(streams, n)
    return state[0] if x.dim() == 3 else state


def _last(x: Tensor, batch_first: bool, outputs: list[Tensor], *states: Tensor) -> tuple[Tensor, ...]:
    """y and the last states in the axes that the caller uses, none of them an alias of another."""
    y = torch.stack(outputs, 1 if x.dim() == 3 and batch_first else 0)
    if x.dim() == 2:
        return y.squeeze(1), *(state.clone() for state in states)
    return y, *(state.unsqueeze(0).clone() for state in states)


def _forward_gru(
    x: Tensor,
    h0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    activation: str,
    reset_after: bool,
    batch_first: bool,
    gate_slope: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The layer in plain torch operations; shapes as in `GRU.forward`."""
    frames = _frames(x, batch_first)
    n = weight_hh.shape[1]
    h = _first(h0, x, frames.shape[1], n)
    act, gate = ACTIVATIONS[activation], _gate(gate_slope)
    from_input = F.linear(frames, weight_ih, bias_ih)
    outputs = []
    for wx in from_input.unbind(0):
        wx_rz, wx_n = wx[:, : 2 * n], wx[:, 2 * n :]
        if reset_after:
            uh = F.linear(h, weight_hh, bias_hh)
            r, z = gate(wx_rz + uh[:, : 2 * n]).chunk(2, 1)
            candidate = act(wx_n + r * uh[:, 2 * n :])
        else:
            bias_rz, bias_n = (None, None) if bias_hh is None else (bias_hh[: 2 * n], bias_hh[2 * n :])
            r, z = gate(wx_rz + F.linear(h, weight_hh[: 2 * n], bias_rz)).chunk(2, 1)
            candidate = act(wx_n + F.linear(r * h, weight_hh[2 * n :], bias_n))
        h = candidate + z * (h - candidate)
        outputs.append(h)
    return _last(x, batch_first, outputs, h)


def _shapes(x: Tensor, n: int, batch_first: bool) -> tuple[Tensor, Tensor]:
    """y and a last state, without values."""
    if x.dim() == 2:
        return x.new_empty(x.shape[0], n), x.new_empty(1, n)
    return x.new_empty(x.shape[0], x.shape[1], n), x.new_empty(1, x.shape[0 if batch_first else 1], n)


@torch.library.custom_op("rtcore::gru", mutates_args=())
def gru(
    x: Tensor,
    h0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    activation: str,
    reset_after: bool,
    batch_first: bool,
    gate_slope: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The operator behind `GRU`: (y, h_n), both contiguous and fresh."""
    parameters = (weight_ih, weight_hh, bias_ih, bias_hh)
    y, h_n = _forward_gru(x, h0, *parameters, activation, reset_after, batch_first, gate_slope)
    return y.contiguous(), h_n


@gru.register_fake
def _(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, activation, reset_after, batch_first, gate_slope=0.0):
    return _shapes(x, weight_hh.shape[1], batch_first)


def _forward_lstm(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_peephole: Tensor | None,
    coupled: bool,
    batch_first: bool,
    gate_slope: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The layer in plain torch operations; shapes as in `LSTM.forward`."""
    frames = _frames(x, batch_first)
    n = weight_hh.shape[1]
    h, c = (_first(state, x, frames.shape[1], n) for state in (h0, c0))
    gate = _gate(gate_slope)
    to_i, *to_f, to_o = [0.0] * (3 - coupled) if weight_peephole is None else weight_peephole.chunk(3 - coupled)
    from_input = F.linear(frames, weight_ih, bias_ih)
    outputs = []
    for wx in from_input.unbind(0):
        a_i, *a_f, a_g, a_o = (wx + F.linear(h, weight_hh, bias_hh)).chunk(4 - coupled, 1)
        i = gate(a_i + to_i * c)
        f = 1 - i if coupled else gate(a_f[0] + to_f[0] * c)
        c = f * c + i * torch.tanh(a_g)
        h = gate(a_o + to_o * c) * torch.tanh(c)
        outputs.append(h)
    return _last(x, batch_first, outputs, h, c)


@torch.library.custom_op("rtcore::lstm", mutates_args=())
def lstm(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_peephole: Tensor | None,
    coupled: bool,
    batch_first: bool,
    gate_slope: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator behind `LSTM`: (y, h_n, c_n), all contiguous and fresh."""
    parameters = (weight_ih, weight_hh, bias_ih, bias_hh, weight_peephole)
    y, h_n, c_n = _forward_lstm(x, h0, c0, *parameters, coupled, batch_first, gate_slope)
    return y.contiguous(), h_n, c_n


@lstm.register_fake
def _(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_peephole, coupled, batch_first, gate_slope=0.0):
    y, h_n = _shapes(x, weight_hh.shape[1], batch_first)
    return y, h_n, torch.empty_like(h_n)


def _differentiable(op, forward: Callable, n_tensors: int) -> None:
    """Gives an operator its gradient: that of `forward` in its first `n_tensors` arguments."""

    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs[:n_tensors])
        ctx.options = inputs[n_tensors:]

    def backward(ctx, *grads: Tensor):
        needed = ctx.needs_input_grad[:n_tensors]
        with torch.enable_grad():
            tensors = [
                None if t is None else t.detach().requires_grad_(need)
                for t, need in zip(ctx.saved_tensors, needed, strict=True)
            ]
            outputs = forward(*tensors, *ctx.options)
            wanted = [t for t, need in zip(tensors, needed, strict=True) if need]
            found = iter(torch.autograd.grad(outputs, wanted, grads, allow_unused=True))
        return *(next(found) if need else None for need in needed), *[None] * len(ctx.options)

    op.register_autograd(backward, setup_context=setup_context)


_differentiable(gru, _forward_gru, 6)
_differentiable(lstm, _forward_lstm, 8)


class _Recurrent(torch.nn.Module):
    """What the layers share: sizes, parameters in torch's shapes, and the checks of arguments and calls."""

    def __init__(self, input_size: int, hidden_size: int, gates: int, bias: bool, batch_first: bool, **flags) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if isinstance(size, bool) or not isinstance(size, int):
                raise TypeError(f"{name} must be an int, got {type(size).__name__}")
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        for name, flag in (flags | {"bias": bias, "batch_first": batch_first}).items():
            if not isinstance(flag, bool):
                raise TypeError(f"{name} must be True or False, got {flag!r}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        self.batch_first = batch_first
        self.weight_ih = torch.nn.Parameter(torch.empty(gates * hidden_size, input_size))
        self.weight_hh = torch.nn.Parameter(torch.empty(gates * hidden_size, hidden_size))
        self.bias_ih = torch.nn.Parameter(torch.empty(gates * hidden_size)) if bias else None
        self.bias_hh = torch.nn.Parameter(torch.empty(gates * hidden_size)) if bias else None

    def reset_parameters(self) -> None:
        """Draw every parameter anew from U(-1/sqrt(N), 1/sqrt(N))."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            torch.nn.init.uniform_(parameter, -bound, bound)

    def extra_gates(self) -> str:
        """What `extra_repr` says of hard gates."""
        return f", gate_slope={self.gate_slope:g}" if self.gate_slope else ""

    def check_call(self, x: Tensor, **states: Tensor | None) -> None:
        """Raises ValueError for what the layer cannot take, by the argument's name."""
        kind = type(self).__name__
        if x.dim() not in (2, 3):
            raise ValueError(f"{kind} takes a 2-D or 3-D input, got shape {tuple(x.shape)}")
        if x.shape[-1] != self.input_size:
            raise ValueError(f"{kind} was made for {self.input_size} input features, got {x.shape[-1]}")
        if x.dtype != self.weight_ih.dtype:
            raise ValueError(f"{kind}'s parameters are {self.weight_ih.dtype}, its input is {x.dtype}")
        steps = x.shape[1] if x.dim() == 3 and self.batch_first else x.shape[0]
        if steps == 0:
            raise ValueError(f"{kind} takes at least one step, got a sequence of length 0")
        n = self.hidden_size
        expected = (1, n) if x.dim() == 2 else (1, x.shape[0 if self.batch_first else 1], n)
        for name, state in states.items():
            if state is not None and tuple(state.shape) != expected:
                raise ValueError(f"{kind} expects {name} of shape {expected}, got {tuple(state.shape)}")


class GRU(_Recurrent):
    """One GRU layer, called like `torch.nn.GRU`, with the candidate's activation, the reset's place and the gates'
    activation to choose.

    With s the gates' activation, a the candidate's and * element by element, for each step:

        r  = s(W_ir x + b_ir + W_hr h + b_hr)
        z  = s(W_iz x + b_iz + W_hz h + b_hz)
        n  = a(W_in x + b_in + r * (W_hn h + b_hn))      reset_after=True  (torch, cuDNN, Keras' default)
        n  = a(W_in x + b_in + W_hn (r * h) + b_hn)      reset_after=False (Cho et al. 2014; the RNNoise lineage)
        h' = n + z * (h - n)

    activation "tanh" with reset_after=True is `torch.nn.GRU` of one layer. s is the logistic sigmoid, or with a
    gate_slope, 1/512..1, the hard sigmoid clip(gate_slope * x + 1/2, 0, 1): 1/6 in Keras 3, 0.2 in Keras 2 and ONNX.

    Parameters, in torch's shapes and gate order r, z, n: weight_ih [3N, F], weight_hh [3N, N], and with bias=True
    bias_ih [3N], bias_hh [3N]; all drawn from U(-1/sqrt(N), 1/sqrt(N)), as torch does.

    Raises ValueError (TypeError for a wrong type) that names the argument, at construction and at the call.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        activation: str = "tanh",
        reset_after: bool = True,
        bias: bool = True,
        batch_first: bool = False,
        gate_slope: float = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size, 3, bias, batch_first, reset_after=reset_after)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
        self.activation = activation
        self.reset_after = reset_after
        self.gate_slope = slope_of_gates(gate_slope, "GRU")
        self.reset_parameters()

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, activation={self.activation!r}, reset_after={self.reset_after}, "
            f"bias={self.bias}, batch_first={self.batch_first}{self.extra_gates()}"
        )

    def forward(self, x: Tensor, h0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x: [T, B, F], [B, T, F] with batch_first, or one stream [T, F]; h0: [1, B, N] ([1, N] for one stream), zeros
        by default. Returns y (as x, with N features) and the last state h_n (as h0)."""
        self.check_call(x, h0=h0)
        return torch.ops.rtcore.gru(
            x,
            h0,
            self.weight_ih,
            self.weight_hh,
            self.bias_ih,
            self.bias_hh,
            self.activation,
            self.reset_after,
            self.batch_first,
            self.gate_slope,
        )


class LSTM(_Recurrent):
    """One LSTM layer, called like `torch.nn.LSTM`, with peepholes, coupled input and forget gates and the gates'
    activation to choose.

    With s the gates' activation and * element by element, for each step:

        i  = s(W_ii x + b_ii + W_hi h + b_hi + p_i * c)      the p terms with peephole=True
        f  = s(W_if x + b_if + W_hf h + b_hf + p_f * c)      f = 1 - i with coupled=True
        g  = tanh(W_ig x + b_ig + W_hg h + b_hg)
        c' = f * c + i * g
        o  = s(W_io x + b_io + W_ho h + b_ho + p_o * c')
        h' = o * tanh(c')

    Peepholes are those of Gers & Schmidhuber 2000: i and f see the old cell, o sees the new one. Coupled gates keep
    the input gate and take f = 1 - i, as ONNX's input_forget and the CIFG of Greff et al. 2017. A layer that was
    trained the other way round, with a forget gate and i = 1 - f, is the same layer: give the rows of i (weights,
    biases, peepholes) the negated rows of its f, as 1 - s(a) = s(-a). With neither it is `torch.nn.LSTM` of one layer.
    s is the logistic sigmoid, or with a gate_slope a hard one, as in `GRU`; 1 - s(a) = s(-a) holds of both.

    Parameters, in torch's shapes and gate order i, f, g, o (coupled: i, g, o, and 3N rows): weight_ih [4N, F],
    weight_hh [4N, N]; with bias=True bias_ih [4N], bias_hh [4N]; with peephole=True weight_peephole [3N] in the order
    i, f, o (coupled: [2N], i, o). ONNX's P has the order i, o, f. All are drawn from U(-1/sqrt(N), 1/sqrt(N)).

    Raises ValueError (TypeError for a wrong type) that names the argument, at construction and at the call.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        batch_first: bool = False,
        peephole: bool = False,
        coupled: bool = False,
        gate_slope: float = 0.0,
    ) -> None:
        super().__init__(
            input_size, hidden_size, 3 if coupled else 4, bias, batch_first, peephole=peephole, coupled=coupled
        )
        self.peephole = peephole
        self.coupled = coupled
        self.gate_slope = slope_of_gates(gate_slope, "LSTM")
        self.weight_peephole = torch.nn.Parameter(torch.empty((3 - coupled) * hidden_size)) if peephole else None
        self.reset_parameters()

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, bias={self.bias}, batch_first={self.batch_first}, "
            f"peephole={self.peephole}, coupled={self.coupled}{self.extra_gates()}"
        )

    def forward(self, x: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x: [T, B, F], [B, T, F] with batch_first, or one stream [T, F]; hx: (h0, c0), each [1, B, N] ([1, N] for one
        stream), zeros by default. Returns y (as x, with N features) and the last states (h_n, c_n) (as hx)."""
        if hx is not None and (isinstance(hx, Tensor) or len(hx) != 2):
            raise ValueError("LSTM expects its states as a pair (h0, c0)")
        h0, c0 = hx or (None, None)
        self.check_call(x, h0=h0, c0=c0)
        y, h_n, c_n = torch.ops.rtcore.lstm(
            x,
            h0,
            c0,
            self.weight_ih,
            self.weight_hh,
            self.bias_ih,
            self.bias_hh,
            self.weight_peephole,
            self.coupled,
            self.batch_first,
            self.gate_slope,
        )
        return y, (h_n, c_n)
