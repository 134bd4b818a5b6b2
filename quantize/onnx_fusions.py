"""Exporters' habits undone: operators that stand for one layer or function become one step again.

So that a network gives the same tables whichever way it came, and a function one table instead of two. A rule looks at
one step and at what made its inputs; a fused step may have an operator that ONNX does not ("Linear", "Expm1"), which
`onnx_ops.py` knows. Neighbours: `onnx_graph.py` (the steps, and asks).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

RULES: list[Callable[[Parts, Any], Any]] = []


def rule(function: Callable[[Parts, Any], Any]) -> Callable[[Parts, Any], Any]:
    """Register a rule: (parts, step) -> the step that takes its place, or None."""
    RULES.append(function)
    return function


@dataclass
class Parts:
    """What a rule may ask. made: value -> the step that makes it; readers: value -> how often it is read."""

    constants: Mapping[str, np.ndarray]
    made: dict[str, Any]
    readers: Counter[str]

    def inner(self, name: str, op: str) -> Any:
        """The step of this operator that makes a value for one reader alone, or None."""
        step = self.made.get(name)
        return step if step is not None and step.op == op and not step.known and self.readers[name] == 1 else None

    def number(self, name: str) -> float | None:
        """The constant of one element under this name, or None."""
        array = self.constants.get(name)
        return float(array.reshape(())) if array is not None and array.size == 1 else None

    def pair(self, step: Any, op: str) -> tuple[Any, str] | None:
        """Of a step with two inputs, in either order: the one made by `op`, and the name of the other."""
        for first, second in (step.inputs, step.inputs[::-1]):
            inner = self.inner(first, op)
            if inner is not None:
                return inner, second
        return None

    def plus(self, step: Any, number: float) -> str | None:
        """The other addend's name, of a step that adds this number."""
        if step is None or step.op not in ("Add", "Sub"):
            return None
        x, y = step.inputs
        if step.op == "Sub":
            return x if self.number(y) == -number else None
        return x if self.number(y) == number else y if self.number(x) == number else None


