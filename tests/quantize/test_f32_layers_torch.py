"""LstmF32, RnnF32, ConvF32, PoolF32, NormalizeF32 and FunctionF32 against torch in float32.

Neighbours: `test_f32_torch.py` (Dense and GRU; the limit and its reason), `tests/rtcore/test_layers_f32.py` (bits).
"""

import numpy as np
import pytest
import torch
from test_f32_torch import FRAMES, arrays, assert_near

from quantize import nn as own
from rtcore import CausalConvF32, ConvF32, FunctionF32, GruF32, LstmF32, NormalizeF32, PoolF32, RnnF32

F = torch.nn.functional


def weights_of(module):
    return {name.removesuffix("_l0"): values for name, values in arrays(module).items()}


def assert_recurrent(what, layer, module, m, seed):
    """Outputs over FRAMES frames, and the last states, from random ones."""
    x = torch.randn(FRAMES, m)
    states = [
        torch.rand(1, size) - 0.5
        for size in ((layer.nb_outputs, layer.nb_neurons) if hasattr(layer, "cell") else (layer.nb_neurons,))
    ]
    with torch.no_grad():
        expected, last = module(x, tuple(states) if len(states) > 1 else states[0])
    layer.state = states[0][0].numpy()
    if len(states) > 1:
        layer.cell = states[1][0].numpy()
    assert_near(what, layer.run(x.numpy()), expected.numpy(), seed)
    if len(states) > 1:
        assert_near(f"{what}, cell", layer.cell, last[1][0].numpy(), seed)


@pytest.mark.parametrize(("m", "n", "proj_size"), [(1, 1, 0), (13, 7, 0), (42, 24, 11), (65, 131, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_lstm(m, n, proj_size, bias):
    seed = 4
    torch.manual_seed(seed)
    lstm = torch.nn.LSTM(m, n, bias=bias, proj_size=proj_size)
    assert_recurrent(f"LSTM {m}x{n}", LstmF32.from_torch(**weights_of(lstm)), lstm, m, seed)


FORMS = [dict(peephole=True), dict(coupled=True), dict(peephole=True, coupled=True), dict(gate_slope=1 / 6)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_own_lstm(form, bias):
    seed = 5
    torch.manual_seed(seed)
    lstm = own.LSTM(42, 24, bias=bias, **form)
    layer = LstmF32.from_torch(**arrays(lstm), coupled=lstm.coupled, gate_slope=lstm.gate_slope)
    assert_recurrent(f"LSTM {form}", layer, lstm, 42, seed)


@pytest.mark.parametrize("reset_after", [True, False])
def test_own_gru_with_hard_gates(reset_after):
    seed = 12
    torch.manual_seed(seed)
    gru = own.GRU(42, 24, reset_after=reset_after, gate_slope=0.2)
    layer = GruF32.from_torch(**arrays(gru), reset_after=int(reset_after), gate_slope=0.2)
    assert_recurrent(f"GRU, reset after {reset_after}", layer, gru, 42, seed)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (42, 24), (65, 131)])
def test_rnn(m, n, nonlinearity):
    seed = 6
    torch.manual_seed(seed)
    rnn = torch.nn.RNN(m, n, nonlinearity=nonlinearity)
    layer = RnnF32.from_torch(**weights_of(rnn), activation=nonlinearity)
    assert_recurrent(f"RNN {m}x{n} {nonlinearity}", layer, rnn, m, seed)


CONVS = {  # axes, (in, out) channels, kernel, and torch's options
    "plain": (2, (3, 8), (3, 3), {}),
    "strided": (2, (4, 6), (3, 2), dict(stride=(2, 1), padding=(1, 0))),
    "dilated": (2, (4, 6), (2, 3), dict(dilation=(3, 2), padding=2)),
    "grouped": (2, (6, 9), (3, 3), dict(groups=3, padding=1)),
    "depthwise": (2, (8, 16), (3, 3), dict(groups=8, stride=2, padding=1)),
    "pointwise": (2, (40, 12), (1, 1), {}),
    "same": (2, (3, 4), (4, 3), dict(padding="same", dilation=2)),
    "no bias": (2, (3, 4), (3, 3), dict(bias=False)),
    "one axis": (1, (20, 24), (5,), dict(stride=2, padding=2)),
    "one axis, depthwise, dilated": (1, (16, 16), (3,), dict(groups=16, dilation=4, padding=4)),
}


@pytest.mark.parametrize("case", CONVS)
def test_conv(case):
    axes, (inputs, outputs), kernel, options = CONVS[case]
    seed = 7
    torch.manual_seed(seed)
    conv = (torch.nn.Conv1d if axes == 1 else torch.nn.Conv2d)(inputs, outputs, kernel, **options)
    sizes = (11, 9)[:axes]
    x = torch.randn(3, inputs, *sizes)
    with torch.no_grad():
        expected = torch.relu(conv(x)).movedim(1, -1).contiguous().numpy()
    weight, bias = conv.weight.detach().numpy(), None if conv.bias is None else conv.bias.detach().numpy()
    options = {key: value for key, value in options.items() if key != "bias"}
    layer = ConvF32.from_torch(weight, bias, (*sizes, inputs), **options, activation="relu")
    assert_near(case, layer.run(x.movedim(1, -1).numpy()), expected, seed)


@pytest.mark.parametrize("groups", [1, 8])
def test_causal_conv(groups):
    torch.manual_seed(11)
    conv = torch.nn.Conv1d(8, 16, 5, dilation=3, groups=groups)
    x = torch.randn(FRAMES, 8)
    with torch.no_grad():
        expected = conv(F.pad(x.T, (12, 0))).T.contiguous().numpy()
    layer = CausalConvF32.from_torch(*(p.detach().numpy() for p in conv.parameters()), dilation=3, groups=groups)
    assert_near("causal conv", layer.run(x.numpy()), expected, 11)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, None, 0), (3, 2, 1), (3, 1, 1), (4, 3, 2), (5, 4, 0)])
