"""Logical tables to the streams that a core's own kernels read from front to back, where they can.

What a core's stream looks like is said in `csrc/<core>/rtcore_stream_i16.c`; here it is written. A matrix that a
core's kernels do not take (no stream) is packed for the portable ones, which are linked anyway. Neighbours:
`packing.py` (asks, and groups the rows), `csrc/rtcore.h` (RTCORE_STREAM_*).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

W16_A64, W8_A32, BOUNDED, ONE_LESS = 1, 2, 16, 32  # RTCORE_STREAM_*
INT32 = 2**31 - 1


@dataclass(frozen=True)
class Rows:
    """Rows of a matrix in groups of four. weights: int [R, M], M even (padded); bias: int64 [R] without rounding
    halves; mult, shift: int64 [R], out = (acc * mult) >> shift rounded; zero rows have any. columns: before padding."""

    weights: np.ndarray
    bias: np.ndarray
    mult: np.ndarray
    shift: np.ndarray
    columns: int

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


def _shifted_bounded(rows: Rows) -> int:
    """BOUNDED or 0 for rows that are shifted alone."""
    low, high = ((bound + rows.half) >> rows.shift for bound in rows.bounds)
    return BOUNDED if low.min() >= -INT32 and high.max() <= INT32 else 0


def _w16_bounded(rows: Rows, least: int = 2) -> int | None:
    """BOUNDED or 0 for a matrix of int16 weights whose rows are shifted alone, None where W16_A64 cannot hold it.
    least: of the shifts that its kernel takes."""
    low, high = rows.bounds
    if (rows.mult != 1).any() or rows.shift.min() < least or rows.shift.max() > 32:
        return None
    return _shifted_bounded(rows) if max(-low.min(), high.max()) < 1 << 46 else None


def _w8_scale(rows: Rows) -> tuple[np.ndarray, int] | None:
    """[groups, 5]: four scales, and how far up sums go before; and BOUNDED or 0. None where W8_A32 cannot hold it."""
    low, high = rows.bounds
    if low.min() < -INT32 - 1 or high.max() > INT32:
        return None
    bits = np.array([int(m).bit_length() for m in rows.mult])
    up = max(0, int((bits + 1 - rows.shift).max()))
    left = 32 - up - rows.shift
    if up > 16 or left.min() < 0:
        return None
    bounded = (low << up).min() >= -INT32 - 1 and (high << up).max() <= INT32
    scale = (rows.mult << left).reshape(-1, 4)
    return np.concatenate([scale, np.full((len(scale), 1), up)], axis=1), BOUNDED * bounded


def _by_row_pairs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[R, ..] to the lower and the upper rows of the pairs, [R / 4, 2, ..] each, int64."""
    pairs = values.astype(np.int64).reshape(-1, 2, 2, *values.shape[1:])
    return pairs[:, :, 0], pairs[:, :, 1]


def _shifts(rows: Rows) -> np.ndarray:
    """2^(32 - shift), [R]."""
    return np.int64(1) << (32 - rows.shift)


def m4_w16(rows: Rows) -> tuple[np.ndarray, int] | None:
    """W16_A64 of Cortex-M4."""
    bounded = _w16_bounded(rows)
    if bounded is None:
        return None
    halves = rows.weights.reshape(-1, 2, rows.weights.shape[1])
    parts = _words(rows.bias + rows.half).reshape(-1, 4), _pairs(halves), _shifts(rows).reshape(-1, 2)
    return _flat(*parts), W16_A64 + bounded


def m4_w8(rows: Rows) -> tuple[np.ndarray, int] | None:
    """W8_A32 of Cortex-M4. 256 times -128 and a negative weight are no int16: such a weight is stored one greater, and
    its column in a list behind the group; None where a group has more than 255 of them."""
    scaled = _w8_scale(rows)
    if scaled is None:
        return None
    scale, bounded = scaled
    lower, upper = _by_row_pairs(rows.weights)
    greater = (upper == -128) & (lower < 0)
    low, high = (bias[..., None] for bias in _by_row_pairs(rows.bias))
    sums = np.concatenate([_words((256 * high + low)[..., 0]), low], axis=2)
    parts = [sums, _pairs(256 * (upper + greater) + lower), scale]
    if not greater.any():
        return _flat(*parts), W8_A32 + bounded
    lists = [2 * column + pair for pair, column in map(np.nonzero, greater)]
    counts = np.array([len(taken) for taken in lists])
    if counts.max() > 255:
        return None
    scale[:, 4] += (counts << 8) + (counts.max() << 18)
    parts.append(np.stack([np.pad(taken, (0, counts.max() - len(taken))) for taken in lists]))
    return _flat(*parts), W8_A32 + ONE_LESS


