"""The base of the int16 layer classes: the call record and its rows, the packed matrix's pointers.

Neighbours: `recurrent.pyx` (layers with a state), `dense_i16.pyx` and so on (one class per kernel), `net.pyx` (runs them in order).
"""

import numpy as np

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t
from libc.string cimport memcpy

from rtcore.crtcore cimport RTCORE_MAX_NEURONS, rtcore_matrix_i16_sums4

from rtcore.packing import unblocks


cdef void run(Op *op) noexcept nogil:
    """All rows of a step, clipped values counted."""
    cdef Py_ssize_t r
    cdef int k
    cdef int16_t *y
    op.clipped()
    for k in range(op.rows):
        r = op.rows - 1 - k if op.reverse else k
        y = op.y + r * op.pitch_y
        op.call(op.layer, row(op.a, r * op.pitch_a), row(op.b, r * op.pitch_b), y if op.view == NULL else op.view)
        if op.view != NULL:
            memcpy(y, op.view, op.width * sizeof(int16_t))
    op.saturated += op.clipped()


cdef inline const int16_t *row(const int16_t *input, Py_ssize_t offset) noexcept nogil:
    return input + offset if input != NULL else NULL


cdef class Layer:
    """One kernel call per row. `table` is the record it was made from."""

    cdef int bind(self, const int16_t *a, const int16_t *b, int16_t *y) except -1:
        """Says where the calls read and write; the memory is the caller's."""
        ints = self.table.ints
        self.op.a = a
        self.op.b = b
        self.op.y = y
        self.op.rows = ints.get("rows", 1)
        self.op.reverse = ints.get("reverse", 0)
        self.op.pitch_a = ints.get("pitch_a", 0)
        self.op.pitch_b = ints.get("pitch_b", 0)
        self.op.pitch_y = ints.get("pitch_y", 0)
        return 0

    cdef void poison(self, int byte) noexcept nogil:
        """Fills the scratch, which holds nothing between calls, so that a test can prove it."""


cdef int check_width(object table) except -1:
    """The state and scratch buffers are RTCORE_MAX_NEURONS wide."""
    widest = max(table.ints["nb_neurons"], table.ints.get("nb_outputs", 0))
    if widest > RTCORE_MAX_NEURONS:
        raise ValueError(
            f"layer {table.name}: {widest} neurons, this build holds RTCORE_MAX_NEURONS = {RTCORE_MAX_NEURONS}; "
            f"rebuild with a larger HOST_MAX_NEURONS (rtcore/_build.py)"
        )
    return 0


cdef object sums_of(const rtcore_matrix_i16 *matrix, const int16_t[::1] x, int gates, int units):
    """The exact accumulators of a matrix, int64 [gates * units], gate by gate."""
    if x.shape[0] != matrix.nb_inputs:
        raise ValueError(f"{x.shape[0]} inputs given, {matrix.nb_inputs} expected")
    out = np.empty(matrix.nb_rows, np.int64)
    cdef int64_t[::1] sums = out
    cdef int group
    for group in range(matrix.nb_rows // 4):
        rtcore_matrix_i16_sums4(matrix, group, &x[0], &sums[4 * group])
    return unblocks(out, gates, units)


cdef int hold_matrix(rtcore_matrix_i16 *matrix, object packed) except -1:
    """Points the C struct at the arrays of a rtcore.packing.PackedMatrix, which the caller keeps alive."""
    cdef const int8_t[::1] w8
    cdef const int16_t[::1] w16
    cdef const int32_t[::1] bias32
    cdef const int64_t[::1] bias64
    cdef const int16_t[::1] mult
    cdef const uint8_t[::1] shift = packed.shift
    matrix.w8 = NULL
    matrix.w16 = NULL
    matrix.bias32 = NULL
    matrix.bias64 = NULL
    matrix.mult = NULL
    if packed.weights.dtype == np.int8:
        w8 = packed.weights
        matrix.w8 = &w8[0]
    else:
        w16 = packed.weights
        matrix.w16 = &w16[0]
    if packed.bias.dtype == np.int32:
        bias32 = packed.bias
        matrix.bias32 = &bias32[0]
    else:
        bias64 = packed.bias
        matrix.bias64 = &bias64[0]
    if packed.mult is not None:
        mult = packed.mult
        matrix.mult = &mult[0]
    matrix.shift = &shift[0]
    matrix.nb_inputs = packed.nb_inputs
    matrix.nb_rows = packed.nb_rows
    matrix.stream = NULL
    matrix.form = 0
    matrix.stride = 0
    return 0
