# rnn_i16.pxd - the plain recurrent layer's object: the C struct, its state and its scratch by value, as in a firmware.
# Neighbours: rnn_i16.pyx, csrc/rtcore_rnn_i16.c.
from libc.stdint cimport int16_t, int32_t

from rtcore.crtcore cimport RTCORE_MAX_NEURONS, RTCORE_ROWS, rtcore_rnn_i16
from rtcore.recurrent cimport Recurrent


ctypedef struct RnnI16Call:  # what one step's call needs beside its input and output
    const rtcore_rnn_i16 *rnn
    int32_t *rows
    int16_t *scratch


cdef class RnnI16(Recurrent):
    cdef rtcore_rnn_i16 c
    cdef RnnI16Call call
    cdef int16_t views[RTCORE_MAX_NEURONS]
    cdef int32_t rows[RTCORE_ROWS]
    cdef int16_t scratch[RTCORE_MAX_NEURONS]
