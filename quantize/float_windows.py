"""The float reference of operations over positions: convolutions, pools, delays, tables, copies, padding.

Arrays are [S, T, width] as everywhere in the reference; inside an operation [positions.., height, width, channels].
Neighbours: `float_run.py` (calls these), `graph.py` (the attributes), `torch_windows.py` (emits the nodes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from quantize.graph import Node


def _images(node: Node, x: np.ndarray, outside: float, end: tuple[int, int]) -> np.ndarray:
    """[S * T * rows, h, w, C] with its padding, and what lies beyond up to `end`, filled with `outside`."""
    (height, width), (top, left) = node.attrs["in"], node.attrs["pad"]
    rows = x.shape[0] * x.shape[1] * node.attrs.get("rows", 1)
    images = x.reshape(rows, height, width, -1)
    beyond = max(end[0] - height - top, 0), max(end[1] - width - left, 0)
    return np.pad(images, ((0, 0), (top, beyond[0]), (left, beyond[1]), (0, 0)), constant_values=outside)


def _ends(node: Node, kernel: tuple[int, int]) -> tuple[int, int]:
    """How far the kernel reaches, counted from the padding."""
    how = zip(node.attrs["out"], node.attrs["stride"], node.attrs["dilation"], kernel, strict=True)
    height, width = ((out - 1) * stride + dilation * (k - 1) + 1 for out, stride, dilation, k in how)
    return height, width


def _taps(node: Node, images: np.ndarray, kernel: tuple[int, int]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Each tap of the kernel and what it sees at every output."""
    (out_h, out_w), (step_h, step_w), (far_h, far_w) = (node.attrs[key] for key in ("out", "stride", "dilation"))
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            y, x = i * far_h, j * far_w
            yield i, j, images[:, y : y + (out_h - 1) * step_h + 1 : step_h, x : x + (out_w - 1) * step_w + 1 : step_w]


def _conv(node: Node, inputs: list[np.ndarray], run: Any) -> np.ndarray:
    weight, bias = run.params(node, "weight", "bias")
    n, depth, *kernel = weight.shape
    groups = node.attrs["groups"]
    images = _images(node, inputs[0], 0.0, _ends(node, kernel))
    total = np.zeros((len(images), *node.attrs["out"], groups, n // groups), run.dtype)
    grouped = weight.reshape(groups, n // groups, depth, *kernel)
    for i, j, seen in _taps(node, images, kernel):
        parts = seen.reshape(*seen.shape[:3], groups, depth)
        total += np.einsum("phwgc,gnc->phwgn", parts, grouped[..., i, j], optimize=True)
    y = total.reshape(*total.shape[:3], n) + bias
    return y.reshape(*inputs[0].shape[:2], -1)


def _pool(node: Node, inputs: list[np.ndarray], run: Any) -> np.ndarray:
    attrs, kernel = node.attrs, node.attrs["kernel"]
    ends = _ends(node, kernel)
    if attrs["largest"]:
        seen = [part for _, _, part in _taps(node, _images(node, inputs[0], -np.inf, ends), kernel)]
        y = np.maximum.reduce(seen)
    else:
        total = sum(part for _, _, part in _taps(node, _images(node, inputs[0], 0.0, ends), kernel))
        y = (total / counts(node)[:, :, None]).astype(run.dtype)
    return y.reshape(*inputs[0].shape[:2], -1)


def counts(node: Node) -> np.ndarray:
    """What an average divides by at every output [out_h, out_w], as torch's AvgPool2d."""
    attrs = node.attrs
    if attrs["divisor"]:
        return np.full(attrs["out"], float(attrs["divisor"]))
    sides = []
    for axis in range(2):
        size, pad, kernel = attrs["in"][axis], attrs["pad"][axis], attrs["kernel"][axis]
        first = np.arange(attrs["out"][axis]) * attrs["stride"][axis] - pad
        low, high = (-pad, size + pad) if attrs["count_pad"] else (0, size)
        sides.append(np.minimum(first + kernel, high) - np.maximum(first, low))
    return np.outer(*sides).astype(np.float64)


def _delay(node: Node, inputs: list[np.ndarray], run: Any) -> np.ndarray:
    frames, x = node.attrs["frames"], inputs[0]
    steps = x.shape[1]
    padded = np.pad(x, ((0, 0), (frames - 1, 0), (0, 0)))
    return np.concatenate([padded[:, k : k + steps] for k in range(frames)], axis=-1)


def _embedding(node: Node, inputs: list[np.ndarray], run: Any) -> np.ndarray:
    (table,) = run.params(node, "table")
    index = np.rint(inputs[0]).astype(np.int64).clip(0, len(table) - 1)
    return table[index].reshape(*index.shape[:2], -1)


def _copy(node: Node, inputs: list[np.ndarray], run: Any) -> np.ndarray:
    grids = np.ogrid[tuple(slice(n) for n in node.attrs["shape"])]
    index = node.attrs["start"] + sum(grid * stride for grid, stride in zip(grids, node.attrs["strides"], strict=True))
    return inputs[0][..., index.ravel()]


def _pad(node: Node, inputs: list[np.ndarray], run: Any) -> np.ndarray:
    attrs, x = node.attrs, inputs[0]
    rows = x.reshape(*x.shape[:2], attrs["rows"], -1)
    ends = ((0, 0), (0, 0), (0, 0), (attrs["before"], attrs["after"]))
    return np.pad(rows, ends, constant_values=attrs["value"]).reshape(*x.shape[:2], -1)


WINDOW_OPS: dict[str, Callable[[Node, list[np.ndarray], Any], np.ndarray]] = {
    "conv": _conv,
    "pool": _pool,
    "delay": _delay,
    "embedding": _embedding,
    "copy": _copy,
    "pad": _pad,
}
