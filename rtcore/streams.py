"""Logical tables to the streams that a core's own kernels read from front to back, where they can.

What a core's stream looks like is said in `csrc/<core>/rtcore_stream_i16.c`; here it is written. A matrix that a core's
kernels do not take (no stream) is packed for the portable ones, which are linked anyway. Neighbours: `packing.py` (asks,
and groups the rows), `csrc/rtcore.h` (RTCORE_STREAM_*).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

W16_A64, W8_A32, BOUNDED = 1, 2, 16  # RTCORE_STREAM_*
INT32 = 2**31 - 1


@dataclass(frozen=True)
class Rows:
    """Rows of a matrix in groups of four. weights: int [R, M], M even (padded); bias: int64 [R] without rounding halves;
    mult, shift: int64 [R], out = (acc * mult) >> shift rounded; zero rows have any."""

    weights: np.ndarray
    bias: np.ndarray
    mult: np.ndarray
    shift: np.ndarray

    @property
    def half(self) -> np.ndarray:
        """What rounds, int64 [R]."""
        return np.where(self.shift > 0, np.int64(1) << np.maximum(self.shift - 1, 0), 0)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and the largest sum, bias included, over all int16 inputs, int64 [R] each."""
        w = self.weights.astype(np.int64)
        positive, negative = np.maximum(w, 0).sum(1), np.maximum(-w, 0).sum(1)
        return self.bias - 32768 * positive - 32767 * negative, self.bias + 32767 * positive + 32768 * negative


def _words(values: np.ndarray) -> np.ndarray:
    """int64 [..] to their words, int32 [.., 2], low first."""
    return np.ascontiguousarray(values.astype("<i8")).view("<i4").reshape(*values.shape, 2)


def _pairs(halfwords: np.ndarray) -> np.ndarray:
    """int [.., R, M] to words of two columns, [M / 2, R] behind the leading axes, the left column low."""
    words = np.ascontiguousarray(halfwords.astype("<i2")).view("<i4")
    return words.swapaxes(-1, -2)


def _flat(*parts: np.ndarray) -> np.ndarray:
    """Parts of each of n groups, [n, ..], group after group, int32."""
    return np.concatenate([part.reshape(part.shape[0], -1).astype(np.int32) for part in parts], axis=1).reshape(-1)


def m4_w16(rows: Rows) -> tuple[np.ndarray, int] | None:
    """W16_A64 of Cortex-M4."""
    if (rows.mult != 1).any() or rows.shift.min() < 2 or rows.shift.max() > 32:
        return None
    if np.abs(rows.weights.astype(np.int64)).max() > 32767:
        return None
    low, high = ((bound + rows.half) >> rows.shift for bound in rows.bounds)
    bounded = low.min() >= -INT32 and high.max() <= INT32
    by2 = rows.weights.reshape(-1, 2, rows.weights.shape[1])
    stream = _flat(
        _words(rows.bias + rows.half).reshape(-1, 4), _pairs(by2), (np.int64(1) << (32 - rows.shift)).reshape(-1, 2)
    )
    return stream, W16_A64 + BOUNDED * bounded


def m4_w8(rows: Rows) -> tuple[np.ndarray, int] | None:
    """W8_A32 of Cortex-M4. None also where -128 lies above a negative weight: 256 times it minus one is no int16."""
    low, high = rows.bounds
    lower, upper = (rows.weights.reshape(-1, 2, 2, rows.weights.shape[1])[:, :, k].astype(np.int64) for k in (0, 1))
    if low.min() < -INT32 - 1 or high.max() > INT32 or ((upper == -128) & (lower < 0)).any():
        return None
    bits = np.array([int(m).bit_length() for m in rows.mult])
    up = max(0, int((bits + 1 - rows.shift).max()))
    left = 32 - up - rows.shift
    if up > 16 or left.min() < 0:
        return None
    bounded = (low << up).min() >= -INT32 - 1 and (high << up).max() <= INT32
    bias = rows.bias.reshape(-1, 2, 2)
    sums = np.concatenate([_words(256 * bias[..., 1] + bias[..., 0]), bias[..., :1]], axis=2)
    scale = np.concatenate([(rows.mult << left).reshape(-1, 4), np.full((len(bias), 1), up)], axis=1)
    return _flat(sums, _pairs(256 * upper + lower), scale), W8_A32 + BOUNDED * bounded


def m4_stream(rows: Rows) -> tuple[np.ndarray, int] | None:
    """For Cortex-M4, M7 and M33: int32 words and their RTCORE_STREAM_*."""
    return (m4_w8(rows) if rows.weights.dtype == np.int8 else None) or m4_w16(rows)


STREAMS = {"cortex-m4": m4_stream}
