"""DenseF32: y = activation(W x + b) in float32, on the lineage's tables (csrc/rtcore_dense_f32.c).

Neighbours: `layer_f32.pyx` (step and run), `errors.py` (the checks and messages), `csrc/rtcore_lineage.h` (the same layer
in firmware).
"""

import numpy as np

from rtcore.crtcore cimport RTCORE_MAX_NEURONS, rtcore_dense_f32, rtcore_dense_f32_check, rtcore_dense_f32_step
from rtcore.layer_f32 cimport LayerF32

from rtcore.errors import activation_number, check, floats

cdef extern from "rtcore.h":
    enum:
        RTCORE_E_CAPACITY


cdef class DenseF32(LayerF32):
    """A fully connected layer of M inputs and N neurons. The tables are copied.

    input_weights: float32 [M][N], column-major as the family keeps them; bias: float32 [N];
    activation: a name or number of rtcore.tables.ACTIVATIONS; name: what messages call the layer.
    Raises RtcoreError (a ValueError) for wrong shapes, NaN or infinite weights, and N above RTCORE_MAX_NEURONS.
    """

    cdef rtcore_dense_f32 c

    def __init__(self, input_weights, bias, activation="linear", name="dense_f32"):
        self.name = name
        weights = floats(input_weights, f"layer {name}: input_weights", (None, None))
        biases = floats(bias, f"layer {name}: bias", weights.shape[1:])
        self.c.nb_inputs, self.c.nb_neurons = weights.shape
        self.shape_in, self.shape_out = weights.shape[:1], weights.shape[1:]
        self.c.bias = self.hold(biases)
        self.c.input_weights = self.hold(weights)
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

    cdef void forward(self, float *y, const float *x) noexcept nogil:
        rtcore_dense_f32_step(&self.c, y, x)