def test_pools(axes, kernel, stride, padding, ceil_mode):
    seed = 8
    torch.manual_seed(seed)
    sizes = (10, 13)[:axes]
    x = torch.randn(2, 5, *sizes)
    frames = x.movedim(1, -1).contiguous().numpy()
    largest, average = (F.max_pool1d, F.avg_pool1d) if axes == 1 else (F.max_pool2d, F.avg_pool2d)
    place = dict(stride=stride, padding=padding, ceil_mode=ceil_mode)

    def last(y):
        return y.movedim(1, -1).contiguous().numpy()

    layer = PoolF32("max", (*sizes, 5), kernel, **place)
    np.testing.assert_array_equal(layer.run(frames), last(largest(x, kernel, **place)))
    for include in (True, False):
        layer = PoolF32("average", (*sizes, 5), kernel, **place, count_include_pad=include)
        expected = last(average(x, kernel, **place, count_include_pad=include))
        assert_near(f"average, {include}", layer.run(frames), expected, seed)
    if kernel == 3:
        layer = PoolF32("max", (*sizes, 5), kernel, **place, dilation=2)
        np.testing.assert_array_equal(layer.run(frames), last(largest(x, kernel, **place, dilation=2)))


def test_adaptive_average_and_means():
    x = torch.randn(2, 5, 10, 13)
    frames = x.movedim(1, -1).contiguous().numpy()
    one = PoolF32("average", (10, 13, 5), (10, 13)).run(frames)
    assert_near("adaptive", one[:, 0, 0], F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0].numpy(), 0)
    time = PoolF32("average", (10, 13, 5), (10, 1)).run(frames)
    assert_near("mean over time", time[:, 0], x.mean(2).movedim(1, -1).contiguous().numpy(), 0)


