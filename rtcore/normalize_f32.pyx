"""NormalizeF32: softmax, log-softmax and layer normalization of float32 vectors (csrc/rtcore_normalize_f32.c).

Neighbours: `layer_f32.pyx` (step and run), `errors.py` (the checks and messages), `normalize_i16.pyx` (the same in fixed
point).
"""

import numpy as np

from rtcore.crtcore_f32 cimport rtcore_layernorm_f32, rtcore_log_softmax_f32, rtcore_softmax_f32
from rtcore.layer_f32 cimport LayerF32

from rtcore.errors import RtcoreError, floats

KINDS = ("softmax", "log_softmax", "layernorm")


cdef class NormalizeF32(LayerF32):
    """An operation over a whole vector of n.

    kind: one of KINDS. layernorm: (x - mean) / sqrt(variance + epsilon) * weight + bias, weight, bias: float32 [n], None
    for ones and zeros; epsilon: 0 or more. name: what messages call the layer.
    Raises RtcoreError (a ValueError) for another kind, wrong shapes, NaN or infinite weights.
    """

    cdef int n
    cdef int how
    cdef const float *weight
    cdef const float *bias
    cdef float epsilon

    def __init__(self, kind, n, weight=None, bias=None, epsilon=1e-5, name="normalize_f32"):
        where = f"layer {name}"
        if kind not in KINDS:
            raise RtcoreError(f"{where}: kind is {kind!r}, expected one of {', '.join(KINDS)}")
        if n < 1:
            raise RtcoreError(f"{where}: a vector of {n}, expected at least 1")
        if kind != "layernorm" and (weight is not None or bias is not None):
            raise RtcoreError(f"{where}: a {kind} has no weight and no bias")
        if not 0 <= epsilon < np.inf:
            raise RtcoreError(f"{where}: epsilon is {epsilon!r}, expected a finite number of at least 0")
        self.name = name
        self.shape_in = self.shape_out = (n,)
        self.n = n
        self.how = KINDS.index(kind)
        self.epsilon = epsilon
        self.weight = self.hold(np.ones(n) if weight is None else floats(weight, f"{where}: weight", (n,)))
        self.bias = self.hold(np.zeros(n) if bias is None else floats(bias, f"{where}: bias", (n,)))

    cdef void forward(self, float *y, const float *x) noexcept nogil:
        if self.how == 0:
            rtcore_softmax_f32(y, x, self.n)
        elif self.how == 1:
            rtcore_log_softmax_f32(y, x, self.n)
        else:
            rtcore_layernorm_f32(y, x, self.weight, self.bias, self.n, self.epsilon)
