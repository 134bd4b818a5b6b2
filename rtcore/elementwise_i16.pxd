# elementwise_i16.pxd - the objects of layers without a matrix. Neighbours: elementwise_i16.pyx,
# csrc/rtcore_elementwise_i16.c.
from libc.stdint cimport int16_t, int64_t, uint8_t

from rtcore.layer cimport Layer

ctypedef struct ElementwiseCall:  # the arguments of rtcore_<kind>_i16 beside its vectors; what a kind lacks stays 0
    int n
    int activation
    int stride_a
    int stride_b
    int shift_a
    int shift_b
    int sign_b
    int shift
    const int16_t *mult
    const int64_t *bias
    const uint8_t *shifts


cdef class ElementwiseI16(Layer):
    cdef ElementwiseCall c
