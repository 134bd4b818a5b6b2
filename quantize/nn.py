"""Recurrent layers that torch cannot spell: a GRU with a free candidate activation and both reset conventions.

The computation is one torch.library operator, `rtcore::gru`, so that `torch.export` keeps it as ONE node and a saved
.pt2 carries it; importing this file registers the operator, which a .pt2 that holds it needs before it loads. It is
trainable: the backward pass recomputes the forward in plain torch operations and differentiates those.

Neighbours: `torch_ops.py` turns the node into a graph node, `float_run.py` and `rtcore/csrc/rtcore_gru.c` compute it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "linear": lambda x: x,
}


def _forward(
    x: Tensor,
    h0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    activation: str,
    reset_after: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor]:
    """The layer in plain torch operations; shapes as in `GRU.forward`."""
    batched = x.dim() == 3
    frames = x if batched else x.unsqueeze(1)
    if batched and batch_first:
        frames = frames.transpose(0, 1)
    n = weight_hh.shape[1]
    if h0 is None:
        h = x.new_zeros(frames.shape[1], n)
    else:
        h = h0[0] if batched else h0
    act = ACTIVATIONS[activation]
    from_input = F.linear(frames, weight_ih, bias_ih)
    outputs = []
    for wx in from_input.unbind(0):
        wx_rz, wx_n = wx[:, : 2 * n], wx[:, 2 * n :]
        if reset_after:
            uh = F.linear(h, weight_hh, bias_hh)
            r, z = torch.sigmoid(wx_rz + uh[:, : 2 * n]).chunk(2, 1)
            candidate = act(wx_n + r * uh[:, 2 * n :])
        else:
            bias_rz, bias_n = (None, None) if bias_hh is None else (bias_hh[: 2 * n], bias_hh[2 * n :])
            r, z = torch.sigmoid(wx_rz + F.linear(h, weight_hh[: 2 * n], bias_rz)).chunk(2, 1)
            candidate = act(wx_n + F.linear(r * h, weight_hh[2 * n :], bias_n))
        h = candidate + z * (h - candidate)
        outputs.append(h)
    y = torch.stack(outputs, 1 if batched and batch_first else 0)
    if not batched:
        return y.squeeze(1), h.clone()
    return y, h.unsqueeze(0).clone()


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
) -> tuple[Tensor, Tensor]:
    """The operator behind `GRU`: (y, h_n), both contiguous and fresh."""
    y, h_n = _forward(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, activation, reset_after, batch_first)
    return y.contiguous(), h_n


@gru.register_fake
def _(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, activation, reset_after, batch_first):
    n = weight_hh.shape[1]
    if x.dim() == 2:
        return x.new_empty(x.shape[0], n), x.new_empty(1, n)
    return x.new_empty(x.shape[0], x.shape[1], n), x.new_empty(1, x.shape[0 if batch_first else 1], n)


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.activation, ctx.reset_after, ctx.batch_first = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad_y: Tensor, grad_h_n: Tensor):
    needed = ctx.needs_input_grad[:6]
    with torch.enable_grad():
        tensors = [
            None if t is None else t.detach().requires_grad_(need)
            for t, need in zip(ctx.saved_tensors, needed, strict=True)
        ]
        outputs = _forward(*tensors, ctx.activation, ctx.reset_after, ctx.batch_first)
        wanted = [t for t, need in zip(tensors, needed, strict=True) if need]
        found = iter(torch.autograd.grad(outputs, wanted, (grad_y, grad_h_n), allow_unused=True))
    return (*(next(found) if need else None for need in needed), None, None, None)


gru.register_autograd(_backward, setup_context=_setup_context)


class GRU(torch.nn.Module):
    """One GRU layer, called like `torch.nn.GRU`, with the candidate's activation and the reset's place to choose.

    With s the logistic sigmoid, a the activation and * element by element, for each step:

        r  = s(W_ir x + b_ir + W_hr h + b_hr)
        z  = s(W_iz x + b_iz + W_hz h + b_hz)
        n  = a(W_in x + b_in + r * (W_hn h + b_hn))      reset_after=True  (torch, cuDNN, Keras' default)
        n  = a(W_in x + b_in + W_hn (r * h) + b_hn)      reset_after=False (Cho et al. 2014; the RNNoise lineage)
        h' = n + z * (h - n)

    activation "tanh" with reset_after=True is `torch.nn.GRU` of one layer.

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
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if isinstance(size, bool) or not isinstance(size, int):
                raise TypeError(f"{name} must be an int, got {type(size).__name__}")
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
        for name, flag in (("reset_after", reset_after), ("bias", bias), ("batch_first", batch_first)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name} must be True or False, got {flag!r}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.activation = activation
        self.reset_after = reset_after
        self.bias = bias
        self.batch_first = batch_first
        self.weight_ih = torch.nn.Parameter(torch.empty(3 * hidden_size, input_size))
        self.weight_hh = torch.nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.bias_ih = torch.nn.Parameter(torch.empty(3 * hidden_size)) if bias else None
        self.bias_hh = torch.nn.Parameter(torch.empty(3 * hidden_size)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew from U(-1/sqrt(N), 1/sqrt(N))."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            torch.nn.init.uniform_(parameter, -bound, bound)

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, activation={self.activation!r}, reset_after={self.reset_after}, "
            f"bias={self.bias}, batch_first={self.batch_first}"
        )

    def forward(self, x: Tensor, h0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x: [T, B, F], [B, T, F] with batch_first, or one stream [T, F]; h0: [1, B, N] ([1, N] for one stream), zeros
        by default. Returns y (as x, with N features) and the last state h_n (as h0)."""
        if x.dim() not in (2, 3):
            raise ValueError(f"GRU takes a 2-D or 3-D input, got shape {tuple(x.shape)}")
        if x.shape[-1] != self.input_size:
            raise ValueError(f"GRU was made for {self.input_size} input features, got {x.shape[-1]}")
        if x.dtype != self.weight_ih.dtype:
            raise ValueError(f"GRU's parameters are {self.weight_ih.dtype}, its input is {x.dtype}")
        steps = x.shape[1] if x.dim() == 3 and self.batch_first else x.shape[0]
        if steps == 0:
            raise ValueError("GRU takes at least one step, got a sequence of length 0")
        if h0 is not None:
            n = self.hidden_size
            expected = (1, n) if x.dim() == 2 else (1, x.shape[0 if self.batch_first else 1], n)
            if tuple(h0.shape) != expected:
                raise ValueError(f"GRU expects h0 of shape {expected}, got {tuple(h0.shape)}")
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
        )
