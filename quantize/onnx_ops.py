"""The ONNX operators as torch operations: one function each, under `@operator("Name", ...)`.

A function is called with its node (an `Operator`) and the node's inputs: torch tensors where they depend on the model's
inputs; constants and sizes as torch tensors where they are floats, as numpy arrays where they are integers or stand in
`plain`; None where left out. What it
computes must be what the ONNX specification says of the node's attributes in every opset from 11 on, or a refusal.

Neighbours: `onnx_graph.py` (the nodes), `onnx_recurrent.py` (GRU, LSTM, RNN), `onnx_import.py` (runs them).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from quantize.errors import UnsupportedError
from quantize.onnx_graph import Network, Step

OPERATORS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {}  # name -> (function, inputs wanted in numpy)


def operator(*names: str, plain: tuple[int, ...] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the function of these operators."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        OPERATORS.update(dict.fromkeys(names, (function, plain)))
        return function

    return register


class Operator(torch.nn.Module):
    """One node: its constants are parameters, its forward the operator's function."""

    def __init__(self, step: Step, network: Network, dtype: torch.dtype) -> None:
        super().__init__()
        self.step = step
        self.dtype = dtype
        self.opset = network.opset
        self.path = network.path
        self.function, self.plain = OPERATORS[step.op]
        self.constants: dict[int, np.ndarray] = {}
        for i, name in enumerate(step.inputs):
            if name in network.constants:
                array = network.constants[name]
                self.constants[i] = array
                if i not in self.plain and np.issubdtype(array.dtype, np.floating):
                    value = torch.from_numpy(np.array(array)).to(dtype)
                    self.register_parameter(f"input{i}", torch.nn.Parameter(value, requires_grad=False))

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *(self._input(i, value) for i, value in enumerate(inputs)))

    def _input(self, i: int, value: Any) -> Any:
        if f"input{i}" in self._parameters:
            return self._parameters[f"input{i}"]
        value = self.constants.get(i, value)
        if isinstance(value, np.ndarray) and i not in self.plain and np.issubdtype(value.dtype, np.floating):
            return torch.tensor(value, dtype=self.dtype)
        return value

    def attr(self, name: str, default: Any = None) -> Any:
        return self.step.attrs.get(name, default)

    def refusal(self, reason: str) -> UnsupportedError:
        return UnsupportedError(f"{self.path}: {self.step.words}: {reason}")

    def single(self) -> None:
        """Refuses to give more than the first output."""
        if any(self.step.outputs[1:]):
            raise self.refusal(f"gives {self.step.outputs[1]!r} as a second output; only the first is supported")

    def number(self, value: Any, name: str) -> float:
        """A constant of one element."""
        if isinstance(value, Tensor):
            raise self.refusal(f"takes its {name} from the data; only a constant is supported")
        if np.size(value) != 1:
            raise self.refusal(f"has a {name} of shape {list(np.shape(value))}; one number is supported")
        return float(np.reshape(value, ()))

    def ints(self, value: Any, name: str) -> list[int] | None:
        """Integers, an attribute in old opsets, an input in new ones."""
        if value is None:
            value = self.attr(name)
            return None if value is None else [int(n) for n in np.reshape(value, -1)]
        if isinstance(value, Tensor):
            raise self.refusal(f"takes its {name} from the data; only constants, and sizes, are supported")
        return [int(n) for n in np.reshape(value, -1)]


@functools.cache
def operator_class(op: str) -> type[Operator]:
    """A class of the operator's own name, which the importer's messages give as the layer's kind."""
    return type(op, (Operator,), {"__module__": __name__})


# --- weights --------------------------------------------------------------------------------------------------------


