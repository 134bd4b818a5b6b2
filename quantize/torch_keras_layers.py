"""Makers of Keras layers as torch modules: Dense, activations, normalizations, tables, merges and moves of axes.

To add a layer class, write a function under `@makes("Class")` that reads its options and weights and gives a module
for tensors that lie as in Keras; an option that it does not ask for is refused by name when it is set. The module's own
`forward` holds the one operation that bears the layer's name; all else goes into submodules, whose names say what.

Neighbours: `keras_config.py` (Layer), `torch_keras_windows.py` (convolutions, pooling), `torch_keras_recurrent.py`,
`torch_keras.py` (asks `made`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantize.errors import FormatError, QuantizeError
from quantize.keras_config import Layer

MAKERS: dict[str, Callable[[Layer], nn.Module]] = {}

REMEDIES = {
    "Masking": "masks are not supported: feed sequences without padding",
    "Lambda": "it holds Python code; write it with layers",
    "MultiHeadAttention": "attention has no fixed-point form here; use a recurrent or convolutional layer",
    "Attention": "attention has no fixed-point form here; use a recurrent or convolutional layer",
    "RNN": "a loop over cells of your own; use GRU, LSTM or SimpleRNN",
    "GRUCell": "a cell alone; use the layer GRU",
    "LSTMCell": "a cell alone; use the layer LSTM",
    "Normalization": "use BatchNormalization, or give the model normalized frames",
    "Dot": "a product of two tensors; use Multiply and Dense",
}

PLACES = {"keras.layers", "keras", "keras.src.layers"}


def makes(*kinds: str) -> Callable[[Callable[[Layer], nn.Module]], Callable[[Layer], nn.Module]]:
    """Register the maker of layer classes. It raises `layer.refusal(...)` for options that have no form here."""

    def register(maker: Callable[[Layer], nn.Module]) -> Callable[[Layer], nn.Module]:
        for kind in kinds:
            MAKERS[kind] = maker
        return maker

    return register


def made(layer: Layer) -> nn.Module:
    """The torch module of a layer, called in its messages by the layer's class."""
    if layer.kind not in MAKERS:
        hint = REMEDIES.get(layer.kind, "replace it, or run it outside of the model")
        raise layer.refusal(f"is not supported; {hint}. Supported: {', '.join(sorted(MAKERS))}, and models as layers")
    try:
        module = MAKERS[layer.kind](layer)
    except QuantizeError:
        raise
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise FormatError(f"layer {layer.name!r} ({layer.kind}): its options are damaged ({error})") from None
    layer.refuse_unknown_options()
    kind = type(module)
    if kind.__name__ != layer.kind:
        module.__class__ = type(layer.kind, (kind,), {"__module__": kind.__module__})
    return module


class Step(nn.Module):
    """A function of tensors as a layer, or as a named part of one."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given: Any) -> Any:
        return self.function(*given)


def parameter(array: np.ndarray) -> nn.Parameter:
    """A weight as it is."""
    return nn.Parameter(torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C")), False)


# --- activations ----------------------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "silu": F.silu,
    "swish": F.silu,
    "gelu": F.gelu,
    "exponential": torch.exp,
    "hard_sigmoid": F.hardsigmoid,  # relu6(x + 3) / 6, as Keras 3 has it
    "hard_silu": F.hardswish,
    "hard_swish": F.hardswish,
    "hard_tanh": F.hardtanh,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "mish": F.mish,
    "log_sigmoid": F.logsigmoid,
}


def activation_name(layer: Layer, key: str = "activation") -> str:
    """The name of a built-in activation, "linear" for none. Refuses functions of the user's own."""
    given = layer.option(key)
    given = "linear" if given is None else given
    if isinstance(given, Mapping):
        raise layer.refusal(f"has {key} {given.get('config')!r} of {given.get('class_name')!r}; name a built-in one")
    return str(given)


def activation(layer: Layer) -> nn.Module | None:
    """The module of a layer's activation option, None for linear."""
    given = layer.option("activation")
    if isinstance(given, Mapping) and given.get("class_name") in MAKERS and str(given["module"]) in PLACES:
        return made(Layer(f"{layer.name}.activation", given["class_name"], dict(given["config"])))
    name = activation_name(layer)
    if name == "linear":
        return None
    if name not in ACTIVATIONS:
        raise layer.refusal(
            f"has the activation {name!r}, which is not supported; supported are linear, {', '.join(ACTIVATIONS)}"
        )
    return Step(ACTIVATIONS[name])


