"""Records of operations over positions: convolutions, pools, delays, embeddings, copies, padding.

Neighbours: `tables.py` (Builder, which calls these), `float_windows.py` (the same in float), `plan.py` (formats),
SPEC.md sections 6 and 7.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from quantize.errors import PlanError
from quantize.graph import Node
from quantize.plan import MEAN_BITS
from rtcore.tables import ACTIVATIONS

if TYPE_CHECKING:
    from quantize.tables import Builder

POOL_TAPS = 65535  # sums of int16 over more taps may leave int32


def geometry(node: Node, kernel: tuple[int, int]) -> dict[str, int]:
    """What a kernel sliding over [h][w] is told, as ints of its record."""
    ints = {}
    for name, pair in {"in": node.attrs["in"], "kernel": kernel, "out": node.attrs["out"]}.items():
        ints |= {f"{name}_h": pair[0], f"{name}_w": pair[1]}
    for name in ("stride", "dilation", "pad"):
        ints |= {f"{name}_h": node.attrs[name][0], f"{name}_w": node.attrs[name][1]}
    return {key: int(value) for key, value in ints.items()}


def _conv(b: Builder, node: Node) -> None:
    """Channel by channel where every group is a single one."""
    weight = node.params["weight"]
    n, depth, height, width = weight.shape
    groups = node.attrs["groups"]
    channels, area_in = depth * groups, math.prod(node.attrs["in"])
    ints = geometry(node, (height, width)) | dict(nb_inputs=channels, nb_neurons=n)
    alone = depth == 1 and groups > 1
    ints |= dict(multiplier=n // groups) if alone else dict(groups=groups)
    patches = weight.transpose(0, 2, 3, 1).reshape(n, -1)  # taps in the order of memory
    output, matrix, frac, activation = b.affine_rows(node, patches)
    ints |= dict(activation=ACTIVATIONS[activation], acc_bits=matrix.proof.acc_bits)
    arrays = dict(weights=matrix.weights, bias=matrix.bias, mult=matrix.mult, shift=matrix.shift)
    rows = b.rows(node, area_in * channels, math.prod(node.attrs["out"]) * n)
    b.tensor(output, frac)
    b.emit("depthwise_i16" if alone else "conv_i16", node.name, node.inputs, output, ints | rows, arrays)


def _pool(b: Builder, node: Node) -> None:
    (x,) = node.inputs
    attrs, frac = node.attrs, b.plan.frac[node.output]
    taps, n = math.prod(attrs["kernel"]), attrs["channels"]
    if taps > POOL_TAPS:
        raise PlanError(f"pool {node.name} ({node.where}): {taps} positions at once; at most {POOL_TAPS} are summed")
    ints = geometry(node, attrs["kernel"]) | dict(n=n, largest=int(attrs["largest"]), count_pad=0, shift=1)
    arrays = {}
    if not attrs["largest"]:
        divisors = np.maximum(np.arange(taps + 1), 1) if not attrs["divisor"] else np.full(taps + 1, attrs["divisor"])
        mult = np.floor(2.0**MEAN_BITS / divisors + 0.5)
        arrays["mult"] = np.clip(mult, -(2**30), 2**30).astype(np.int32)
        ints |= dict(count_pad=int(attrs["count_pad"]), shift=MEAN_BITS - (frac - b.frac(x)))
    b.tensor(node.output, frac)
    rows = b.rows(node, math.prod(attrs["in"]) * n, math.prod(attrs["out"]) * n)
    b.emit("pool_i16", node.name, node.inputs, node.output, ints | rows, arrays)


def _delay(b: Builder, node: Node) -> None:
    (x,) = node.inputs
    frac = b.frac(x)
    b.tensor(node.output, frac, "state", owner=node.name)
    ints = dict(n=b.graph.widths[x], frames=node.attrs["frames"], state_frac=frac)
    b.emit("delay_i16", node.name, node.inputs, node.output, ints)


def _embedding(b: Builder, node: Node) -> None:
    table = node.params["table"]
    entries, n = table.shape
    frac = b.plan.frac[node.output]
    raw = np.clip(np.floor(table * 2.0**frac + 0.5), -32768, 32767).astype(np.int16)
    b.tensor(node.output, frac)
    ints = dict(n=n, entries=entries) | b.rows(node, 1, n)
    b.emit("embedding_i16", node.name, node.inputs, node.output, ints, dict(table=raw.reshape(-1)))


def _copy(b: Builder, node: Node) -> None:
    (x,) = node.inputs
    attrs = node.attrs
    ints = {f"n{i}": n for i, n in enumerate(attrs["shape"])} | {f"s{i}": s for i, s in enumerate(attrs["strides"])}
    b.tensor(node.output, b.frac(x))
    b.emit("copy_i16", node.name, node.inputs, node.output, ints | dict(start=attrs["start"]))


def _pad(b: Builder, node: Node) -> None:
    """A constant before, the rows, a constant after: three parts of one tensor."""
    (x,) = node.inputs
    rows, frac = node.attrs["rows"], b.plan.frac[node.output]
    whole, middle = b.graph.widths[node.output] // rows, b.graph.widths[x] // rows
    value = math.floor(node.attrs["value"] * 2.0**frac + 0.5)
    b.tensor(node.output, frac)
    offset = 0
    for part, n in (("before", node.attrs["before"]), ("row", middle), ("after", node.attrs["after"])):
        if n == 0:
            continue
        name, segment = f"{node.name}.{part}", f"{node.output}[{part}]"
        b.tensor(segment, frac, "alias", (rows - 1) * whole + n, owner=node.output, offset=offset)
        several = dict(rows=rows, pitch_y=whole) if rows > 1 else {}
        if part == "row":
            ints = dict(n=n, shift=b.frac(x) - frac) | several | (dict(pitch_a=middle) if rows > 1 else {})
            b.emit("rescale_i16", name, (x,), segment, ints)
        else:
            b.emit("fill_i16", name, (), segment, dict(n=n, value=min(max(value, -32768), 32767)) | several)
        offset += n


WINDOW_BUILDERS: dict[str, Callable[[Builder, Node], None]] = {
    "conv": _conv,
    "pool": _pool,
    "delay": _delay,
    "embedding": _embedding,
    "copy": _copy,
    "pad": _pad,
}
