"""DenseF32: y = activation(W x + b) in float32, on the lineage's tables (csrc/rtcore_dense_f32.c).

Neighbours: `gru_f32.pyx`, `errors.py` (the checks and messages), `csrc/rtcore_lineage.h` (the same layer in firmware).
"""

import numpy as np

from rtcore.crtcore cimport RTCORE_MAX_NEURONS, rtcore_dense_f32, rtcore_dense_f32_check, rtcore_dense_f32_step

from rtcore.errors import activation_number, check, floats

cdef extern from "rtcore.h":
    enum:
        RTCORE_E_CAPACITY


cdef class DenseF32:
    """A fully connected layer of M inputs and N neurons. The tables are copied.

    input_weights: float32 [M][N], column-major as the family keeps them; bias: float32 [N];
    activation: a name or number of rtcore.tables.ACTIVATIONS; name: what messages call the layer.
    Raises RtcoreError (a ValueError) for wrong shapes, NaN or infinite weights, and N above RTCORE_MAX_NEURONS.
    """

    cdef rtcore_dense_f32 c
    cdef object keep
    cdef readonly str name

    def __init__(self, input_weights, bias, activation="linear", name="dense_f32"):
        cdef const float[:, ::1] w
        cdef const float[::1] b
        self.name = name
        w = weights = floats(input_weights, f"layer {name}: input_weights", (None, None)).copy()
        b = biases = floats(bias, f"layer {name}: bias", (w.shape[1],)).copy()
        self.keep = weights, biases
        self.c.bias = &b[0]
        self.c.input_weights = &w[0, 0]
        self.c.nb_inputs, self.c.nb_neurons = weights.shape
        self.c.activation = activation_number(activation, f"layer {name}")
        where = f"layer {name} ({self.c.nb_inputs} inputs, {self.c.nb_neurons} neurons, activation {activation})"
        check(rtcore_dense_f32_check(&self.c), where)
        check(RTCORE_E_CAPACITY if self.c.nb_neurons > RTCORE_MAX_NEURONS else 0, where, RTCORE_MAX_NEURONS)

    @classmethod
    def from_torch(cls, weight, bias=None, activation="linear", name="dense_f32"):
        """From arrays in torch.nn.Linear's layout: weight [N, M]; bias [N], None for zeros."""
        where = f"layer {name}: weight"
        weight = floats(weight, where, (None, None))
        return cls(weight.T, np.zeros(weight.shape[0], np.float32) if bias is None else bias, activation, name)

    @property
    def nb_inputs(self):
        return self.c.nb_inputs

    @property
    def nb_neurons(self):
        return self.c.nb_neurons

    def step(self, x):
        """x: float32 [M] -> float32 [N]. Raises RtcoreError for another shape, NaN or infinity."""
        cdef const float[::1] frame = floats(x, f"layer {self.name}: x", (self.c.nb_inputs,))
        out = np.empty(self.c.nb_neurons, np.float32)
        cdef float[::1] y = out
        with nogil:
            rtcore_dense_f32_step(&self.c, &y[0], &frame[0])
        return out

    def run(self, x):
        """x: float32 [T, M] -> float32 [T, N]; every row is a step. Raises as `step`."""
        cdef const float[:, ::1] frames = floats(x, f"layer {self.name}: x", (None, self.c.nb_inputs))
        out = np.empty((frames.shape[0], self.c.nb_neurons), np.float32)
        cdef float[:, ::1] y = out
        cdef Py_ssize_t t
        with nogil:
            for t in range(frames.shape[0]):
                rtcore_dense_f32_step(&self.c, &y[t, 0], &frames[t, 0])
        return out