class Activated(nn.Module):
    """What a layer computes, then its activation, which is a submodule."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.activation = activation(layer)

    def activated(self, x: Tensor) -> Tensor:
        return x if self.activation is None else self.activation(x)


@makes("Activation")
def _activation(layer: Layer) -> nn.Module:
    return activation(layer) or nn.Identity()


@makes("ReLU")
def _relu(layer: Layer) -> nn.Module:
    highest, slope = layer.option("max_value"), float(layer.option("negative_slope", 0.0) or 0.0)
    if layer.option("threshold", 0.0):
        raise layer.refusal(f"has threshold={layer.option('threshold')}; only 0 is supported: subtract it before")
    if highest is not None and slope == 0:
        return Step(lambda x: torch.clamp(x, 0.0, float(highest)))
    if highest is not None:
        return Step(lambda x: torch.clamp(F.leaky_relu(x, slope), max=float(highest)))
    return Step(torch.relu if slope == 0 else lambda x: F.leaky_relu(x, slope))


@makes("LeakyReLU")
def _leaky_relu(layer: Layer) -> nn.Module:
    slope = float(layer.option("negative_slope", 0.3))
    return Step(lambda x: F.leaky_relu(x, slope))


@makes("ELU")
def _elu(layer: Layer) -> nn.Module:
    alpha = float(layer.option("alpha", 1.0))
    return Step(lambda x: F.elu(x, alpha))


@makes("Softmax")
def _softmax(layer: Layer) -> nn.Module:
    axis = layer.option("axis", -1)
    if not isinstance(axis, int):
        raise layer.refusal(f"has axis={axis}; one axis is supported")
    return Step(lambda x: torch.softmax(x, axis))


class PReLU(nn.Module):
    """Slopes [...] as the input's axes after the batch, of length 1 where they are shared."""

    def __init__(self, slopes: np.ndarray) -> None:
        super().__init__()
        self.alpha = parameter(slopes)

    def forward(self, x: Tensor) -> Tensor:
        own = [i for i, n in enumerate(self.alpha.shape) if n > 1]
        if len(own) <= 1:  # one slope, or slopes along one axis
            axis = own[0] + 1 if own else 1
            return F.prelu(x.movedim(axis, 1), self.alpha.reshape(-1)).movedim(1, axis)
        slopes = self.alpha.expand(x.shape[1:]).reshape(-1)
        return F.prelu(x.flatten(1), slopes).reshape(x.shape)


@makes("PReLU")
def _prelu(layer: Layer) -> nn.Module:
    layer.option("shared_axes")
    stored = layer.weights.get("vars/0")
    return PReLU(layer.array("vars/0", *([None] * (0 if stored is None else stored.ndim))))


# --- weights --------------------------------------------------------------------------------------------------------


class Dense(Activated):
    """kernel [N, M] as torch has it, bias [N]."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        units = int(layer.option("units"))
        self.weight = parameter(layer.array("vars/0", None, units).T)
        self.bias = parameter(layer.array("vars/1", units)) if layer.option("use_bias", True) else None

    def forward(self, x: Tensor) -> Tensor:
        return self.activated(F.linear(x, self.weight, self.bias))


makes("Dense")(Dense)


@makes("Embedding")
def _embedding(layer: Layer) -> nn.Module:
    if layer.option("mask_zero", False):
        raise layer.refusal("has mask_zero=True; masks are not supported: feed sequences without padding")
    rows, width = int(layer.config["input_dim"]), int(layer.option("output_dim"))
    return Table(layer.array("vars/0", rows, width))


class Table(nn.Module):
    """Rows [N, M] by index."""

    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.table = parameter(table)

    def forward(self, x: Tensor) -> Tensor:
        return F.embedding(x, self.table)


class BatchNormalization(nn.Module):
    """Over the statistics of training; params [C] along one axis."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        axis = layer.option("axis", -1)
        self.axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
        if not isinstance(self.axis, int):
            raise layer.refusal(f"has axis={axis}; one axis is supported")
        if layer.option("renorm", False):
            raise layer.refusal("has renorm=True; retrain without it")
        self.epsilon = float(layer.option("epsilon", 1e-3))
        kept = iter(range(4))
        arrays = [
            layer.array(f"vars/{next(kept)}", None) if present else None
            for present in (layer.option("scale", True), layer.option("center", True), True, True)
        ]
        self.gamma, self.beta, self.mean, self.variance = (None if a is None else parameter(a) for a in arrays)

    def forward(self, x: Tensor) -> Tensor:
        y = F.batch_norm(
            x.movedim(self.axis, 1), self.mean, self.variance, self.gamma, self.beta, False, 0.0, self.epsilon
        )
        return y.movedim(1, self.axis)


makes("BatchNormalization")(BatchNormalization)


