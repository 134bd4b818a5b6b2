"""Float bits agree: LSTM, RNN, convolution, pooling, normalizations and every function on emulated cores, without and
with a floating-point unit, are those of the float32 classes here.

Neighbours: `test_f32_mcu.py` (Dense and GRU; builds and compares), `rtcore/csrc/rtcore_f32.h`,
`tests/rtcore/test_layers_f32.py` (the host's bits against numpy), `tests/rtcore/test_functions_f32.py`.
"""

import numpy as np
import pytest
from rtcore.function_f32 import CONSTANTS, FUNCTIONS
from test_f32_mcu import CASES, assert_same_bits, c_array

from rtcore import CausalConvF32, ConvF32, FunctionF32, LstmF32, NormalizeF32, PoolF32, RnnF32

SEED = 6
FRAMES, INPUTS, UNITS, OUTPUTS = 5, 7, 13, 6
HEIGHT, WIDTH, CHANNELS, FILTERS = 7, 6, 4, 10

DRIVER = """
#include <stddef.h>
#include "rtcore_f32.h"
{tables}
enum {{ T = {frames}, M = {inputs}, N = {units}, P = {outputs}, C = {channels}, K = {filters}, X = {sweep} }};
float plain[T * N], plain_cells[T * N], formed[T * P], formed_cells[T * N], simple[T * N];
float convolved[4 * 3 * K], line[6 * K], streamed[6 * K], most[4 * 3 * C], mean[4 * 3 * C], mean_of_in[4 * 3 * C];
float soft[N], log_soft[N], normed[N], scaled[N], bent[N], clipped[N], functions[{functions} * X];
void run(void);
void run(void) {{
    static float cell[N], state[N], other_cell[N], other[P], rnn_state[N], scratch[4 * N];
    const rtcore_lstm_f32 lstm = {{a_b, a_w, a_r, NULL, NULL, M, N, N, 0, 0.0f}};
    const rtcore_lstm_f32 form = {{b_b, b_w, b_r, b_p, b_peep, M, N, P, 1, 0.2f}};
    const rtcore_rnn_f32 rnn = {{r_b, r_w, r_r, M, N, RTCORE_ACTIVATION_TANH}};
    for (int t = 0; t < T; t++) {{
        rtcore_lstm_f32_step(&lstm, cell, state, frames + t * M, scratch);
        rtcore_lstm_f32_step(&form, other_cell, other, frames + t * M, scratch);
        rtcore_rnn_f32_step(&rnn, rnn_state, frames + t * M, scratch);
        for (int i = 0; i < N; i++) {{
            plain[t * N + i] = state[i];
            plain_cells[t * N + i] = cell[i];
            formed_cells[t * N + i] = other_cell[i];
            simple[t * N + i] = rnn_state[i];
        }}
        for (int i = 0; i < P; i++) {{
            formed[t * P + i] = other[i];
        }}
    }}
    const rtcore_window_f32 plane = {{{height}, {width}, 4, 3, 3, 2, 2, 2, 1, 0, 1, 1}};
    const rtcore_window_f32 axis = {{1, {width}, 1, 6, 1, 3, 1, 1, 0, 4, 1, 2}};
    const rtcore_conv_f32 conv = {{k_b, k_w, plane, C, K, 2, RTCORE_ACTIVATION_RELU}};
    const rtcore_conv_f32 causal = {{k_b, l_w, axis, C, K, 1, RTCORE_ACTIVATION_LINEAR}};
    const rtcore_pool_f32 largest = {{plane, C, RTCORE_POOL_MAX}};
    const rtcore_pool_f32 average = {{plane, C, RTCORE_POOL_AVERAGE}}, inner = {{plane, C, RTCORE_POOL_AVERAGE_OF_IN}};
    rtcore_conv_f32_step(&conv, convolved, window);
    rtcore_conv_f32_step(&causal, line, window);
    static float history[5 * C];
    const rtcore_window_f32 span = {{1, 5, 1, 1, 1, 3, 1, 1, 0, 0, 1, 2}};
    const rtcore_conv_f32 stream = {{k_b, l_w, span, C, K, 1, RTCORE_ACTIVATION_TANH}};
    for (int t = 0; t < 6; t++) {{
        rtcore_conv_f32_stream(&stream, history, streamed + t * K, window + t * C);
    }}
    rtcore_pool_f32_step(&largest, most, window);
    rtcore_pool_f32_step(&average, mean, window);
    rtcore_pool_f32_step(&inner, mean_of_in, window);
    rtcore_softmax_f32(soft, r_b, N);
    rtcore_log_softmax_f32(log_soft, r_b, N);
    rtcore_layernorm_f32(normed, r_b, n_w, n_b, N, 1e-5f);
    rtcore_affine_f32(scaled, r_b, n_w, n_b, N);
    rtcore_prelu_f32(bent, r_b, n_w, 1, N);
    rtcore_clamp_f32(clipped, r_b, N, -0.25f, 0.5f);
    for (int f = 0; f < RTCORE_FUNCTIONS; f++) {{
        const float *const c = constants + 3 * f;
        rtcore_function_f32(functions + f * X, sweep, X, f, c[0], c[1], c[2]);
    }}
}}
"""


