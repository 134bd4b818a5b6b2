"""CopyI16: strided copies, constants and embeddings (csrc/rtcore_copy_i16.c); DelayI16: the last frames of a stream.

Neighbours: `layer.pyx` and `recurrent.pyx` (bases), `limits.py` (what a record may hold), SPEC.md sections 5 and 6 (the numbers).
"""

import numpy as np

from libc.stdint cimport int16_t

from rtcore.crtcore cimport rtcore_copy_i16, rtcore_delay_i16, rtcore_embedding_i16, rtcore_fill_i16
from rtcore.layer cimport Call, Layer, set_call
from rtcore.recurrent cimport Recurrent

from rtcore.limits import check


cdef void copy(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const CopyCall *c = <const CopyCall *>layer
    rtcore_copy_i16(y, a, c.start, c.sizes[0], c.sizes[1], c.sizes[2], c.sizes[3], c.strides[0], c.strides[1],
                    c.strides[2], c.strides[3])


cdef void fill(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const CopyCall *c = <const CopyCall *>layer
    rtcore_fill_i16(y, c.n, c.value)


cdef void embedding(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const CopyCall *c = <const CopyCall *>layer
    rtcore_embedding_i16(y, a, c.table, c.n, c.entries)


cdef void delay(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const DelayCall *c = <const DelayCall *>layer
    rtcore_delay_i16(y, a, c.n, c.frames)


cdef Call call_of(kind):
    if kind == "copy_i16":
        return copy
    if kind == "fill_i16":
        return fill
    return embedding


cdef class CopyI16(Layer):
    """From a rtcore.tables.Layer of one of KINDS. Raises ValueError naming the layer and what is wrong with it."""

    def __init__(self, table):
        cdef const int16_t[::1] rows
        check(table, KINDS)
        ints = table.ints
        self.table = table
        self.c.start = ints.get("start", 0)
        for k in range(4):
            self.c.sizes[k] = ints.get(f"n{k}", 1)
            self.c.strides[k] = ints.get(f"s{k}", 0)
        self.c.n = ints.get("n", 0)
        self.c.value = ints.get("value", 0)
        self.c.entries = ints.get("entries", 0)
        if "table" in table.arrays:
            self.keep = rows = np.ascontiguousarray(table.arrays["table"])
            self.c.table = &rows[0]
        set_call(&self.op, call_of(table.kind), &self.c)


cdef class DelayI16(Recurrent):
    """From a rtcore.tables.Layer of kind "delay_i16". Raises ValueError naming the layer and what is wrong with it."""

    def __init__(self, table):
        cdef int16_t[::1] view
        check(table, ("delay_i16",))
        self.table = table
        self.c.n = table.ints["n"]
        self.c.frames = table.ints["frames"]
        self.keep = view = np.zeros(self.c.n * self.c.frames, np.int16)
        self.hold_part(NULL, &view[0])
        set_call(&self.op, delay, &self.c)


KINDS = dict.fromkeys(("copy_i16", "fill_i16", "embedding_i16"), CopyI16) | {"delay_i16": DelayI16}
