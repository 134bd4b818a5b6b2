"""FunctionF32: scalar functions of float32 vectors (csrc/rtcore_function_f32.c), activations and affine maps among them.

Neighbours: `layer_f32.pyx` (step and run), `errors.py` (the checks and messages), `csrc/rtcore_f32.h` (each one's accuracy).
"""

import numpy as np

from rtcore.crtcore cimport rtcore_activation_f32
from rtcore.crtcore_f32 cimport (RTCORE_FUNCTIONS, rtcore_affine_f32, rtcore_clamp_f32, rtcore_function_f32,
                                 rtcore_prelu_f32)
from rtcore.layer_f32 cimport LayerF32

from rtcore.errors import RtcoreError, floats
from rtcore.tables import ACTIVATIONS

FUNCTIONS = (  # in the order of RTCORE_FUNCTION_*
    "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "atan", "erf", "softplus",
    "log_sigmoid", "softsign", "silu", "mish", "elu", "gelu", "gelu_tanh", "hard_sigmoid", "hard_swish",
)
CONSTANTS = {  # the numbers that a function takes, and what they are unless told
    "softplus": {"beta": 1.0, "threshold": 20.0},
    "elu": {"alpha": 1.0, "scale": 1.0, "input_scale": 1.0},
    "clamp": {"low": -np.inf, "high": np.inf},
}
TABLES = {"affine": ("scale", "offset"), "prelu": ("slope",)}  # float32 [n]; a slope may have one element for all
KINDS = (*ACTIVATIONS, *FUNCTIONS, "clamp", "affine", "prelu")
assert len(FUNCTIONS) == RTCORE_FUNCTIONS

cdef enum Kernel:
    FUNCTION, ACTIVATION, CLAMP, PRELU, AFFINE


cdef class FunctionF32(LayerF32):
    """A function of each element of a vector of n.

    kind: one of KINDS. Constants by name: softplus: beta, threshold (x itself where beta x is above it); elu: alpha,
    scale, input_scale (scale x for x > 0, else scale alpha (exp(input_scale x) - 1): ELU, CELU, SELU); clamp: low, high
    (ReLU6, hardtanh); affine: scale, offset, float32 [n]; prelu: slope, float32 [n] or [1] (leaky ReLU; -1 for abs).
    name: what messages call the layer. Raises RtcoreError (a ValueError) for another kind or constant, and wrong shapes.
    """

    cdef int n
    cdef int how     # one of Kernel
    cdef int number  # RTCORE_FUNCTION_* or RTCORE_ACTIVATION_*
    cdef int stride
    cdef float a, b, c
    cdef const float *first
    cdef const float *second

    def __init__(self, kind, n, name="function_f32", **constants):
        where = f"layer {name}"
        if kind not in KINDS:
            raise RtcoreError(f"{where}: kind is {kind!r}, expected one of {', '.join(KINDS)}")
        if n < 1:
            raise RtcoreError(f"{where}: a vector of {n}, expected at least 1")
        known = (*CONSTANTS.get(kind, ()), *TABLES.get(kind, ()))
        missing = [key for key in TABLES.get(kind, ()) if key not in constants]
        for key, fault in [(key, "is not among them") for key in constants if key not in known] + [
                (key, "is missing") for key in missing]:
            raise RtcoreError(f"{where}: {kind} takes {', '.join(known) or 'no constants'}; {key} {fault}")
        self.name = name
        self.shape_in = self.shape_out = (n,)
        self.n = n
        families = {"clamp": CLAMP, "affine": AFFINE, "prelu": PRELU} | dict.fromkeys(ACTIVATIONS, ACTIVATION)
        self.how = families.get(kind, FUNCTION)
        self.number = ACTIVATIONS[kind] if kind in ACTIVATIONS else FUNCTIONS.index(kind) if kind in FUNCTIONS else 0
        numbers = [float(constants.get(key, value)) for key, value in CONSTANTS.get(kind, {}).items()]
        if any(np.isnan(numbers)) or (kind == "clamp" and numbers[0] > numbers[1]):
            raise RtcoreError(f"{where}: {kind} of {constants}: NaN, or low above high")
        self.a, self.b, self.c = [*numbers, 0.0, 0.0, 0.0][:3]
        self.stride = int(kind != "prelu" or np.shape(constants["slope"]) != (1,))
        held = [floats(constants[key], f"{where}: {key}", (n if self.stride else 1,)) for key in TABLES.get(kind, ())]
        if held:
            self.first = self.hold(held[0])
            self.second = self.hold(held[len(held) - 1])

    cdef void forward(self, float *y, const float *x) noexcept nogil:
        if self.how == FUNCTION:
            rtcore_function_f32(y, x, self.n, self.number, self.a, self.b, self.c)
        elif self.how == ACTIVATION:
            rtcore_activation_f32(y, x, self.n, self.number)
        elif self.how == CLAMP:
            rtcore_clamp_f32(y, x, self.n, self.a, self.b)
        elif self.how == PRELU:
            rtcore_prelu_f32(y, x, self.first, self.stride, self.n)
        else:
            rtcore_affine_f32(y, x, self.first, self.second, self.n)
