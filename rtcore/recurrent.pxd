# recurrent.pxd - what Net knows of a layer with a state: its parts, inside the layer's object.
# Neighbours: recurrent.pyx, net.pyx (saves, sets and traces states), the *_i16.pyx classes of recurrent layers.
from libc.stdint cimport int16_t, int32_t

from rtcore.layer cimport Layer


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


ctypedef struct BeginCall:  # what it sets: the parts of a recurrent layer, what that gives out first
    Part parts[2]
    int n_parts


cdef class BeginI16(Layer):
    cdef BeginCall begin