class LayerNormalization(nn.Module):
    """Over the last axes; gamma and beta of their shape."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        axis = layer.option("axis", -1)
        axes = sorted(axis) if isinstance(axis, list) else [axis]
        if layer.option("rms_scaling", False):
            raise layer.refusal("has rms_scaling=True; only the normalization with a mean is supported")
        self.epsilon = float(layer.option("epsilon", 1e-3))
        self.count = len(axes)
        free = [None] * self.count
        self.gamma = parameter(layer.array("vars/0", *free)) if layer.option("scale", True) else None
        at = "vars/1" if self.gamma is not None else "vars/0"
        self.beta = parameter(layer.array(at, *free)) if layer.option("center", True) else None
        self.axes = axes
        self.refuse = layer.refusal

    def forward(self, x: Tensor) -> Tensor:
        if sorted(axis % x.dim() for axis in self.axes) != list(range(x.dim() - self.count, x.dim())):
            raise self.refuse(f"normalizes over the axes {self.axes} of {x.dim()}; the last ones are supported")
        return F.layer_norm(x, x.shape[-self.count :], self.gamma, self.beta, self.epsilon)


makes("LayerNormalization")(LayerNormalization)


# --- nothing, and moves of axes -------------------------------------------------------------------------------------


@makes("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout")
@makes("ActivityRegularization", "Identity")
def _nothing(layer: Layer) -> nn.Module:
    layer.option("data_format")
    return nn.Identity()


@makes("Flatten")
def _flatten(layer: Layer) -> nn.Module:
    first = layer.option("data_format", "channels_last") == "channels_first"
    return Step(lambda x: (x.movedim(1, -1) if first and x.dim() > 2 else x).flatten(1))


@makes("Reshape")
def _reshape(layer: Layer) -> nn.Module:
    shape = [int(n) for n in layer.option("target_shape")]
    return Step(lambda x: x.reshape(x.shape[0], *shape))


@makes("Permute")
def _permute(layer: Layer) -> nn.Module:
    dims = [int(n) for n in layer.option("dims")]
    return Step(lambda x: x.permute(0, *dims))


@makes("Rescaling")
def _rescaling(layer: Layer) -> nn.Module:
    scale, offset = float(layer.option("scale")), float(layer.option("offset", 0.0))
    return Step(lambda x: x * scale + offset)


@makes("RepeatVector")
def _repeat_vector(layer: Layer) -> nn.Module:
    count = int(layer.option("n"))
    return Step(lambda x: x.unsqueeze(1).expand(-1, count, -1))


# --- merges ---------------------------------------------------------------------------------------------------------


def _aligned(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Keras' own broadcasting: axes of length 1 after the batch until all have the same rank."""
    rank = max(x.dim() for x in tensors)
    return [x[(slice(None), *[None] * (rank - x.dim()))] if x.dim() < rank else x for x in tensors]


def _folded(operation: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Sequence[Tensor]], Tensor]:
    def merge(tensors: Sequence[Tensor]) -> Tensor:
        first, *rest = _aligned(tensors)
        for other in rest:
            first = operation(first, other)
        return first

    return merge


MERGES = {
    "Add": torch.add,
    "Subtract": torch.sub,
    "Multiply": torch.mul,
    "Maximum": torch.maximum,
    "Minimum": torch.minimum,
}


@makes(*MERGES)
def _merge(layer: Layer) -> nn.Module:
    return Step(_folded(MERGES[layer.kind]))


@makes("Average")
def _average(layer: Layer) -> nn.Module:
    total = _folded(torch.add)
    return Step(lambda tensors: total(tensors) / len(tensors))


@makes("Concatenate")
def _concatenate(layer: Layer) -> nn.Module:
    axis = int(layer.option("axis", -1))
    return Step(lambda tensors: torch.cat(list(tensors), axis))


# --- wrappers -------------------------------------------------------------------------------------------------------

LAST_AXIS = ("Dense", "Activation", "ReLU", "LeakyReLU", "ELU", "Dropout", "Identity", "LayerNormalization")


@makes("TimeDistributed")
def _time_distributed(layer: Layer) -> nn.Module:
    inner = layer.inner["layer"]
    if inner.kind in ("Sequential", "Functional"):
        raise layer.refusal(f"wraps the model {inner.name!r}; wrap its layers one by one")
    if inner.kind in ("GRU", "LSTM", "SimpleRNN", "Bidirectional"):
        raise layer.refusal(f"wraps {inner.kind}, a recurrence within a step; only layers without time can be wrapped")
    inner.name = f"{layer.name}.{inner.name}"
    module = made(inner)
    return module if inner.kind in LAST_AXIS else Frames(module)


class Frames(nn.Module):
    """A layer on every frame: time becomes part of the batch."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x.flatten(0, 1))
        return y.reshape(x.shape[0], x.shape[1], *y.shape[1:])
