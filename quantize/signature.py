"""From a model's own arguments to frames and back: the one place that knows where batch and time axes lie.

A run (float or fixed point) works on frames: arrays [S, T, width] with S streams (all batch axes merged, 1 when there
are none) and T steps (1 when there is no time axis). `to_frames` brings the caller's arguments there, checking them,
and `from_frames` lays results out as the model itself would have.

Neighbours: `graph.py` (Signature), `float_run.py` and the fixed-point simulator (both run between the two).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantize.errors import QuantizeError
from quantize.graph import Argument, Result, Signature


@dataclass(frozen=True)
class Restore:
    """What `from_frames` needs to know of the call: the sizes of the batch axes, the number of steps, and whether the
    caller gave a single stream without its batch axes (results then have none either)."""

    batch: tuple[int, ...]
    steps: int
    single: bool


def to_frames(
    signature: Signature, inputs: Any, dtype: Any = np.float64
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Restore]:
    """Check a call's arguments and merge their batch axes.

    inputs: what the model takes: an array for a model of one argument, a tuple or list of arrays in the model's order,
            or a dict by argument name. Arrays may be numpy, torch (read through numpy) or anything numpy reads; any
            batch size, any time length. Where every argument leaves its batch axes out, it is a single stream.
    dtype:  of the frames. A float dtype takes float and integer arrays, finite values only. An integer dtype (raw
            int16 input) takes integer arrays whose values it can hold.

    Returns frames (tensor name -> [S, T, width]), states (argument name -> [S, rows, width]) and the Restore for
    `from_frames`. Raises QuantizeError naming the argument: missing or unknown, wrong dtype, rank or feature count,
    NaN or infinity (with the first index), an axis of length 0, batch or time that differ between arguments.
    """
    dtype = np.dtype(dtype)
    arrays = [
        _as_array(argument, value, dtype)
        for argument, value in zip(signature.arguments, _match(signature, inputs), strict=True)
    ]
    batch: tuple[str, tuple[int, ...], bool] | None = None  # the argument that set it, sizes, single
    steps: tuple[str, int] | None = None
    frames: dict[str, np.ndarray] = {}
    states: dict[str, np.ndarray] = {}
    for argument, array in zip(signature.arguments, arrays, strict=True):
        axes = _axes_of(argument, array)
        _check_sizes(argument, array, axes)
        if "batch" in argument.axes:
            here = tuple(n for n, axis in zip(array.shape, axes, strict=True) if axis == "batch")
            single = "batch" not in axes
            if batch is None:
                batch = (argument.name, here, single)
            elif batch[1:] != (here, single):
                raise QuantizeError(
                    f"argument {argument.name!r} has {_batch_words(here, single)}, but {batch[0]!r} has "
                    f"{_batch_words(batch[1], batch[2])}: give every argument the same streams"
                )
        if "time" in axes:
            length = array.shape[axes.index("time")]
            if steps is None:
                steps = (argument.name, length)
            elif steps[1] != length:
                raise QuantizeError(
                    f"argument {argument.name!r} has {length} time steps, but {steps[0]!r} has {steps[1]}: "
                    "give every argument the same length"
                )
        if argument.kind == "state":
            states[argument.name] = _canonical(array, axes, "layer")
        else:
            frames[argument.tensor] = _canonical(array, axes, "time", argument.layout)
    sizes, single = batch[1:] if batch else ((), False)
    return frames, states, Restore(sizes, steps[1] if steps else 1, single)


def from_frames(
    signature: Signature,
    tensors: Mapping[str, np.ndarray],
    restore: Restore,
    finals: Mapping[str, np.ndarray] | None = None,
) -> Any:
    """Lay results out as the model returns them.

    tensors: [S, T, width] per graph tensor that a result names, of any dtype (kept).
    finals:  [S, width] per graph tensor, the value after the last step; where given it serves results without a time
             axis and returned states, otherwise these take tensors[name][:, -1].

    Returns one array, a tuple, a list or a dict, as `signature.container` says.
    """
    finals = finals or {}
    arrays = [_lay_out(result, tensors, finals, restore) for result in signature.results]
    if signature.container == "single":
        return arrays[0]
    if signature.container == "dict":
        return {result.name: array for result, array in zip(signature.results, arrays, strict=True)}
    return arrays if signature.container == "list" else tuple(arrays)


def _match(signature: Signature, inputs: Any) -> list[Any]:
    """One value per argument, in the signature's order."""
    names = [argument.name for argument in signature.arguments]
    takes = f"the model takes {', '.join(map(repr, names))}"
    if isinstance(inputs, Mapping):
        missing = [name for name in names if name not in inputs]
        extra = [str(name) for name in inputs if name not in names]
        if missing or extra:
            problems = [f"missing argument {name!r}" for name in missing] + [f"unknown argument {n!r}" for n in extra]
            raise QuantizeError(f"{', '.join(problems)}: {takes}")
        return [inputs[name] for name in names]
    values = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    if len(values) != len(names):
        raise QuantizeError(f"got {len(values)} argument(s), but {takes} ({len(names)})")
    return values