@operator("Linear")
def _linear(n: Operator, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """MatMul and Add in one."""
    return F.linear(x, weight.T, bias.reshape(-1))


@operator("MatMul")
def _matmul(n: Operator, x: Tensor, y: Tensor) -> Tensor:
    if 1 in n.constants and y.dim() == 2:
        return F.linear(x, y.T)
    return torch.matmul(x, y)


@operator("Gemm")
def _gemm(n: Operator, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    alpha, beta = n.attr("alpha", 1.0), n.attr("beta", 1.0)
    a = a.T if n.attr("transA", 0) else a
    weight = b if n.attr("transB", 0) else b.T  # [N, M]
    if 1 not in n.constants:
        product = torch.matmul(a * alpha if alpha != 1 else a, weight.T)
        return product if c is None else product + (c * beta if beta != 1 else c)
    weight = weight * alpha if alpha != 1 else weight
    if c is None:
        return F.linear(a, weight)
    c = c * beta if beta != 1 else c
    if 2 in n.constants and c.numel() == c.shape[-1:].numel():
        return F.linear(a, weight, c.reshape(-1).expand(len(weight)))
    return F.linear(a, weight) + c


# --- sliding kernels ------------------------------------------------------------------------------------------------


def _pairs(n: Operator, x: Tensor, kernel: Sequence[int]) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Strides, dilations and zeros before and after, per direction."""
    rank = len(kernel)
    if rank not in (1, 2):
        raise n.refusal(f"slides in {rank} directions; one or two are supported")
    strides, dilations = n.attr("strides", [1] * rank), n.attr("dilations", [1] * rank)
    auto = n.attr("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        pads = n.attr("pads", [0] * 2 * rank) if auto == "NOTSET" else [0] * 2 * rank
        return strides, dilations, list(zip(pads[:rank], pads[rank:], strict=True))
    both = []
    for size, k, stride, dilation in zip(x.shape[-rank:], kernel, strides, dilations, strict=True):
        need = max((math.ceil(size / stride) - 1) * stride + dilation * (k - 1) + 1 - size, 0)
        low = need // 2 if auto == "SAME_UPPER" else need - need // 2
        both.append((low, need - low))
    return strides, dilations, both


def _padded(x: Tensor, pads: Sequence[tuple[int, int]]) -> Tensor:
    """x with zeros before and after along its last axes."""
    return F.pad(x, [number for pair in reversed(pads) for number in pair])


@operator("Conv")
def _conv(n: Operator, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    strides, dilations, pads = _pairs(n, x, weight.shape[2:])
    convolve = F.conv1d if len(pads) == 1 else F.conv2d
    if any(low != high for low, high in pads):
        x, pads = _padded(x, pads), [(0, 0)] * len(pads)
    return convolve(x, weight, bias, strides, [low for low, _ in pads], dilations, n.attr("group", 1))


def _sliding(n: Operator, x: Tensor, pool: Callable[[list[int], bool], Tensor], dilations, strides, pads) -> Tensor:
    """A pool whose windows see nothing but x. pool(padding, ceil_mode): torch's, which pads alike on both sides; more
    after the end is its ceil_mode, less is a part of what it gives."""
    kernel = n.attr("kernel_shape")
    ceil = bool(n.attr("ceil_mode", 0))
    y = pool([low for low, _ in pads], ceil or any(high > low for low, high in pads))
    for i, (low, high) in enumerate(pads):
        dim = i - len(pads)
        room = x.shape[dim] + low + high - dilations[i] * (kernel[i] - 1) - 1
        wanted = (-(-room // strides[i]) if ceil else room // strides[i]) + 1
        if ceil and (wanted - 1) * strides[i] >= x.shape[dim] + low:
            wanted -= 1
        if y.shape[dim] < wanted:
            raise n.refusal(f"has pads {low} before and {high} after: a window would lie beyond the input")
        if y.shape[dim] > wanted:
            y = y.narrow(dim, 0, wanted)
    return y


@operator("MaxPool")
def _max_pool(n: Operator, x: Tensor) -> Tensor:
    n.single()
    kernel = n.attr("kernel_shape")
    strides, dilations, pads = _pairs(n, x, kernel)
    pool = F.max_pool1d if len(kernel) == 1 else F.max_pool2d
    return _sliding(n, x, lambda pad, ceil: pool(x, kernel, strides, pad, dilations, ceil), dilations, strides, pads)


@operator("AveragePool")
def _average_pool(n: Operator, x: Tensor) -> Tensor:
    kernel = n.attr("kernel_shape")
    strides, dilations, pads = _pairs(n, x, kernel)
    if any(d != 1 for d in dilations):
        raise n.refusal(f"has dilations {dilations}; only 1 is supported in an average")
    count = bool(n.attr("count_include_pad", 0))
    if count and any(low != high for low, high in pads):
        x, pads = _padded(x, pads), [(0, 0)] * len(pads)
    pool = F.avg_pool1d if len(kernel) == 1 else F.avg_pool2d
    return _sliding(n, x, lambda pad, ceil: pool(x, kernel, strides, pad, ceil, count), dilations, strides, pads)


@operator("GlobalAveragePool")
def _global_average(n: Operator, x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def _global_max(n: Operator, x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


@operator("ReduceMean", "ReduceSum", "ReduceMax")
def _reduce(n: Operator, x: Tensor, axes: np.ndarray | None = None) -> Tensor:
    chosen = n.ints(axes, "axes")
    if not chosen and n.attr("noop_with_empty_axes", 0):
        return x
    dims = tuple(chosen or range(x.dim()))
    reduce = {"ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax}[n.step.op]
    return reduce(x, dims, keepdim=bool(n.attr("keepdims", 1)))


# --- normalization --------------------------------------------------------------------------------------------------


@operator("BatchNormalization")
def _batch_norm(n: Operator, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if n.attr("training_mode", 0) or any(n.step.outputs[1:]):
        raise n.refusal("is in training mode; export the model in eval mode")
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, n.attr("epsilon", 1e-5))


@operator("LayerNormalization")
def _layer_norm(n: Operator, x: Tensor, scale: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    n.single()
    shape = list(x.shape[n.attr("axis", -1) % x.dim() :])
    scale, bias = (None if given is None else given.expand(shape) for given in (scale, bias))
    return F.layer_norm(x, shape, scale, bias, n.attr("epsilon", 1e-5))


@operator("Softmax", "LogSoftmax")
def _softmax(n: Operator, x: Tensor) -> Tensor:
    function = F.softmax if n.step.op == "Softmax" else F.log_softmax
    axis = n.attr("axis", -1 if n.opset >= 13 else 1) % x.dim()
    if n.opset >= 13 or axis == x.dim() - 1:
        return function(x, axis)
    return function(x.flatten(axis), axis).reshape(x.shape)  # before opset 13: over all axes from this one on


# --- activations ----------------------------------------------------------------------------------------------------

PLAIN = {
    **{name: getattr(torch, name.lower()) for name in ("Sigmoid", "Tanh", "Relu", "Abs", "Exp", "Log", "Sqrt")},
    **{name: getattr(torch, name.lower()) for name in ("Reciprocal", "Erf", "Sin", "Cos", "Atan", "Neg")},
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "Softsign": F.softsign,
    "LogSigmoid": F.logsigmoid,  # the last four: of onnx_fusions.py
    "Log1p": torch.log1p,
    "Rsqrt": torch.rsqrt,
    "Expm1": torch.expm1,
}

for _name, _function in PLAIN.items():
    operator(_name)(lambda n, x, function=_function: function(x))


@operator("Softplus")
def _softplus(n: Operator, x: Tensor) -> Tensor:
    return F.softplus(x, n.attr("beta", 1.0), n.attr("threshold", 20.0))


@operator("LeakyRelu")
def _leaky_relu(n: Operator, x: Tensor) -> Tensor:
    return F.leaky_relu(x, n.attr("alpha", 0.01))


@operator("PRelu")
def _prelu(n: Operator, x: Tensor, slope: Tensor) -> Tensor:
    if 1 not in n.constants:
        raise n.refusal("takes its slopes from the data; only constant slopes are supported")
    if slope.numel() == 1:
        return F.prelu(x, slope.reshape(-1))
    vary = [i - slope.dim() for i, size in enumerate(slope.shape) if size > 1]
    if len(vary) > 1:
        raise n.refusal(f"has slopes of shape {list(slope.shape)}; they may vary along one axis")
    return F.prelu(x.movedim(vary[0], 1), slope.reshape(-1)).movedim(1, vary[0])


@operator("Elu")
def _elu(n: Operator, x: Tensor) -> Tensor:
    return F.elu(x, n.attr("alpha", 1.0))


@operator("Selu")
def _selu(n: Operator, x: Tensor) -> Tensor:
    alpha, gamma = n.attr("alpha"), n.attr("gamma")
    close = all(given is None or abs(given - own) < 1e-6 for given, own in ((alpha, 1.6732632), (gamma, 1.0507010)))
    if close:
        return F.selu(x)
    return F.elu(x, 1.6732632 if alpha is None else alpha) * (1.0507010 if gamma is None else gamma)


@operator("Celu")
def _celu(n: Operator, x: Tensor) -> Tensor:
    return F.celu(x, n.attr("alpha", 1.0))


@operator("Gelu")
def _gelu(n: Operator, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=n.attr("approximate", "none"))


@operator("Swish")
def _swish(n: Operator, x: Tensor) -> Tensor:
    alpha = n.attr("alpha", 1.0)
    return F.silu(x) if alpha == 1 else F.silu(x * alpha) / alpha


@operator("HardSigmoid")
def _hard_sigmoid(n: Operator, x: Tensor) -> Tensor:
    alpha, beta = n.attr("alpha", 0.2), n.attr("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(x)
    ends = sorted((-beta / alpha, (1 - beta) / alpha)) if alpha else (0.0, 0.0)
    return x.clamp(*ends) * alpha + beta


@operator("Clip", plain=(1, 2))
def _clip(n: Operator, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    ends = [None if end is None else n.number(end, "limits") for end in (low, high)]
    low, high = (None if end is None or math.isinf(end) else end for end in ends)
    return x if low is None and high is None else torch.clamp(x, low, high)


# --- arithmetic -----------------------------------------------------------------------------------------------------

TWO = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div}

for _name, _function in TWO.items():
    operator(_name)(lambda n, x, y, function=_function: function(x, y))

MANY = {"Sum": torch.add, "Min": torch.minimum, "Max": torch.maximum}

for _name, _function in MANY.items():
    operator(_name)(lambda n, *given, function=_function: functools.reduce(function, given))


@operator("Pow", plain=(1,))
def _pow(n: Operator, x: Tensor, exponent: Any) -> Tensor:
    power = n.number(exponent, "exponent")
    return x if power == 1 else torch.pow(x, power)


# --- what computes nothing ------------------------------------------------------------------------------------------


@operator("Identity")
def _identity(n: Operator, x: Tensor) -> Tensor:
    return x


@operator("Dropout")
def _dropout(n: Operator, x: Tensor, ratio: Any = None, training: np.ndarray | None = None) -> Tensor:
    n.single()
    if isinstance(training, Tensor) or (training is not None and training.any()):
        raise n.refusal("acts, because the model was exported in training mode; export it in eval mode")
    return x


@operator("Cast", "CastLike")
def _cast(n: Operator, x: Tensor, like: Any = None) -> Tensor:
    """From one float to another, or one integer to another: nothing that a step would notice."""
    to = n.attr("to", 1)
    floats = to in (1, 10, 11, 16)
    if n.step.op == "Cast" and (floats != x.is_floating_point() or not (floats or to in (6, 7))):
        raise n.refusal(f"makes {x.dtype} another kind of number; values stay floats, and indices integers")
    return x


@operator("Concat")
def _concat(n: Operator, *parts: Tensor) -> Tensor:
    return torch.cat(parts, n.attr("axis"))


@operator("Split")
def _split(n: Operator, x: Tensor, sizes: np.ndarray | None = None) -> tuple[Tensor, ...]:
    axis = n.attr("axis", 0)
    given = n.ints(sizes, "split")
    if given is None:
        count = n.attr("num_outputs", len(n.step.outputs))
        return x.split(-(-x.shape[axis] // count), axis)
    return x.split(given, axis)


@operator("Slice")
def _slice(n: Operator, x: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Tensor:
    firsts, stops = n.ints(starts, "starts"), n.ints(ends, "ends")
    dims = n.ints(axes, "axes") or range(len(firsts))
    strides = n.ints(steps, "steps") or [1] * len(firsts)
    for dim, start, stop, step in zip(dims, firsts, stops, strides, strict=True):
        size = x.shape[dim]
        if step < 0:
            stop = stop if stop >= -size else None
            chosen = range(size)[start:stop:step]
            x = x.flip(dim)
            if len(chosen) == size:
                continue
            start, stop, step = size - 1 - chosen[0], size - chosen[-1], -step
        stop = 2**63 - 1 if stop >= 2**31 - 1 else stop  # the end: exporters write several such numbers
        x = torch.ops.aten.slice.Tensor(x, dim, start, stop, step)
    return x


@operator("Gather")
def _gather(n: Operator, x: Tensor, indices: Any) -> Tensor:
    axis = n.attr("axis", 0)
    if isinstance(indices, Tensor):
        if 0 not in n.constants or axis != 0:
            raise n.refusal("looks up, by indices from the data, in no constant table; that alone is supported")
        return F.embedding(indices, x)
    if indices.ndim == 0:
        return x.select(axis, int(indices))
    flat = np.where(indices < 0, indices + x.shape[axis], indices).reshape(-1)
    steps = np.unique(np.diff(flat))
    if indices.ndim > 1 or not flat.size or len(steps) > 1 or (len(steps) and steps[0] < 1):
        raise n.refusal("picks elements in no regular order; only evenly spaced, ascending indices are supported")
    if flat.size == 1 and indices[0] == -1:
        return x.narrow(axis, -1, 1)
    step = int(steps[0]) if len(steps) else 1
    return torch.ops.aten.slice.Tensor(x, axis, int(flat[0]), int(flat[-1]) + 1, step)


@operator("Reshape")
def _reshape(n: Operator, x: Tensor, shape: Any) -> Tensor:
    sizes = n.ints(shape, "shape")
    if not n.attr("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


@operator("Flatten")
def _flatten(n: Operator, x: Tensor) -> Tensor:
    axis = n.attr("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.flatten(1) if axis == 1 else x.reshape(math.prod(x.shape[:axis]), -1)


@operator("Transpose")
def _transpose(n: Operator, x: Tensor) -> Tensor:
    return x.permute(n.attr("perm", list(range(x.dim()))[::-1]))


@operator("Squeeze")
def _squeeze(n: Operator, x: Tensor, axes: Any = None) -> Tensor:
    dims = n.ints(axes, "axes")
    return x.squeeze() if dims is None else x.squeeze(tuple(dims))


@operator("Unsqueeze")
def _unsqueeze(n: Operator, x: Tensor, axes: Any = None) -> Tensor:
    dims = n.ints(axes, "axes")
    for dim in sorted(d % (x.dim() + len(dims)) for d in dims):
        x = x.unsqueeze(dim)
    return x


@operator("Expand")
def _expand(n: Operator, x: Tensor, shape: Any) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(n.ints(shape, "shape"))))


@operator("Pad", plain=(2,))
def _pad(n: Operator, x: Tensor, pads: Any, value: Any = None, axes: Any = None) -> Tensor:
    mode = n.attr("mode", "constant")
    if mode != "constant":
        raise n.refusal(f"pads in mode {mode!r}; only constants are supported")
    numbers = n.ints(pads, "pads")
    dims = [d % x.dim() for d in (n.ints(axes, "axes") or range(x.dim()))]
    both = [(0, 0)] * x.dim()
    for dim, low, high in zip(dims, numbers[: len(dims)], numbers[len(dims) :], strict=True):
        both[dim] = (low, high)
    while both and both[0] == (0, 0):
        both.pop(0)
    number = 0.0 if value is None else n.number(value, "value")
    return F.pad(x, [end for pair in reversed(both) for end in pair], value=number) if both else x
