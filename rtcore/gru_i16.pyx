"""GruI16: a gated recurrent unit with the wide recurrence (csrc/rtcore_gru_i16.c), both reset forms.

Neighbours: `layer.pyx` and `recurrent.pyx` (bases), `packing.py` (the weights' layout), SPEC.md section 5 (the numbers).
"""

import numpy as np

from libc.stdint cimport int16_t
from libc.string cimport memset

from rtcore.crtcore cimport RTCORE_MAX_NEURONS, rtcore_gru_i16_before_step, rtcore_gru_i16_check, rtcore_gru_i16_step
from rtcore.layer cimport check_width, hold_matrix, set_call, sums_of
from rtcore.recurrent cimport Recurrent

from rtcore.errors import check
from rtcore.packing import pack_gru


cdef void step(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef GruI16Call *call = <GruI16Call *>layer
    if call.gru.reset_after:
        rtcore_gru_i16_step(call.gru, call.state, y, a, call.rows)
    else:
        rtcore_gru_i16_before_step(call.gru, call.state, y, a, call.rows, call.scratch)


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
        self.c.gate_slope = table.ints.get("gate_slope", 0)
        check(rtcore_gru_i16_check(&self.c, RTCORE_MAX_NEURONS), f"layer {table.name}")
        self.hold_part(self.states, self.views)
        self.call.gru = &self.c
        self.call.state = self.states
        self.call.rows = self.rows
        self.call.scratch = self.scratch
        set_call(&self.op, step, &self.call)

    cdef void poison(self, int byte) noexcept nogil:
        memset(self.rows, byte, sizeof(self.rows))
        memset(self.scratch, byte, sizeof(self.scratch))

    def step(self, const int16_t[::1] x not None):
        """x: int16 [nb_inputs] -> int16 [nb_neurons], the view of the new state."""
        if x.shape[0] != self.c.nb_inputs:
            raise ValueError(f"layer {self.table.name}: {x.shape[0]} inputs given, {self.c.nb_inputs} expected")
        with nogil:
            step(&self.call, &x[0], NULL, self.views)
        return np.array(<int16_t[:self.size]>self.views)

    def sums(self, const int16_t[::1] x not None, const int16_t[::1] view not None):
        """The exact accumulators of (input, recurrent) matrices, int64 [3N] each, rows z r h."""
        both = sums_of(&self.c.input, x, 3, self.size), sums_of(&self.c.recurrent, view, 3, self.size)
        return tuple(sums.reshape(3, -1)[[0, 2, 1]].ravel() for sums in both)  # packed z h r


KINDS = {"gru_i16": GruI16}