def _as_array(argument: Argument, value: Any, dtype: np.dtype) -> np.ndarray:
    """The value as a checked array of `dtype`."""
    name = argument.name
    if hasattr(value, "detach"):  # a torch tensor that requires grad or lives on a device does not convert by itself
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise QuantizeError(f"argument {name!r} is not an array of numbers: {error}") from None
    if dtype.kind in "iu":
        if array.dtype.kind not in "iu":
            raise QuantizeError(f"argument {name!r} has dtype {array.dtype}: raw input must be integer ({dtype})")
        limits = np.iinfo(dtype)
        outside = (array < limits.min) | (array > limits.max)
        if outside.any():
            index = _first(outside)
            raise QuantizeError(
                f"argument {name!r} holds {array[index]} at index {_words(index)}: "
                f"raw input must lie in {limits.min}..{limits.max}"
            )
        return array.astype(dtype)
    if array.dtype.kind not in "fiu":
        raise QuantizeError(f"argument {name!r} has dtype {array.dtype}: give float (or integer) frames")
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    bad = ~np.isfinite(converted)
    if bad.any():
        index = _first(bad)
        raise QuantizeError(
            f"argument {name!r} holds {array[index]} at index {_words(index)}: every value must be finite in {dtype}; "
            "remove or repair that frame"
        )
    return converted


def _first(mask: np.ndarray) -> tuple[int, ...]:
    """The index of the first true element."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))


def _words(index: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, index))})"


def _batch_words(sizes: tuple[int, ...], single: bool) -> str:
    return "a single stream (no batch axis)" if single else f"batch {' x '.join(map(str, sizes))}"


def _axes_of(argument: Argument, array: np.ndarray) -> tuple[str, ...]:
    """The array's axes: the argument's, or those without "batch" when it came as a single stream."""
    if array.ndim == len(argument.axes):
        return argument.axes
    without = tuple(axis for axis in argument.axes if axis != "batch")
    if array.ndim == len(without):
        return without
    forms = f"[{', '.join(argument.axes)}]" + (f" or [{', '.join(without)}]" if without != argument.axes else "")
    raise QuantizeError(
        f"argument {argument.name!r} has {array.ndim} axes (shape {array.shape}), but the model takes {forms}"
    )


def _check_sizes(argument: Argument, array: np.ndarray, axes: tuple[str, ...]) -> None:
    """Refuse empty axes and any fixed size that is not the model's."""
    for position, (size, axis) in enumerate(zip(array.shape, axes, strict=True)):
        if size == 0:
            raise QuantizeError(f"argument {argument.name!r} is empty: its {axis} axis ({position}) has length 0")
    expected = {"feature": argument.width, "one": 1}
    if argument.kind == "state":
        expected["layer"] = len(argument.layers)
    if len(argument.sizes) > 1:
        got_sizes = tuple(n for n, a in zip(array.shape, axes, strict=True) if a == "feature")
        if got_sizes != argument.sizes:
            raise QuantizeError(
                f"argument {argument.name!r} has the sizes {got_sizes} beside its batch (shape {array.shape}), but the "
                f"model takes {argument.sizes}"
            )
    for axis, size in expected.items():
        got = math.prod(n for n, a in zip(array.shape, axes, strict=True) if a == axis)
        if axis in axes and got != size:
            what = {"feature": "features", "layer": "layers", "one": "elements along its axis of length 1"}[axis]
            raise QuantizeError(
                f"argument {argument.name!r} has {got} {what} (shape {array.shape}), but the model takes {size}"
            )


def _canonical(array: np.ndarray, axes: tuple[str, ...], middle: str, layout: tuple[int, ...] = ()) -> np.ndarray:
    """[S, middle, features], contiguous, from an array with the named axes (several of "batch" and "feature", the
    latter in the order of `layout`)."""
    places = {role: [i for i, axis in enumerate(axes) if axis == role] for role in ("batch", middle, "feature", "one")}
    if layout:
        places["feature"] = [places["feature"][i] for i in layout]
    order = [i for group in places.values() for i in group]
    sizes = {role: math.prod(n for n, a in zip(array.shape, axes, strict=True) if a == role) for role in set(axes)}
    shape = [sizes.get(role, 1) for role in ("batch", middle, "feature")]
    return np.ascontiguousarray(array.transpose(order).reshape(shape))


def _lay_out(
    result: Result, tensors: Mapping[str, np.ndarray], finals: Mapping[str, np.ndarray], restore: Restore
) -> np.ndarray:
    """One result in the model's axes."""
    atoms = [atom for axis in result.axes for atom in axis]
    rows = []
    for name in result.tensors:
        if "time" in atoms:
            rows.append(tensors[name])
        else:
            rows.append(finals[name][:, None] if name in finals else tensors[name][:, -1:])
    stacked = np.stack(rows)  # [rows, S, T, width]
    steps, width = stacked.shape[2:]
    batch = iter(restore.batch)
    positions = {"layer": 0, "time": 1 + len(restore.batch)}
    next_batch = iter(range(1, 1 + len(restore.batch)))
    inner = result.sizes or (width,)
    next_feature = iter(range(2 + len(restore.batch), 2 + len(restore.batch) + len(inner)))
    feature = iter(inner)
    sizes = {"layer": len(rows), "time": steps}

    def place(atom: str) -> int:
        moving = {"batch": next_batch, "feature": next_feature}
        return next(moving[atom]) if atom in moving else positions[atom]

    def length(atom: str) -> int:
        lengths = {"batch": batch, "feature": feature}
        return next(lengths[atom]) if atom in lengths else sizes[atom]

    order: list[int] = []
    shape: list[int] = []
    for axis in result.axes:
        kept = [atom for atom in axis if not (restore.single and atom == "batch")]
        if axis and not kept:
            continue
        order += [place(atom) for atom in kept]
        shape.append(math.prod(length(atom) for atom in kept))
    full = stacked.reshape(len(rows), *restore.batch, steps, *inner)
    order += [position for position in range(full.ndim) if position not in order]  # axes of length 1, left out
    return np.ascontiguousarray(full.transpose(order)).reshape(shape)
