"""LayerF32 and RecurrentF32: the base of the float32 layers. A layer's class fills its C struct and says what a step is.

Neighbours: the `*_f32.pyx` classes, `errors.py` (the checks and messages), csrc/rtcore.h and rtcore_f32.h.
"""

import numpy as np

from libc.string cimport memcpy

from rtcore.errors import floats


cdef class LayerF32:
    """shape_in, shape_out: of one step. Tables are copied."""

    cdef const float *hold(self, object table) except NULL:
        """The elements of a copy of a float32 array, which lives as long as the layer."""
        cdef const float[::1] elements = np.ascontiguousarray(table, np.float32).ravel().copy()
        if self.keep is None:
            self.keep = []
        self.keep.append(elements)
        return &elements[0]

    cdef void forward(self, float *y, const float *x) noexcept nogil:
        """One step: the kernel's call."""

    def step(self, x):
        """x: float32 of shape_in -> float32 of shape_out. Raises RtcoreError for another shape, NaN or infinity."""
        cdef const float[::1] frame = floats(x, f"layer {self.name}: x", self.shape_in).reshape(-1)
        out = np.empty(self.shape_out, np.float32)
        cdef float[::1] y = out.reshape(-1)
        with nogil:
            self.forward(&y[0], &frame[0])
        return out

    def run(self, x):
        """x: float32 [T, *shape_in] -> float32 [T, *shape_out]; every row is a step. Raises as `step`."""
        given = floats(x, f"layer {self.name}: x", (None, *self.shape_in))
        cdef Py_ssize_t t, steps = given.shape[0]
        cdef const float[:, ::1] frames = given.reshape(steps, int(np.prod(self.shape_in)))
        out = np.empty((steps, *self.shape_out), np.float32)
        cdef float[:, ::1] y = out.reshape(steps, int(np.prod(self.shape_out)))
        with nogil:
            for t in range(steps):
                self.forward(&y[t, 0], &frames[t, 0])
        return out


cdef class RecurrentF32(LayerF32):
    """A layer with a state, zero at first: a step gives the new state, `run` goes on from the present one. One thread at
    a time."""

    cdef int begin(self, str name, int inputs, int outputs, int scratch) except -1:
        self.name = name
        self.shape_in, self.shape_out = (inputs,), (outputs,)
        self.h = np.zeros(outputs, np.float32)
        self.scratch = np.zeros(scratch, np.float32)
        return 0

    cdef void advance(self, const float *x) noexcept nogil:
        """One step: the kernel's call, on h."""

    cdef void forward(self, float *y, const float *x) noexcept nogil:
        self.advance(x)
        memcpy(y, &self.h[0], self.h.shape[0] * sizeof(float))

    @property
    def state(self):
        """float32 of shape_out: a copy; assign to set it. Raises RtcoreError for another shape, NaN or infinity."""
        return np.array(self.h)

    @state.setter
    def state(self, values):
        np.asarray(self.h)[:] = floats(values, f"layer {self.name}: state", self.shape_out)

    def reset(self):
        """State to zero."""
        self.h[:] = 0
