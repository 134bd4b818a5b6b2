"""What a wrong layer gets: one table from the kernels' codes to messages, and the checks that layer classes share.

Neighbours: `csrc/rtcore.h` (RTCORE_E_*, what a *_check() returns), the layer classes `*_i16.pyx` and `*_f32.pyx`.
"""

from __future__ import annotations

import operator
from numbers import Real

import numpy as np

from rtcore.tables import ACTIVATIONS, GATE_SLOPES

REMAKE = "make the tables again from the model"

# RTCORE_E_*: name in rtcore.h, what is wrong and what to do.
CODES = {
    -1: ("SHAPE", "a size is below 1, or a matrix or a window does not match the sizes; " + REMAKE),
    -2: (
        "CAPACITY",
        "nb_neurons is above the capacity{limit}; use a narrower layer, or build with a larger RTCORE_MAX_NEURONS",
    ),
    -3: ("ACTIVATION", "the activation is none of " + ", ".join(f"{n} ({i})" for n, i in ACTIVATIONS.items())),
    -4: ("TABLE", "a table is missing, or two are given where there must be one; " + REMAKE),
    -5: ("SHIFT", "a shift or a multiplier is outside its range; " + REMAKE),
    -6: ("WEIGHT", "-32768 is among the int16 weights, whose range is -32767..32767; " + REMAKE),
}


class RtcoreError(ValueError):
    """A layer, a table or a frame that the kernels cannot take: named, with its value, the limit and the remedy."""


def check(code: int, where: str, limit: int | None = None) -> None:
    """Raises RtcoreError for what a C *_check() returned, unless that is 0.

    where: the layer and its values, as the message's beginning. limit: the capacity that the check was given.
    """
    if code == 0:
        return
    _, message = CODES.get(code, ("", f"the kernel's check returned the unknown code {code}"))
    raise RtcoreError(f"{where}: {message.format(limit='' if limit is None else f' {limit}')}")


def activation_number(activation: int | str, where: str) -> int:
    """RTCORE_ACTIVATION_* of a name in rtcore.tables.ACTIVATIONS; a number passes, for the kernel's check to judge."""
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise RtcoreError(f"{where}: activation {activation!r} is none of {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[activation]
    return operator.index(activation)


def slope_of_gates(slope: float, where: str) -> float:
    """Of hard gates, clip(slope * x + 1/2, 0, 1), or 0 for sigmoids. Raises RtcoreError for any other number,
    TypeError for what is none."""
    low, high = GATE_SLOPES
    if isinstance(slope, bool) or not isinstance(slope, Real):
        raise TypeError(f"{where}: gate_slope must be a number, got {slope!r}")
    if slope != 0 and not low <= slope <= high:
        raise RtcoreError(
            f"{where}: gate_slope is {slope!r}, expected 0 (sigmoid gates) or that of hard sigmoids, {low}..{high}"
        )
    return float(slope)


def floats(array: object, where: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """The array as finite float32 of the shape (None: any length), C-contiguous and aligned; copied only if need be.

    Raises RtcoreError naming the shape, the dtype, or the first element that is NaN, infinite or beyond float32.
    """
    given = np.asarray(array)
    if given.dtype.kind != "f":
        raise RtcoreError(f"{where}: dtype is {given.dtype}, expected float32")
    if given.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, given.shape, strict=True)):
        expected = ", ".join("any" if n is None else str(n) for n in shape)
        raise RtcoreError(f"{where}: shape is {list(given.shape)}, expected [{expected}]")
    with np.errstate(over="ignore"):
        out = np.require(given, np.float32, ("C", "A"))
    if not np.isfinite(out).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(out))[0])
        raise RtcoreError(f"{where}: element {list(index)} is {given[index]}, expected a finite float32")
    return out


def summed(bias_ih: object, bias_hh: object, where: str, rows: int) -> np.ndarray:
    """The sum of torch's two biases, None for zeros: float32 [rows], formed in float64 and rounded once."""
    total = np.zeros(rows)
    for bias, label in ((bias_ih, "bias_ih"), (bias_hh, "bias_hh")):
        total += 0 if bias is None else floats(bias, where + label, (rows,))
    return total.astype(np.float32)
