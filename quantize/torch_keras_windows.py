"""Makers of Keras layers over positions: convolutions, pooling, padding, cropping, repetition.

Keras counts the zeros of padding="same" from the input's length and puts an odd one at the end, where torch knows only
equal sides: they become a padding of their own, or a pool that may end beyond its input.

Neighbours: `torch_keras_layers.py` (the table of makers; what a maker is), `torch_windows.py` (reads the outcome).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantize.keras_config import Layer
from quantize.torch_keras_layers import Activated, Step, makes, parameter

CONV = {1: F.conv1d, 2: F.conv2d}
LARGEST = {1: F.max_pool1d, 2: F.max_pool2d}
MEAN = {1: F.avg_pool1d, 2: F.avg_pool2d}


def _rank(layer: Layer) -> int:
    return int(layer.kind[-2])


def _each(layer: Layer, value: Any) -> tuple[int, ...]:
    """One number per direction."""
    rank = _rank(layer)
    return (value,) * rank if isinstance(value, int) else tuple(int(n) for n in value)


def _first(layer: Layer) -> bool:
    """Whether channels lie before positions, not behind them."""
    return layer.option("data_format", "channels_last") == "channels_first"


def _same(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """The zeros before and after, so that a position comes out for every `stride` of them."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


# --- convolutions ---------------------------------------------------------------------------------------------------


