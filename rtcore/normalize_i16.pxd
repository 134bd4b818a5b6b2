# normalize_i16.pxd - the objects of operations over a whole vector. Neighbours: normalize_i16.pyx, csrc/rtcore_normalize_i16.c.
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t

from rtcore.layer cimport Layer

ctypedef struct NormalizeCall:  # the arguments of rtcore_<kind>_i16 beside its vectors; what a kind lacks stays 0
    int n
    int frac
    int shift
    int64_t epsilon
    const int16_t *mult
    const int64_t *bias
    const uint8_t *shifts


cdef class NormalizeI16(Layer):
    cdef NormalizeCall c
