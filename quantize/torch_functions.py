"""Handlers of torch's functions and normalizations: smooth ones, piecewise linear ones, minimum and maximum, softmax,
LayerNorm, BatchNorm.

To add a scalar function, give it a line in `functions.FUNCTIONS` and one in SMOOTH.

Neighbours: `torch_axes.py` (Value, Builder, the table of handlers), `torch_memory.py` (which features lie innermost),
`torch_ops.py` (arithmetic), `functions.py` (what the functions compute), `torch_program.py` (calls the handlers).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quantize.torch_axes import Builder, Operand, Value, handles
from quantize.torch_memory import along, combined, innermost

# --- smooth functions -----------------------------------------------------------------------------------------------

SMOOTH = ("silu", "log_sigmoid", "mish", "exp", "expm1", "sin", "cos", "atan", "erf", "sqrt", "log", "log1p")
SMOOTH += ("rsqrt", "reciprocal")


def function(b: Builder, x: Value, name: str, **constants: Any) -> Value:
    """One function of `functions.FUNCTIONS`, with its constants."""
    return b.emit("function", [x], x.axes, x.width, {"function": name, **constants})


def _smooth(name: str) -> Callable[[Builder, Value], Value]:
    return lambda b, x: function(b, x, name)


for _name in SMOOTH:
    handles(f"aten.{_name}.default")(_smooth(_name))


@handles("aten.elu.default")
def _elu(b: Builder, x: Value, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Value:
    return function(b, x, "elu", alpha=float(alpha), scale=float(scale), input_scale=float(input_scale))


@handles("aten.celu.default")
def _celu(b: Builder, x: Value, alpha: float = 1) -> Value:
    return _elu(b, x, alpha, 1, 1 / alpha)


@handles("aten.selu.default")
def _selu(b: Builder, x: Value) -> Value:
    return _elu(b, x, 1.6732632423543772, 1.0507009873554805)


@handles("aten.gelu.default")
def _gelu(b: Builder, x: Value, *, approximate: str = "none") -> Value:
    return function(b, x, "gelu", approximate=approximate)


@handles("aten.softplus.default")
def _softplus(b: Builder, x: Value, beta: float = 1, threshold: float = 20) -> Value:
    return function(b, x, "softplus", beta=float(beta), threshold=float(threshold))


@handles("aten.square.default")
def _square(b: Builder, x: Value) -> Value:
    return b.emit("mul", [x, x], x.axes, x.width)


@handles("aten.pow.Tensor_Scalar")
def _pow(b: Builder, x: Value, exponent: float) -> Value:
    if exponent == 2:
        return _square(b, x)
    powers = {0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}
    if exponent not in powers:
        raise b.refusal(f"raises to the power {exponent}; supported are 2, 0.5, -0.5 and -1")
    return function(b, x, powers[exponent])


def is_one_plus_abs(b: Builder, x: Value, y: Value) -> bool:
    """Whether y is 1 + |x|: x / y is then softsign(x)."""
    made = {node.output: node for node in b.nodes}
    sums = [made.get(name) for name in y.tensors]
    if not all(node is not None and node.op == "affine" for node in sums) or len(x.tensors) != len(sums):
        return False
    if not all((node.params["scale"] == 1).all() and (node.params["offset"] == 1).all() for node in sums):
        return False
    inner = [made.get(node.inputs[0]) for node in sums]
    return all(
        node is not None and node.op == "prelu" and (node.params["slope"] == -1).all() and node.inputs == (name,)
        for node, name in zip(inner, x.tensors, strict=True)
    )


# --- piecewise linear -----------------------------------------------------------------------------------------------


def _clamp(b: Builder, x: Value, low: float | None = None, high: float | None = None) -> Value:
    low, high = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    return b.emit("clamp", [x], x.axes, x.width, {"low": min(low, high), "high": high})


handles("aten.clamp.default", "aten.clip.default")(_clamp)
handles("aten.clamp_min.default")(lambda b, x, low: _clamp(b, x, low))
handles("aten.clamp_max.default")(lambda b, x, high: _clamp(b, x, None, high))
handles("aten.relu6.default")(lambda b, x: _clamp(b, x, 0, 6))
handles("aten.hardtanh.default")(lambda b, x, low=-1, high=1: _clamp(b, x, low, high))


def _number(b: Builder, constant: Operand) -> float:
    """A constant that is one number everywhere."""
    tensor = torch.as_tensor(constant, dtype=torch.float64)
    if tensor.numel() < 1 or not (tensor == tensor.reshape(-1)[0]).all():
        raise b.refusal("compares with a constant that varies; one number for all features is supported")
    return float(tensor.reshape(-1)[0])


@handles("aten.clamp.Tensor", "aten.clip.Tensor")
def _clamp_tensor(b: Builder, x: Operand, low: Operand | None = None, high: Operand | None = None) -> Value:
    for end, op in ((low, "maximum"), (high, "minimum")):
        x = x if end is None else _pair(b, x, end, op)
    return x


handles("aten.clamp_min.Tensor", "aten.maximum.default", "aten.max.other")(lambda b, x, y: _pair(b, x, y, "maximum"))
handles("aten.clamp_max.Tensor", "aten.minimum.default", "aten.min.other")(lambda b, x, y: _pair(b, x, y, "minimum"))


def _pair(b: Builder, x: Operand, y: Operand, op: str) -> Value:
    if isinstance(x, Value) and isinstance(y, Value):
        return combined(b, op, x, y)
    value, constant = (x, y) if isinstance(x, Value) else (y, x)
    end = _number(b, constant)
    return _clamp(b, value, end, None) if op == "maximum" else _clamp(b, value, None, end)


def _slopes(b: Builder, x: Value, slope: Sequence[float] | np.ndarray, rows: int = 1) -> Value:
    attrs = {"rows": rows} if rows > 1 else {}
    return b.emit("prelu", [x], x.axes, x.width, attrs, {"slope": np.array(slope, np.float64)})


handles("aten.abs.default")(lambda b, x: _slopes(b, x, [-1.0]))
handles("aten.leaky_relu.default")(lambda b, x, slope=0.01: _slopes(b, x, [slope]))


@handles("aten.prelu.default")
def _prelu(b: Builder, x: Operand, weight: Operand) -> Value:
    if isinstance(weight, Value) or not isinstance(x, Value):
        raise b.refusal("computes its slopes from the model's inputs; only constant slopes are supported")
    slope = b.array(weight.reshape(-1), "weight")
    if len(slope) == 1:
        return _slopes(b, x, slope)
    x, rows = along(b, x, 1)
    return _slopes(b, x, slope, rows)


@handles("aten.hardsigmoid.default")
def _hardsigmoid(b: Builder, x: Value, frac: int = 15) -> Value:
    """clamp first, so that no format has to hold what is cut off."""
    inner = _clamp(b, x, -3, 3)
    n = x.memory[-1].size if x.memory else 1
    return affine(b, inner, np.full(n, 1 / 6), np.full(n, 0.5), frac=frac)


@handles("aten.hardswish.default")
def _hardswish(b: Builder, x: Value) -> Value:
    return b.emit("mul", [x, _hardsigmoid(b, x, 14)], x.axes, x.width)  # 1.0 is exact in Q1.14


# --- over the features ----------------------------------------------------------------------------------------------


def affine(b: Builder, x: Value, scale: np.ndarray, offset: np.ndarray, **attrs: Any) -> Value:
    """scale * x + offset, [n] each, for every n neighbours in memory."""
    rows = 1 if b.infer else x.width // len(scale)
    params = {"scale": np.array(scale, np.float64), "offset": np.array(offset, np.float64)}
    return b.emit("affine", [x], x.axes, x.width, attrs | ({"rows": rows} if rows > 1 else {}), params)


@handles("aten.softmax.int", "aten._softmax.default", "aten.log_softmax.int", "aten._log_softmax.default")
def _softmax(b: Builder, x: Value, dim: int, *_: Any) -> Value:
    x, rows = along(b, x, dim)
    return b.emit(b.op.strip("_"), [x], x.axes, x.width, {"rows": rows} if rows > 1 else {})


@handles("aten.layer_norm.default", "aten.native_layer_norm.default")
def _layer_norm(
    b: Builder,
    x: Operand,
    shape: Sequence[int],
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Any:
    if isinstance(weight, Value) or isinstance(bias, Value) or not isinstance(x, Value):
        raise b.refusal("computes its weights from the model's inputs; only constant weights are supported")
    last = x.axes[-len(shape) :]
    for axis in last:
        b.bind(axis, "feature")
    x = innermost(b, x, last)
    n = math.prod(shape)
    params = {
        "weight": np.ones(n) if weight is None else b.array(weight, "weight").reshape(-1),
        "bias": np.zeros(n) if bias is None else b.array(bias, "bias").reshape(-1),
    }
    rows = 1 if b.infer else x.width // n
    attrs = {"eps": float(eps)} | ({"rows": rows} if rows > 1 else {})
    y = b.emit("layer_norm", [x], x.axes, x.width, attrs, params)
    return (y, None, None) if b.op.startswith("native") else y


@handles("aten.batch_norm.default")
def _batch_norm(
    b: Builder,
    x: Operand,
    weight: Operand | None,
    bias: Operand | None,
    mean: Operand | None,
    variance: Operand | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn: bool = False,
) -> Value:
    given = [t for t in (weight, bias, mean, variance) if t is not None]
    if any(isinstance(t, Value) for t in given) or not isinstance(x, Value):
        raise b.refusal("computes its weights from the model's inputs; only constant weights are supported")
    if training or mean is None or variance is None:
        raise b.refusal(
            "normalizes with the statistics of the batch: exported in training mode (call model.eval() before the "
            "export), or made with track_running_stats=False"
        )
    x, _ = along(b, x, 1)
    scale = 1 / torch.sqrt(variance.double() + eps) * (1.0 if weight is None else weight.double())
    offset = (0.0 if bias is None else bias.double()) - mean.double() * scale
    return affine(b, x, b.array(scale, "weight"), b.array(offset, "bias"), fold=True)


@handles("aten._native_batch_norm_legit_no_training.default")
def _batch_norm_native(
    b: Builder,
    x: Operand,
    weight: Operand | None,
    bias: Operand | None,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    eps: float,
) -> tuple:
    return _batch_norm(b, x, weight, bias, mean, variance, False, momentum, eps), None, None
