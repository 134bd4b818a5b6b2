# function_i16.pxd - the objects of scalar functions of vectors. Neighbours: function_i16.pyx, csrc/rtcore_function_i16.c.
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t

from rtcore.layer cimport Layer

ctypedef struct FunctionCall:  # the arguments of rtcore_<kind>_i16 beside its vectors; what a kind lacks stays 0
    int n
    int step
    int shift
    int low
    int high
    int stride
    int stride_a
    int stride_b
    int shift_a
    int shift_b
    int shift_positive
    int largest
    const int32_t *nodes
    const int16_t *mult
    const uint8_t *shifts


cdef class FunctionI16(Layer):
    cdef FunctionCall c
