"""RnnI16: the plain recurrent layer, tanh or ReLU (csrc/rtcore_rnn_i16.c).

Neighbours: `layer.pyx` and `recurrent.pyx` (bases), `packing.py` (the weights' layout), SPEC.md section 5 (the numbers).
"""

import numpy as np

from libc.stdint cimport int16_t
from libc.string cimport memset

from rtcore.crtcore cimport RTCORE_MAX_NEURONS, rtcore_rnn_i16_check, rtcore_rnn_i16_step
from rtcore.layer cimport check_width, hold_matrix, set_call, sums_of
from rtcore.recurrent cimport Recurrent

from rtcore.errors import check
from rtcore.packing import pack_rnn


cdef void step(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef RnnI16Call *call = <RnnI16Call *>layer
    rtcore_rnn_i16_step(call.rnn, y, a, call.rows, call.scratch)


cdef class RnnI16(Recurrent):
    """From a rtcore.tables.Layer of kind "rnn_i16". Raises ValueError naming the layer and what is wrong with it."""

    def __init__(self, table):
        check_width(table)
        packed = pack_rnn(table)
        self.table = table
        self.keep = packed
        hold_matrix(&self.c.input, packed[0])
        hold_matrix(&self.c.recurrent, packed[1])
        self.c.nb_inputs = table.ints["nb_inputs"]
        self.c.nb_neurons = table.ints["nb_neurons"]
        self.c.activation = table.ints["activation"]
        self.c.shift = table.ints["shift"]
        self.c.state_frac = table.ints["state_frac"]
        check(rtcore_rnn_i16_check(&self.c, RTCORE_MAX_NEURONS), f"layer {table.name}")
        self.hold_part(NULL, self.views)
        self.call.rnn = &self.c
        self.call.rows = self.rows
        self.call.scratch = self.scratch
        set_call(&self.op, step, &self.call)

    cdef void poison(self, int byte) noexcept nogil:
        memset(self.rows, byte, sizeof(self.rows))
        memset(self.scratch, byte, sizeof(self.scratch))

    def step(self, const int16_t[::1] x not None):
        """x: int16 [nb_inputs] -> int16 [nb_neurons], the new state."""
        if x.shape[0] != self.c.nb_inputs:
            raise ValueError(f"layer {self.table.name}: {x.shape[0]} inputs given, {self.c.nb_inputs} expected")
        with nogil:
            rtcore_rnn_i16_step(&self.c, self.views, &x[0], self.rows, self.scratch)
        return np.array(<int16_t[:self.size]>self.views)

    def sums(self, const int16_t[::1] x not None, const int16_t[::1] view not None):
        """The exact accumulators of (input, recurrent) matrices, int64 [N] each."""
        return sums_of(&self.c.input, x, 1, self.size), sums_of(&self.c.recurrent, view, 1, self.size)


KINDS = {"rnn_i16": RnnI16}
