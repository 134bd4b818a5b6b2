"""LstmF32: long short-term memory in float32, with or without projection, peepholes and coupled gates
(csrc/rtcore_lstm_f32.c).

Neighbours: `layer_f32.pyx` (step, run and state), `errors.py` (the checks and messages), `lstm_i16.pyx` (the same layer
in fixed point).
"""

import numpy as np

from rtcore.crtcore cimport RTCORE_MAX_NEURONS
from rtcore.crtcore_f32 cimport rtcore_lstm_f32, rtcore_lstm_f32_check, rtcore_lstm_f32_step
from rtcore.layer_f32 cimport RecurrentF32

from rtcore.errors import RtcoreError, check, floats, slope_of_gates, summed


cdef class LstmF32(RecurrentF32):
    """An LSTM of M inputs and N neurons with its state and its cell, zero at first. The tables are copied. One thread at
    a time.

    input_weights: float32 [M][4N], recurrent_weights: float32 [P][4N], column-major, gates i, f, g, o; bias: float32
    [4N]. projection_weights: float32 [N][P], None for none, P = N. peephole_weights: float32 [3N], i, f, o, None for
    none. coupled: f = 1 - i, [3N] columns i, g, o and [2N] peepholes i, o. name: what messages call the layer.
    gate_slope: 0 for sigmoid gates, else of hard ones, slope * x + 1/2 within 0..1 (1/6 in Keras 3, 0.2 in ONNX).
    Raises RtcoreError (a ValueError) for wrong shapes, NaN or infinite weights, N above RTCORE_MAX_NEURONS, and a slope
    that is none of rtcore.tables.GATE_SLOPES.
    """

    cdef rtcore_lstm_f32 c
    cdef float[::1] c_

    def __init__(self, input_weights, recurrent_weights, bias, projection_weights=None, peephole_weights=None,
                 coupled=False, name="lstm_f32", gate_slope=0.0):
        where = f"layer {name}"
        if coupled not in (False, True):
            raise RtcoreError(f"{where}: coupled is {coupled!r}, expected False or True")
        self.c.gate_slope = slope_of_gates(gate_slope, where)
        gates = 3 if coupled else 4
        recurrent = floats(recurrent_weights, f"{where}: recurrent_weights", (None, None))
        outputs, rows = recurrent.shape
        units = rows // gates
        if rows != gates * units or (projection_weights is None and outputs != units):
            expected = f"[P, {gates} N]" if projection_weights is not None else f"[N, {gates} N]"
            raise RtcoreError(f"{where}: recurrent_weights has shape {[outputs, rows]}, expected {expected}")
        weights = floats(input_weights, f"{where}: input_weights", (None, rows))
        biases = floats(bias, f"{where}: bias", (rows,))
        self.begin(name, weights.shape[0], outputs, rows)
        self.c_ = np.zeros(units, np.float32)
        self.c.bias = self.hold(biases)
        self.c.input_weights = self.hold(weights)
        self.c.recurrent_weights = self.hold(recurrent)
        if projection_weights is not None:
            shape = (units, outputs)
            self.c.projection_weights = self.hold(floats(projection_weights, f"{where}: projection_weights", shape))
        if peephole_weights is not None:
            shape = ((gates - 1) * units,)
            self.c.peephole_weights = self.hold(floats(peephole_weights, f"{where}: peephole_weights", shape))
        self.c.nb_inputs = weights.shape[0]
        self.c.nb_neurons = units
        self.c.nb_outputs = outputs
        self.c.coupled = coupled
        where = f"{where} ({self.c.nb_inputs} inputs, {units} neurons, {outputs} outputs)"
        check(rtcore_lstm_f32_check(&self.c, RTCORE_MAX_NEURONS), where, RTCORE_MAX_NEURONS)

    @classmethod
    def from_torch(cls, weight_ih, weight_hh, bias_ih=None, bias_hh=None, weight_hr=None, weight_peephole=None,
                   coupled=False, name="lstm_f32", gate_slope=0.0):
        """From arrays in the layout of torch.nn.LSTM and quantize.nn.LSTM, gates i, f, g, o: weight_ih [4N, M],
        weight_hh [4N, P], biases [4N], weight_hr [P, N], weight_peephole [3N]; coupled, gates i, g, o.

        None for a bias of zeros. Only the biases' sum counts: formed in float64, rounded once.
        """
        where = f"layer {name}: "
        weight_ih = floats(weight_ih, where + "weight_ih", (None, None))
        weight_hh = floats(weight_hh, where + "weight_hh", (weight_ih.shape[0], None))
        bias = summed(bias_ih, bias_hh, where, weight_ih.shape[0])
        projection = None if weight_hr is None else floats(weight_hr, where + "weight_hr", (None, None)).T
        return cls(weight_ih.T, weight_hh.T, bias, projection, weight_peephole, coupled, name, gate_slope)

    @property
    def nb_inputs(self):
        return self.c.nb_inputs

    @property
    def nb_neurons(self):
        return self.c.nb_neurons

    @property
    def nb_outputs(self):
        return self.c.nb_outputs

    @property
    def cell(self):
        """float32 [N]: a copy; assign to set it. Raises RtcoreError for another shape, NaN or infinity."""
        return np.array(self.c_)

    @cell.setter
    def cell(self, values):
        np.asarray(self.c_)[:] = floats(values, f"layer {self.name}: cell", (self.c.nb_neurons,))

    def reset(self):
        """State and cell to zero."""
        self.h[:] = 0
        self.c_[:] = 0

    cdef void advance(self, const float *x) noexcept nogil:
        rtcore_lstm_f32_step(&self.c, &self.c_[0], &self.h[0], x, &self.scratch[0])
