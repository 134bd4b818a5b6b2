"""The base of the int16 layer classes: the call record, the state's access, the packed matrix's pointers.

Neighbours: `dense_i16.pyx`, `gru_i16.pyx` and so on (one class per kernel), `net.pyx` (runs them in order).
"""

import numpy as np

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t

from rtcore.crtcore cimport (RTCORE_MAX_NEURONS, RTCORE_STATE_ONE, rtcore_matrix_i16_sums4, rtcore_state_i16_set,
                             rtcore_view)

from rtcore.packing import unblocks
from rtcore.tables import state_parts


cdef class Layer:
    """One kernel call. `table` is the record it was made from."""

    cdef int bind(self, const int16_t *a, const int16_t *b, int16_t *y) except -1:
        """Says where the call reads and writes; the memory is the caller's."""
        self.op.a = a
        self.op.b = b
        self.op.y = y
        return 0


cdef class Recurrent(Layer):
    """A layer with a state: the parts that rtcore.tables.state_parts lists, one int32 vector to whoever saves it."""

    cdef int hold_part(self, int32_t *wide, int16_t *view) except -1:
        """Adds the next part of state_parts(self.table), at zero."""
        size = state_parts(self.table)[self.n_parts].size
        self.parts[self.n_parts] = Part(wide, view, size)
        rtcore_state_i16_set(wide, view, NULL, size)
        self.n_parts += 1
        self.size += size
        return 0

    cdef void clear(self) noexcept nogil:
        for part in self.parts[:self.n_parts]:
            rtcore_state_i16_set(part.wide, part.view, NULL, part.size)

    cdef void poison(self, int byte) noexcept nogil:
        """Fills the scratch, which holds nothing between calls, so that a test can prove it."""

    def reset(self):
        """State to zero."""
        self.clear()

    def set_part(self, int index, const int16_t[::1] values not None):
        """Sets part number `index` from its int16 view."""
        cdef Part part = self.parts[index]
        if index >= self.n_parts or values.shape[0] != part.size:
            raise ValueError(f"layer {self.table.name}: {values.shape[0]} values do not fit part {index} of its state")
        rtcore_state_i16_set(part.wide, part.view, &values[0], part.size)

    def get_state(self):
        """int32 [size], a copy: the parts one after the other, each wide where it is kept wide."""
        return np.concatenate([
            np.array(<int32_t[:part.size]>part.wide) if part.wide != NULL
            else np.array(<int16_t[:part.size]>part.view).astype(np.int32)
            for part in self.parts[:self.n_parts]
        ])

    def set_state(self, const int32_t[::1] state not None):
        """Restores a state that `get_state` gave: kept views follow from it."""
        cdef Part part
        cdef int i, low, high, at = 0
        if state.shape[0] != self.size:
            raise ValueError(f"layer {self.table.name}: the state has {state.shape[0]} units, the layer {self.size}")
        for part in self.parts[:self.n_parts]:
            high = RTCORE_STATE_ONE if part.wide != NULL else 32767
            low = -RTCORE_STATE_ONE if part.wide != NULL else -32768
            for i in range(at, at + part.size):
                if not low <= state[i] <= high:
                    raise ValueError(
                        f"layer {self.table.name}: unit {i} of the state is {state[i]}, a state holds at most "
                        f"{low}..{high}; restore what a state of this model gave"
                    )
            at += part.size
        at = 0
        for part in self.parts[:self.n_parts]:
            for i in range(part.size):
                if part.wide != NULL:
                    part.wide[i] = state[at + i]
                if part.view != NULL:
                    part.view[i] = rtcore_view(state[at + i]) if part.wide != NULL else <int16_t>state[at + i]
            at += part.size


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
