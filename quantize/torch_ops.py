"""Handlers of torch operations without weights: activations, arithmetic, selection, concatenation, moves of axes.

To add an operation, write a function under `@handles("aten.<name>.<overload>")`; the two walks need nothing else.

Neighbours: `torch_axes.py` (Value, Builder, the table of handlers), `torch_layers.py` (Linear, GRU, LSTM, RNN),
`torch_program.py` (calls them).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quantize.torch_axes import Atom, Axis, Builder, Operand, Value, axis_size, handles
from quantize.torch_functions import function, is_one_plus_abs

# --- activations and arithmetic -------------------------------------------------------------------------------------


def _activation(kind: str) -> Callable[[Builder, Value], Value]:
    def handler(b: Builder, x: Value) -> Value:
        return b.emit("activation", [x], x.axes, x.width, {"activation": kind})

    return handler


for _kind in ("sigmoid", "tanh", "relu"):
    handles(f"aten.{_kind}.default")(_activation(_kind))


def _affine(b: Builder, x: Value, scale: Operand, offset: Operand) -> Value:
    """scale * x + offset, each a number or a constant that varies over the features alone."""
    constants = [torch.as_tensor(c, dtype=torch.float64) for c in (scale, offset)]
    rank = max(len(x.axes), *(c.dim() for c in constants))
    axes: list[Axis] = [()] * (rank - len(x.axes)) + list(x.axes)
    padded = [c.reshape((1,) * (rank - c.dim()) + tuple(c.shape)) for c in constants]
    vary: int | None = None
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
        elif vary is not None or b.feature_axis(x) not in (None, i - (rank - len(x.axes))):
            raise b.refusal("takes a constant that varies along another axis than the features'")
        vary = i
    vectors = [b.array(c.reshape(-1), "constant") for c in padded]
    size = max(len(v) for v in vectors)
    if size == x.width or size == 1:
        params = {k: np.broadcast_to(v, x.width).copy() for k, v in zip(("scale", "offset"), vectors, strict=True)}
        return b.emit("affine", [x], axes, x.width, params=params)
    widened = Atom(size) if b.infer else Atom(size, "feature")
    for atom in axes[vary]:
        widened.share_role(atom)
    axes[vary] = (widened,)
    weight, bias = (np.broadcast_to(v, size).copy() for v in vectors)
    return b.emit("linear", [x], axes, size, params={"weight": weight[:, None], "bias": bias})


@handles("aten.add.Tensor", "aten.add.Scalar")
def _add(b: Builder, x: Operand, y: Operand, alpha: float = 1) -> Value:
    if not isinstance(y, Value):
        return _affine(b, x, 1.0, _times(y, alpha))
    if alpha != 1:
        y = _affine(b, y, alpha, 0.0)
    if not isinstance(x, Value):
        return _affine(b, y, 1.0, x)
    return b.emit("add", [x, y], b.broadcast(x, y), max(x.width, y.width))


@handles("aten.sub.Tensor", "aten.sub.Scalar")
def _sub(b: Builder, x: Operand, y: Operand, alpha: float = 1) -> Value:
    if not isinstance(y, Value):
        return _affine(b, x, 1.0, _times(y, -alpha))
    if not isinstance(x, Value):
        return _affine(b, y, -alpha, x)
    if alpha != 1:
        y = _affine(b, y, alpha, 0.0)
    return b.emit("sub", [x, y], b.broadcast(x, y), max(x.width, y.width))


@handles("aten.rsub.Tensor", "aten.rsub.Scalar")
def _rsub(b: Builder, x: Operand, y: Operand, alpha: float = 1) -> Value:
    return _sub(b, y, x, alpha)


@handles("aten.mul.Tensor", "aten.mul.Scalar")
def _mul(b: Builder, x: Operand, y: Operand) -> Value:
    if not isinstance(y, Value):
        return _affine(b, x, y, 0.0)
    if not isinstance(x, Value):
        return _affine(b, y, x, 0.0)
    return b.emit("mul", [x, y], b.broadcast(x, y), max(x.width, y.width))


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


# --- selection and concatenation ------------------------------------------------------------------------------------


def _take(b: Builder, x: Value, dim: int, start: int, stop: int, drop: bool = False) -> Value:
    """x[..., start:stop, ...] along `dim`, without that axis when `drop`. Negative and huge bounds as in torch."""
    dim %= len(x.axes)
    axis = x.axes[dim]
    before, after = x.axes[:dim], x.axes[dim + 1 :]
    size = axis_size(axis)
    last = start == -1 and stop >= size
    if start == 0 and stop == sys.maxsize and not drop:
        return x
    role = b.role(axis)
    low, high = (max(i + size, 0) if i < 0 else min(i, size) for i in (start, stop))
    if role == "one":
        if low != 0 or high != 1:
            raise b.refusal("takes nothing from an axis of length 1")
        return x.moved((*before, *([] if drop else [()]), *after))
    if role is None:  # infer: a last step, or features
        part = Atom(high - low)
        part.share_role(axis[0])
        if not last:
            b.wish((part,), "feature")
        elif not drop:
            part = Atom(1)
        return x.moved((*before, *([] if drop else [(part,)]), *after))
    if role == "time":
        if not last:
            raise b.refusal(
                "takes a part of the time axis; a streaming net sees one step at a time: take all steps, or the last "
                "one with [-1] or [-1:] (a loop over the steps has to be a recurrent layer)"
            )
        return x.moved((*before, *([] if drop else [()]), *after))
    if high <= low:
        raise b.refusal(f"takes an empty part, {start}:{stop}, of an axis of length {size}")
    if role == "layer":
        tensors = x.tensors if x.kind == "argument" else x.tensors[low:high]
        kept: list[Axis] = [] if drop else [(Atom(high - low, "layer"),)]
        return replace(x, tensors=tensors, axes=(*before, *kept, *after))
    if role == "feature" and b.feature_axis(x) == dim:
        kept = [] if drop else [(Atom(high - low, "feature"),)]
        if (low, high) == (0, size):
            return x.moved((*before, *kept, *after))
        return b.emit("slice", [x], (*before, *kept, *after), high - low, {"start": low, "stop": high})
    raise b.refusal(f"takes a part of the {role} axis; only features (and the last step) can be selected")


@handles("aten.select.int")
def _select(b: Builder, x: Value, dim: int, index: int) -> Value:
    return _take(b, x, dim, index, index + 1 if index != -1 else sys.maxsize, drop=True)


@handles("aten.slice.Tensor")
def _slice(
    b: Builder, x: Value, dim: int = 0, start: int | None = None, stop: int | None = None, step: int = 1
) -> Value:
    if step != 1:
        raise b.refusal(f"has step {step}; only slices with step 1 are supported")
    return _take(b, x, dim, start or 0, sys.maxsize if stop is None else stop)


@handles("aten.narrow.default")
def _narrow(b: Builder, x: Value, dim: int, start: int, length: int) -> Value:
    last = start == -1 and length == 1
    return _take(b, x, dim, start, sys.maxsize if last else start + length)


def _pieces(b: Builder, x: Value, dim: int, sizes: Sequence[int]) -> list[Value]:
    """Consecutive parts of an axis."""
    if len(sizes) == 1:
        return [x]
    stops = np.cumsum(sizes).tolist()
    return [_take(b, x, dim, stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]


@handles("aten.split.Tensor")
def _split(b: Builder, x: Value, size: int, dim: int = 0) -> list[Value]:
    whole = axis_size(x.axes[dim])
    return _pieces(b, x, dim, [min(size, whole - start) for start in range(0, whole, size)])


@handles("aten.split_with_sizes.default", "aten.split.sizes")
def _split_with_sizes(b: Builder, x: Value, sizes: Sequence[int], dim: int = 0) -> list[Value]:
    return _pieces(b, x, dim, sizes)


@handles("aten.chunk.default")
def _chunk(b: Builder, x: Value, chunks: int, dim: int = 0) -> list[Value]:
    return _split(b, x, -(-axis_size(x.axes[dim]) // chunks), dim)


@handles("aten.tensor_split.sections")
def _tensor_split(b: Builder, x: Value, sections: int, dim: int = 0) -> list[Value]:
    size, more = divmod(axis_size(x.axes[dim]), sections)
    return _pieces(b, x, dim, [size + 1] * more + [size] * (sections - more))


@handles("aten.unbind.int")
def _unbind(b: Builder, x: Value, dim: int = 0) -> list[Value]:
    return [_take(b, x, dim, i, i + 1, drop=True) for i in range(axis_size(x.axes[dim]))]


@handles("aten.cat.default", "aten.concat.default")
def _cat(b: Builder, tensors: Sequence[Operand], dim: int = 0) -> Value:
    if not all(isinstance(t, Value) for t in tensors):
        raise b.refusal("joins a constant tensor to values; only values that depend on the inputs can be concatenated")
    first = tensors[0]
    dim %= len(first.axes)
    if len(tensors) == 1:
        return first
    axes = list(first.axes)
    for other in tensors[1:]:
        for i, (x, y) in enumerate(zip(axes, other.axes, strict=True)):
            if i != dim:
                axes[i] = b.join(x, y)
    parts = [t.axes[dim] for t in tensors]
    roles = {b.role(part) for part in parts}
    for role in ("time", "batch"):
        if role in roles:
            raise b.refusal(f"joins along the {role} axis; only features can be concatenated")
    if b.infer and roles <= {"one", None}:  # features or layers: whatever uses the result knows
        part = Atom(sum(axis_size(p) for p in parts))
        for atom in (atom for p in parts for atom in p):
            part.share_role(atom)
            b.wish((part,), "feature")
        axes[dim] = (part,)
        kind = "argument" if all(t.kind == "argument" for t in tensors) else "tensor"
        return Value(tuple(name for t in tensors for name in t.tensors), tuple(axes), first.width, kind)
    if "layer" in roles or (roles == {"one"} and any(b.feature_axis(t) is not None for t in tensors)):
        return _join_rows(b, tensors, axes, dim)
    for t in tensors:
        b.bind(t.axes[dim], "feature")
    width = sum(t.width for t in tensors)
    axes[dim] = (Atom(width, "feature"),)
    return b.emit("concat", tensors, axes, width)


def _join_rows(b: Builder, tensors: Sequence[Value], axes: list[Axis], dim: int) -> Value:
    """Values side by side on a layer axis, as a stack of final states."""
    for t in tensors:
        if b.role(t.axes[dim]) not in ("layer", "one"):
            raise b.refusal(f"joins a {b.role(t.axes[dim])} axis to a layer axis")
        if t.axes[dim] == () and len(t.tensors) > 1:
            raise b.refusal("stacks values that have a layer axis already")
    kinds = {t.kind for t in tensors}
    rows = tuple(name for t in tensors for name in t.tensors)
    axes = [tuple(atom for atom in axis if atom.role != "layer") for axis in axes]  # of the parts: length 1
    axes[dim] = (Atom(len(rows), "layer"),)
    if "initial" in kinds and len(kinds) > 1:
        raise b.refusal("joins a state argument with other values")
    return Value(rows, tuple(axes), tensors[0].width, kinds.pop() if len(kinds) == 1 else "tensor")


@handles("aten.stack.default")
def _stack(b: Builder, tensors: Sequence[Operand], dim: int = 0) -> Value:
    if not all(isinstance(t, Value) for t in tensors):
        raise b.refusal("joins a constant tensor to values; only values that depend on the inputs can be stacked")
    dim %= len(tensors[0].axes) + 1
    return _cat(b, [t.moved((*t.axes[:dim], (), *t.axes[dim:])) for t in tensors], dim)


# --- axes only ------------------------------------------------------------------------------------------------------


def _permutation(b: Builder, x: Value, *args: Any, **kwargs: Any) -> Value:
    """Any operation that only reorders axes: it is run on a tensor whose axes all differ in length."""
    moved = b.target(torch.empty([i + 1 for i in range(len(x.axes))], device="meta"), *args, **kwargs)
    return x.moved(x.axes[size - 1] for size in moved.shape)


handles(
    *(f"aten.{name}.int" for name in ("transpose", "movedim", "moveaxis")),
    *(f"aten.{name}.intlist" for name in ("movedim", "moveaxis")),
    *(f"aten.{name}.default" for name in ("permute", "swapaxes", "swapdims", "t", "numpy_T", "mT")),
)(_permutation)


@handles(
    *(f"aten.{name}.default" for name in ("view", "reshape", "_unsafe_view", "view_as", "reshape_as")),
    "aten.unflatten.int",
)
def _reshape(b: Builder, x: Value, *_: Any) -> Value:
    """Deal the atoms, in order, to the result's axes."""
    left = [atom for axis in x.axes for atom in axis]
    before, after = "x".join(str(axis_size(a)) for a in x.axes), "x".join(map(str, b.shape))
    axes: list[Axis] = []
    for i, size in enumerate(b.shape):
        axis: list[Atom] = []
        while size > 1 and axis_size(tuple(axis)) < size and left:
            atom = left.pop(0)
            if atom.size > 1 or atom.role not in ("feature", "layer"):
                axis.append(atom)
        if axis_size(tuple(axis)) != size:
            raise b.refusal(
                f"regroups axes ({before} to {after}) so that their elements mix; only merging neighbouring axes and "
                "splitting them back is supported (permute first)"
            )
        if size == 1 and left and left[0].size == 1:
            axis.append(left.pop(0))
        following = b.shape[i + 1] if i + 1 < len(b.shape) else None
        while following != 1 and left and left[0].size == 1:
            atom = left.pop(0)
            if atom.role in ("time", "batch") or (atom.role is None and following):
                axis.append(atom)
        axes.append(tuple(axis))
    return _rows_to_features(b, x.moved(axes))