class Conv(Activated):
    """weight [N, M / groups, *kernel] as torch has it; the activation acts where the channels are last."""

    def __init__(
        self, layer: Layer, weight: np.ndarray, bias: np.ndarray | None, groups: int, sliding: bool = True
    ) -> None:
        super().__init__(layer)
        self.rank, self.groups, self.first = _rank(layer), groups, _first(layer)
        self.weight = parameter(weight)
        self.bias = None if bias is None else parameter(bias)
        self.stride, self.dilation = (
            _each(layer, layer.option(key, 1)) if sliding else (1,) * self.rank for key in ("strides", "dilation_rate")
        )
        self.border = str(layer.option("padding", "valid"))
        if self.border not in ("valid", "same", "causal"):
            raise layer.refusal(f"has padding={self.border!r}; valid, same and causal are supported")
        self.padding = Step(lambda x, pads: F.pad(x, pads))

    def _pads(self, x: Tensor) -> list[int]:
        """As F.pad wants them: of the last axis first."""
        pads: list[int] = []
        sides = zip(x.shape[2:], self.weight.shape[2:], self.stride, self.dilation, strict=True)
        for size, kernel, stride, dilation in reversed(list(sides)):
            if self.border == "same":
                pads += _same(size, kernel, stride, dilation)
            else:
                pads += [(kernel - 1) * dilation if self.border == "causal" else 0, 0]
        return pads

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.first else x.movedim(-1, 1)
        pads = self._pads(x)
        x = self.padding(x, pads) if any(pads) else x
        y = CONV[self.rank](x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        return self.activated(y if self.first else y.movedim(1, -1))


@makes("Conv1D", "Conv2D")
def _conv(layer: Layer) -> nn.Module:
    rank, filters = _rank(layer), int(layer.option("filters"))
    sizes = _each(layer, layer.option("kernel_size"))
    kernel = layer.array("vars/0", *sizes, None, filters)
    weight = kernel.transpose(rank + 1, rank, *range(rank))
    bias = layer.array("vars/1", filters) if layer.option("use_bias", True) else None
    return Conv(layer, weight, bias, int(layer.option("groups", 1)))


def _depthwise_weight(layer: Layer) -> np.ndarray:
    """[C * multiplier, 1, *kernel] of Keras' [*kernel, C, multiplier]."""
    rank, multiplier = _rank(layer), int(layer.option("depth_multiplier", 1))
    sizes = _each(layer, layer.option("kernel_size"))
    kernel = layer.array("vars/0", *sizes, None, multiplier)
    return kernel.transpose(rank, rank + 1, *range(rank)).reshape(-1, 1, *sizes)


@makes("DepthwiseConv1D", "DepthwiseConv2D")
def _depthwise(layer: Layer) -> nn.Module:
    weight = _depthwise_weight(layer)
    bias = layer.array("vars/1", len(weight)) if layer.option("use_bias", True) else None
    return Conv(layer, weight, bias, len(weight) // int(layer.option("depth_multiplier", 1)))


class Separable(nn.Module):
    """A convolution of each channel, and one over the channels at each position."""

    def __init__(self, depthwise: nn.Module, pointwise: nn.Module) -> None:
        super().__init__()
        self.depthwise, self.pointwise = depthwise, pointwise

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


@makes("SeparableConv1D", "SeparableConv2D")
def _separable(layer: Layer) -> nn.Module:
    rank, filters = _rank(layer), int(layer.option("filters"))
    depthwise = _depthwise_weight(layer)
    pointwise = layer.array("vars/1", *[1] * rank, len(depthwise), filters).transpose(rank + 1, rank, *range(rank))
    bias = layer.array("vars/2", filters) if layer.option("use_bias", True) else None
    multiplier = int(layer.option("depth_multiplier", 1))
    shared = {"data_format": layer.option("data_format", "channels_last")}
    slides = {key: layer.option(key) for key in ("strides", "dilation_rate", "padding")}
    last = {"activation": layer.option("activation")}
    one, other = (Layer(layer.name, layer.kind, config) for config in (shared | slides, shared | last))
    return Separable(
        Conv(one, depthwise, None, len(depthwise) // multiplier), Conv(other, pointwise, bias, 1, sliding=False)
    )


# --- pooling --------------------------------------------------------------------------------------------------------


class Pool(nn.Module):
    """Windows that may end beyond the input: of "same", an odd place lies at the end."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.rank, self.first = _rank(layer), _first(layer)
        self.kernel = _each(layer, layer.option("pool_size", 2))
        strides = layer.option("strides")
        self.stride = self.kernel if strides is None else _each(layer, strides)
        self.same = layer.option("padding", "valid") == "same"
        self.refusal = layer.refusal
        self.cut = Step(lambda y, index: y[index])

    def forward(self, x: Tensor) -> Tensor:
        y = self.pooled(x if self.first else x.movedim(-1, 1))
        return y if self.first else y.movedim(1, -1)

    def sides(self, x: Tensor) -> list[tuple[int, int]]:
        if not self.same:
            return [(0, 0)] * self.rank
        return [_same(n, k, s, 1) for n, k, s in zip(x.shape[2:], self.kernel, self.stride, strict=True)]

    def pooled(self, x: Tensor) -> Tensor:
        raise self.refusal("pools neither means nor maxima")


class Largest(Pool):
    """A maximum ignores what lies outside. Where stride 1 leaves no room to end beyond, one more window before the
    first is pooled and cut off."""

    def pooled(self, x: Tensor) -> Tensor:
        sides = self.sides(x)
        extra = [s == 1 and high > low for (low, high), s in zip(sides, self.stride, strict=True)]
        padding = [low + more for (low, _), more in zip(sides, extra, strict=True)]
        y = LARGEST[self.rank](x, self.kernel, self.stride, padding, ceil_mode=self.same)
        if any(extra):
            y = self.cut(y, (slice(None), slice(None), *(slice(int(more), None) for more in extra)))
        return y


class Mean(Pool):
    """A mean of the elements inside."""

    def pooled(self, x: Tensor) -> Tensor:
        sides = self.sides(x)
        if any(low != high for low, high in sides):
            raise self.refusal(
                f"has padding='same' with unequal sides {sides}, where Keras' own backends disagree (torch repeats the "
                "border, the others leave it out); choose pool_size and strides that divide the length, or 'valid'"
            )
        padding = [low for low, _ in sides]
        return MEAN[self.rank](x, self.kernel, self.stride, padding, count_include_pad=False)


makes("MaxPooling1D", "MaxPooling2D")(Largest)
makes("AveragePooling1D", "AveragePooling2D")(Mean)


@makes("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D")
def _global(layer: Layer) -> nn.Module:
    rank, keep = _rank(layer), bool(layer.option("keepdims", False))
    start = 2 if _first(layer) else 1
    dims = list(range(start, start + rank))
    reduce: Callable[..., Tensor] = torch.amax if "Max" in layer.kind else torch.mean
    return Step(lambda x: reduce(x, dims, keep))


# --- borders --------------------------------------------------------------------------------------------------------


def _borders(layer: Layer, key: str) -> list[tuple[int, int]]:
    value = layer.option(key)
    pairs: Sequence[Any] = [value] if _rank(layer) == 1 else value
    return [(n, n) if isinstance(n, int) else (int(n[0]), int(n[1])) for n in pairs]


@makes("ZeroPadding1D", "ZeroPadding2D")
def _zero_padding(layer: Layer) -> nn.Module:
    pads = [n for pair in reversed(_borders(layer, "padding")) for n in pair]
    channels = [] if _first(layer) else [0, 0]
    return Step(lambda x: F.pad(x, channels + pads))


@makes("Cropping1D", "Cropping2D")
def _cropping(layer: Layer) -> nn.Module:
    lead = [slice(None)] * (2 if _first(layer) else 1)
    inner = [slice(low, -high or None) for low, high in _borders(layer, "cropping")]
    return Step(lambda x: x[(*lead, *inner)])
