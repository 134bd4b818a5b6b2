"""LstmF32, RnnF32, ConvF32 and PoolF32: bits in numpy float32 in the kernels' order, steps and runs, errors by message.

Neighbours: `test_f32.py` (Dense and GRU), `test_functions_f32.py`, `tests/quantize/test_f32_torch.py` (against torch),
`tests/firmware/test_f32_layers_mcu.py` (the same bits on emulated cores).
"""

import itertools
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rtcore.function_f32 import FUNCTIONS

from rtcore import CausalConvF32, ConvF32, FunctionF32, LstmF32, PoolF32, RnnF32, _build
from rtcore.errors import RtcoreError


def assert_bits(what, actual, expected, seed):
    """The same float32 bits, element by element."""
    assert actual.dtype == expected.dtype == np.float32 and actual.shape == expected.shape
    wrong = np.argwhere(actual.view(np.uint32) != expected.view(np.uint32))
    if len(wrong):
        i = tuple(wrong[0])
        raise AssertionError(
            f"{what} {list(map(int, i))}: expected {expected[i]!r}, actual {actual[i]!r}, seed {seed}; "
            f"{len(wrong)} of {actual.size} differ"
        )


def activate(x, activation):
    """The kernel's activation: what is under test here is the order of sums."""
    return FunctionF32(activation, x.size).step(np.ascontiguousarray(x).ravel()).reshape(x.shape)


def columns(sums, weights, values):
    for column, value in zip(weights, values, strict=True):
        sums = sums + column * value
    return sums


def normal(rng, *shape, scale=0.7):
    return rng.normal(0, scale, shape).astype(np.float32)


def lstm_tables(rng, m, n, outputs, coupled, peephole):
    gates = 4 - coupled
    p = outputs or n
    tables = [normal(rng, m, gates * n), normal(rng, p, gates * n), normal(rng, gates * n)]
    tables += [normal(rng, n, p) if outputs else None, normal(rng, (gates - 1) * n) if peephole else None]
    return tables


def lstm_bits(tables, coupled, x, h, c, slope=0.0):
    """One step in numpy float32, operation by operation in the kernel's order."""
    w, r, b, projection, peephole = tables
    n = c.size
    gates = np.split(columns(columns(b, w, x), r, h), 4 - coupled)
    p = np.split(peephole, 3 - coupled) if peephole is not None else None

    def gate(a):
        hard = np.clip(np.float32(slope) * a + np.float32(0.5), np.float32(0), np.float32(1))
        return hard if slope else activate(a, "sigmoid")

    i = gates[0] + p[0] * c if p else gates[0]
    f = -i if coupled else gates[1] + p[1] * c if p else gates[1]
    c = gate(f) * c + gate(i) * activate(gates[-2], "tanh")
    o = gates[-1] + p[-1] * c if p else gates[-1]
    h = gate(o) * activate(c, "tanh")
    assert h.size == n
    return (h if projection is None else columns(projection[0] * h[0], projection[1:], h[1:])), c


@pytest.mark.parametrize("slope", [0.0, 1 / 6])
@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize(("m", "n", "outputs"), [(1, 1, 0), (5, 3, 2), (7, 24, 0), (42, 29, 13), (3, 4, 9)])
def test_lstm_bits_are_those_of_sums_in_order(m, n, outputs, coupled, peephole, slope):
    seed = 1000 * m + n
    rng = np.random.default_rng(seed)
    tables = lstm_tables(rng, m, n, outputs, coupled, peephole)
    lstm = LstmF32(*tables, coupled=coupled, gate_slope=slope)
    h, c = normal(rng, outputs or n), normal(rng, n)
    lstm.state, lstm.cell = h, c
    for step in range(4):
        x = normal(rng, m)
        h, c = lstm_bits(tables, coupled, x, h, c, slope)
        assert_bits(f"lstm {m}x{n} {step=}", lstm.step(x), h, seed)
        assert_bits(f"cell {m}x{n} {step=}", lstm.cell, c, seed)
    lstm.reset()
    assert not lstm.state.any() and not lstm.cell.any()


