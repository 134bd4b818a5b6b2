"""Rounds weights: a float matrix and its bias to integers, one scale per row, with a proof that no sum overflows.

Method: symmetric per-row (per-channel) quantization. int16 rows get power-of-two scales; int8 rows arbitrary ones,
chosen among those that a 15-bit multiplier expresses exactly, so that requantization adds no error of its own; int8
weights that already are integers times one power of two pass through unchanged. SPEC.md section 3.
Neighbours: `plan.py` (the formats), `tables.py` (asks), `rtcore/csrc/rtcore_matrix_i16.c` (computes with the result).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from quantize.errors import PlanError

INT32_MAX = 2**31 - 1
SHIFT_TOP = 24  # finest row scale of int16: 2^-24 of the target's LSB; what is smaller rounds to nothing anyway
PEEPHOLE_SHIFT_TOP = 46  # of a peephole's product, which is below 2^45: what is smaller rounds to nothing
MULT_TOP = 2**15
ACC_LIMIT = 2**61  # |sum * mult| stays below, so that adding the rounding half cannot overflow int64


@dataclass(frozen=True)
class Proof:
    """Over all inputs -32768..32767 and in any order of summation: the worst partial sums of the matrix.

    low, high: the extreme accumulators over all rows; row: where the larger magnitude is; wide_rows: rows beyond int32.
    """

    acc_bits: int
    low: int
    high: int
    row: int
    wide_rows: int


@dataclass(frozen=True)
class Matrix:
    """weights int8/int16 [R, M]; bias int64 [R]; mult int16 [R]; shift uint8 [R]; scale float64 [R]: w = weights *
    scale; bias_scale float64 [R]: b = bias * bias_scale (the accumulator's LSB)."""

    weights: np.ndarray
    bias: np.ndarray
    mult: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    bias_scale: np.ndarray
    proof: Proof

    @property
    def dequantized(self) -> tuple[np.ndarray, np.ndarray]:
        """Float64 weights and bias that the integers stand for, exactly."""
        return self.weights * self.scale[:, None], self.bias * self.bias_scale


def lossless_shift(weights: np.ndarray) -> int | None:
    """The smallest k such that weights * 2^k are integers in -128..127, or None."""
    largest = float(np.abs(weights).max(initial=0.0))
    if largest == 0:
        return 0
    top = math.floor(math.log2(128 / largest))
    for k in range(top - 8, top + 1):
        scaled = weights * 2.0**k
        if np.array_equal(scaled, np.rint(scaled)) and scaled.max() <= 127 and scaled.min() >= -128:
            return k
    return None


def finest_target(weights: np.ndarray, x_frac: int, bits: int) -> int:
    """The finest target format that every row reaches with a 15-bit multiplier and no negative shift."""
    largest = float(np.abs(weights).max(initial=0.0))
    exact = lossless_shift(weights) if bits == 8 else None
    if exact is not None:
        return x_frac + exact + 14
    return x_frac + (math.floor(math.log2((2 ** (bits - 1) - 1) / largest)) + 13 if largest > 0 else 14)


def meeting_target(weights: np.ndarray, x_frac: int, bits: int) -> int:
    """The finest target format for rows that meet those of another matrix: with int16 weights it leaves a shift of 2,
    which the rows of every core need (rtcore/streams.py), unless that leaves no fractional bit. What lies below a
    quarter of a weight's LSB times one of x is lost, far less than what rounding the weights loses."""
    finest = finest_target(weights, x_frac, bits)
    return finest if bits == 8 else max(finest - 15, min(finest, 0))


def quantize_matrix(
    weights: np.ndarray, bias: np.ndarray, x_frac: int, target_frac, bits: int, acc_bits: int | None, what: str
) -> Matrix:
    """Integers for out = requantize(W x + b).

    weights: float64 [R, M]; bias: float64 [R]; x_frac: format of the int16 input; target_frac: format the rows are
    requantized to, one int or one per row; bits: 8 or 16; acc_bits: None (int32 where proven, else int64), or 32 to
    narrow rows until proven. Raises PlanError naming `what` when a row cannot be carried.
    """
    exact = lossless_shift(weights) if bits == 8 else None
    targets = np.broadcast_to(target_frac, len(weights)).tolist()
    rows = [
        quantize_row(w, float(b), x_frac, target, bits, acc_bits, exact, f"{what}, row {r}")
        for r, (w, b, target) in enumerate(zip(weights, bias, targets, strict=True))
    ]
    mult = np.array([row.mult for row in rows], np.int16)
    shift = np.array([row.shift for row in rows], np.uint8)
    integers = np.stack([row.weights for row in rows]).astype(np.int8 if bits == 8 else np.int16)
    biases = np.array([row.bias for row in rows], np.int64)
    proof = prove(integers, biases, mult, shift)
    if acc_bits == 32 and proof.acc_bits != 32:
        raise PlanError(
            f"{what}: row {proof.row} does not fit int32 accumulators (worst sum {proof.high}, {proof.low})"
        )
    scale = np.array([row.scale for row in rows])
    return Matrix(integers, biases, mult, shift, scale, scale * 2.0**-x_frac, proof)


@dataclass(frozen=True)
class Row:
    weights: np.ndarray
    bias: int
    mult: int
    shift: int
    scale: float


def quantize_row(
    w: np.ndarray, b: float, x_frac: int, target: int, bits: int, acc_bits: int | None, exact: int | None, what: str
) -> Row:
    """One row. out = (acc * mult + half) >> shift, acc = sum w x + bias; scale * 2^(target - x_frac) = mult *
    2^-shift."""
    largest = float(np.abs(w).max(initial=0.0))
    top = 2 ** (bits - 1) - 1
    narrowed = 0
    while True:
        if bits == 16 or exact is not None:
            k = exact if exact is not None else SHIFT_TOP + target - x_frac
            if exact is None and largest > 0:
                k = min(k, math.floor(math.log2(top / largest)))
            mult, shift = power_of_two(k - narrowed + x_frac - target, what)
        else:
            mult, shift = multiplier(max(largest / top, 0.0) * 2.0 ** (target - x_frac + narrowed), b, target, what)
        scale = mult * 2.0 ** (x_frac - target - shift)
        integers = np.clip(np.floor(w / scale + 0.5), -top - (exact is not None), top).astype(np.int64)
        bias = math.floor(b / scale * 2.0**x_frac + 0.5)
        low, high = worst(integers, bias)
        if max(high, -low) * mult >= ACC_LIMIT:
            raise PlanError(f"{what}: bias {b:g} is too large beside weights of {largest:g}; no 64-bit sum holds both")
        half = 2 ** (shift - 1) if shift else 0
        if acc_bits != 32 or (high + half <= INT32_MAX and low >= -INT32_MAX and shift <= 31) or narrowed > 24:
            return Row(integers, bias, mult, shift, scale)
        if exact is not None:
            raise PlanError(f"{what}: int8 weights of a power-of-two scale would be narrowed; ask for 64-bit sums")
        narrowed += 1


def power_of_two(shift: int, what: str) -> tuple[int, int]:
    """2^-shift as (mult, shift)."""
    if shift < -14:
        raise PlanError(f"{what}: outputs are 2^{-shift} times smaller than its sums; widen the output's format")
    return (1, shift) if shift >= 0 else (2**-shift, 0)


def multiplier(ratio: float, b: float, target: int, what: str) -> tuple[int, int]:
    """The smallest mult * 2^-shift >= ratio with a 15-bit mult: every weight fits at that scale."""
    ratio = max(ratio, abs(b) * 2.0**target / 2**45, 2.0**-30)
    mantissa, exponent = math.frexp(ratio)  # ratio = mantissa * 2^exponent, mantissa in [0.5, 1)
    mult = math.ceil(mantissa * MULT_TOP)
    if mult == MULT_TOP:
        mult, exponent = MULT_TOP // 2, exponent + 1
    shift = 15 - exponent
    if shift < 0:
        raise PlanError(f"{what}: outputs are 2^{-shift} times smaller than its sums; widen the output's format")
    return mult, shift


def affine_arrays(scale: np.ndarray, offset: np.ndarray, x_frac: int, frac: int, what: str) -> dict[str, np.ndarray]:
    """mult, bias and shift of `scale * x + offset`, element by element, from Q(x_frac) to Q(frac)."""
    ratio = np.asarray(scale, np.float64) * 2.0 ** (frac - x_frac)
    shift = np.array(
        [multiplier(abs(r), float(d), frac, what)[1] for r, d in zip(ratio, offset, strict=True)], np.uint8
    )
    mult = np.array([np.sign(r) * round(abs(r) * 2.0 ** int(s)) for r, s in zip(ratio, shift, strict=True)])
    bias = [math.floor(d * 2.0 ** (frac + int(s)) + 0.5) for d, s in zip(offset, shift, strict=True)]
    return dict(mult=np.clip(mult, -32767, 32767).astype(np.int16), bias=np.array(bias, np.int64), shift=shift)


def peephole_arrays(weights: np.ndarray, cell_frac: int, target: int, what: str) -> dict[str, np.ndarray]:
    """Peepholes as int16, each with the power-of-two scale that is as fine as it allows: cell * weight >> shift is in
    Q(target) for a 32-bit cell in Q(cell_frac).

    weights: float64 [K]. No proof depends on them: a product is below 2^45. Raises PlanError naming `what` for a weight
    whose products with a cell at the end of its format leave 2^45 LSB of the target.
    """
    finest = PEEPHOLE_SHIFT_TOP + target - cell_frac
    with np.errstate(divide="ignore"):
        fracs = np.minimum(np.floor(np.log2(32767 / np.abs(weights))), finest)
    shift = (fracs + cell_frac - target).astype(np.int64)
    if (shift < 0).any():
        k = int(np.argmin(shift))
        raise PlanError(
            f"{what}: the peephole weight {weights[k]:g} (element {k}) is too large beside cells of up to "
            f"{2.0 ** (30 - cell_frac):g}; keep the cells small (clip the features, or train with smaller weights)"
        )
    integers = np.clip(np.floor(weights * 2.0**fracs + 0.5), -32767, 32767).astype(np.int16)
    return dict(peephole_weights=integers, peephole_shift=shift.astype(np.uint8))


def worst(integers: np.ndarray, bias: int) -> tuple[int, int]:
    """Bounds of every partial sum of a row, in any order, over inputs -32768..32767: exact Python integers."""
    positive = int(integers[integers > 0].sum())
    negative = -int(integers[integers < 0].sum())
    return min(bias, 0) - 32768 * positive - 32767 * negative, max(bias, 0) + 32767 * positive + 32768 * negative


def prove(integers: np.ndarray, biases: np.ndarray, mult: np.ndarray, shift: np.ndarray) -> Proof:
    """The overflow proof of a matrix as the kernel sums it (the rounding half is in the bias when every mult is 1)."""
    plain = bool(np.all(mult == 1))
    bounds = [
        worst(row, int(b) + (2 ** (int(s) - 1) if plain and s else 0))
        for row, b, s in zip(integers.astype(np.int64), biases, shift, strict=True)
    ]
    magnitude = [max(high, -low) for low, high in bounds]
    wide = sum(m > INT32_MAX for m in magnitude)
    narrow_shift = not plain or int(shift.max()) <= 31
    row = int(np.argmax(np.array(magnitude, dtype=object)))
    return Proof(
        acc_bits=32 if wide == 0 and narrow_shift else 64,
        low=min(low for low, _ in bounds),
        high=max(high for _, high in bounds),
        row=row,
        wide_rows=wide,
    )
