"""GruI16: a gated recurrent unit with the wide recurrence (csrc/rtcore_gru_i16.c), both reset forms.

Neighbours: `layer.pyx` (base), `packing.py` (the weights' layout), SPEC.md section 5 (the numbers).
"""

import numpy as np

from libc.stdint cimport int16_t, int32_t, int64_t
from libc.string cimport memset

from rtcore.crtcore cimport (RTCORE_MAX_NEURONS, rtcore_gru_i16_check, rtcore_gru_i16_set_state, rtcore_gru_i16_step,
                             rtcore_host_saturated, rtcore_matrix_i16, rtcore_matrix_i16_sums4)
from rtcore.layer cimport Op, Recurrent, hold_matrix

from rtcore.errors import check
from rtcore.packing import pack_gru, unblocks


cdef void step(Op *op) noexcept nogil:
    cdef GruI16Call *call = <GruI16Call *>op.layer
    global rtcore_host_saturated
    rtcore_host_saturated = 0
    rtcore_gru_i16_step(call.gru, call.state, op.y, op.a, call.scratch)
    op.saturated += rtcore_host_saturated


cdef sums_of(const rtcore_matrix_i16 *matrix, const int16_t[::1] x, int units):
    """int64 [3 * units], rows z r h."""
    if x.shape[0] != matrix.nb_inputs:
        raise ValueError(f"{x.shape[0]} inputs given, {matrix.nb_inputs} expected")
    out = np.empty(matrix.nb_rows, np.int64)
    cdef int64_t[::1] sums = out
    cdef int group
    for group in range(matrix.nb_rows // 4):
        rtcore_matrix_i16_sums4(matrix, group, &x[0], &sums[4 * group])
    return unblocks(out, 3, units)


cdef class GruI16(Recurrent):
    """From a rtcore.tables.Layer of kind "gru_i16". Raises ValueError naming the layer and what is wrong with it."""

    def __init__(self, table):
        check_width(table)
        packed = pack_gru(table)
        self.table = table
        self.keep = packed
        hold_matrix(&self.c.input, packed[0])
        hold_matrix(&self.c.recurrent, packed[1])
        self.c.nb_inputs = table.ints["nb_inputs"]
        self.c.nb_neurons = table.ints["nb_neurons"]
        self.c.activation = table.ints["activation"]
        self.c.reset_after = table.ints["reset_after"]
        self.c.gate_shift = table.ints["gate_shift"]
        self.c.candidate_shift = table.ints["candidate_shift"]
        self.c.state_frac = table.ints["state_frac"]
        check(rtcore_gru_i16_check(&self.c, RTCORE_MAX_NEURONS), f"layer {table.name}")
        self.size = self.c.nb_neurons
        self.state = self.states
        self.view = self.views
        self.call.gru = &self.c
        self.call.state = self.states
        self.call.scratch = self.scratch
        self.op.step = step
        self.op.layer = &self.call
        self.set_view(NULL)

    cdef void set_view(self, const int16_t *values) noexcept nogil:
        rtcore_gru_i16_set_state(&self.c, self.states, self.views, values)

    cdef void poison(self, int byte) noexcept nogil:
        memset(self.scratch, byte, sizeof(self.scratch))

    def reset(self):
        """State to zero."""
        self.set_view(NULL)

    def step(self, const int16_t[::1] x not None):
        """x: int16 [nb_inputs] -> int16 [nb_neurons], the view of the new state."""
        if x.shape[0] != self.c.nb_inputs:
            raise ValueError(f"layer {self.table.name}: {x.shape[0]} inputs given, {self.c.nb_inputs} expected")
        with nogil:
            rtcore_gru_i16_step(&self.c, self.states, self.views, &x[0], self.scratch)
        return np.array(<int16_t[:self.size]>self.views)

    def sums(self, const int16_t[::1] x not None, const int16_t[::1] view not None):
        """The exact accumulators of (input, recurrent) matrices, int64 [3N] each, rows z r h."""
        return sums_of(&self.c.input, x, self.size), sums_of(&self.c.recurrent, view, self.size)


def check_width(table):
    """The state and scratch buffers are RTCORE_MAX_NEURONS wide."""
    if table.ints["nb_neurons"] > RTCORE_MAX_NEURONS:
        raise ValueError(
            f"layer {table.name}: {table.ints['nb_neurons']} neurons, this build holds RTCORE_MAX_NEURONS = "
            f"{RTCORE_MAX_NEURONS}; rebuild with a larger HOST_MAX_NEURONS (rtcore/_build.py)"
        )
