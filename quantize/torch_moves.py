"""Handlers of torch operations that move and compute nothing: selection, concatenation, padding, moves of axes.

To add an operation, write a function under `@handles("aten.<name>.<overload>")`; the two walks need nothing else.

Neighbours: `torch_memory.py` (copies), `torch_axes.py` (Value, Builder, the table of handlers), `torch_ops.py`
(arithmetic), `torch_program.py` (calls them).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quantize.torch_axes import Atom, Axis, Builder, Operand, Value, axis_size, flat, handles
from quantize.torch_memory import copied, expanded, features, innermost, permuted, planar, solid

PART_OF_TIME = "takes a part of the time axis"  # of a refusal, which the notes of a window then hold

# --- selection and concatenation ------------------------------------------------------------------------------------


def taken(b: Builder, x: Value, dim: int, start: int, stop: int, drop: bool = False) -> Value:
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
        if (low, high) == (0, size - axis[0].pad[1]) and not drop:  # a causal convolution's surplus at the end
            return x.moved((*before, (axis[0].padded(axis[0].pad[0], 0),), *after))
        if not last or any(axis[0].pad):
            raise b.refusal(
                f"{PART_OF_TIME}; a streaming net sees one step at a time: take all steps, or the last one with [-1] "
                "or [-1:] (a loop over the steps has to be a recurrent layer)"
            )
        return x.moved((*before, *([] if drop else [()]), *after))
    if high <= low:
        raise b.refusal(f"takes an empty part, {start}:{stop}, of an axis of length {size}")
    if role == "layer":
        tensors = x.tensors if x.kind == "argument" else x.tensors[low:high]
        kept: list[Axis] = [] if drop else [(Atom(high - low, "layer"),)]
        return replace(x, tensors=tensors, axes=(*before, *kept, *after))
    if role == "feature":
        if b.infer or (low, high) == (0, size):
            kept = [] if drop else [axis if (low, high) == (0, size) else (Atom(high - low, "feature"),)]
            return x.moved((*before, *kept, *after))
        return _part(b, x, dim, range(low, high), drop)
    raise b.refusal(f"takes a part of the {role} axis; only features (and the last step) can be selected")


def _part(b: Builder, x: Value, dim: int, chosen: range, drop: bool = False) -> Value:
    """The chosen elements along an axis of features. Build only."""
    x, order = planar(b, x)
    at = dim - len(x.axes)
    size = axis_size(x.axes[dim])
    inner = math.prod(axis_size(features(x.axes[i])) for i in order[order.index(at) + 1 :])
    outer = x.width // (size * inner)
    kept = Atom(len(chosen), "feature")
    axes = [*x.axes[:dim], *([] if drop else [(kept,)]), *x.axes[dim + 1 :]]
    ordered = flat((kept,) if i == at else features(x.axes[i]) for i in order)
    if outer == 1 and chosen.step == 1:
        ends = {"start": chosen.start * inner, "stop": chosen.stop * inner}
        return b.emit("slice", [x], axes, len(chosen) * inner, ends, order=ordered)
    dims = [(outer, size * inner), (len(chosen), chosen.step * inner), (inner, 1)]
    return copied(b, x, dims, axes, ordered, chosen.start * inner)


@handles("aten.select.int")
def _select(b: Builder, x: Value, dim: int, index: int) -> Value:
    return taken(b, x, dim, index, index + 1 if index != -1 else sys.maxsize, drop=True)


@handles("aten.slice.Tensor")
def _slice(
    b: Builder, x: Value, dim: int = 0, start: int | None = None, stop: int | None = None, step: int = 1
) -> Value:
    stop = sys.maxsize if stop is None else stop
    if step == 1:
        return taken(b, x, dim, start or 0, stop)
    dim %= len(x.axes)
    chosen = range(*slice(start, stop, step).indices(axis_size(x.axes[dim])))
    if b.infer:
        part = Atom(len(chosen))
        part.share_role(x.axes[dim][0])
        return x.moved((*x.axes[:dim], (part,), *x.axes[dim + 1 :]))
    if b.role(x.axes[dim]) != "feature":
        raise b.refusal(f"has step {step} along the {b.role(x.axes[dim])} axis; only features can be thinned out")
    return _part(b, x, dim, chosen)


@handles("aten.narrow.default")
def _narrow(b: Builder, x: Value, dim: int, start: int, length: int) -> Value:
    last = start == -1 and length == 1
    return taken(b, x, dim, start, sys.maxsize if last else start + length)


def _pieces(b: Builder, x: Value, dim: int, sizes: Sequence[int]) -> list[Value]:
    """Consecutive parts of an axis."""
    if len(sizes) == 1:
        return [x]
    stops = np.cumsum(sizes).tolist()
    return [taken(b, x, dim, stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]


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
    return [taken(b, x, dim, i, i + 1, drop=True) for i in range(axis_size(x.axes[dim]))]


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
    if "layer" in roles or (roles == {"one"} and any(t.kind != "tensor" for t in tensors)):
        return _join_rows(b, tensors, axes, dim)
    for t in tensors:
        b.bind(t.axes[dim], "feature")
    if b.infer:
        axes[dim] = (Atom(sum(axis_size(p) for p in parts), "feature"),)
        return b.emit("concat", tensors, axes, first.width)
    return concatenated(b, tensors, dim, axes)


def joined(b: Builder, values: Sequence[Value], dim: int) -> Value:
    """Features of several values of equal axes, side by side along one that may have length 1."""
    if len(values) == 1:
        return values[0]
    if not b.infer:
        return concatenated(b, values, dim, values[0].axes)
    part = Atom(sum(axis_size(value.axes[dim]) for value in values), "feature")
    axes = (*values[0].axes[:dim], (part,), *values[0].axes[dim + 1 :])
    return b.emit("concat", values, axes, values[0].width)


def concatenated(b: Builder, tensors: Sequence[Value], dim: int, axes: Sequence[Axis]) -> Value:
    """Values side by side along an axis of features; the others of `axes` are the result's. Build only."""
    rank = len(axes)
    parts = [planar(b, t) for t in tensors]
    first, order = max(parts, key=lambda part: len(part[1]))
    if dim - rank not in order:
        order = [*(i for i in order if i < dim - rank), dim - rank, *(i for i in order if i > dim - rank)]
    aligned = [permuted(b, t, features(flat(t.axes[i] for i in order))) for t, _ in parts]
    sizes = [axis_size(features(t.axes[dim])) for t in aligned]
    inner = math.prod(axis_size(features(first.axes[i])) for i in order[order.index(dim - rank) + 1 :])
    joined = Atom(sum(sizes), "feature")
    axes = [axis if features(axis) or i == dim else first.axes[i] for i, axis in enumerate(axes)]
    axes = [
        (joined,) if i == dim else first.axes[i] if features(first.axes[i]) else axis for i, axis in enumerate(axes)
    ]
    ordered = flat(axes[i] for i in order)
    rows = aligned[0].width // (sizes[0] * inner)
    width = sum(t.width for t in aligned)
    return b.emit("concat", aligned, axes, width, {"rows": rows} if rows > 1 else {}, order=features(ordered))


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
    """Deal the atoms, in order, to the result's axes; split or regroup features where that does not come out."""
    left = list(flat(x.axes))
    axes: list[Axis] = []
    for i, size in enumerate(b.shape):
        axis: list[Atom] = []
        while size > 1 and axis_size(tuple(axis)) < size and left:
            atom = left.pop(0)
            if atom.size > 1 or atom.role not in ("feature", "layer"):
                axis.append(atom)
        if axis_size(tuple(axis)) != size:
            return _regroup(b, x)
        if size == 1 and left and left[0].size == 1:
            axis.append(left.pop(0))
        following = b.shape[i + 1] if i + 1 < len(b.shape) else None
        while following != 1 and left and left[0].size == 1:
            atom = left.pop(0)
            if atom.role in ("time", "batch") or (atom.role is None and following):
                axis.append(atom)
        axes.append(tuple(axis))
    return _rows_to_features(b, x.moved(axes))


