"""FunctionI16: tabled and piecewise linear functions, minimum, maximum and root on int16 vectors
(csrc/rtcore_function_i16.c).

Neighbours: `layer.pyx` (base), `limits.py` (what a record may hold), SPEC.md section 6 (the numbers).
"""

import numpy as np

from libc.stdint cimport int16_t, int32_t, uint8_t

from rtcore.crtcore cimport (rtcore_clamp_i16, rtcore_minmax_i16, rtcore_prelu_i16,
                             rtcore_sqrt_i16, rtcore_table_i16)
from rtcore.layer cimport Call, Layer, set_call

from rtcore.limits import check


cdef void tabled(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const FunctionCall *c = <const FunctionCall *>layer
    rtcore_table_i16(y, a, c.n, c.nodes, c.step, c.shift)


cdef void clamp(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const FunctionCall *c = <const FunctionCall *>layer
    rtcore_clamp_i16(y, a, c.n, c.low, c.high)


cdef void prelu(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const FunctionCall *c = <const FunctionCall *>layer
    rtcore_prelu_i16(y, a, c.mult, c.shifts, c.stride, c.n, c.shift_positive)


cdef void minmax(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const FunctionCall *c = <const FunctionCall *>layer
    rtcore_minmax_i16(y, a, c.stride_a, b, c.stride_b, c.n, c.shift_a, c.shift_b, c.largest, c.shift)


cdef void sqrt(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const FunctionCall *c = <const FunctionCall *>layer
    rtcore_sqrt_i16(y, a, c.n, c.shift)


cdef Call call_of(kind):
    if kind == "table_i16":
        return tabled
    if kind == "clamp_i16":
        return clamp
    if kind == "prelu_i16":
        return prelu
    if kind == "minmax_i16":
        return minmax
    return sqrt


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
        set_call(&self.op, call_of(table.kind), &self.c)


KINDS = dict.fromkeys(("table_i16", "clamp_i16", "prelu_i16", "minmax_i16", "sqrt_i16"), FunctionI16)
