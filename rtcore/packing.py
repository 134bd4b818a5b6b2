"""Logical tables to the packed arrays that the C structs point to: of portable C, or a core's own stream.

The one place that knows how weights lie in memory; values never change here. Portable C: groups of 4 rows, column
pairs: int16 [rows/4][columns/2][4][2], int8 [rows/4][columns/2][2][2][2] with the two rows of a pair innermost.
Neighbours: `streams.py` (what a core's own kernels read), `csrc/rtcore.h` (rtcore_matrix_i16 says the same in C), the
`*_i16.pyx` classes and `quantize/emit_c.py` (both hold what comes from here).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rtcore.streams import DEPTHWISE_STREAMS, STREAMS, Rows
from rtcore.tables import ACTIVATIONS, Layer

ALL = slice(None)
ROWS = 4


@dataclass(frozen=True)
class PackedMatrix:
    """The members of a C rtcore_matrix_i16.

    weights: int8 or int16 [nb_rows * padded columns]; bias: int32 or int64 [nb_rows]; shift: uint8 [nb_rows];
    mult: int16 [nb_rows], or None when every multiplier is 1 (the rounding half is then in the bias).
    """

    weights: np.ndarray
    bias: np.ndarray
    mult: np.ndarray | None
    shift: np.ndarray
    nb_inputs: int
    nb_rows: int

    @property
    def nbytes(self) -> int:
        """Flash bytes of the arrays."""
        return sum(a.nbytes for a in (self.weights, self.bias, self.mult, self.shift) if a is not None)


@dataclass(frozen=True)
class PackedStream:
    """The members of a C rtcore_matrix_i16 that a core's own kernels read. stream: int32; form: RTCORE_STREAM_*."""

    stream: np.ndarray
    form: int
    nb_inputs: int
    nb_rows: int

    @property
    def stride(self) -> int:
        """Bytes from group to group of four rows."""
        return self.stream.nbytes // (self.nb_rows // ROWS)

    @property
    def nbytes(self) -> int:
        """Flash bytes of the stream."""
        return self.stream.nbytes


