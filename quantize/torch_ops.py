"""Handlers of torch's arithmetic: activations, sums, products, constants.

To add an operation, write a function under `@handles("aten.<name>.<overload>")`; the two walks need nothing else.

Neighbours: `torch_axes.py` (Value, Builder, the table of handlers), `torch_memory.py` (how two values meet),
`torch_moves.py` (what computes nothing), `torch_program.py` (calls the handlers).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from quantize.torch_axes import Atom, Axis, Builder, Operand, Value, axis_size, handles
from quantize.torch_functions import affine, function, is_one_plus_abs
from quantize.torch_memory import combined, innermost, lengths, planar

# --- activations and arithmetic -------------------------------------------------------------------------------------


def _activation(kind: str) -> Callable[[Builder, Value], Value]:
    def handler(b: Builder, x: Value) -> Value:
        return b.emit("activation", [x], x.axes, x.width, {"activation": kind})

    return handler


for _kind in ("sigmoid", "tanh", "relu"):
    handles(f"aten.{_kind}.default")(_activation(_kind))


def _affine(b: Builder, x: Value, scale: Operand, offset: Operand) -> Value:
    """scale * x + offset, each a number or a constant that varies over features alone."""
    constants = [torch.as_tensor(c, dtype=torch.float64) for c in (scale, offset)]
    rank = max(len(x.axes), *(c.dim() for c in constants))
    axes: list[Axis] = [()] * (rank - len(x.axes)) + list(x.axes)
    padded = [c.reshape((1,) * (rank - c.dim()) + tuple(c.shape)) for c in constants]
    vary: list[int] = []
    for i, axis in enumerate(axes):
        if all(c.shape[i] == 1 for c in padded):
            continue
        widens = axis_size(axis) == 1 and not (axis and b.role(axis) in ("time", "batch"))
        if not widens and all((c == c.narrow(i, 0, 1)).all() for c in padded):
            padded = [c.narrow(i, 0, 1) for c in padded]  # as ones_like(x): the same all along
            continue
        if b.infer:
            b.wish(axis, "feature")
        elif b.role(axis) not in ("feature", "one"):
            raise b.refusal(
                f"takes a constant that varies along the {b.role(axis)} axis; it may vary over the features only"
            )
        vary.append(i)
    scale, offset = (b.array(c, "constant") for c in padded)
    wider = [i for i in vary if axis_size(axes[i]) == 1]
    if wider:
        return _widened(b, x, axes, vary, wider, scale, offset)
    x = x.moved(axes)
    if b.infer:
        return b.emit("affine", [x], axes, x.width, params={"scale": scale, "offset": offset})
    if len(vary) > 1:
        x, order = planar(b, x)
        whole = [n if i in vary or i - rank in order else 1 for i, n in enumerate(lengths(x, rank))]
        axes_of_memory = [i + rank for i in order] + [i for i in range(rank) if i - rank not in order]
        arrays = [np.broadcast_to(c, whole).transpose(axes_of_memory).reshape(-1) for c in (scale, offset)]
    else:
        x = innermost(b, x, [axes[i] for i in vary])
        n = axis_size(axes[vary[0]]) if vary else (x.memory[-1].size if x.memory else 1)
        arrays = [np.broadcast_to(c.reshape(-1), n) for c in (scale, offset)]
    return affine(b, x, *arrays)


def _widened(b: Builder, x: Value, axes: list[Axis], vary: list[int], wider: list[int], scale, offset) -> Value:
    """A constant with more features than x along an axis: a linear layer of one column where x is a single feature."""
    if len(vary) > 1 or (not b.infer and x.width != 1):
        if b.infer:
            return Value(x.tensors, tuple(axes), x.width)
        raise b.refusal("takes a constant that widens one of several axes; expand the value first")
    size = scale.size if scale.size > 1 else offset.size
    widened = Atom(size) if b.infer else Atom(size, "feature")
    for atom in axes[wider[0]]:
        widened.share_role(atom)
    axes[wider[0]] = (widened,)
    weight, bias = (np.broadcast_to(c.reshape(-1), size).copy() for c in (scale, offset))
    return b.emit("linear", [x], axes, size, params={"weight": weight[:, None], "bias": bias})


@handles("aten.add.Tensor", "aten.add.Scalar")
def _add(b: Builder, x: Operand, y: Operand, alpha: float = 1) -> Value:
    if not isinstance(y, Value):
        return _affine(b, x, 1.0, _times(y, alpha))
    if alpha != 1:
        y = _affine(b, y, alpha, 0.0)
    if not isinstance(x, Value):
        return _affine(b, y, 1.0, x)
    return combined(b, "add", x, y)


@handles("aten.sub.Tensor", "aten.sub.Scalar")
def _sub(b: Builder, x: Operand, y: Operand, alpha: float = 1) -> Value:
    if not isinstance(y, Value):
        return _affine(b, x, 1.0, _times(y, -alpha))
    if not isinstance(x, Value):
        return _affine(b, y, -alpha, x)
    if alpha != 1:
        y = _affine(b, y, alpha, 0.0)
    return combined(b, "sub", x, y)


@handles("aten.rsub.Tensor", "aten.rsub.Scalar")
def _rsub(b: Builder, x: Operand, y: Operand, alpha: float = 1) -> Value:
    return _sub(b, y, x, alpha)


@handles("aten.mul.Tensor", "aten.mul.Scalar")
def _mul(b: Builder, x: Operand, y: Operand) -> Value:
    if not isinstance(y, Value):
        return _affine(b, x, y, 0.0)
    if not isinstance(x, Value):
        return _affine(b, y, x, 0.0)
    return combined(b, "mul", x, y)


@handles("aten.div.Tensor", "aten.div.Scalar", "aten.div.Tensor_mode", "aten.div.Scalar_mode")
def _div(b: Builder, x: Operand, y: Operand, rounding_mode: str | None = None) -> Value:
    if rounding_mode is not None:
        raise b.refusal(f"rounds its quotient (rounding_mode={rounding_mode!r}); only plain division is supported")
    if isinstance(y, Value):
        if isinstance(x, Value) and is_one_plus_abs(b, x, y):  # softsign as torch exports it
            return function(b, x, "softsign")
        raise b.refusal("divides by a value that depends on the inputs; only division by constants is supported")
    return _affine(b, x, 1.0 / torch.as_tensor(y, dtype=torch.float64), 0.0)


@handles("aten.neg.default")
def _neg(b: Builder, x: Value) -> Value:
    return _affine(b, x, -1.0, 0.0)


def _times(constant: Operand, factor: float) -> Tensor:
    return torch.as_tensor(constant, dtype=torch.float64) * factor
