"""CausalConvF32: a convolution over time in float32, one frame per step (csrc/rtcore_window_f32.c).

Neighbours: `window_f32.pyx` (the same over a whole window), `layer_f32.pyx` (step and run), `errors.py` (the messages).
"""

import numpy as np

from rtcore.crtcore_f32 cimport rtcore_conv_f32, rtcore_conv_f32_check, rtcore_conv_f32_stream, rtcore_window_f32
from rtcore.layer_f32 cimport LayerF32

from rtcore.errors import RtcoreError, activation_number, check, floats


cdef class CausalConvF32(LayerF32):
    """A step takes the frame of C channels and the frames before it, zeros at first, and gives N channels: what ConvF32
    gives with (K - 1) * dilation of padding before and none behind. The tables are copied. One thread at a time.

    weights: float32 [K][C / groups][N], the last row for the present frame; bias: float32 [N]; activation: a name or
    number of rtcore.tables.ACTIVATIONS; name: what messages call the layer.
    Raises RtcoreError (a ValueError) for wrong shapes, NaN or infinite weights.
    """

    cdef rtcore_conv_f32 c
    cdef float[:, ::1] history  # and in the last row the present frame

    def __init__(self, weights, bias, dilation=1, groups=1, activation="linear", name="causal_conv_f32"):
        where = f"layer {name}"
        table = floats(weights, f"{where}: weights", (None, None, None))
        kernel, inputs, outputs = table.shape
        if kernel < 1 or dilation < 1 or groups < 1 or outputs % groups:
            raise RtcoreError(f"{where}: a kernel of {kernel}, dilation {dilation}, and {groups} groups of {outputs} outputs:"
                              " each must be at least 1, and the groups of one size")
        span, channels = (kernel - 1) * dilation + 1, inputs * groups
        self.name = name
        self.shape_in, self.shape_out = (channels,), (outputs,)
        self.history = np.zeros((span, channels), np.float32)
        self.c.window = rtcore_window_f32(1, span, 1, 1, 1, kernel, 1, 1, 0, 0, 1, dilation)
        self.c.bias = self.hold(floats(bias, f"{where}: bias", (outputs,)))
        self.c.weights = self.hold(table)
        self.c.in_channels, self.c.out_channels, self.c.groups = channels, outputs, groups
        self.c.activation = activation_number(activation, where)
        check(rtcore_conv_f32_check(&self.c), f"{where} ({channels} channels, {outputs} outputs, activation {activation})")

    @classmethod
    def from_torch(cls, weight, bias=None, dilation=1, groups=1, activation="linear", name="causal_conv_f32"):
        """From arrays in torch.nn.Conv1d's layout: weight [N, C / groups, K]; bias [N], None for zeros."""
        weight = np.asarray(weight)
        zeros = np.zeros(weight.shape[0], np.float32)
        return cls(np.transpose(weight), zeros if bias is None else bias, dilation, groups, activation, name)

    @property
    def state(self):
        """float32 [(K - 1) * dilation, C], the frames before, oldest first: a copy; assign to set it."""
        return np.array(self.history)[1:]

    @state.setter
    def state(self, values):
        shape = (self.history.shape[0] - 1, self.history.shape[1])
        np.asarray(self.history)[1:] = floats(values, f"layer {self.name}: state", shape)

    def reset(self):
        """State to zero."""
        self.history[:] = 0

    cdef void forward(self, float *y, const float *x) noexcept nogil:
        rtcore_conv_f32_stream(&self.c, &self.history[0, 0], y, x)
