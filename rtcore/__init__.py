"""rtcore: runs dense and recurrent layers in fixed point, on the host, with the kernels that the firmware compiles.

Needs numpy alone. The arithmetic is C99 in `csrc`; the Cython classes hold and call it. Neighbours above: `quantize`
(makes the tables), `firmware_sim` (runs the same kernels on an emulated microcontroller).
"""

from rtcore.causal_conv_f32 import CausalConvF32
from rtcore.dense_f32 import DenseF32
from rtcore.dense_i16 import DenseI16
from rtcore.elementwise_i16 import ElementwiseI16
from rtcore.function_f32 import FunctionF32
from rtcore.function_i16 import FunctionI16
from rtcore.gru_f32 import GruF32
from rtcore.gru_i16 import GruI16
from rtcore.lstm_f32 import LstmF32
from rtcore.lstm_i16 import LstmI16
from rtcore.net import Net, NetRun
from rtcore.normalize_f32 import NormalizeF32
from rtcore.normalize_i16 import NormalizeI16
from rtcore.rnn_f32 import RnnF32
from rtcore.rnn_i16 import RnnI16
from rtcore.tables import ACTIVATIONS, SPEC_VERSION, Layer, StateInput, Tables, Tensor
from rtcore.window_f32 import ConvF32, PoolF32

__version__ = "0.1.0"

__all__ = [
    "ACTIVATIONS",
    "SPEC_VERSION",
    "CausalConvF32",
    "ConvF32",
    "DenseF32",
    "DenseI16",
    "ElementwiseI16",
    "FunctionF32",
    "FunctionI16",
    "GruF32",
    "GruI16",
    "Layer",
    "LstmF32",
    "LstmI16",
    "Net",
    "NetRun",
    "NormalizeF32",
    "NormalizeI16",
    "PoolF32",
    "RnnF32",
    "RnnI16",
    "StateInput",
    "Tables",
    "Tensor",
]