def blocks(rows: np.ndarray, gates: int, fill: int = 0) -> np.ndarray:
    """Rows [gates * N, ...] to [round_up(N, 4) / 4 * gates * 4, ...]: blocks of four units, gate by gate, padded."""
    n = rows.shape[0] // gates
    padded = -(-n // ROWS) * ROWS
    out = np.full((gates, padded, *rows.shape[1:]), fill, rows.dtype)
    out[:, :n] = rows.reshape(gates, n, *rows.shape[1:])
    out = out.reshape(gates, padded // ROWS, ROWS, *rows.shape[1:]).swapaxes(0, 1)
    return np.ascontiguousarray(out.reshape(gates * padded, *rows.shape[1:]))


def unblocks(packed: np.ndarray, gates: int, n: int) -> np.ndarray:
    """The inverse of `blocks`: [nb_rows, ...] back to [gates * n, ...]."""
    out = packed.reshape(-1, gates, ROWS, *packed.shape[1:]).swapaxes(0, 1)
    return np.ascontiguousarray(out.reshape(gates, -1, *packed.shape[1:])[:, :n].reshape(gates * n, *packed.shape[1:]))


def pack_matrix(
    weights: np.ndarray,
    bias: np.ndarray,
    mult: np.ndarray,
    shift: np.ndarray,
    acc_bits: int,
    gates: int = 1,
    core: str = "portable",
) -> PackedMatrix | PackedStream:
    """weights: int8/int16 [R, M]; bias: int64 [R]; mult: int16 [R]; shift: uint8 [R]; R = gates * N rows, gate by
    gate. core: whose kernels will read it; a matrix that its own do not take is packed for the portable ones."""
    columns = weights.shape[1]
    w = blocks(weights, gates)
    w = np.pad(w, ((0, 0), (0, columns % 2)))
    if core in STREAMS:
        numbers = (bias, mult, shift)
        fills = (0, 1, int(shift.max()))
        rows = (blocks(a.astype(np.int64), gates, fill) for a, fill in zip(numbers, fills, strict=True))
        packed = STREAMS[core](Rows(w, *rows, columns))
        if packed:
            return PackedStream(*packed, nb_inputs=columns, nb_rows=w.shape[0])
    w = w.reshape(w.shape[0] // ROWS, ROWS, w.shape[1] // 2, 2).swapaxes(1, 2)  # [rows/4][columns/2][4 rows][2 columns]
    if w.dtype == np.int8:
        w = w.reshape(*w.shape[:2], 2, 2, 2).swapaxes(3, 4)  # [..][2 row pairs][2 columns][2 rows]
    plain = bool(np.all(mult == 1))
    half = np.where(shift > 0, np.left_shift(np.int64(1), np.maximum(shift.astype(np.int64) - 1, 0)), 0)
    b = blocks(bias + half if plain else bias, gates)
    return PackedMatrix(
        weights=np.ascontiguousarray(w).reshape(-1),
        bias=b.astype(np.int32 if acc_bits == 32 else np.int64),
        mult=None if plain else blocks(mult, gates, fill=1),
        shift=blocks(shift, gates),
        nb_inputs=columns,
        nb_rows=b.shape[0],
    )


def take_matrix(layer: Layer, prefix: str, rows: int, columns: int) -> list[np.ndarray]:
    """weights, bias, mult, shift of a layer, after their shapes and dtypes have been checked: a kernel reads what the
    record promises. Raises ValueError naming the layer and the array."""
    return [
        take_array(layer, prefix + name, shape, *dtypes)
        for name, shape, dtypes in (
            ("weights", (rows, columns), (np.int8, np.int16)),
            ("bias", (rows,), (np.int64,)),
            ("mult", (rows,), (np.int16,)),
            ("shift", (rows,), (np.uint8,)),
        )
    ]


def take_array(layer: Layer, name: str, shape: tuple[int, ...], *dtypes) -> np.ndarray:
    """One array of a layer, of this shape and one of these dtypes. Raises ValueError naming the layer and the array."""
    array = layer.arrays.get(name)
    if array is None:
        raise ValueError(f"layer {layer.name}: the table {name} is missing")
    if array.shape != shape:
        raise ValueError(f"layer {layer.name}: {name} has shape {array.shape}, expected {shape}")
    if array.dtype not in dtypes:
        expected = " or ".join(np.dtype(d).name for d in dtypes)
        raise ValueError(f"layer {layer.name}: {name} is {array.dtype}, expected {expected}")
    return array


Packed = PackedMatrix | PackedStream


def pack_dense(layer: Layer, core: str = "portable") -> tuple[Packed]:
    """The matrix of a dense_i16 layer."""
    arrays = take_matrix(layer, "", layer.ints["nb_neurons"], layer.ints["nb_inputs"])
    return (pack_matrix(*arrays, layer.ints["acc_bits"], core=core),)


def pack_conv(layer: Layer, core: str = "portable") -> tuple[Packed]:
    """The matrix of a conv_i16 layer: the rows of each group padded to 4, group after group."""
    ints = layer.ints
    groups, neurons = ints["groups"], ints["nb_neurons"]
    columns = ints["kernel_h"] * ints["kernel_w"] * ints["nb_inputs"] // groups
    arrays = take_matrix(layer, "", neurons, columns)

    def padded(rows: np.ndarray, fill: int) -> np.ndarray:
        return np.concatenate([blocks(part, 1, fill) for part in np.split(rows, groups)])

    fills = (0, 0, 1, int(arrays[3].max()))
    packed = (padded(a, fill) for a, fill in zip(arrays, fills, strict=True))
    return (pack_matrix(*packed, ints["acc_bits"], core=core),)


def conv_scratch(layer: Layer) -> int:
    """int16 elements of scratch that a conv_i16 layer needs: a patch of one group, or 0 where every patch lies in one
    piece within the input (rtcore_conv_i16_check says the same in C)."""
    i = layer.ints
    whole = i["groups"] == 1
    columns = i["kernel_w"] == 1 or (whole and i["dilation_w"] == 1)
    rows = i["kernel_h"] == 1 or (whole and i["dilation_h"] == 1 and i["kernel_w"] == i["in_w"])
    ends = [
        (i[f"out_{axis}"] - 1) * i[f"stride_{axis}"] + (i[f"kernel_{axis}"] - 1) * i[f"dilation_{axis}"]
        for axis in "hw"
    ]
    inside = i["pad_h"] == i["pad_w"] == 0 and ends[0] < i["in_h"] and ends[1] < i["in_w"]
    return 0 if columns and rows and inside else i["kernel_h"] * i["kernel_w"] * i["nb_inputs"] // i["groups"]


def pack_depthwise(layer: Layer, core: str = "portable") -> tuple[Packed]:
    """The tables of a depthwise_i16 layer, as a matrix of a row per output channel and a column per tap, but weights
    tap by tap: [rows/4][taps][4]; or a core's stream, whose last group is the last four channels."""
    ints = layer.ints
    channels, taps = ints["nb_neurons"], ints["kernel_h"] * ints["kernel_w"]
    arrays = take_matrix(layer, "", channels, taps)
    clipped = ints["activation"] in (ACTIVATIONS["linear"], ACTIVATIONS["relu"])
    if core in DEPTHWISE_STREAMS and clipped and ints["multiplier"] == 1 and channels >= ROWS:
        rows = [*range(channels // ROWS * ROWS), *(range(channels - ROWS, channels) if channels % ROWS else ())]
        weights, *numbers = (a[rows] for a in arrays)
        stream = DEPTHWISE_STREAMS[core](Rows(weights, *(a.astype(np.int64) for a in numbers), weights.shape[1]))
        if stream:
            return (PackedStream(*stream, nb_inputs=taps, nb_rows=len(rows)),)
    packed = pack_matrix(*arrays, ints["acc_bits"])
    weights = blocks(arrays[0], 1).reshape(packed.nb_rows // ROWS, ROWS, -1).swapaxes(1, 2)
    return (replace(packed, weights=np.ascontiguousarray(weights).reshape(-1)),)


def pack_side(
    layer: Layer, core: str, side: str, gates: int, units: int, columns: int, order: np.ndarray | slice = ALL
) -> Packed:
    """One matrix of several, `gates` * `units` rows, in an order."""
    arrays = [array[order] for array in take_matrix(layer, f"{side}_", gates * units, columns)]
    return pack_matrix(*arrays, layer.ints[f"{side}_acc_bits"], gates, core)


def pack_gru(layer: Layer, core: str = "portable") -> tuple[Packed, Packed]:
    """The input and the recurrent matrix of a gru_i16 layer, whose rows z, r, h are packed as z, h, r: one that resets
    before asks for r of all units first, then for z and h side by side."""
    inputs, units = layer.ints["nb_inputs"], layer.ints["nb_neurons"]
    order = np.r_[0:units, 2 * units : 3 * units, units : 2 * units]
    sides = (("input", inputs), ("recurrent", units))
    return tuple(pack_side(layer, core, side, 3, units, columns, order) for side, columns in sides)


def pack_lstm(layer: Layer, core: str = "portable") -> tuple[Packed, ...]:
    """The input and the recurrent matrix of an lstm_i16 layer (rows i, f, g, o; coupled i, g, o), and its projection
    if it has one."""
    inputs, units, outputs = (layer.ints[name] for name in ("nb_inputs", "nb_neurons", "nb_outputs"))
    gates = 3 if layer.ints["coupled"] else 4
    sides = (("input", inputs), ("recurrent", outputs))
    packed = tuple(pack_side(layer, core, side, gates, units, columns) for side, columns in sides)
    return (*packed, pack_side(layer, core, "projection", 1, outputs, units)) if layer.ints["projected"] else packed


def take_peepholes(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """The peepholes' weights and shifts of an lstm_i16 layer that has them, gate by gate as they are stored."""
    size = (2 if layer.ints["coupled"] else 3) * layer.ints["nb_neurons"]
    weights = take_array(layer, "peephole_weights", (size,), np.int16)
    shift = take_array(layer, "peephole_shift", (size,), np.uint8)
    return np.ascontiguousarray(weights), np.ascontiguousarray(shift)


def pack_rnn(layer: Layer, core: str = "portable") -> tuple[Packed, Packed]:
    """The input and the recurrent matrix of an rnn_i16 layer."""
    inputs, units = layer.ints["nb_inputs"], layer.ints["nb_neurons"]
    return pack_side(layer, core, "input", 1, units, inputs), pack_side(layer, core, "recurrent", 1, units, units)
