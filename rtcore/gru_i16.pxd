# gru_i16.pxd - the GRU's object: the C struct, its state and its scratch by value, as a firmware holds them.
# Neighbours: gru_i16.pyx, csrc/rtcore_gru_i16.c.
from libc.stdint cimport int16_t, int32_t

from rtcore.crtcore cimport RTCORE_MAX_NEURONS, RTCORE_ROWS, rtcore_gru_i16
from rtcore.recurrent cimport Recurrent


ctypedef struct GruI16Call:  # what one step's call needs beside its input and output
    const rtcore_gru_i16 *gru
    int32_t *state
    int32_t *rows
    int16_t *scratch


cdef class GruI16(Recurrent):
    cdef rtcore_gru_i16 c
    cdef GruI16Call call
    cdef int32_t states[RTCORE_MAX_NEURONS]
    cdef int16_t views[RTCORE_MAX_NEURONS]
    cdef int32_t rows[RTCORE_ROWS]
    cdef int16_t scratch[RTCORE_MAX_NEURONS]
