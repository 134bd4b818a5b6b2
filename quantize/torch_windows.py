"""Handlers of torch operations over positions: convolutions, pooling, means and maxima, Embedding.

In memory channels lie innermost ([H][W][C]), so that a patch is read in runs. A convolution over the time of a stream
keeps the frames that it still needs ("delay") and then is one over a window of one output.

Neighbours: `torch_axes.py` (Value, Builder, the table of handlers), `torch_memory.py` (brings channels innermost),
`torch_layers.py` (the other layers with weights), `torch_program.py` (calls the handlers).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from quantize.torch_axes import Atom, Axis, Builder, Operand, Value, axis_size, handles
from quantize.torch_functions import affine
from quantize.torch_memory import features, innermost, planar


def _two(value: int | Sequence[int], rank: int) -> tuple[int, int]:
    """Of a height and a width; a one-dimensional operation has height 1."""
    values = [value] * rank if isinstance(value, int) else list(value) * (rank if len(value) == 1 else 1)
    return (values[0], values[1]) if rank == 2 else (1, values[0])


@handles("aten.conv1d.default", "aten.conv2d.default", "aten.conv1d.padding", "aten.conv2d.padding")
def _conv(
    b: Builder,
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Value:
    if not isinstance(x, Value) or isinstance(weight, Value) or isinstance(bias, Value):
        raise b.refusal("computes its weights from the model's inputs; only constant weights are supported")
    rank = weight.dim() - 2
    kernel = tuple(weight.shape[2:]) if rank == 2 else (1, weight.shape[2])
    strides_, dilations = _two(stride, rank), _two(dilation, rank)
    if isinstance(padding, str):
        spans = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilations, strict=True)]
        pads = [(span // 2, span - span // 2) for span in spans]
    else:
        fixed = _two(padding, rank) if rank == 2 else (0, _two(padding, rank)[1])
        pads = [(p, p) for p in fixed]
    _bind_streams(b, x, rank)
    b.bind(x.axes[-rank - 1], "feature")
    spots = [(), x.axes[-1]] if rank == 1 else [x.axes[-2], x.axes[-1]]
    taps = b.array(weight, "weight")
    taps = taps[:, :, None] if rank == 1 else taps
    n = len(taps)
    params = {"weight": taps, "bias": np.zeros(n) if bias is None else b.array(bias, "bias")}
    sides = [_Side(axis, *rest) for axis, *rest in zip(spots, kernel, strides_, dilations, pads, strict=True)]
    return _slide(b, x, sides, rank, n, params, groups)


class _Side:
    """One direction that a kernel slides in."""

    def __init__(self, axis: Axis, kernel: int, stride: int, dilation: int, pad: tuple[int, int]) -> None:
        self.axis = axis
        self.size = axis_size(axis)
        self.kernel, self.stride, self.dilation, self.pad = kernel, stride, dilation, pad
        self.span = dilation * (kernel - 1)

    @property
    def plain(self) -> bool:
        """Position by position."""
        return self.kernel == 1 and self.stride == 1 and self.pad == (0, 0)

    @property
    def out(self) -> int:
        return (self.size + sum(self.pad) - self.span - 1) // self.stride + 1


def _bind_streams(b: Builder, x: Value, rank: int) -> None:
    """The axis before the channels: the batch, or more that is merged with it."""
    if len(x.axes) == rank + 2 and len(x.axes[0]) == 1 and x.axes[0][0].role is None:
        b.bind(x.axes[0], "batch")


def _slide(
    b: Builder, x: Value, sides: list[_Side], rank: int, n: int, params: dict[str, np.ndarray], groups: int
) -> Value:
    """A convolution: brings the input into [rows][H][W][C] and emits it."""
    channels = Atom(n, "feature")
    if b.infer:
        outs = [_shared(side) for side in sides[-rank:]]
        return b.emit("conv", [x], (*x.axes[: -rank - 1], (channels,), *outs), n)
    times = [i for i, side in enumerate(sides) if b.role(side.axis) == "time"]
    outs: list[Axis] = [side.axis if i in times else (Atom(side.out, "feature"),) for i, side in enumerate(sides)]
    for side in sides:
        if b.role(side.axis) not in ("feature", "one", "time"):
            raise b.refusal(f"slides along the {b.role(side.axis)} axis")
        if side.out < 1:
            raise b.refusal(f"has a kernel that reaches over {side.span + 1} positions, but there are {side.size}")
    x = innermost(b, x, [*(side.axis for side in sides), x.axes[-rank - 1]])
    for i in times:
        clock = sides[i]
        if clock.span and x.width != math.prod(s.size for s in sides if s is not clock) * axis_size(x.axes[-rank - 1]):
            raise b.refusal("slides over time and is repeated along another axis; make that one channels")
        x, outs[i] = _causal(b, x, clock)
        clock.size, clock.pad = clock.span + 1, (0, 0)
        if i == 1 and rank == 2:  # time lies outside the other direction in memory
            sides = sides[::-1]
            params = params | {"weight": params["weight"].swapaxes(2, 3)}
    size = math.prod(side.size for side in sides) * axis_size(x.axes[-rank - 1])
    rows = x.width // size
    attrs: dict[str, Any] = {
        "in": tuple(side.size for side in sides),
        "stride": tuple(side.stride for side in sides),
        "dilation": tuple(side.dilation for side in sides),
        "pad": tuple(side.pad[0] for side in sides),
        "out": tuple(side.out for side in sides),
        "groups": groups,
    }
    if rows > 1:
        attrs["rows"] = rows
    width = rows * math.prod(attrs["out"]) * n
    gone = {atom for side in sides for atom in side.axis} | set(x.axes[-rank - 1])
    places = outs[-rank:]
    order = (*(atom for atom in x.memory if atom not in gone), *features(tuple(a for o in outs for a in o)), channels)
    return b.emit("conv", [x], (*x.axes[: -rank - 1], (channels,), *places), width, attrs, params, order)


def _shared(side: _Side) -> Axis:
    """Infer: the axis after sliding, of the same role."""
    atom = Atom(max(side.out, 1))
    for before in side.axis:
        atom.share_role(before)
    return (atom,)


def _causal(b: Builder, x: Value, side: _Side) -> tuple[Value, Axis]:
    """The frames that a kernel over the time of a stream needs, oldest first, and the time axis after it."""
    (time,) = side.axis
    before, after = time.pad[0] + side.pad[0], time.pad[1] + side.pad[1]
    if side.stride != 1:
        raise b.refusal(f"has stride {side.stride} over time; a stream gives a frame for every frame (or use a window)")
    if before != side.span:
        raise b.refusal(
            f"sees {side.span} earlier frames, but {before} zeros come before the first: not a causal convolution; pad "
            f"with F.pad(x, ({side.span}, 0)), as a stream does"
        )
    if after > side.span:
        raise b.refusal(f"has {after} zeros after the last frame")
    if side.span:
        attrs = {"frames": side.span + 1}
        x = b.emit("delay", [x], x.axes, x.width * (side.span + 1), attrs, order=x.memory, label=".delay")
    return x, (time.padded(0, after),)


# --- pooling --------------------------------------------------------------------------------------------------------


@handles("aten.max_pool1d.default", "aten.max_pool2d.default")
def _max_pool(
    b: Builder,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Value:
    rank = 2 if "2d" in b.op else 1
    return _pool(b, x, rank, kernel, stride or kernel, padding, dilation, ceil_mode, {"largest": True})


@handles("aten.avg_pool1d.default", "aten.avg_pool2d.default")
def _avg_pool(
    b: Builder,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    rank = 2 if "2d" in b.op else 1
    how = {"largest": False, "count_pad": count_include_pad, "divisor": divisor_override}
    return _pool(b, x, rank, kernel, stride or kernel, padding, 1, ceil_mode, how)


def _pool(
    b: Builder, x: Value, rank: int, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, how: dict
) -> Value:
    """A pool over the last `rank` axes of [batch, channels, ...]."""
    pads = _two(padding, rank) if rank == 2 else (0, _two(padding, rank)[1])
    spots = [(), x.axes[-1]] if rank == 1 else [x.axes[-2], x.axes[-1]]
    pairs = (_two(kernel, rank), _two(stride, rank), _two(dilation, rank), [(p, p) for p in pads])
    sides = [_Side(axis, *rest) for axis, *rest in zip(spots, *pairs, strict=True)]
    _bind_streams(b, x, rank)
    before = x.axes[-rank - 1] if len(x.axes) > rank else ()
    return _pooled(b, x, sides, rank, before, how, ceil)


def _pooled(b: Builder, x: Value, sides: list[_Side], rank: int, channels: Axis, how: dict, ceil: bool) -> Value:
    """The sides are the last `rank` axes of x, the channels any other."""
    if b.infer:
        return x.moved((*x.axes[:-rank], *(_shared(side) for side in sides[-rank:])))
    lengths = [_pooled_length(side, ceil) for side in sides]
    moving = [side for side in sides if not side.plain]
    for side in moving:
        if b.role(side.axis) not in ("feature", "one"):
            raise b.refusal(f"pools along the {b.role(side.axis)} axis; that needs the whole window")
    if not moving:
        return x
    sliding = [side for side in sides if b.role(side.axis) != "time"]
    x = innermost(b, x, [*(side.axis for side in sliding), channels])
    n = axis_size(features(channels))
    size = math.prod(side.size for side in sliding) * n
    sizes = {id(side): length for side, length in zip(sides, lengths, strict=True)}
    pair = sliding if len(sliding) == 2 else [_Side((), 1, 1, 1, (0, 0)), *sliding]
    outs = tuple(sizes.get(id(side), 1) for side in pair)
    attrs = {
        "in": tuple(side.size for side in pair),
        "channels": n,
        "kernel": tuple(side.kernel for side in pair),
        "stride": tuple(side.stride for side in pair),
        "dilation": tuple(side.dilation for side in pair),
        "pad": tuple(side.pad[0] for side in pair),
        "out": outs,
        **how,
    }
    rows = x.width // size
    if rows > 1:
        attrs["rows"] = rows
    places = [side.axis if side not in sliding else (Atom(sizes[id(side)], "feature"),) for side in sides]
    gone = {atom for side in sliding for atom in side.axis} | set(channels)
    lead = tuple(atom for atom in x.memory if atom not in gone)
    moved = features(
        tuple(atom for place, side in zip(places, sides, strict=True) if side in sliding for atom in place)
    )
    width = rows * math.prod(outs) * n
    order = (*lead, *moved, *features(channels))
    return b.emit("pool", [x], (*x.axes[:-rank], *places[-rank:]), width, attrs, order=order)


def _pooled_length(side: _Side, ceil: bool) -> int:
    """torch's: with ceil_mode a window may begin inside the input or its left padding, and end beyond."""
    room = side.size + sum(side.pad) - side.span - 1
    if not ceil:
        return room // side.stride + 1
    length = -(-room // side.stride) + 1
    return length - 1 if (length - 1) * side.stride >= side.size + side.pad[0] else length


@handles("aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default", "aten._adaptive_avg_pool2d.default")
@handles("aten.adaptive_max_pool1d.default", "aten.adaptive_max_pool2d.default")
def _adaptive(b: Builder, x: Value, size: Sequence[int | None]) -> Any:
    rank = 2 if "2d" in b.op else 1
    kernel = []
    for axis, wanted in zip(x.axes[-rank:], size, strict=True):
        here = axis_size(axis)
        wanted = here if wanted is None else wanted
        if here % wanted and not b.infer:
            raise b.refusal(f"pools {here} positions to {wanted}, in windows of unequal size; use a divisor of {here}")
        kernel.append(max(here // wanted, 1))
    largest = "max" in b.op
    how = {"largest": True} if largest else {"largest": False, "count_pad": True, "divisor": None}
    y = _pool(b, x, rank, kernel, kernel, 0, 1, False, how)
    return (y, None) if largest else y


@handles("aten.mean.dim", "aten.mean.default", "aten.sum.dim_IntList", "aten.sum.default", "aten.amax.default")
@handles("aten.max.dim", "aten.max.default")
def _reduce(b: Builder, x: Value, dims: int | Sequence[int] | None = None, keep: bool = False, **_: Any) -> Any:
    """Mean, sum or maximum over axes: a pool over all of them at once."""
    single = str(b.target) == "aten.max.dim"
    chosen = range(len(x.axes)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    gone = sorted({d % len(x.axes) for d in chosen})
    for d in gone:
        b.bind(x.axes[d], "feature")
    left = tuple(() if d in gone else axis for d, axis in enumerate(x.axes))
    left = left if keep else tuple(axis for d, axis in enumerate(left) if d not in gone)
    largest = b.op in ("amax", "max")
    if b.infer:
        y = Value(x.tensors, left, x.width)
        return (y, None) if single else y
    x, order = planar(b, x)
    over = [i for i in order if i + len(x.axes) in gone]
    at = order.index(over[0]) if over else 0
    if order[at : at + len(over)] != over:
        x = innermost(b, x, [x.axes[i] for i in over])
        order = [*(i for i in order if i not in over), *over]
        at = len(order) - len(over)
    rest = [features(x.axes[i]) for i in order]
    n, inner = (
        math.prod(axis_size(axis) for axis in part) for part in (rest[at : at + len(over)], rest[at + len(over) :])
    )
    kept = tuple(atom for i, axis in enumerate(rest) for atom in axis if not at <= i < at + len(over))
    how = {"largest": True} if largest else {"largest": False, "count_pad": True, "divisor": None}
    attrs = {"in": (1, n), "channels": inner, "kernel": (1, n), "stride": (1, n), "dilation": (1, 1), "pad": (0, 0)}
    attrs |= {"out": (1, 1), **how}
    rows = x.width // (n * inner)
    if rows > 1:
        attrs["rows"] = rows
    y = b.emit("pool", [x], left, rows * inner, attrs, order=kept)
    if b.op == "sum":
        y = affine(b, y, np.full(y.width, float(n)), np.zeros(y.width))
    return (y, None) if single else y


# --- tables ---------------------------------------------------------------------------------------------------------


@handles("aten.embedding.default")
def _embedding(b: Builder, weight: Operand, index: Operand, *_: Any) -> Value:
    if not isinstance(index, Value) or not isinstance(weight, Tensor):
        raise b.refusal("looks up in a table that the model computes; only constant tables are supported")
    table = b.array(weight, "weight")
    if len(table) > 32768 and not b.infer:
        raise b.refusal(f"has {len(table)} entries; an index of 16 bits reaches 32768")
    units = Atom(table.shape[1], "feature")
    rows = 1 if b.infer else index.width
    attrs = {"rows": rows} if rows > 1 else {}
    width = rows * table.shape[1]
    return b.emit("embedding", [index], (*index.axes, (units,)), width, attrs, {"table": table}, (*index.memory, units))
