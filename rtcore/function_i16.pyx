"""FunctionI16: tabled and piecewise linear functions, minimum, maximum and root on int16 vectors
(csrc/rtcore_function_i16.c).

Neighbours: `layer.pyx` (base), `limits.py` (what a record may hold), SPEC.md section 6 (the numbers).
"""

import numpy as np

from libc.stdint cimport int16_t, int32_t, uint8_t

from rtcore.crtcore cimport (rtcore_clamp_i16, rtcore_host_saturated, rtcore_minmax_i16, rtcore_prelu_i16,
                             rtcore_sqrt_i16, rtcore_table_i16)
from rtcore.layer cimport Layer, Op

from rtcore.limits import check

KINDS = ("table_i16", "clamp_i16", "prelu_i16", "minmax_i16", "sqrt_i16")


cdef void tabled(Op *op) noexcept nogil:
    cdef const FunctionCall *c = <const FunctionCall *>op.layer
    begin()
    rtcore_table_i16(op.y, op.a, c.n, c.nodes, c.step, c.shift)
    end(op)


cdef void clamp(Op *op) noexcept nogil:
    cdef const FunctionCall *c = <const FunctionCall *>op.layer
    begin()
    rtcore_clamp_i16(op.y, op.a, c.n, c.low, c.high)
    end(op)


cdef void prelu(Op *op) noexcept nogil:
    cdef const FunctionCall *c = <const FunctionCall *>op.layer
    begin()
    rtcore_prelu_i16(op.y, op.a, c.mult, c.shifts, c.stride, c.n, c.shift_positive)
    end(op)


cdef void minmax(Op *op) noexcept nogil:
    cdef const FunctionCall *c = <const FunctionCall *>op.layer
    begin()
    rtcore_minmax_i16(op.y, op.a, c.stride_a, op.b, c.stride_b, c.n, c.shift_a, c.shift_b, c.largest, c.shift)
    end(op)


cdef void sqrt(Op *op) noexcept nogil:
    cdef const FunctionCall *c = <const FunctionCall *>op.layer
    begin()
    rtcore_sqrt_i16(op.y, op.a, c.n, c.shift)
    end(op)


cdef inline void begin() noexcept nogil:
    global rtcore_host_saturated
    rtcore_host_saturated = 0


cdef inline void end(Op *op) noexcept nogil:
    op.saturated += rtcore_host_saturated


cdef class FunctionI16(Layer):
    """From a rtcore.tables.Layer of one of KINDS. Raises ValueError naming the layer and what is wrong with it."""

    def __init__(self, table):
        cdef const int32_t[::1] nodes
        cdef const int16_t[::1] mult
        cdef const uint8_t[::1] shifts
        check(table, KINDS)
        ints = table.ints
        self.table = table
        self.c.n = ints.get("n", 0)
        self.c.step = ints.get("step", 0)
        self.c.shift = ints.get("shift", 0)  # unless it is an array
        self.c.low = ints.get("low", 0)
        self.c.high = ints.get("high", 0)
        self.c.stride = ints.get("stride", 0)
        self.c.stride_a = ints.get("stride_a", 0)
        self.c.stride_b = ints.get("stride_b", 0)
        self.c.shift_a = ints.get("shift_a", 0)
        self.c.shift_b = ints.get("shift_b", 0)
        self.c.shift_positive = ints.get("shift_positive", 0)
        self.c.largest = ints.get("largest", 0)
        self.keep = arrays = {name: np.ascontiguousarray(array) for name, array in table.arrays.items()}
        if "nodes" in arrays:
            nodes = arrays["nodes"]
            self.c.nodes = &nodes[0]
        if "mult" in arrays:
            mult = arrays["mult"]
            self.c.mult = &mult[0]
        if "shift" in arrays:
            shifts = arrays["shift"]
            self.c.shifts = &shifts[0]
        if table.kind == "table_i16":
            self.op.step = tabled
        elif table.kind == "clamp_i16":
            self.op.step = clamp
        elif table.kind == "prelu_i16":
            self.op.step = prelu
        elif table.kind == "minmax_i16":
            self.op.step = minmax
        else:
            self.op.step = sqrt
        self.op.layer = &self.c
