# dense_i16.pxd - the dense layer's object: the C struct by value. Neighbours: dense_i16.pyx, csrc/rtcore_dense_i16.c.
from rtcore.crtcore cimport rtcore_dense_i16
from rtcore.layer cimport Layer


cdef class DenseI16(Layer):
    cdef rtcore_dense_i16 c
