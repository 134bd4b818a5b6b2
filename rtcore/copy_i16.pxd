# copy_i16.pxd - the objects of layers that move elements: copies, constants, embeddings, and past frames.
# Neighbours: copy_i16.pyx, csrc/rtcore_copy_i16.c, csrc/rtcore_state_i16.c.
from libc.stdint cimport int16_t

from rtcore.layer cimport Layer
from rtcore.recurrent cimport Recurrent

ctypedef struct CopyCall:  # the arguments of rtcore_<kind>_i16 beside its vectors; what a kind lacks stays 0
    int start
    int sizes[4]
    int strides[4]
    int n
    int value
    int entries
    const int16_t *table


cdef class CopyI16(Layer):
    cdef CopyCall c


ctypedef struct DelayCall:
    int n
    int frames


cdef class DelayI16(Recurrent):
    cdef DelayCall c
