"""GruF32: a gated recurrent unit in float32, on the lineage's tables, both reset forms (csrc/rtcore_gru_f32.c).

Neighbours: `layer_f32.pyx` (step, run and state), `errors.py` (the checks and messages), `csrc/rtcore_lineage.h` (this
layer in firmware).
"""

import numpy as np

from rtcore.crtcore cimport RTCORE_MAX_NEURONS, rtcore_gru_f32, rtcore_gru_f32_check, rtcore_gru_f32_gated
from rtcore.layer_f32 cimport RecurrentF32

from rtcore.errors import RtcoreError, activation_number, check, floats, slope_of_gates


cdef class GruF32(RecurrentF32):
    """A GRU of M inputs and N neurons with its state, zero at first. The tables are copied. One thread at a time.

    input_weights: float32 [M][3N], recurrent_weights: float32 [N][3N], column-major, gates z, r, h;
    bias: float32 [3N], with reset_after [6N]: the input's, then the recurrent's;
    activation: of the candidate, a name or number of rtcore.tables.ACTIVATIONS; name: what messages call the layer.
    reset_after 1: h~ = act(Wx + r o (R h + b)), as torch; 0: h~ = act(Wx + R (r o h) + b).
    gate_slope: 0 for sigmoid gates, else of hard ones, slope * x + 1/2 within 0..1 (1/6 in Keras 3, 0.2 in ONNX).
    Raises RtcoreError (a ValueError) for wrong shapes, NaN or infinite weights, N above RTCORE_MAX_NEURONS, and a slope
    that is none of rtcore.tables.GATE_SLOPES.
    """

    cdef rtcore_gru_f32 c
    cdef float gate_slope

    def __init__(self, input_weights, recurrent_weights, bias, activation="tanh", reset_after=1, name="gru_f32",
                 gate_slope=0.0):
        if reset_after not in (0, 1):
            raise RtcoreError(f"layer {name}: reset_after is {reset_after!r}, expected 0 or 1")
        self.gate_slope = slope_of_gates(gate_slope, f"layer {name}")
        recurrent = floats(recurrent_weights, f"layer {name}: recurrent_weights", (None, None))
        units, rows = recurrent.shape
        if rows != 3 * units:
            raise RtcoreError(f"layer {name}: recurrent_weights has shape {[units, rows]}, expected [N, 3 N]")
        weights = floats(input_weights, f"layer {name}: input_weights", (None, rows))
        biases = floats(bias, f"layer {name}: bias", (2 * rows if reset_after else rows,))
        self.begin(name, weights.shape[0], units, rows)
        self.c.bias = self.hold(biases)
        self.c.input_weights = self.hold(weights)
        self.c.recurrent_weights = self.hold(recurrent)
        self.c.nb_inputs = weights.shape[0]
        self.c.nb_neurons = units
        self.c.activation = activation_number(activation, f"layer {name}")
        self.c.reset_after = reset_after
        where = f"layer {name} ({self.c.nb_inputs} inputs, {units} neurons, activation {activation})"
        check(rtcore_gru_f32_check(&self.c, RTCORE_MAX_NEURONS), where, RTCORE_MAX_NEURONS)

    @classmethod
    def from_torch(cls, weight_ih, weight_hh, bias_ih=None, bias_hh=None, activation="tanh", reset_after=1,
                   name="gru_f32", gate_slope=0.0):
        """From arrays in torch.nn.GRU's layout, gates r, z, n: weight_ih [3N, M], weight_hh [3N, N], biases [3N].

        None for a bias of zeros. Without reset_after only the biases' sum counts: formed in float64, rounded once.
        """
        where = f"layer {name}: "
        weight_ih = floats(weight_ih, where + "weight_ih", (None, None))
        rows = weight_ih.shape[0]
        if rows % 3 != 0:
            raise RtcoreError(f"{where}weight_ih has {rows} rows, expected 3 N")
        weight_hh = floats(weight_hh, where + "weight_hh", (rows, rows // 3))
        zeros = np.zeros(rows, np.float32)
        bias_ih, bias_hh = (
            zrh(zeros if bias is None else floats(bias, where + label, (rows,)))
            for bias, label in ((bias_ih, "bias_ih"), (bias_hh, "bias_hh"))
        )
        bias = np.concatenate((bias_ih, bias_hh)) if reset_after else np.add(bias_ih, bias_hh, dtype=np.float64)
        return cls(zrh(weight_ih).T, zrh(weight_hh).T, bias, activation, reset_after, name, gate_slope)

    @property
    def nb_inputs(self):
        return self.c.nb_inputs

    @property
    def nb_neurons(self):
        return self.c.nb_neurons

    cdef void advance(self, const float *x) noexcept nogil:
        rtcore_gru_f32_gated(&self.c, self.gate_slope, &self.h[0], x, &self.scratch[0])


def zrh(rows):
    """torch's row order r, z, n to the lineage's z, r, h: [3N, ...] to [3N, ...]."""
    r, z, n = np.split(rows, 3)
    return np.concatenate((z, r, n))
