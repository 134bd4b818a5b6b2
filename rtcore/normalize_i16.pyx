"""NormalizeI16: softmax, log-softmax and layer normalization of int16 vectors (csrc/rtcore_normalize_i16.c).

Neighbours: `layer.pyx` (base), `limits.py` (what a record may hold), SPEC.md section 6 (the numbers).
"""

import numpy as np

from libc.stdint cimport int16_t, int64_t, uint8_t

from rtcore.crtcore cimport (rtcore_layernorm_i16, rtcore_log_softmax_i16,
                             rtcore_softmax_i16)
from rtcore.layer cimport Call, Layer, set_call

from rtcore.limits import check


cdef void softmax(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const NormalizeCall *c = <const NormalizeCall *>layer
    rtcore_softmax_i16(y, a, c.n, c.frac)


cdef void log_softmax(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const NormalizeCall *c = <const NormalizeCall *>layer
    rtcore_log_softmax_i16(y, a, c.n, c.frac, c.shift)


cdef void layernorm(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const NormalizeCall *c = <const NormalizeCall *>layer
    rtcore_layernorm_i16(y, a, c.mult, c.bias, c.shifts, c.n, c.epsilon)


cdef Call call_of(kind):
    if kind == "softmax_i16":
        return softmax
    if kind == "log_softmax_i16":
        return log_softmax
    return layernorm


cdef class NormalizeI16(Layer):
    """From a rtcore.tables.Layer of one of KINDS. Raises ValueError naming the layer and what is wrong with it."""

    def __init__(self, table):
        cdef const int16_t[::1] mult
        cdef const int64_t[::1] bias
        cdef const uint8_t[::1] shifts
        check(table, KINDS)
        ints = table.ints
        self.table = table
        self.c.n = ints.get("n", 0)
        self.c.frac = ints.get("frac", 0)
        self.c.shift = ints.get("shift", 0)  # unless it is an array
        self.c.epsilon = ints.get("epsilon", 0)
        self.keep = arrays = {name: np.ascontiguousarray(array) for name, array in table.arrays.items()}
        if "mult" in arrays:
            mult = arrays["mult"]
            self.c.mult = &mult[0]
        if "bias" in arrays:
            bias = arrays["bias"]
            self.c.bias = &bias[0]
        if "shift" in arrays:
            shifts = arrays["shift"]
            self.c.shifts = &shifts[0]
        set_call(&self.op, call_of(table.kind), &self.c)


KINDS = dict.fromkeys(("softmax_i16", "log_softmax_i16", "layernorm_i16"), NormalizeI16)
