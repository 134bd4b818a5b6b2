# lstm_i16.pxd - the LSTM's object: the C struct, its state and its scratch by value, as a firmware holds them; and the
# call that copies its cell out. Neighbours: lstm_i16.pyx, csrc/rtcore_lstm_i16.c.
from libc.stdint cimport int16_t, int32_t

from rtcore.crtcore cimport RTCORE_MAX_NEURONS, RTCORE_ROWS, rtcore_lstm_i16
from rtcore.layer cimport Layer
from rtcore.recurrent cimport Recurrent


ctypedef struct LstmI16Call:  # what one step's call needs beside its input and output
    const rtcore_lstm_i16 *lstm
    int32_t *cell
    int32_t *rows
    int16_t *scratch


cdef class LstmI16(Recurrent):
    cdef rtcore_lstm_i16 c
    cdef LstmI16Call call
    cdef int32_t cells[RTCORE_MAX_NEURONS]
    cdef int16_t views[RTCORE_MAX_NEURONS]
    cdef int32_t rows[RTCORE_ROWS]
    cdef int16_t scratch[RTCORE_MAX_NEURONS]


ctypedef struct CellI16Call:
    const int32_t *cell  # the LSTM's
    int n


cdef class CellI16(Layer):
    cdef CellI16Call call
