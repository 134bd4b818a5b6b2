"""Records of functions and normalizations: one builder per graph op without a matrix that came after the first few.

Neighbours: `tables.py` (Builder, which calls these), `functions.py` (makes the interpolated tables), `plan.py`
(formats), SPEC.md sections 6 and 7.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from quantize.errors import PlanError
from quantize.functions import make_table
from quantize.graph import Node
from quantize.plan import NORMAL_FRAC
from quantize.weights import affine_arrays

if TYPE_CHECKING:
    from quantize.tables import Builder


def _function(b: Builder, node: Node) -> None:
    """The square root exactly; any other function as a table, whose error goes to `functions`."""
    (x,) = node.inputs
    x_frac, frac, name = b.frac(x), b.plan.frac[node.output], node.attrs["function"]
    n = b.graph.widths[x]
    b.tensor(node.output, frac)
    if name == "sqrt":
        b.emit("sqrt_i16", node.name, node.inputs, node.output, dict(n=n, shift=2 * frac - x_frac))
        b.functions[node.name] = dict(function=name, max_error=0.5)
        return
    low, high = b.plan.span[x]
    table = make_table(node.attrs, x_frac, frac, low, high, f"{name} {node.name} ({node.where})")
    ints = dict(n=n, step=table.step, shift=table.shift)
    b.emit("table_i16", node.name, node.inputs, node.output, ints, dict(nodes=table.nodes))
    b.functions[node.name] = dict(function=name, nodes=len(table.nodes), low=low, high=high, max_error=table.max_error)


def _clamp(b: Builder, node: Node) -> None:
    (x,) = node.inputs
    frac = b.frac(x)
    ends = (max(-32768.0, min(32767.0, node.attrs[end] * 2.0**frac)) for end in ("low", "high"))
    low, high = (math.floor(end + 0.5) for end in ends)
    b.tensor(node.output, frac)
    b.emit("clamp_i16", node.name, node.inputs, node.output, dict(n=b.graph.widths[x], low=low, high=high))


def _prelu(b: Builder, node: Node) -> None:
    (x,) = node.inputs
    slope = node.params["slope"]
    largest = float(np.abs(slope).max())
    frac = min(b.plan.frac[node.output], b.frac(x))
    if largest > 0:
        frac = min(frac, b.frac(x) + 14 - math.frexp(largest)[1])
    arrays = affine_arrays(slope, np.zeros(len(slope)), b.frac(x), frac, node.name)
    n = b.graph.widths[x] // node.attrs.get("rows", 1)
    ints = dict(n=n, stride=int(len(slope) > 1), shift_positive=b.frac(x) - frac) | b.rows(node, n, n)
    b.tensor(node.output, frac)
    b.emit("prelu_i16", node.name, node.inputs, node.output, ints, dict(mult=arrays["mult"], shift=arrays["shift"]))


def _minmax(b: Builder, node: Node) -> None:
    fracs = [b.frac(x) for x in node.inputs]
    frac = min(b.plan.frac[node.output], max(fracs))
    common = max(*fracs, frac)
    ints = b.pair(node) | dict(
        shift_a=common - fracs[0],
        shift_b=common - fracs[1],
        largest=int(node.op == "maximum"),
        shift=common - frac,
    )
    b.tensor(node.output, frac)
    b.emit("minmax_i16", node.name, node.inputs, node.output, ints)


def _softmax(b: Builder, node: Node) -> None:
    (x,) = node.inputs
    frac = b.plan.frac[node.output]
    n = b.graph.widths[x] // node.attrs.get("rows", 1)
    ints = dict(n=n, frac=b.frac(x)) | b.rows(node, n, n)
    if node.op == "log_softmax":
        ints["shift"] = 30 - frac
    b.tensor(node.output, frac)
    b.emit(f"{node.op}_i16", node.name, node.inputs, node.output, ints)


def _layer_norm(b: Builder, node: Node) -> None:
    (x,) = node.inputs
    weight, bias = node.params["weight"], node.params["bias"]
    n, frac = len(weight), b.plan.frac[node.output]
    epsilon = max(1, math.floor(node.attrs["eps"] * n * n * 2.0 ** (2 * b.frac(x)) + 0.5))
    if epsilon > 2**61:
        raise PlanError(f"layer_norm {node.name} ({node.where}): eps is beyond all its inputs' squares; scale them up")
    largest = float(np.abs(weight).max(initial=0.0))
    if largest > 0:
        frac = min(frac, NORMAL_FRAC + 14 - math.frexp(largest)[1])
    b.tensor(node.output, frac)
    arrays = affine_arrays(weight, bias, NORMAL_FRAC, frac, node.name)
    ints = dict(n=n, epsilon=epsilon) | b.rows(node, n, n)
    b.emit("layernorm_i16", node.name, node.inputs, node.output, ints, arrays)


FUNCTION_BUILDERS: dict[str, Callable[[Builder, Node], None]] = {
    "function": _function,
    "clamp": _clamp,
    "prelu": _prelu,
    "minimum": _minmax,
    "maximum": _minmax,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "layer_norm": _layer_norm,
}