def m4_stream(rows: Rows) -> tuple[np.ndarray, int] | None:
    """For Cortex-M4, M7 and M33: int32 words and their RTCORE_STREAM_*."""
    return (m4_w8(rows) if rows.weights.dtype == np.int8 else None) or m4_w16(rows)


def m3_w16(rows: Rows) -> tuple[np.ndarray, int] | None:
    """W16_A64 of Cortex-M3."""
    bounded = _w16_bounded(rows)
    if bounded is None:
        return None
    low, high = _by_row_pairs(rows.bias + rows.half)
    lower, upper = _by_row_pairs(rows.weights)
    words = (65536 * upper + lower).swapaxes(1, 2)
    return _flat(
        _words(np.stack([65536 * high + low, low], axis=2)), words, _shifts(rows).reshape(-1, 4)
    ), W16_A64 + bounded


def m3_w8(rows: Rows) -> tuple[np.ndarray, int] | None:
    """W8_A32 of Cortex-M3."""
    scaled = _w8_scale(rows)
    if scaled is None:
        return None
    scale, bounded = scaled
    columns = np.ascontiguousarray(rows.weights.reshape(-1, 4, rows.weights.shape[1]).swapaxes(1, 2)).view("<i4")
    return _flat(rows.bias.reshape(-1, 4), columns, scale), W8_A32 + bounded


def m3_stream(rows: Rows) -> tuple[np.ndarray, int] | None:
    """For Cortex-M3: int32 words and their RTCORE_STREAM_*."""
    return m3_w8(rows) if rows.weights.dtype == np.int8 else m3_w16(rows)


