"""LstmI16: long short-term memory with a 32-bit cell (csrc/rtcore_lstm_i16.c); CellI16: a copy of its cell as int16.

Neighbours: `layer.pyx` and `recurrent.pyx` (bases), `packing.py` (the weights' layout), SPEC.md section 5 (the numbers).
"""

import numpy as np

from libc.stdint cimport int16_t, uint8_t
from libc.string cimport memset

from rtcore.crtcore cimport (RTCORE_MAX_NEURONS, rtcore_lstm_i16_check, rtcore_lstm_i16_step,
                             rtcore_state_i16_view)
from rtcore.layer cimport Layer, check_width, hold_matrix, set_call, sums_of
from rtcore.recurrent cimport Recurrent

from rtcore.errors import check
from rtcore.packing import pack_lstm, take_peepholes


cdef void step(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef LstmI16Call *call = <LstmI16Call *>layer
    rtcore_lstm_i16_step(call.lstm, call.cell, y, a, call.rows, call.scratch)


cdef class LstmI16(Recurrent):
    """From a rtcore.tables.Layer of kind "lstm_i16". Raises ValueError naming the layer and what is wrong with it."""

    def __init__(self, table):
        cdef const int16_t[::1] peephole_weights
        cdef const uint8_t[::1] peephole_shift
        check_width(table)
        packed = pack_lstm(table)
        self.table = table
        self.keep = packed
        hold_matrix(&self.c.input, packed[0])
        hold_matrix(&self.c.recurrent, packed[1])
        if table.ints["projected"]:
            hold_matrix(&self.c.projection, packed[2])
        if table.ints["peephole"]:
            peepholes = take_peepholes(table)
            self.keep = packed, peepholes
            peephole_weights, peephole_shift = peepholes
            self.c.peephole_weights = &peephole_weights[0]
            self.c.peephole_shift = &peephole_shift[0]
        self.c.nb_inputs = table.ints["nb_inputs"]
        self.c.nb_neurons = table.ints["nb_neurons"]
        self.c.nb_outputs = table.ints["nb_outputs"]
        self.c.coupled = table.ints["coupled"]
        self.c.gate_shift = table.ints["gate_shift"]
        self.c.cell_frac = table.ints["cell_frac"]
        self.c.state_frac = table.ints["state_frac"]
        self.c.gate_slope = table.ints.get("gate_slope", 0)
        check(rtcore_lstm_i16_check(&self.c, RTCORE_MAX_NEURONS), f"layer {table.name}")
        self.hold_part(self.cells, NULL)
        self.hold_part(NULL, self.views)
        self.call.lstm = &self.c
        self.call.cell = self.cells
        self.call.rows = self.rows
        self.call.scratch = self.scratch
        set_call(&self.op, step, &self.call)

    cdef void poison(self, int byte) noexcept nogil:
        memset(self.rows, byte, sizeof(self.rows))
        memset(self.scratch, byte, sizeof(self.scratch))

    def step(self, const int16_t[::1] x not None):
        """x: int16 [nb_inputs] -> int16 [nb_outputs], the view of the new state."""
        if x.shape[0] != self.c.nb_inputs:
            raise ValueError(f"layer {self.table.name}: {x.shape[0]} inputs given, {self.c.nb_inputs} expected")
        with nogil:
            rtcore_lstm_i16_step(&self.c, self.cells, self.views, &x[0], self.rows, self.scratch)
        return np.array(<int16_t[:self.c.nb_outputs]>self.views)

    def sums(self, const int16_t[::1] x not None, const int16_t[::1] view not None):
        """The exact accumulators of (input, recurrent) matrices, int64 [4N] each, rows i f g o ([3N], i g o)."""
        cdef int gates = 4 - self.c.coupled, n = self.c.nb_neurons
        return sums_of(&self.c.input, x, gates, n), sums_of(&self.c.recurrent, view, gates, n)


cdef void copy_cell(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef CellI16Call *call = <CellI16Call *>layer
    rtcore_state_i16_view(y, call.cell, call.n)


cdef class CellI16(Layer):
    """From a rtcore.tables.Layer of kind "cell_i16"; `attach` says of which LSTM."""

    def __init__(self, table):
        self.table = table
        set_call(&self.op, copy_cell, &self.call)

    def attach(self, layer):
        """The LSTM whose cell is copied. Raises ValueError for a layer of another kind or width."""
        cdef LstmI16 lstm
        if not isinstance(layer, LstmI16):
            raise ValueError(f"layer {self.table.name}: {layer.table.name} is a {layer.table.kind}, it has no cell")
        lstm = layer
        if lstm.c.nb_neurons != self.table.ints["n"]:
            raise ValueError(f"layer {self.table.name}: {self.table.ints['n']} outputs, {lstm.table.name} has "
                             f"{lstm.c.nb_neurons} cells")
        self.keep = lstm
        self.call.cell = lstm.cells
        self.call.n = lstm.c.nb_neurons


KINDS = {"lstm_i16": LstmI16, "cell_i16": CellI16}