@handles("aten.flatten.using_ints")
def _flatten(b: Builder, x: Value, start: int = 0, stop: int = -1) -> Value:
    start, stop = start % len(x.axes), stop % len(x.axes)
    merged = tuple(atom for axis in x.axes[start : stop + 1] for atom in axis)
    return _rows_to_features(b, x.moved((*x.axes[:start], merged, *x.axes[stop + 1 :])))


def _rows_to_features(b: Builder, x: Value) -> Value:
    """Where an axis merges (layer, feature), as in h_n.transpose(0, 1).reshape(B, -1), concatenate the rows."""
    for i, axis in enumerate(x.axes):
        if b.role(axis) == "feature and layer":
            if [atom.role for atom in axis] != ["layer", "feature"]:
                raise b.refusal(
                    "interleaves the features of several layers; put the layer axis before the feature axis"
                )
            rows = [Value((name,), (), x.width, x.kind) for name in x.tensors]
            axes = (*x.axes[:i], (Atom(len(rows) * x.width, "feature"),), *x.axes[i + 1 :])
            return b.emit("concat", rows, axes, len(rows) * x.width)
    return x


@handles("aten.unsqueeze.default")
def _unsqueeze(b: Builder, x: Value, dim: int) -> Value:
    dim %= len(x.axes) + 1
    return x.moved((*x.axes[:dim], (), *x.axes[dim:]))


