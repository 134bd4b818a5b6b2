# layer_f32.pxd - what the float32 layers share: shapes, a call, and for the recurrent ones a state and scratch.
# Neighbours: layer_f32.pyx, the *_f32.pyx classes.


cdef class LayerF32:
    cdef readonly str name
    cdef readonly tuple shape_in    # of one step's input
    cdef readonly tuple shape_out
    cdef list keep                  # owners of the arrays that the C struct points to

    cdef const float *hold(self, object table) except NULL
    cdef void forward(self, float *y, const float *x) noexcept nogil


cdef class RecurrentF32(LayerF32):
    cdef float[::1] h        # the state, which is the output
    cdef float[::1] scratch

    cdef int begin(self, str name, int inputs, int outputs, int scratch) except -1
    cdef void advance(self, const float *x) noexcept nogil
