"""The base of the int16 layer classes: the call record, the state's access, the packed matrix's pointers.

Neighbours: `dense_i16.pyx`, `gru_i16.pyx`, `elementwise_i16.pyx` (one class per kernel), `net.pyx` (runs them in order).
"""

import numpy as np

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t

from rtcore.crtcore cimport RTCORE_STATE_ONE, rtcore_view


cdef class Layer:
    """One kernel call. `table` is the record it was made from."""

    cdef int bind(self, const int16_t *a, const int16_t *b, int16_t *y) except -1:
        """Says where the call reads and writes; the memory is the caller's."""
        self.op.a = a
        self.op.b = b
        self.op.y = y
        return 0


cdef class Recurrent(Layer):
    """A layer with a state: int32 [size] in Q(state_frac + 15), read by matrices as its int16 view in Q(state_frac)."""

    cdef void set_view(self, const int16_t *values) noexcept nogil:
        """The state whose view is `values`; NULL for zeros. Every recurrent class says how."""

    cdef void poison(self, int byte) noexcept nogil:
        """Fills the scratch, which holds nothing between calls, so that a test can prove it."""

    def get_state(self):
        """int32 [size], a copy."""
        return np.array(<int32_t[:self.size]>self.state)

    def set_state(self, const int32_t[::1] state not None):
        """Restores a state that `get_state` gave: the view follows from it."""
        cdef int i
        if state.shape[0] != self.size:
            raise ValueError(f"layer {self.table.name}: the state has {state.shape[0]} units, the layer {self.size}")
        for i in range(self.size):
            if state[i] > RTCORE_STATE_ONE or state[i] < -RTCORE_STATE_ONE:
                raise ValueError(
                    f"layer {self.table.name}: unit {i} of the state is {state[i]}, a state holds at most "
                    f"+-{RTCORE_STATE_ONE}; restore what a state of this model gave"
                )
        for i in range(self.size):
            self.state[i] = state[i]
            self.view[i] = rtcore_view(state[i])


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
    return 0