@pytest.mark.parametrize("activation", ["linear", "sigmoid", "tanh", "relu"])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 3), (42, 29)])
def test_rnn_bits_are_those_of_sums_in_order(m, n, activation):
    seed = 1000 * m + n
    rng = np.random.default_rng(seed)
    w, r, b = normal(rng, m, n), normal(rng, n, n, scale=0.7 / np.sqrt(n)), normal(rng, n)
    rnn = RnnF32(w, r, b, activation)
    h = np.zeros(n, np.float32)
    for step in range(4):
        x = normal(rng, m)
        h = activate(columns(columns(b, w, x), r, h), activation)
        assert_bits(f"rnn {m}x{n} {activation} {step=}", rnn.step(x), h, seed)


@pytest.mark.parametrize("kind", ["lstm", "projected", "rnn"])
def test_run_is_steps_and_resumes_anywhere(kind):
    seed = 7
    rng = np.random.default_rng(seed)
    if kind == "rnn":
        tables, make = (normal(rng, 5, 11), normal(rng, 11, 11, scale=0.2), normal(rng, 11)), RnnF32
    else:
        tables, make = lstm_tables(rng, 5, 11, 4 if kind == "projected" else 0, False, True), LstmF32
    layer = make(*tables)
    x = normal(rng, 9, 5)
    whole = layer.run(x)
    assert np.ptp(whole) > 0.1
    layer.reset()
    assert_bits(f"{kind} steps", np.stack([layer.step(frame) for frame in x]), whole, seed)
    for t in range(len(x) + 1):
        layer.reset()
        first = layer.run(x[:t])
        other = make(*tables)
        other.state = layer.state
        if kind != "rnn":
            other.cell = layer.cell
        assert_bits(f"{kind} split at {t}", np.concatenate((first, other.run(x[t:]))), whole, seed)


def taken(size, out, kernel, stride, pad, dilation):
    """Per output of an axis: (index in the kernel, index in the input), padding left out."""
    for y in range(out):
        begin = y * stride - pad
        yield [(k, begin + k * dilation) for k in range(kernel) if 0 <= begin + k * dilation < size]


def conv_bits(weights, bias, x, stride, pads, dilation, groups, outs):
    """x [H, W, C]; weights [K, K, C / groups, N]; operation by operation in the kernel's order."""
    n = bias.size
    rows, cols = (list(taken(x.shape[a], outs[a], weights.shape[a], stride[a], pads[a], dilation[a])) for a in (0, 1))
    out = np.empty((*outs, n), np.float32)
    inputs, outputs = x.shape[2] // groups, n // groups
    for y, z in itertools.product(range(outs[0]), range(outs[1])):
        sums = bias
        for (i, v), (j, w) in itertools.product(rows[y], cols[z]):
            for c in range(inputs):
                spread = np.repeat(x[v, w, c::inputs], outputs)  # channel c of every group, for its outputs
                sums = sums + weights[i, j, c] * spread
        out[y, z] = sums
    return out


geometry = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 4), st.integers(1, 3))


