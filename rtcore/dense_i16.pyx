"""DenseI16: y = activation(W x + b), int16 activations, int8 or int16 weights (csrc/rtcore_dense_i16.c).

Neighbours: `layer.pyx` (base), `packing.py` (the weights' layout), SPEC.md sections 3 and 4 (the numbers).
"""

import numpy as np

from libc.stdint cimport int16_t, int32_t, int64_t

from rtcore.crtcore cimport (RTCORE_ROWS, rtcore_dense_i16, rtcore_dense_i16_check, rtcore_dense_i16_step,
                             rtcore_matrix_i16_sums4)
from rtcore.layer cimport Layer, hold_matrix, set_call

from rtcore.errors import check
from rtcore.packing import pack_dense, unblocks


cdef void step(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef int32_t rows[RTCORE_ROWS]
    rtcore_dense_i16_step(<const rtcore_dense_i16 *>layer, y, a, rows)


cdef class DenseI16(Layer):
    """From a rtcore.tables.Layer of kind "dense_i16". Raises ValueError naming the layer and what is wrong with it."""

    def __init__(self, table):
        (packed,) = pack_dense(table)
        self.table = table
        self.keep = packed
        hold_matrix(&self.c.matrix, packed)
        self.c.nb_inputs = table.ints["nb_inputs"]
        self.c.nb_neurons = table.ints["nb_neurons"]
        self.c.activation = table.ints["activation"]
        check(rtcore_dense_i16_check(&self.c), f"layer {table.name}")
        set_call(&self.op, step, &self.c)

    def step(self, const int16_t[::1] x not None):
        """x: int16 [nb_inputs] -> int16 [nb_neurons]."""
        if x.shape[0] != self.c.nb_inputs:
            raise ValueError(f"layer {self.table.name}: {x.shape[0]} inputs given, {self.c.nb_inputs} expected")
        out = np.empty(self.c.nb_neurons, np.int16)
        cdef int16_t[::1] y = out
        with nogil:
            step(&self.c, &x[0], NULL, &y[0])
        return out

    def sums(self, const int16_t[::1] x not None):
        """The exact accumulators, int64 [nb_neurons], rounding half included where it is folded into the bias."""
        if x.shape[0] != self.c.nb_inputs:
            raise ValueError(f"layer {self.table.name}: {x.shape[0]} inputs given, {self.c.nb_inputs} expected")
        out = np.empty(self.c.matrix.nb_rows, np.int64)
        cdef int64_t[::1] sums = out
        cdef int group
        for group in range(self.c.matrix.nb_rows // 4):
            rtcore_matrix_i16_sums4(&self.c.matrix, group, &x[0], &sums[4 * group])
        return unblocks(out, 1, self.c.nb_neurons)


KINDS = {"dense_i16": DenseI16}