def fused(steps: Sequence[Any], constants: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[Any]:
    """The steps after all rules, without those that nothing reads."""
    readers = Counter(name for step in steps for name in step.inputs)
    readers.update(outputs)
    parts = Parts(constants, {}, readers)
    result = []
    for step in steps:
        if not step.known:
            step = next((new for new in (apply(parts, step) for apply in RULES) if new is not None), step)
        parts.made.update(dict.fromkeys(step.outputs, step))
        result.append(step)
    needed = set(outputs)
    kept = []
    for step in reversed(result):
        if needed & set(step.outputs):
            needed.update(name for name in step.inputs if name)
            kept.append(step)
    return kept[::-1]


@rule
def _linear(p: Parts, step: Any) -> Any:
    """MatMul by a constant [M, N], plus a constant [N] (ones before it do not matter)."""
    found = p.pair(step, "MatMul") if step.op == "Add" else None
    if found is None:
        return None
    product, bias = found
    matrix, vector = p.constants.get(product.inputs[1]), p.constants.get(bias)
    if matrix is None or vector is None or matrix.ndim != 2 or vector.ndim == 0:
        return None
    if not vector.size == vector.shape[-1] == matrix.shape[1]:
        return None
    return replace(product, op="Linear", inputs=(*product.inputs, bias), outputs=step.outputs)


@rule
def _swish(p: Parts, step: Any) -> Any:
    found = p.pair(step, "Sigmoid") if step.op == "Mul" else None
    if found is None or found[0].inputs[0] != found[1]:
        return None
    return replace(step, op="Swish", inputs=(found[1],), attrs={})


@rule
def _gelu(p: Parts, step: Any) -> Any:
    """0.5 x (1 + erf(x / sqrt(2))), in any order."""
    if step.op != "Mul":
        return None
    factors = [name for factor in step.inputs for name in getattr(p.inner(factor, "Mul"), "inputs", (factor,))]
    sums = [(name, p.inner(p.plus(p.inner(name, "Add"), 1) or "", "Erf")) for name in factors]
    sum_, erf = next(((name, erf) for name, erf in sums if erf is not None), ("", None))
    others = [name for name in factors if name != sum_]
    if erf is None or len(others) != 2:
        return None
    x, half = others if p.number(others[1]) is not None else others[::-1]
    inner = p.made.get(erf.inputs[0])
    if p.number(half) != 0.5 or inner is None or inner.op not in ("Div", "Mul") or inner.inputs[0] != x:
        return None
    root = p.number(inner.inputs[1])
    if root is None or abs(root - (2**0.5 if inner.op == "Div" else 0.5**0.5)) > 1e-6:
        return None
    return replace(step, op="Gelu", inputs=(x,), attrs={})


@rule
def _of_one(p: Parts, step: Any) -> Any:
    """log(sigmoid(x)), 1 / sqrt(x), exp(x) - 1, log(1 + x)."""
    if step.op == "Log":
        sigmoid, sum_ = p.inner(step.inputs[0], "Sigmoid"), p.inner(step.inputs[0], "Add")
        if sigmoid is not None:
            return replace(step, op="LogSigmoid", inputs=sigmoid.inputs)
        x = p.plus(sum_, 1)
        return None if x is None else replace(step, op="Log1p", inputs=(x,))
    if step.op == "Reciprocal":
        root = p.inner(step.inputs[0], "Sqrt")
        return None if root is None else replace(step, op="Rsqrt", inputs=root.inputs)
    power = p.inner(p.plus(step, -1) or "", "Exp")
    return None if power is None else replace(step, op="Expm1", inputs=power.inputs)


@rule
def _softplus(p: Parts, step: Any) -> Any:
    """torch's: where(beta x > threshold, x, softplus(beta x) / beta)."""
    if step.op != "Where":
        return None
    greater, x = p.inner(step.inputs[0], "Greater"), step.inputs[1]
    divided = p.inner(step.inputs[2], "Div")
    soft = p.inner(step.inputs[2] if divided is None else divided.inputs[0], "Softplus")
    if greater is None or soft is None:
        return None
    threshold = p.number(greater.inputs[1])
    beta = 1.0 if divided is None else p.number(divided.inputs[1])
    scaled = (_scaled(p, name, x) for name in (greater.inputs[0], soft.inputs[0]))
    if threshold is None or beta is None or any(factor != beta for factor in scaled):
        return None
    return replace(step, op="Softplus", inputs=(x,), attrs={"beta": beta, "threshold": threshold})


def _scaled(p: Parts, name: str, x: str) -> float | None:
    """f, where the value is f * x."""
    if name == x:
        return 1.0
    step = p.made.get(name)
    return p.number(step.inputs[1]) if step is not None and step.op == "Mul" and step.inputs[0] == x else None


@rule
def _layer_norm(p: Parts, step: Any) -> Any:
    """(x - mean) / sqrt(mean((x - mean)^2) + eps) over the last axis, as written before opset 17; then * and +."""
    if step.op in ("Mul", "Add"):
        return _layer_norm_affine(p, step)
    if step.op != "Div":
        return None
    root = p.inner(step.inputs[1], "Sqrt")
    sum_ = None if root is None else p.inner(root.inputs[0], "Add")
    if sum_ is None or p.number(sum_.inputs[1]) is None:
        return None
    variance, centred = p.inner(sum_.inputs[0], "ReduceMean"), p.made.get(step.inputs[0])
    if variance is None or centred is None or centred.op != "Sub" or not _over_last(p, variance):
        return None
    x, mean = centred.inputs[0], p.inner(centred.inputs[1], "ReduceMean")
    square = p.made.get(variance.inputs[0])
    if mean is None or mean.inputs[0] != x or not _over_last(p, mean) or square is None:
        return None
    squares = square.op == "Pow" and square.inputs[0] == step.inputs[0] and p.number(square.inputs[1]) == 2
    if not squares and not (square.op == "Mul" and set(square.inputs) == {step.inputs[0]}):
        return None
    attrs = {"axis": -1, "epsilon": float(str(np.float32(p.number(sum_.inputs[1]))))}
    return replace(step, op="LayerNormalization", inputs=(x,), attrs=attrs)


def _over_last(p: Parts, step: Any) -> bool:
    axes = step.attrs.get("axes") or (p.constants.get(step.inputs[1]) if len(step.inputs) > 1 else None)
    return axes is not None and list(np.reshape(axes, -1)) == [-1] and step.attrs.get("keepdims", 1) == 1


def _layer_norm_affine(p: Parts, step: Any) -> Any:
    found = p.pair(step, "LayerNormalization")
    if found is None or p.constants.get(found[1]) is None or p.constants[found[1]].ndim != 1:
        return None
    norm, weight = found
    if len(norm.inputs) != (1 if step.op == "Mul" else 2):
        return None
    return replace(norm, inputs=(*norm.inputs, weight), outputs=step.outputs)
