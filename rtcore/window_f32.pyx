"""ConvF32 and PoolF32: convolution and pooling over one axis or two in float32, channels last (csrc/rtcore_window_f32.c).

A step is a whole window. Neighbours: `layer_f32.pyx` (step and run), `errors.py` (the checks and messages).
"""

import operator

import numpy as np

from rtcore.crtcore_f32 cimport (RTCORE_POOL_AVERAGE, RTCORE_POOL_AVERAGE_OF_IN, RTCORE_POOL_MAX, rtcore_conv_f32,
                                 rtcore_conv_f32_check, rtcore_conv_f32_step, rtcore_pool_f32, rtcore_pool_f32_check,
                                 rtcore_pool_f32_step, rtcore_window_f32)
from rtcore.layer_f32 cimport LayerF32

from rtcore.errors import RtcoreError, activation_number, check, floats


def per_axis(value, where, axes):
    """A number for all axes, or one per axis (a pair of numbers is what lies before and behind)."""
    values = (value,) * axes if np.ndim(value) == 0 else tuple(value)
    if len(values) != axes:
        raise RtcoreError(f"{where} is {value!r}, expected a number or {axes} of them")
    return values


cdef tuple place(rtcore_window_f32 *w, str where, shape_in, kernel, stride, padding, dilation, ceil_mode):
    """Fills a window and gives its output's sizes. shape_in: without the channels; kernel: of as many axes."""
    axes = len(kernel)
    if len(shape_in) != axes:
        raise RtcoreError(f"{where}: shape_in has {len(shape_in)} axes beside its channels, the kernel has {axes}")
    if isinstance(padding, str) and padding not in ("same", "valid"):
        raise RtcoreError(f"{where}: padding is {padding!r}, expected numbers, 'same' or 'valid'")
    strides, dilations = per_axis(stride, f"{where}: stride", axes), per_axis(dilation, f"{where}: dilation", axes)
    if padding == "same" and any(s != 1 for s in strides):
        raise RtcoreError(f"{where}: padding 'same' needs a stride of 1, it is {stride!r}")
    if isinstance(padding, str):
        extents = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilations)]
        padding = [(extent // 2, extent - extent // 2) for extent in extents]
    rows = []
    for size, k, s, p, d in zip(shape_in, kernel, strides, per_axis(padding, f"{where}: padding", axes), dilations):
        before, behind = (p, p) if np.ndim(p) == 0 else p
        size, k, s, before, behind, d = map(operator.index, (size, k, s, before, behind, d))
        if min(size, k, s, d) < 1 or min(before, behind) < 0:
            raise RtcoreError(f"{where}: size {size}, kernel {k}, stride {s} and dilation {d} must be at least 1, "
                              f"padding {before}, {behind} at least 0")
        room = size + before + behind - d * (k - 1) - 1
        out = (room + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (out - 1) * s >= size + before:
            out -= 1  # a kernel does not begin behind the input
        if room < 0 or out < 1:
            raise RtcoreError(f"{where}: a kernel of {k}, dilation {d}, does not fit an axis of {size} with its padding")
        rows.append((size, out, k, s, before, d))
    if axes == 1:
        rows.insert(0, (1, 1, 1, 1, 0, 1))
    w.height, w.out_height, w.kernel_y, w.stride_y, w.pad_y, w.dilation_y = rows[0]
    w.width, w.out_width, w.kernel_x, w.stride_x, w.pad_x, w.dilation_x = rows[1]
    return tuple(row[1] for row in rows[-axes:])


cdef class ConvF32(LayerF32):
    """Convolution (torch's cross-correlation) of windows of one axis, [L, C], or two, [H, W, C]. The tables are copied.

    weights: float32 [K][C / groups][N], or [K_y][K_x][C / groups][N]; bias: float32 [N]; shape_in: (L, C) or (H, W, C);
    stride, dilation: a number or one per axis; padding: the same, (before, behind) per axis, "same" or "valid";
    activation: a name or number of rtcore.tables.ACTIVATIONS; name: what messages call the layer.
    Raises RtcoreError (a ValueError) for wrong shapes, NaN or infinite weights, and kernels that do not fit.
    """

    cdef rtcore_conv_f32 c

    def __init__(self, weights, bias, shape_in, stride=1, padding=0, dilation=1, groups=1, activation="linear",
                 name="conv_f32"):
        where = f"layer {name}"
        if np.ndim(weights) not in (3, 4):
            raise RtcoreError(f"{where}: weights have {np.ndim(weights)} axes, expected 3 or 4")
        table = floats(weights, f"{where}: weights", (None,) * np.ndim(weights))
        *kernel, inputs, outputs = table.shape
        biases = floats(bias, f"{where}: bias", (outputs,))
        *sizes, channels = shape_in
        if groups < 1 or channels != inputs * groups or outputs % groups:
            raise RtcoreError(f"{where}: {channels} channels in {groups} groups do not fit weights of shape "
                              f"{list(table.shape)}")
        self.name = name
        outs = place(&self.c.window, where, sizes, kernel, stride, padding, dilation, False)
        self.shape_in, self.shape_out = tuple(shape_in), (*outs, outputs)
        self.c.bias = self.hold(biases)
        self.c.weights = self.hold(table)
        self.c.in_channels, self.c.out_channels, self.c.groups = channels, outputs, groups
        self.c.activation = activation_number(activation, where)
        check(rtcore_conv_f32_check(&self.c), f"{where} (shape_in {self.shape_in}, activation {activation})")

    @classmethod
    def from_torch(cls, weight, bias, shape_in, stride=1, padding=0, dilation=1, groups=1, activation="linear",
                   name="conv_f32"):
        """From arrays in torch's layout: weight [N, C / groups, K] or [N, C / groups, K_y, K_x]; bias [N], None for
        zeros. shape_in has its channels last."""
        weight = np.asarray(weight)
        zeros = np.zeros(weight.shape[0], np.float32)
        last = np.moveaxis(weight, (1, 0), (-2, -1))
        return cls(last, zeros if bias is None else bias, shape_in, stride, padding, dilation, groups, activation, name)

    cdef void forward(self, float *y, const float *x) noexcept nogil:
        rtcore_conv_f32_step(&self.c, y, x)


cdef class PoolF32(LayerF32):
    """Pooling of windows of one axis, [L, C], or two, [H, W, C], as torch defines it.

    kind: "max" or "average"; kernel: a number or one per axis; stride: the same, None for the kernel; padding, ceil_mode,
    dilation (of "max") and count_include_pad (of "average") as in torch.nn.MaxPool2d and AvgPool2d. A mean over an axis
    is an average whose kernel is its size. Raises RtcoreError (a ValueError) for kernels that do not fit.
    """

    cdef rtcore_pool_f32 c

    def __init__(self, kind, shape_in, kernel, stride=None, padding=0, dilation=1, ceil_mode=False,
                 count_include_pad=True, name="pool_f32"):
        where = f"layer {name}"
        averages = RTCORE_POOL_AVERAGE if count_include_pad else RTCORE_POOL_AVERAGE_OF_IN
        kinds = {"max": RTCORE_POOL_MAX, "average": averages}
        if kind not in kinds:
            raise RtcoreError(f"{where}: kind is {kind!r}, expected 'max' or 'average'")
        *sizes, channels = shape_in
        kernel = per_axis(kernel, f"{where}: kernel", len(sizes))
        if len(sizes) not in (1, 2):
            raise RtcoreError(f"{where}: shape_in is {shape_in!r}, expected (L, C) or (H, W, C)")
        padding = per_axis(padding, f"{where}: padding", len(sizes))
        outs = place(&self.c.window, where, sizes, kernel, kernel if stride is None else stride, padding, dilation,
                     ceil_mode)
        self.name = name
        self.shape_in, self.shape_out = tuple(shape_in), (*outs, channels)
        self.c.channels, self.c.kind = channels, kinds[kind]
        if rtcore_pool_f32_check(&self.c):
            raise RtcoreError(f"{where}: {kind} of {kernel} with padding {padding} and dilation {dilation}: a kernel would "
                              "take nothing of the input, or it is an average with dilation")

    cdef void forward(self, float *y, const float *x) noexcept nogil:
        rtcore_pool_f32_step(&self.c, y, x)
