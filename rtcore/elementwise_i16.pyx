"""ElementwiseI16: activation, add, mul, affine and rescale on int16 vectors (csrc/rtcore_elementwise_i16.c).

Neighbours: `layer.pyx` (base), `limits.py` (what a record may hold), SPEC.md section 6 (the numbers).
"""

import numpy as np

from libc.stdint cimport int16_t, int64_t, uint8_t

from rtcore.crtcore cimport (rtcore_activation_i16, rtcore_add_i16, rtcore_affine_i16,
                             rtcore_mul_i16, rtcore_rescale_i16)
from rtcore.layer cimport Call, Layer, set_call

from rtcore.limits import check


cdef void activation(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const ElementwiseCall *c = <const ElementwiseCall *>layer
    rtcore_activation_i16(y, a, c.n, c.activation, c.shift)


cdef void add(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const ElementwiseCall *c = <const ElementwiseCall *>layer
    rtcore_add_i16(y, a, c.stride_a, b, c.stride_b, c.n, c.shift_a, c.shift_b, c.sign_b, c.shift)


cdef void mul(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const ElementwiseCall *c = <const ElementwiseCall *>layer
    rtcore_mul_i16(y, a, c.stride_a, b, c.stride_b, c.n, c.shift)


cdef void affine(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const ElementwiseCall *c = <const ElementwiseCall *>layer
    rtcore_affine_i16(y, a, c.mult, c.bias, c.shifts, c.n)


cdef void rescale(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const ElementwiseCall *c = <const ElementwiseCall *>layer
    rtcore_rescale_i16(y, a, c.n, c.shift)


cdef Call call_of(kind):
    if kind == "activation_i16":
        return activation
    if kind == "add_i16":
        return add
    if kind == "mul_i16":
        return mul
    if kind == "affine_i16":
        return affine
    return rescale


cdef class ElementwiseI16(Layer):
    """From a rtcore.tables.Layer of one of KINDS. Raises ValueError naming the layer and what is wrong with it."""

    def __init__(self, table):
        cdef const int16_t[::1] mult
        cdef const int64_t[::1] bias
        cdef const uint8_t[::1] shifts
        check(table, KINDS)
        ints = table.ints
        self.table = table
        self.c.n = ints["n"]
        self.c.activation = ints.get("activation", 0)
        self.c.stride_a = ints.get("stride_a", 0)
        self.c.stride_b = ints.get("stride_b", 0)
        self.c.shift_a = ints.get("shift_a", 0)
        self.c.shift_b = ints.get("shift_b", 0)
        self.c.sign_b = ints.get("sign_b", 1)
        self.c.shift = ints.get("shift", 0)
        if table.kind == "affine_i16":
            self.keep = tuple(np.ascontiguousarray(table.arrays[name]) for name in ("mult", "bias", "shift"))
            mult, bias, shifts = self.keep
            self.c.mult, self.c.bias, self.c.shifts = &mult[0], &bias[0], &shifts[0]
        set_call(&self.op, call_of(table.kind), &self.c)


KINDS = dict.fromkeys(("activation_i16", "add_i16", "mul_i16", "affine_i16", "rescale_i16"), ElementwiseI16)