def _column_pairs(rows: Rows) -> np.ndarray:
    """[groups, pairs, 4 rows, 2 columns]."""
    return rows.weights.reshape(-1, 4, rows.weights.shape[1] // 2, 2).swapaxes(1, 2)


def rv_w16(rows: Rows) -> tuple[np.ndarray, int] | None:
    """W16_A64 of RV32IMC."""
    bounded = _w16_bounded(rows)
    if bounded is None or rows.weights.shape[1] > 1 << 16:
        return None
    bias = (rows.bias + rows.half).reshape(-1, 4)
    weights = np.ascontiguousarray(_column_pairs(rows)).view("<i4")
    low = _words(bias)[..., 0]
    return _flat(low, bias >> 16, weights, _shifts(rows).reshape(-1, 4)), W16_A64 + bounded


def rv_w8(rows: Rows) -> tuple[np.ndarray, int] | None:
    """W8_A32 of RV32IMC."""
    scaled = _w8_scale(rows)
    if scaled is None:
        return None
    scale, bounded = scaled
    pairs = _column_pairs(rows)
    weights = np.ascontiguousarray(pairs).reshape(len(pairs), -1).view("<i4")
    return _flat(rows.bias.reshape(-1, 4), weights, scale), W8_A32 + bounded


def rv_stream(rows: Rows) -> tuple[np.ndarray, int] | None:
    """For RV32IMC: int32 words and their RTCORE_STREAM_*."""
    return rv_w8(rows) if rows.weights.dtype == np.int8 else rv_w16(rows)


def m0_w16(rows: Rows) -> tuple[np.ndarray, int] | None:
    """W16_A64 of Cortex-M0."""
    bounded = _w16_bounded(rows, least=0)
    if bounded is None or rows.weights.shape[1] > 2 * 1021:
        return None
    bias = (rows.bias + rows.half).reshape(-1, 4)
    low = _words(bias)[..., 0].astype(np.int64)
    high = (low[:, ::2] >> 20) + (low[:, 1::2] >> 10) + 2**12 - 2
    weights = np.ascontiguousarray(_column_pairs(rows)).view("<i4")
    shift = rows.shift.reshape(-1, 4)
    return _flat(low, high, weights, (bias - low >> 32 << 16) + (32 - shift << 8) + shift), W16_A64 + bounded


def m0_w8(rows: Rows) -> tuple[np.ndarray, int] | None:
    """W8_A32 of Cortex-M0."""
    low, high = rows.bounds
    if low.min() < -INT32 - 1 or high.max() > INT32:
        return None
    left = np.array([16 - int(m).bit_length() for m in rows.mult])  # to factors of 2^15..2^16 - 1
    shift = rows.shift + left
    up = np.maximum(17 - shift, 0)
    bounded = (low << up).min() >= -INT32 - 1 and (high << up).max() <= INT32
    columns = (rows.weights[:, : rows.columns] + np.int16(128)).astype(np.uint8)
    columns = np.ascontiguousarray(columns.reshape(-1, 4, rows.columns).swapaxes(1, 2)).view("<i4")
    last = (rows.mult << left + 16) + (up << 8) + shift + up - 17
    words = last.astype(np.uint32).view(np.int32)
    return _flat(rows.bias.reshape(-1, 4), columns, words.reshape(-1, 4)), W8_A32 + BOUNDED * bounded


def m0_stream(rows: Rows) -> tuple[np.ndarray, int] | None:
    """For Cortex-M0 and M0+: int32 words and their RTCORE_STREAM_*."""
    return m0_w8(rows) if rows.weights.dtype == np.int8 else m0_w16(rows)


def _column_blocks(rows: Rows) -> np.ndarray:
    """[groups, blocks, 4 rows, 8 columns], as words; columns that are missing in the last block are zero."""
    weights = np.pad(rows.weights, ((0, 0), (0, -rows.weights.shape[1] % 8)))
    blocks = np.ascontiguousarray(weights.reshape(len(weights) // 4, 4, -1, 8).swapaxes(1, 2))
    return blocks.view("<i4")


def m55_w16(rows: Rows) -> tuple[np.ndarray, int] | None:
    """W16_A64 of Cortex-M55: any shift, any 64-bit sum."""
    if (rows.mult != 1).any():
        return None
    bias = _words(rows.bias + rows.half).reshape(-1, 8)
    return _flat(bias, _column_blocks(rows), rows.shift.reshape(-1, 4)), W16_A64 + _shifted_bounded(rows)


def m55_w8(rows: Rows) -> tuple[np.ndarray, int] | None:
    """W8_A32 of Cortex-M55."""
    scaled = _w8_scale(rows)
    if scaled is None:
        return None
    scale, bounded = scaled
    return _flat(rows.bias.reshape(-1, 4), _column_blocks(rows), scale), W8_A32 + bounded


def m55_stream(rows: Rows) -> tuple[np.ndarray, int] | None:
    """For Cortex-M55: int32 words and their RTCORE_STREAM_*."""
    return m55_w8(rows) if rows.weights.dtype == np.int8 else m55_w16(rows)


STREAMS = {
    "cortex-m4": m4_stream,
    "cortex-m3": m3_stream,
    "cortex-m0": m0_stream,
    "cortex-m55": m55_stream,
    "rv32imc": rv_stream,
}


def thumb2_depthwise(rows: Rows) -> tuple[np.ndarray, int] | None:
    """A depthwise layer, a row per channel and a column per tap, for Cortex-M3, M4, M7, M33 and M55. None also where a
    row may leave int32."""
    taps = rows.weights.reshape(-1, 4, rows.weights.shape[1]).swapaxes(1, 2)
    taps = np.ascontiguousarray(taps).reshape(len(taps), -1).view("<i4")
    if rows.weights.dtype == np.int8:
        scaled = _w8_scale(rows)
        if scaled is None or not scaled[1]:
            return None
        return _flat(scaled[0], rows.bias.reshape(-1, 4), taps), W8_A32 + BOUNDED
    if not _w16_bounded(rows):
        return None
    return _flat(_shifts(rows).reshape(-1, 4), _words((rows.bias + rows.half).reshape(-1, 4)), taps), W16_A64 + BOUNDED


DEPTHWISE_STREAMS = dict.fromkeys(("cortex-m3", "cortex-m4", "cortex-m55"), thumb2_depthwise)