def inputs():
    """Named float32 tables, frames, a window and the functions' sweep."""
    rng = np.random.default_rng(SEED)

    def normal(*shape):
        return rng.normal(0, 0.7, shape).astype(np.float32)

    m, n, p = INPUTS, UNITS, OUTPUTS
    t = {"a_w": normal(m, 4 * n), "a_r": normal(n, 4 * n), "a_b": normal(4 * n)}
    t |= {"b_w": normal(m, 3 * n), "b_r": normal(p, 3 * n), "b_b": normal(3 * n)}
    t |= {"b_p": normal(n, p), "b_peep": normal(2 * n)}
    t |= {"r_w": normal(m, n), "r_r": normal(n, n), "r_b": normal(n), "n_w": normal(n), "n_b": normal(n)}
    t |= {"k_w": normal(3, 2, CHANNELS // 2, FILTERS), "l_w": normal(3, CHANNELS, FILTERS), "k_b": normal(FILTERS)}
    exponents = np.float32(1.37) * np.exp2(np.arange(-149, 127, 9, dtype=np.float64)).astype(np.float32)
    seams = np.float32([0, 0.29, 0.3466, 0.41, 0.4143, 0.9374, 0.9376, 1.326, 2.4143, 11.01, 87.34, 100, 5999, 6001])
    sweep = np.concatenate((exponents, seams, np.linspace(0.01, 15, 60, dtype=np.float32)))
    constants = np.zeros((len(FUNCTIONS), 3), np.float32)
    for k, kind in enumerate(FUNCTIONS):
        values = list(CONSTANTS.get(kind, {}).values())
        constants[k, : len(values)] = values
    t |= {"frames": normal(FRAMES, m), "window": normal(HEIGHT, WIDTH, CHANNELS), "constants": constants}
    return t | {"sweep": np.concatenate((sweep, -sweep))}


def traced(layer, frames):
    steps = [(layer.step(frame), layer.cell) for frame in frames]
    return (np.stack(rows) for rows in zip(*steps, strict=True))


def on_host(t):
    plain, plain_cells = traced(LstmF32(t["a_w"], t["a_r"], t["a_b"]), t["frames"])
    form = LstmF32(t["b_w"], t["b_r"], t["b_b"], t["b_p"], t["b_peep"], coupled=True, gate_slope=0.2)
    formed, formed_cells = traced(form, t["frames"])
    window, shape = t["window"], t["window"].shape
    geometry = dict(stride=2, padding=(1, 0))
    conv = ConvF32(t["k_w"], t["k_b"], shape, **geometry, groups=2, activation="relu")
    causal = ConvF32(t["l_w"], t["k_b"], shape[1:], padding=[(4, 0)], dilation=2)
    pools = [
        PoolF32(kind, shape, (3, 2), **geometry, count_include_pad=include)
        for kind, include in (("max", True), ("average", True), ("average", False))
    ]
    x, n = t["r_b"], UNITS
    functions = [FunctionF32(kind, t["sweep"].size).step(t["sweep"]) for kind in FUNCTIONS]
    return {
        "plain": plain,
        "plain_cells": plain_cells,
        "formed": formed,
        "formed_cells": formed_cells,
        "simple": RnnF32(t["r_w"], t["r_r"], x).run(t["frames"]),
        "convolved": conv.step(window),
        "line": causal.step(window[0]),
        "streamed": CausalConvF32(t["l_w"], t["k_b"], 2, activation="tanh").run(window[0]),
        **{name: pool.step(window) for name, pool in zip(("most", "mean", "mean_of_in"), pools, strict=True)},
        "soft": NormalizeF32("softmax", n).step(x),
        "log_soft": NormalizeF32("log_softmax", n).step(x),
        "normed": NormalizeF32("layernorm", n, t["n_w"], t["n_b"]).step(x),
        "scaled": FunctionF32("affine", n, scale=t["n_w"], offset=t["n_b"]).step(x),
        "bent": FunctionF32("prelu", n, slope=t["n_w"]).step(x),
        "clipped": FunctionF32("clamp", n, low=-0.25, high=0.5).step(x),
        "functions": np.stack(functions),
    }


@pytest.mark.parametrize("case", CASES)
def test_bits_agree_with_the_host(tmp_path, case):
    t = inputs()
    driver = DRIVER.format(
        tables="".join(c_array(name, values) for name, values in t.items()),
        frames=FRAMES,
        inputs=INPUTS,
        units=UNITS,
        outputs=OUTPUTS,
        channels=CHANNELS,
        filters=FILTERS,
        height=HEIGHT,
        width=WIDTH,
        sweep=t["sweep"].size,
        functions=len(FUNCTIONS),
    )
    assert_same_bits(tmp_path, driver, case, on_host(t))
