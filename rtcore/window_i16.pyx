"""ConvI16, DepthwiseI16 and PoolI16: windows that move over [height][width][channels] (csrc/rtcore_conv_i16.c,
rtcore_depthwise_i16.c, rtcore_pool_i16.c).

Neighbours: `layer.pyx` (base), `limits.py` (what a record may hold), `packing.py` (the weights' layout), SPEC.md
sections 5 and 6 (the numbers).
"""

import numpy as np

from libc.stdint cimport int16_t, int32_t
from libc.string cimport memset

from rtcore.crtcore cimport (RTCORE_ROWS, rtcore_conv_i16, rtcore_conv_i16_check, rtcore_conv_i16_step,
                             rtcore_depthwise_i16, rtcore_depthwise_i16_check, rtcore_depthwise_i16_step,
                             rtcore_matrix_i16, rtcore_pool_i16, rtcore_pool_i16_check, rtcore_pool_i16_step,
                             rtcore_window)
from rtcore.layer cimport Layer, hold_matrix, set_call

from rtcore.errors import check
from rtcore.limits import check as check_record
from rtcore.packing import conv_scratch, pack_conv, pack_depthwise


cdef rtcore_window window_of(object ints) except *:
    """The geometry of a record."""
    return rtcore_window(
        ints["in_h"], ints["in_w"], ints["out_h"], ints["out_w"], ints["kernel_h"], ints["kernel_w"],
        ints["stride_h"], ints["stride_w"], ints["dilation_h"], ints["dilation_w"], ints["pad_h"], ints["pad_w"],
    )


cdef void convolve(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const ConvI16Call *call = <const ConvI16Call *>layer
    cdef int32_t rows[RTCORE_ROWS]
    rtcore_conv_i16_step(call.conv, y, a, rows, call.scratch)


cdef class ConvI16(Layer):
    """From a rtcore.tables.Layer of kind "conv_i16". Raises ValueError naming the layer and what is wrong with it."""

    def __init__(self, table):
        cdef int16_t[::1] scratch
        check_record(table, ("conv_i16",))
        ints = table.ints
        (packed,) = pack_conv(table)
        self.table = table
        hold_matrix(&self.c.matrix, packed)
        self.c.window = window_of(ints)
        self.c.nb_inputs = ints["nb_inputs"]
        self.c.nb_neurons = ints["nb_neurons"]
        self.c.groups = ints["groups"]
        self.c.activation = ints["activation"]
        self.scratch_size = conv_scratch(table)
        check(rtcore_conv_i16_check(&self.c, self.scratch_size), f"layer {table.name}", self.scratch_size)
        scratch = np.zeros(max(self.scratch_size, 1), np.int16)
        self.keep = packed, scratch
        self.call.conv = &self.c
        self.call.scratch = &scratch[0] if self.scratch_size else NULL
        set_call(&self.op, convolve, &self.call)

    cdef void poison(self, int byte) noexcept nogil:
        if self.scratch_size:
            memset(self.call.scratch, byte, self.scratch_size * sizeof(int16_t))


cdef void convolve_depthwise(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    rtcore_depthwise_i16_step(<const rtcore_depthwise_i16 *>layer, y, a)


cdef class DepthwiseI16(Layer):
    """From a rtcore.tables.Layer of kind "depthwise_i16". Raises ValueError naming the layer and what is wrong with it."""

    def __init__(self, table):
        cdef rtcore_matrix_i16 rows
        check_record(table, ("depthwise_i16",))
        ints = table.ints
        (self.keep,) = pack_depthwise(table)
        self.table = table
        hold_matrix(&rows, self.keep)
        self.c.w8, self.c.w16 = rows.w8, rows.w16
        self.c.bias32, self.c.bias64 = rows.bias32, rows.bias64
        self.c.mult, self.c.shift = rows.mult, rows.shift
        self.c.window = window_of(ints)
        self.c.nb_inputs = ints["nb_inputs"]
        self.c.nb_neurons = ints["nb_neurons"]
        self.c.multiplier = ints["multiplier"]
        self.c.activation = ints["activation"]
        check(rtcore_depthwise_i16_check(&self.c), f"layer {table.name}")
        set_call(&self.op, convolve_depthwise, &self.c)


cdef void pool(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    rtcore_pool_i16_step(<const rtcore_pool_i16 *>layer, y, a)


cdef class PoolI16(Layer):
    """From a rtcore.tables.Layer of kind "pool_i16". Raises ValueError naming the layer and what is wrong with it."""

    def __init__(self, table):
        cdef const int32_t[::1] mult
        check_record(table, ("pool_i16",))
        ints = table.ints
        self.table = table
        self.c.window = window_of(ints)
        self.c.n = ints["n"]
        self.c.largest = ints["largest"]
        self.c.count_pad = ints["count_pad"]
        self.c.shift = ints["shift"]
        if not self.c.largest:
            self.keep = mult = np.ascontiguousarray(table.arrays["mult"])
            self.c.mult = &mult[0]
        check(rtcore_pool_i16_check(&self.c), f"layer {table.name}")
        set_call(&self.op, pool, &self.c)


KINDS = {"conv_i16": ConvI16, "depthwise_i16": DepthwiseI16, "pool_i16": PoolI16}
