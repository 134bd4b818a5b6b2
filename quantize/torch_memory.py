"""Where the features of a value lie in memory, and the copies that bring them into another order.

Permutes and merges of axes cost nothing: a `Value` remembers the order of its atoms in memory. An operation that needs
an order (the features of a matrix product innermost, both sides of a sum alike) asks here, and only then a "copy" node
is emitted. Neighbours: `torch_axes.py` (Value, Builder), the handlers (`torch_layers.py`, `torch_windows.py`,
`torch_moves.py`, `torch_ops.py`, `torch_functions.py`), `graph.py` (the copy node).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from quantize.torch_axes import Atom, Axis, Builder, Value, axis_size, flat

COPY_AXES = 4  # of rtcore_copy_i16


def features(axis: Axis) -> Axis:
    """The atoms of an axis that lie in memory."""
    return tuple(atom for atom in axis if atom.role == "feature" and atom.size != 1)


def strides(atoms: Sequence[Atom]) -> dict[Atom, int]:
    """The distance in memory between neighbours along each atom."""
    return {atom: math.prod(a.size for a in atoms[i + 1 :]) for i, atom in enumerate(atoms)}


def copied(
    b: Builder, x: Value, dims: Iterable[tuple[int, int]], axes: Iterable[Axis], order: Axis | None, start: int = 0
) -> Value:
    """A strided copy. dims: (length, distance in x's memory) of each axis of the result, in the order of its memory."""
    merged: list[tuple[int, int]] = []
    for size, stride in dims:
        if size == 1:
            continue
        if merged and merged[-1][1] == size * stride:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    if len(merged) > COPY_AXES:
        raise b.refusal(
            f"moves elements along {len(merged)} axes at once; at most {COPY_AXES} are supported: do it in two"
        )
    padded = [(1, 0)] * (COPY_AXES - len(merged)) + merged
    attrs = {"shape": tuple(n for n, _ in padded), "strides": tuple(s for _, s in padded), "start": start}
    return b.emit("copy", [x], axes, math.prod(attrs["shape"]), attrs, order=order, label=".copy")


def permuted(b: Builder, x: Value, order: Axis) -> Value:
    """x with its atoms in this order of memory."""
    if order == x.memory or b.infer:
        return x
    distance = strides(x.memory)
    return copied(b, x, [(atom.size, distance[atom]) for atom in order], x.axes, order)


def solid(b: Builder, x: Value) -> Value:
    """x as its axes say: row-major."""
    return permuted(b, x, features(flat(x.axes)))


def innermost(b: Builder, x: Value, last: Iterable[Axis]) -> Value:
    """x with the features of these axes last in memory, in this order."""
    if b.infer:
        return x
    last = features(flat(last))
    return permuted(b, x, (*(atom for atom in x.memory if atom not in last), *last))


def along(b: Builder, x: Value, dim: int) -> tuple[Value, int]:
    """x with the features of axis `dim` innermost, and how many such rows there are. The axis becomes features; where
    it has length 1 and no role it stands for a single one."""
    if x.axes[dim]:
        b.bind(x.axes[dim], "feature")
    x = innermost(b, x, [x.axes[dim]])
    return x, 1 if b.infer else x.width // axis_size(x.axes[dim])


def planar(b: Builder, x: Value) -> tuple[Value, list[int]]:
    """x with each axis' features in one piece, and the axes that have some, in the order of memory, counted from the
    right (-1 is the last). Build only."""
    rank = len(x.axes)
    pieces = {i - rank: features(axis) for i, axis in enumerate(x.axes) if features(axis)}
    now = x.memory
    order = sorted(pieces, key=lambda i: now.index(pieces[i][0]))
    if tuple(atom for i in order for atom in pieces[i]) != now:
        x, order = solid(b, x), sorted(pieces)
    return x, order


def lengths(x: Value, rank: int) -> list[int]:
    """Features along each axis, 1 where there are none, for a value seen with `rank` axes."""
    return [1] * (rank - len(x.axes)) + [math.prod(atom.size for atom in features(axis)) for axis in x.axes]


def expanded(b: Builder, x: Value, axes: Sequence[Axis]) -> Value:
    """x repeated to the features of `axes`, which has at least as many axes; row-major. Build only."""
    x, _ = planar(b, x)
    distance = strides(x.memory)
    own = [()] * (len(axes) - len(x.axes)) + list(x.axes)
    dims: list[tuple[int, int]] = []
    for axis, mine in zip(axes, own, strict=True):
        if features(mine):
            dims += [(atom.size, distance[atom]) for atom in features(mine)]
        else:
            dims.append((math.prod(atom.size for atom in features(axis)), 0))
    return copied(b, x, dims, axes, None)


def combined(b: Builder, op: str, x: Value, y: Value) -> Value:
    """An elementwise operation on two values that broadcast as torch's do."""
    axes = b.broadcast(x, y)
    if b.infer:
        return b.emit(op, [x, y], axes, max(x.width, y.width))
    rank = len(axes)
    (x, x_order), (y, y_order) = planar(b, x), planar(b, y)
    sizes = [max(pair) for pair in zip(lengths(x, rank), lengths(y, rank), strict=True)]
    width = math.prod(sizes)
    if x.width != width and y.width != width:
        fresh = [
            axis if axis_size(features(axis)) == n else (*(a for a in axis if a.role != "feature"), Atom(n, "feature"))
            for axis, n in zip(axes, sizes, strict=True)
        ]
        x = expanded(b, x, fresh)
        x_order = [i for i in range(-rank, 0) if sizes[i] > 1]
    whole, order, part, part_order = (x, x_order, y, y_order) if x.width == width else (y, y_order, x, x_order)
    own = [()] * (rank - len(whole.axes)) + list(whole.axes)
    axes = [mine if features(mine) else axis for axis, mine in zip(axes, own, strict=True)]
    wanted = [i for i in order if i in part_order]
    if part_order != wanted:
        part = permuted(b, part, features(flat(part.axes[i] for i in wanted)))
    attrs = {}
    if part.width not in (1, width):
        if wanted == order[-len(wanted) :]:
            shape, rows = (1, part.width), width // part.width
        elif wanted == order[: len(wanted)]:
            shape, rows = (part.width, 1), part.width
        else:
            part = expanded(b, part, axes)
            part, shape, rows = permuted(b, part, whole.memory), (), 1
        if shape:
            shapes = ((rows, width // rows), shape)
            attrs = {"rows": rows, "shapes": shapes if whole is x else shapes[::-1]}
    pair = [whole, part] if whole is x else [part, whole]
    return b.emit(op, pair, axes, width, attrs, order=whole.memory)
