"""RnnF32: the plain recurrent layer in float32 (csrc/rtcore_rnn_f32.c).

Neighbours: `layer_f32.pyx` (step, run and state), `errors.py` (the checks and messages), `rnn_i16.pyx` (the same layer
in fixed point).
"""

from rtcore.crtcore cimport RTCORE_MAX_NEURONS
from rtcore.crtcore_f32 cimport rtcore_rnn_f32, rtcore_rnn_f32_check, rtcore_rnn_f32_step
from rtcore.layer_f32 cimport RecurrentF32

from rtcore.errors import RtcoreError, activation_number, check, floats, summed


cdef class RnnF32(RecurrentF32):
    """h' = act(W x + R h + b), M inputs and N neurons, with its state, zero at first. The tables are copied. One thread at
    a time.

    input_weights: float32 [M][N], recurrent_weights: float32 [N][N], column-major; bias: float32 [N];
    activation: a name or number of rtcore.tables.ACTIVATIONS; name: what messages call the layer.
    Raises RtcoreError (a ValueError) for wrong shapes, NaN or infinite weights, and N above RTCORE_MAX_NEURONS.
    """

    cdef rtcore_rnn_f32 c

    def __init__(self, input_weights, recurrent_weights, bias, activation="tanh", name="rnn_f32"):
        recurrent = floats(recurrent_weights, f"layer {name}: recurrent_weights", (None, None))
        units, rows = recurrent.shape
        if rows != units:
            raise RtcoreError(f"layer {name}: recurrent_weights has shape {[units, rows]}, expected [N, N]")
        weights = floats(input_weights, f"layer {name}: input_weights", (None, units))
        biases = floats(bias, f"layer {name}: bias", (units,))
        self.begin(name, weights.shape[0], units, units)
        self.c.bias = self.hold(biases)
        self.c.input_weights = self.hold(weights)
        self.c.recurrent_weights = self.hold(recurrent)
        self.c.nb_inputs = weights.shape[0]
        self.c.nb_neurons = units
        self.c.activation = activation_number(activation, f"layer {name}")
        where = f"layer {name} ({self.c.nb_inputs} inputs, {units} neurons, activation {activation})"
        check(rtcore_rnn_f32_check(&self.c, RTCORE_MAX_NEURONS), where, RTCORE_MAX_NEURONS)

    @classmethod
    def from_torch(cls, weight_ih, weight_hh, bias_ih=None, bias_hh=None, activation="tanh", name="rnn_f32"):
        """From arrays in torch.nn.RNN's layout: weight_ih [N, M], weight_hh [N, N], biases [N].

        None for a bias of zeros. Only the biases' sum counts: formed in float64, rounded once.
        """
        where = f"layer {name}: "
        weight_ih = floats(weight_ih, where + "weight_ih", (None, None))
        weight_hh = floats(weight_hh, where + "weight_hh", (weight_ih.shape[0], None))
        bias = summed(bias_ih, bias_hh, where, weight_ih.shape[0])
        return cls(weight_ih.T, weight_hh.T, bias, activation, name)

    @property
    def nb_inputs(self):
        return self.c.nb_inputs

    @property
    def nb_neurons(self):
        return self.c.nb_neurons

    cdef void advance(self, const float *x) noexcept nogil:
        rtcore_rnn_f32_step(&self.c, &self.h[0], x, &self.scratch[0])