@settings(max_examples=80, deadline=None)
@given(
    axes=st.tuples(geometry, geometry),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    one_axis=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_conv_bits_are_those_of_sums_in_order(axes, sizes, channels, one_axis, seed):
    rng = np.random.default_rng(seed)
    if one_axis:
        axes, sizes = ((1, 1, 0, 1), axes[1]), (1, sizes[1])
    kernel, stride, padding, dilation = zip(*axes, strict=True)
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    sizes = tuple(max(s, e - 2 * p) for s, e, p in zip(sizes, extents, padding, strict=True))
    groups, inputs, outputs = channels
    weights, bias = normal(rng, *kernel, inputs, groups * outputs), normal(rng, groups * outputs)
    x = normal(rng, *sizes, groups * inputs)
    drop = slice(1 if one_axis else 0, None)
    shape = (*sizes[drop], groups * inputs)
    options = (stride[drop], padding[drop], dilation[drop], groups)
    layer = ConvF32(weights[0] if one_axis else weights, bias, shape, *options)
    outs = tuple((s + 2 * p - e) // t + 1 for s, p, e, t in zip(sizes, padding, extents, stride, strict=True))
    assert layer.shape_out == (*outs[drop], groups * outputs)
    expected = conv_bits(weights, bias, x, stride, padding, dilation, groups, outs)
    assert_bits("conv", layer.step(x.reshape(shape)), expected.reshape(layer.shape_out), seed)


def test_causal_same_and_valid_padding():
    rng = np.random.default_rng(3)
    weights, bias, x = normal(rng, 4, 2, 3), normal(rng, 3), normal(rng, 10, 2)
    padded = np.concatenate([np.zeros((6, 2), np.float32), x])
    valid = ConvF32(weights, bias, (16, 2), dilation=2, padding="valid").step(padded)
    assert_bits("causal", ConvF32(weights, bias, (10, 2), padding=[(6, 0)], dilation=2).step(x), valid, 3)
    same = ConvF32(weights, bias, (10, 2), padding="same").step(x)
    around = np.concatenate([np.zeros((1, 2), np.float32), x, np.zeros((2, 2), np.float32)])
    assert_bits("same", same, ConvF32(weights, bias, (13, 2)).step(around), 3)
    far = ConvF32(weights, bias, (10, 2), padding=20, activation="relu").step(x)
    assert_bits("nothing but padding", far[0], np.maximum(bias, 0), 3)
    run = ConvF32(weights, bias, (10, 2), padding="same").run(np.stack([x, x]))
    assert run.shape == (2, 10, 3)
    assert_bits("run", run[1], same, 3)


@pytest.mark.parametrize(("kernel", "dilation", "groups"), [(1, 1, 1), (3, 1, 1), (4, 3, 2), (5, 2, 6)])
def test_a_stream_is_the_causal_window(kernel, dilation, groups):
    rng = np.random.default_rng(kernel)
    weights, bias, x = normal(rng, kernel, 6 // groups, 12), normal(rng, 12), normal(rng, 15, 6)
    span = (kernel - 1) * dilation
    stream = CausalConvF32(weights, bias, dilation, groups)
    padded = np.concatenate([np.zeros((span, 6), np.float32), x])
    expected = ConvF32(weights, bias, padded.shape, dilation=dilation, groups=groups).step(padded)
    assert_bits("stream", stream.run(x), expected, kernel)
    window = ConvF32(weights, bias, x.shape, padding=[(span, 0)], dilation=dilation, groups=groups).step(x)
    np.testing.assert_array_equal(window, expected)  # padding that is skipped, or added as zeros
    stream.reset()
    assert stream.state.shape == (span, 6) and not stream.state.any()
    for t in range(len(x)):
        first = stream.run(x[:t])
        other = CausalConvF32(weights, bias, dilation, groups)
        other.state = stream.state
        assert_bits(f"split at {t}", np.concatenate([first, other.run(x[t:])]), expected, kernel)
        stream.reset()


def pool_bits(kind, x, kernel, stride, padding, dilation, outs, include):
    """x [H, W, C], as `conv_bits`."""
    out = np.empty((*outs, x.shape[2]), np.float32)
    for y, z in itertools.product(range(outs[0]), range(outs[1])):
        rows, cols = (
            list(taken(x.shape[a], outs[a], kernel[a], stride[a], padding[a], dilation[a]))[at]
            for a, at in ((0, y), (1, z))
        )
        elements = [x[v, w] for (_, v), (_, w) in itertools.product(rows, cols)]
        if kind == "max":
            out[y, z] = np.max(elements, axis=0)
            continue
        count = len(elements)
        if include:
            begins = [at * stride[a] - padding[a] for a, at in ((0, y), (1, z))]
            count = np.prod([min(b + kernel[a], x.shape[a] + padding[a]) - b for a, b in enumerate(begins)])
        total = elements[0]
        for element in elements[1:]:
            total = total + element
        out[y, z] = total / np.float32(count)
    return out


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(["max", "average", "average of in"]),
    axes=st.tuples(geometry, geometry),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    ceil_mode=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_pool_bits_are_those_of_sums_in_order(kind, axes, sizes, ceil_mode, seed):
    rng = np.random.default_rng(seed)
    kernel, stride, _, dilation = zip(*axes, strict=True)
    dilation = dilation if kind == "max" else (1, 1)
    padding = tuple(int(rng.integers(k // 2 + 1)) for k in kernel)
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    sizes = tuple(max(s, e) for s, e in zip(sizes, extents, strict=True))
    x = normal(rng, *sizes, 3)
    include = kind == "average"
    layer = PoolF32(kind.split()[0], x.shape, kernel, stride, padding, dilation, ceil_mode, include)
    expected = pool_bits(kind.split()[0], x, kernel, stride, padding, dilation, layer.shape_out[:2], include)
    assert_bits(kind, layer.step(x), expected, seed)


def test_means_over_an_axis():
    x = normal(np.random.default_rng(4), 6, 5, 3)
    total = np.zeros((5, 3), np.float32)
    for row in x:
        total = total + row
    assert_bits("mean over time", PoolF32("average", (6, 5, 3), (6, 1)).step(x)[0], total / np.float32(6), 4)
    assert PoolF32("average", (6, 5, 3), (6, 5)).step(x).shape == (1, 1, 3)
    assert PoolF32("max", (6, 3), 2).step(x[:, 0]).shape == (3, 3)


def f32(*shape, value=0.0):
    return np.full(shape, value, np.float32)


BAD = {
    "lstm, columns": (lambda: LstmF32(f32(2, 12), f32(3, 10), f32(12)), r"shape \[3, 10\], expected \[N, 4 N\]"),
    "lstm, coupled columns": (
        lambda: LstmF32(f32(2, 12), f32(3, 12), f32(12), coupled=True),
        r"shape \[3, 12\], expected \[N, 3 N\]",
    ),
    "lstm, coupled by number": (lambda: LstmF32(f32(2, 12), f32(3, 12), f32(12), coupled=2), "coupled is 2"),
    "lstm, steep gates": (
        lambda: LstmF32(f32(2, 12), f32(3, 12), f32(12), gate_slope=1.5),
        r"layer lstm_f32: gate_slope is 1\.5, expected 0 .*0\.001953125\.\.1\.0",
    ),
    "lstm, input": (lambda: LstmF32(f32(2, 8), f32(3, 12), f32(12)), r"input_weights: shape is \[2, 8\]"),
    "lstm, bias": (lambda: LstmF32(f32(2, 12), f32(3, 12), f32(11)), r"bias: shape is \[11\], expected \[12\]"),
    "lstm, projection": (
        lambda: LstmF32(f32(2, 12), f32(2, 12), f32(12), f32(2, 3)),
        r"projection_weights: shape is \[2, 3\], expected \[3, 2\]",
    ),
    "lstm, peephole": (
        lambda: LstmF32(f32(2, 12), f32(3, 12), f32(12), None, f32(6)),
        r"peephole_weights: shape is \[6\], expected \[9\]",
    ),
    "lstm, too wide": (lambda: LstmF32(f32(1, 8196), f32(2049, 8196), f32(8196)), r"2049 neurons.*capacity 2048"),
    "lstm, no inputs": (lambda: LstmF32(f32(0, 12), f32(3, 12), f32(12)), "0 inputs, 3 neurons, 3 outputs.*below 1"),
    "lstm, cell": (
        lambda: setattr(LstmF32(f32(2, 12), f32(3, 12), f32(12)), "cell", f32(2)),
        r"cell: shape is \[2\], expected \[3\]",
    ),
    "lstm, torch bias": (lambda: LstmF32.from_torch(f32(12, 2), f32(12, 3), f32(8)), r"bias_ih: shape is \[8\]"),
    "rnn, square": (lambda: RnnF32(f32(2, 3), f32(3, 4), f32(3)), r"shape \[3, 4\], expected \[N, N\]"),
    "rnn, activation": (lambda: RnnF32(f32(2, 3), f32(3, 3), f32(3), "gelu"), "'gelu' is none of"),
    "rnn, number": (lambda: RnnF32(f32(2, 3), f32(3, 3), f32(3), 7), r"activation 7\).*linear \(0\)"),
    "conv, axes": (lambda: ConvF32(f32(2, 3), f32(3), (4, 2)), "weights have 2 axes, expected 3 or 4"),
    "conv, channels": (lambda: ConvF32(f32(3, 2, 4), f32(4), (9, 3)), r"3 channels in 1 groups do not fit weights"),
    "conv, groups": (lambda: ConvF32(f32(3, 2, 5), f32(5), (9, 4), groups=2), "4 channels in 2 groups do not fit"),
    "conv, bias": (lambda: ConvF32(f32(3, 2, 5), f32(4), (9, 2)), r"bias: shape is \[4\], expected \[5\]"),
    "conv, too short": (
        lambda: ConvF32(f32(3, 2, 4), f32(4), (4, 2), dilation=2),
        "a kernel of 3, dilation 2, does not fit an axis of 4",
    ),
    "conv, stride": (lambda: ConvF32(f32(3, 2, 4), f32(4), (9, 2), stride=0), "stride 0 .*must be at least 1"),
    "conv, strides": (lambda: ConvF32(f32(3, 2, 4), f32(4), (9, 2), stride=(1, 2)), r"stride is \(1, 2\), expected"),
    "conv, padding": (lambda: ConvF32(f32(3, 2, 4), f32(4), (9, 2), padding=-1), "padding -1, -1 at least 0"),
    "conv, padding by name": (lambda: ConvF32(f32(3, 2, 4), f32(4), (9, 2), padding="full"), "padding is 'full'"),
    "conv, same": (
        lambda: ConvF32(f32(3, 2, 4), f32(4), (9, 2), stride=2, padding="same"),
        "'same' needs a stride of 1",
    ),
    "conv, shape": (
        lambda: ConvF32(f32(3, 2, 4), f32(4), (9, 9, 2)),
        "2 axes beside its channels, the kernel has 1",
    ),
    "conv, NaN": (lambda: ConvF32(f32(3, 2, 4, value=np.nan), f32(4), (9, 2)), r"weights: element \[0, 0, 0\] is nan"),
    "conv, window": (lambda: ConvF32(f32(3, 2, 4), f32(4), (9, 2)).step(f32(8, 2)), r"x: shape is \[8, 2\], expected"),
    "causal, weights": (lambda: CausalConvF32(f32(3, 2), f32(3)), r"weights: shape is \[3, 2\]"),
    "causal, groups": (lambda: CausalConvF32(f32(3, 2, 5), f32(5), 1, 2), "2 groups of 5 outputs"),
    "causal, dilation": (lambda: CausalConvF32(f32(3, 2, 5), f32(5), 0), "dilation 0"),
    "causal, state": (
        lambda: setattr(CausalConvF32(f32(3, 2, 5), f32(5), 2), "state", f32(5, 2)),
        r"state: shape is \[5, 2\], expected \[4, 2\]",
    ),
    "causal, frame": (lambda: CausalConvF32(f32(3, 2, 5), f32(5)).step(f32(3)), r"x: shape is \[3\], expected \[2\]"),
    "pool, kind": (lambda: PoolF32("median", (9, 2), 2), "kind is 'median', expected 'max' or 'average'"),
    "pool, shape": (lambda: PoolF32("max", (9, 9, 9, 2), 2), r"expected \(L, C\) or \(H, W, C\)"),
    "pool, dilated average": (lambda: PoolF32("average", (9, 2), 2, dilation=2), "an average with dilation"),
    "pool, padding": (lambda: PoolF32("max", (9, 2), 2, 1, padding=3), "a kernel would take nothing of the input"),
    "pool, kernel": (lambda: PoolF32("max", (3, 2), 4), "a kernel of 4, dilation 1, does not fit an axis of 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_layers_and_frames_are_refused_by_message(case):
    call, message = BAD[case]
    with pytest.raises(RtcoreError, match=message) as raised:
        call()
    assert str(raised.value).startswith("layer ")


PROBE = r"""
#include <stdio.h>
#include <string.h>
#include "rtcore_f32.h"
/* the codes of the checks; specials through every function; an LSTM and an RNN on poisoned scratch */
int main(void) {
    const float table[16] = {0.5f, -0.25f, 1.0f, 0.75f, -1.5f, 2.0f, 0.1f, 0.2f, 0.3f, -0.4f, 0.5f, 0.6f};
    const rtcore_lstm_f32 lstm[] = {
        {table, table, table, 0, 0, 1, 1, 1, 0, 0}, {table, table, table, 0, 0, 0, 1, 1, 0, 0},
        {table, table, table, 0, 0, 1, 1, 2, 0, 0}, {table, table, table, table, 0, 1, 1, 2, 0, 0},
        {table, table, table, 0, 0, 1, 1, 1, 2, 0}, {table, table, table, 0, 0, 1, 2, 2, 0, 0},
        {table, 0, table, 0, 0, 1, 1, 1, 0, 0.2f}, {table, table, table, 0, 0, 1, 1, 1, 0, -0.2f},
    };
    for (int i = 0; i < 8; i++) {
        printf("%d ", rtcore_lstm_f32_check(&lstm[i], 1));
    }
    const rtcore_rnn_f32 rnn[] = {{table, table, table, 1, 1, 2}, {table, table, table, 1, 0, 2},
                                  {table, table, table, 1, 2, 2}, {table, table, table, 1, 1, 4},
                                  {0, table, table, 1, 1, 2}};
    for (int i = 0; i < 5; i++) {
        printf("%d ", rtcore_rnn_f32_check(&rnn[i], 1));
    }
    printf("\n");
    const rtcore_window_f32 w = {1, 5, 1, 3, 1, 3, 1, 1, 0, 0, 1, 1}, none = {1, 5, 1, 0, 1, 3, 1, 1, 0, 0, 1, 1};
    const rtcore_window_f32 out = {1, 5, 1, 9, 1, 3, 1, 1, 0, 0, 1, 1}, thin = {1, 5, 1, 3, 1, 3, 1, 1, 0, 0, 1, 2};
    const rtcore_conv_f32 conv[] = {{table, table, w, 2, 2, 2, 0}, {table, table, w, 2, 3, 2, 0},
                                    {table, table, none, 2, 2, 2, 0}, {table, table, w, 2, 2, 2, 4},
                                    {table, 0, w, 2, 2, 2, 0}, {table, table, out, 2, 2, 2, 0}};
    for (int i = 0; i < 6; i++) {
        printf("%d ", rtcore_conv_f32_check(&conv[i]));
    }
    const rtcore_pool_f32 pool[] = {{w, 1, 0},    {w, 0, 0},    {w, 1, 3},   {out, 1, 0},
                                    {thin, 1, 0}, {thin, 1, 1}, {none, 1, 2}};
    for (int i = 0; i < 7; i++) {
        printf("%d ", rtcore_pool_f32_check(&pool[i]));
    }
    printf("\n");
    float first[2][2], scratch[4];
    for (int k = 0; k < 2; k++) {
        float cell = 0.25f, state = 0.5f;
        memset(scratch, k ? 0xA5 : 0, sizeof(scratch));
        rtcore_lstm_f32_step(&lstm[0], &cell, &state, table, scratch);
        memset(scratch, k ? 0xA5 : 0, sizeof(scratch));
        rtcore_rnn_f32_step(&rnn[0], &cell, table, scratch);
        first[k][0] = cell;
        first[k][1] = state;
    }
    printf("%d\n", memcmp(first[0], first[1], sizeof(first[0])));
    const float inf = 1e30f * 1e30f, nan = inf - inf;
    const float x[] = {nan, inf, -inf, 3.4e38f, -3.4e38f, 1e-45f, -1e-45f, -0.0f};
    for (int f = 0; f < RTCORE_FUNCTIONS; f++) {
        float y[8];
        rtcore_function_f32(y, x, 8, f, 1.0f, 20.0f, 1.0f);
        for (int i = 0; i < 8; i++) {
            printf("%.9g ", (double)y[i]);
        }
        printf("\n");
    }
    float y[3];
    const float with_nan[] = {1.0f, nan, 2.0f};
    rtcore_softmax_f32(y, with_nan, 3);
    printf("%d %d %d\n", y[0] != y[0], y[1] != y[1], y[2] != y[2]);
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: cc is not on PATH")
def test_checks_scratch_and_specials_under_sanitizers(tmp_path):
    """NaN gives NaN in every function, no conversion leaves its range, the scratch holds nothing between steps."""
    (tmp_path / "probe.c").write_text(PROBE)
    sources = [_build.CSRC / name for name in _build.SOURCES_F32]
    flags = [*_build.WARNINGS, *_build.KERNEL_FLAGS, "-O1", "-g", "-fno-sanitize-recover=all"]
    sanitize = "-fsanitize=address,undefined,float-cast-overflow"
    command = ["cc", *flags, sanitize, f"-I{_build.CSRC}", "probe.c", *sources, "-o", "probe"]
    subprocess.run(command, cwd=tmp_path, check=True)
    output = subprocess.run([tmp_path / "probe"], capture_output=True, text=True, check=True).stdout
    recurrent, windows, scratch, *functions, softmax = output.splitlines()
    assert recurrent.split() == ["0", "-1", "-1", "0", "-1", "-2", "-4", "-5", "0", "-1", "-2", "-3", "-4"]
    assert windows.split() == ["0", "-1", "-1", "-3", "-4", "0", "0", "-1", "-1", "-1", "0", "-1", "-1"]
    assert scratch == "0" and softmax == "1 1 1"
    rows = dict(zip(FUNCTIONS, ([float(v) for v in row.split()] for row in functions), strict=True))
    assert all(np.isnan(row[0]) for row in rows.values()), rows
    for kind, limits in {"exp": (np.inf, 0), "sqrt": (np.inf, np.nan), "erf": (1, -1), "softplus": (np.inf, 0)}.items():
        np.testing.assert_array_equal(rows[kind][1:3], limits)
    assert rows["atan"][1] == -rows["atan"][2] == np.float32(np.pi / 2)