@pytest.mark.parametrize("n", [1, 7, 200])
def test_normalizations(n):
    torch.manual_seed(9)
    x = 3 * torch.randn(20, n)
    assert_near("softmax", NormalizeF32("softmax", n).run(x.numpy()), x.softmax(-1).numpy(), 9)
    if n > 1:
        assert_near("log-softmax", NormalizeF32("log_softmax", n).run(x.numpy()), x.log_softmax(-1).numpy(), 9)
    norm = torch.nn.LayerNorm(n, eps=1e-3)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    with torch.no_grad():
        expected = norm(x).numpy()
    assert_near("layer norm", NormalizeF32("layernorm", n, **arrays(norm), epsilon=1e-3).run(x.numpy()), expected, 9)


SELU = dict(alpha=1.6732632423543772, scale=1.0507009873554805)
FUNCTIONS = {  # name -> kind, its constants, torch's form; over -8..8 unless it needs positive numbers
    "exp": ("exp", {}, torch.exp),
    "expm1": ("expm1", {}, torch.expm1),
    "log": ("log", {}, torch.log),
    "log1p": ("log1p", {}, torch.log1p),
    "sqrt": ("sqrt", {}, torch.sqrt),
    "rsqrt": ("rsqrt", {}, torch.rsqrt),
    "reciprocal": ("reciprocal", {}, torch.reciprocal),
    "sin": ("sin", {}, torch.sin),
    "cos": ("cos", {}, torch.cos),
    "atan": ("atan", {}, torch.atan),
    "erf": ("erf", {}, torch.erf),
    "sigmoid": ("sigmoid", {}, torch.sigmoid),
    "tanh": ("tanh", {}, torch.tanh),
    "relu": ("relu", {}, torch.relu),
    "relu6": ("clamp", dict(low=0, high=6), F.relu6),
    "hardtanh": ("clamp", dict(low=-1, high=1), F.hardtanh),
    "abs": ("prelu", dict(slope=np.float32([-1])), torch.abs),
    "leaky relu": ("prelu", dict(slope=np.float32([0.01])), F.leaky_relu),
    "softplus": ("softplus", {}, F.softplus),
    "softplus, beta": ("softplus", dict(beta=2.5, threshold=3), lambda x: F.softplus(x, 2.5, 3)),
    "log-sigmoid": ("log_sigmoid", {}, F.logsigmoid),
    "softsign": ("softsign", {}, F.softsign),
    "silu": ("silu", {}, F.silu),
    "mish": ("mish", {}, F.mish),
    "elu": ("elu", dict(alpha=0.7), lambda x: F.elu(x, 0.7)),
    "celu": ("elu", dict(alpha=1.3, input_scale=1 / 1.3), lambda x: F.celu(x, 1.3)),
    "selu": ("elu", SELU, F.selu),
    "gelu": ("gelu", {}, F.gelu),
    "gelu, tanh": ("gelu_tanh", {}, lambda x: F.gelu(x, approximate="tanh")),
    "hard sigmoid": ("hard_sigmoid", {}, F.hardsigmoid),
    "hard swish": ("hard_swish", {}, F.hardswish),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    kind, constants, form = FUNCTIONS[name]
    low = 0.01 if kind in ("log", "sqrt", "rsqrt", "reciprocal", "log1p") else -8
    x = torch.linspace(low, 8, 3001)
    assert_near(name, FunctionF32(kind, x.numel(), **constants).step(x.numpy()), form(x).numpy(), 0)


def test_batch_norm_is_an_affine():
    torch.manual_seed(10)
    norm = torch.nn.BatchNorm1d(12).eval()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
        tensor.normal_()
    norm.running_var.uniform_(0.5, 2)
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    offset = norm.bias - norm.running_mean * scale
    layer = FunctionF32("affine", 12, scale=scale.detach().numpy(), offset=offset.detach().numpy())
    x = torch.randn(30, 12)
    with torch.no_grad():
        expected = norm(x).numpy()
    assert_near("batch norm", layer.run(x.numpy()), expected, 10)
