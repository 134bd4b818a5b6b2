# window_i16.pxd - the objects of convolutions and pools: the C structs by value. Neighbours: window_i16.pyx,
# csrc/rtcore_conv_i16.c, csrc/rtcore_depthwise_i16.c, csrc/rtcore_pool_i16.c.
from libc.stdint cimport int16_t

from rtcore.crtcore cimport rtcore_conv_i16, rtcore_depthwise_i16, rtcore_pool_i16
from rtcore.layer cimport Layer


ctypedef struct ConvI16Call:  # what one call needs beside its input and output
    const rtcore_conv_i16 *conv
    int16_t *scratch          # [scratch_size], or NULL


cdef class ConvI16(Layer):
    cdef rtcore_conv_i16 c
    cdef ConvI16Call call
    cdef readonly int scratch_size


cdef class DepthwiseI16(Layer):
    cdef rtcore_depthwise_i16 c


cdef class PoolI16(Layer):
    cdef rtcore_pool_i16 c
