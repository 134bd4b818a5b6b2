# layer.pxd - what Net knows of a layer: one record per kernel call, filled by the layer's own class.
# Neighbours: layer.pyx, net.pyx (runs records), the *_i16.pyx classes (fill them).
from libc.stdint cimport int16_t, int32_t

from rtcore.crtcore cimport rtcore_matrix_i16

ctypedef struct Op:
    void (*step)(Op *op) noexcept nogil  # calls the kernel with what stands below, adds to `saturated`
    const void *layer                    # the kernel's const struct
    const int16_t *a                     # first input
    const int16_t *b                     # second input, or NULL
    int16_t *y                           # output; for a recurrent layer its state's view
    long saturated                       # values clipped by more than one LSB since the last reset of the count


cdef class Layer:
    cdef Op op
    cdef readonly object table  # rtcore.tables.Layer
    cdef object keep            # owners of the arrays that the C struct points to

    cdef int bind(self, const int16_t *a, const int16_t *b, int16_t *y) except -1


ctypedef struct Part:  # of a state, see rtcore.tables.StatePart
    int32_t *wide      # [size] or NULL
    int16_t *view      # [size] or NULL
    int size


cdef class Recurrent(Layer):
    cdef Part parts[2]          # in the order of state_parts(table), inside the object
    cdef int n_parts
    cdef readonly int size      # elements of the state vector

    cdef int hold_part(self, int32_t *wide, int16_t *view) except -1
    cdef void clear(self) noexcept nogil
    cdef void poison(self, int byte) noexcept nogil


cdef int check_width(object table) except -1
cdef object sums_of(const rtcore_matrix_i16 *matrix, const int16_t[::1] x, int gates, int units)
cdef int hold_matrix(rtcore_matrix_i16 *matrix, object packed) except -1
