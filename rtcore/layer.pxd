# layer.pxd - what Net knows of a layer: one record per kernel call, filled by the layer's own class.
# Neighbours: layer.pyx, net.pyx (runs records), the *_i16.pyx classes (fill them).
from libc.stdint cimport int16_t

from rtcore.crtcore cimport rtcore_host_saturated, rtcore_matrix_i16

# One call of a kernel: layer is its const struct or the numbers that it takes, b is NULL where there is one input.
ctypedef void (*Call)(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil

ctypedef struct Op:
    Call call
    long (*clipped)() noexcept nogil  # take_clipped of the extension that `call` is in
    const void *layer
    const int16_t *a                  # first input, or NULL
    const int16_t *b                  # second input, or NULL
    int16_t *y                        # output
    int16_t *view                     # a recurrent layer's, where that is not y: copied to y after each row; else NULL
    Py_ssize_t width                  # of that view
    Py_ssize_t pitch_a                # elements from row to row
    Py_ssize_t pitch_b
    Py_ssize_t pitch_y
    int rows                          # calls per step
    bint reverse                      # from the last row to the first
    long saturated                    # values clipped by more than one LSB since the last reset of the count


cdef inline long take_clipped() noexcept nogil:
    """The thread's count of clipped values since the last call. Every extension has its own, so this is inline."""
    global rtcore_host_saturated
    cdef long clipped = rtcore_host_saturated
    rtcore_host_saturated = 0
    return clipped


cdef inline void set_call(Op *op, Call call, const void *layer) noexcept:
    """What an op calls: once a step, until Net says more."""
    op.call = call
    op.clipped = take_clipped
    op.layer = layer
    op.rows = 1


cdef void run(Op *op) noexcept nogil


cdef class Layer:
    cdef Op op
    cdef readonly object table  # rtcore.tables.Layer
    cdef object keep            # owners of the arrays that the C struct points to

    cdef int bind(self, const int16_t *a, const int16_t *b, int16_t *y) except -1
    cdef void poison(self, int byte) noexcept nogil


cdef int check_width(object table) except -1
cdef object sums_of(const rtcore_matrix_i16 *matrix, const int16_t[::1] x, int gates, int units)
cdef int hold_matrix(rtcore_matrix_i16 *matrix, object packed) except -1