def _regroup(b: Builder, x: Value) -> Value:
    """A reshape that splits axes: groups of the old and the new ones that hold the same elements."""
    old, new = [atom for atom in flat(x.axes) if atom.size != 1], [n for n in b.shape if n != 1]
    fresh: list[Axis] = []
    while old or new:
        source, target = [old.pop(0)], [new.pop(0)]
        while axis_size(tuple(source)) != math.prod(target):
            if axis_size(tuple(source)) < math.prod(target):
                source.append(old.pop(0))
            else:
                target.append(new.pop(0))
        if len(target) == 1:
            fresh.append(tuple(source))
            continue
        roles = {atom.role for atom in source}
        if len(source) > 1 and not (roles == {"feature"} or (b.window and roles <= {"feature", None})):
            before, after = "x".join(str(axis_size(a)) for a in x.axes), "x".join(map(str, b.shape))
            raise b.refusal(
                f"regroups axes ({before} to {after}) so that their elements mix; only merging neighbouring axes and "
                "splitting features is supported (permute first)"
            )
        if roles - {"feature", None}:
            raise b.refusal(f"splits the {', '.join(sorted(roles))} axis")
        parts = [Atom(n) for n in target]
        for part in parts:
            part.share_role(source[0])
        if not b.infer:
            x = _split_atoms(b, x, tuple(source), tuple(parts))
        fresh += [(part,) for part in parts]
    dealt = iter(fresh)
    return x.moved(next(dealt) if n != 1 else () for n in b.shape)