@handles("aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims")
def _squeeze(b: Builder, x: Value, dims: int | Sequence[int] | None = None) -> Value:
    chosen = range(len(x.axes)) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {d % len(x.axes) for d in chosen}
    gone = {d for d in gone if axis_size(x.axes[d]) == 1}
    for d in gone:
        if b.role(x.axes[d]) in ("time", "batch"):
            raise b.refusal(
                f"removes the {b.role(x.axes[d])} axis because its length happens to be 1; name the axis to squeeze, "
                "or export with a longer one"
            )
    return x.moved(axis for d, axis in enumerate(x.axes) if d not in gone)


@handles("aten.expand.default", "aten.expand_as.default", "aten.broadcast_to.default")
def _expand(b: Builder, x: Value, *_: Any) -> Value:
    if tuple(axis_size(axis) for axis in x.axes) != b.shape:
        raise b.refusal("repeats a value along an axis; only features broadcast, and they do so by themselves")
    return x


@handles(
    *(f"aten.{name}.default" for name in ("contiguous", "clone", "detach", "alias", "lift_fresh_copy", "positive")),
    *(f"aten.to.{overload}" for overload in ("dtype", "device", "dtype_layout", "other", "prim_Device")),
    *(f"aten.{name}.default" for name in ("_to_copy", "type_as")),
)
def _same(b: Builder, x: Value, *_: Any, **__: Any) -> Value:
    """Copies and changes of float dtype or memory layout: nothing that a step would notice."""
    return x


@handles("aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default")
def _dropout(b: Builder, x: Value, p: float, train: bool) -> Value:
    if train and p > 0:
        raise b.refusal("acts, because the model was exported in training mode; call model.eval() before the export")
    return x


def _constant_like(b: Builder, x: Value, *args: Any, **kwargs: Any) -> Tensor:
    """zeros_like(x) and its kind: they take only the shape of x."""
    return b.target(torch.zeros([axis_size(axis) for axis in x.axes]), *args, **kwargs)


handles(
    *(f"aten.{name}.default" for name in ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"))
)(_constant_like)