def _split_atoms(b: Builder, x: Value, source: Axis, parts: Axis) -> Value:
    """x with `parts` in the place of `source` in its memory, where that is made to lie in one piece."""
    memory = x.memory
    at = memory.index(source[0])
    if memory[at : at + len(source)] != source:
        x = solid(b, x)
        memory, at = x.memory, x.memory.index(source[0])
    return replace(x, order=(*memory[:at], *parts, *memory[at + len(source) :]))


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
    axes: list[Axis] = [()] * (len(b.shape) - len(x.axes)) + list(x.axes)
    longer = [i for i, n in enumerate(b.shape) if axis_size(axes[i]) != n]
    if not longer:
        return x.moved(axes)
    for i in longer:
        if not b.window or b.role(axes[i]) not in ("one", "feature", None):
            raise b.refusal("repeats a value along an axis; only features broadcast, and they do so by themselves")
        axes[i] = (Atom(b.shape[i], "feature"),)
    return Value(x.tensors, tuple(axes), x.width, x.kind) if b.infer else expanded(b, x, axes)


@handles("aten.repeat.default")
def _repeat(b: Builder, x: Value, repeats: Sequence[int]) -> Value:
    axes: list[Axis] = [()] * (len(repeats) - len(x.axes)) + list(x.axes)
    x = x.moved(axes)
    for i, count in enumerate(repeats):
        if count == 1:
            continue
        if not b.window or b.role(x.axes[i]) not in ("one", "feature", None):
            raise b.refusal(f"repeats a value along the {b.role(x.axes[i])} axis; features of a window can be repeated")
        size = axis_size(x.axes[i])
        if b.infer:
            x = replace(x, axes=(*x.axes[:i], (Atom(size * count, "feature"),), *x.axes[i + 1 :]), order=None)
        else:
            x = concatenated(b, [x] * count, i, x.axes)
    return x


@handles("aten.flip.default")
def _flip(b: Builder, x: Value, dims: Sequence[int]) -> Value:
    for dim in (d % len(x.axes) for d in dims):
        if b.infer or axis_size(x.axes[dim]) == 1:
            continue
        if b.role(x.axes[dim]) != "feature":
            raise b.refusal(f"turns the {b.role(x.axes[dim])} axis round; that needs the whole window")
        x = _part(b, x, dim, range(axis_size(x.axes[dim]) - 1, -1, -1))
    return x


@handles("aten.constant_pad_nd.default", "aten.pad.default")
def _pad(b: Builder, x: Value, pad: Sequence[int], mode: Any = "constant", value: float | None = None) -> Value:
    if b.op == "constant_pad_nd":
        mode, value = "constant", mode
    if mode != "constant":
        raise b.refusal(f"pads in mode {mode!r}; only constants are supported")
    number = 0.0 if value in (None, "constant") else float(value)
    channels = len(x.axes) - len(pad) // 2 - 1
    if not b.infer and channels > 0 and b.role(x.axes[channels]) == "feature":  # as a convolution will want them
        x = innermost(b, x, [*x.axes[channels + 1 :], x.axes[channels]])
    for i in range(len(pad) // 2):
        ends = pad[2 * i], pad[2 * i + 1]
        dim = len(x.axes) - 1 - i
        for end, (low, high) in ((ends[0], (-min(ends[0], 0), sys.maxsize)), (ends[1], (0, min(ends[1], 0)))):
            if end < 0:
                x = taken(b, x, dim, low, high)
        if max(ends) > 0:
            x = _padded(b, x, dim, max(ends[0], 0), max(ends[1], 0), number)
    return x


def _padded(b: Builder, x: Value, dim: int, low: int, high: int, number: float) -> Value:
    axis = x.axes[dim]
    role = b.role(axis)
    if b.infer:
        wider = Atom(axis_size(axis) + low + high)
        for atom in axis:
            wider.share_role(atom)
        return replace(x, axes=(*x.axes[:dim], (wider,), *x.axes[dim + 1 :]), order=None)
    if role == "time":
        if number != 0:
            raise b.refusal(f"pads time with {number:g}; a stream begins with zeros")
        return x.moved(
            (*x.axes[:dim], (axis[0].padded(axis[0].pad[0] + low, axis[0].pad[1] + high),), *x.axes[dim + 1 :])
        )
    if role not in ("feature", "one"):
        raise b.refusal(f"pads the {role} axis; only features, and time before a causal convolution, can be padded")
    x, order = planar(b, x)
    at, size = dim - len(x.axes), axis_size(axis)
    if at not in order:
        order = [*(i for i in order if i < at), at, *(i for i in order if i > at)]
    inner = math.prod(axis_size(features(x.axes[i])) for i in order[order.index(at) + 1 :])
    wider = Atom(size + low + high, "feature")
    ordered = flat((wider,) if i == at else features(x.axes[i]) for i in order)
    rows = x.width // (size * inner)
    attrs = {"rows": rows, "before": low * inner, "after": high * inner, "value": number}
    width = x.width // size * wider.size
    return b.emit("pad", [x], (*x.axes[:dim], (wider,), *x.axes[dim + 1 :]), width, attrs, order=ordered)


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
