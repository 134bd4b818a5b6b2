"""DenseF32 and GruF32 against numpy: truth in float64, bits in float32, activations over all exponents, errors.

Neighbours: `rtcore/csrc/rtcore_*_f32.c` (what is tested), `test_lineage.py` (the same kernels under the family's
names), `tests/quantize/test_f32_torch.py` (against torch).
"""

import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtcore import ACTIVATIONS, DenseF32, GruF32, _build
from rtcore.errors import CODES, RtcoreError, check

EPS = 2.0**-24  # half an ulp of 1: the relative error of one rounding
ACTIVATION_ERROR = 3e-7  # relative: what rtcore_math_f32.h promises
NORMAL = 2.0**-126  # least normal float32

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: cc is not on PATH")


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


REFERENCE = {
    "linear": lambda x: x,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
}


def assert_close(layer, actual, expected, bound, seed):
    """|actual - expected| <= bound, element by element."""
    wrong = np.argwhere(~(np.abs(actual - expected) <= bound))
    if len(wrong):
        i = tuple(wrong[0])
        raise AssertionError(
            f"{layer} {list(map(int, i))}: expected {expected[i]:.9g}, actual {actual[i]:.9g}, "
            f"bound {np.broadcast_to(bound, actual.shape)[i]:.3g}, seed {seed}; {len(wrong)} of {actual.size} wrong"
        )


def assert_bits(layer, actual, expected, seed):
    """The same float32 bits, element by element."""
    assert actual.dtype == expected.dtype == np.float32 and actual.shape == expected.shape
    wrong = np.argwhere(actual.view(np.uint32) != expected.view(np.uint32))
    if len(wrong):
        i = tuple(wrong[0])
        raise AssertionError(
            f"{layer} {list(map(int, i))}: expected {expected[i]!r}, actual {actual[i]!r}, seed {seed}; "
            f"{len(wrong)} of {actual.size} differ"
        )


def make_dense(rng, m, n, activation):
    w = rng.normal(0, 1.5 / np.sqrt(m), (m, n)).astype(np.float32)
    b = rng.normal(0, 0.5, n).astype(np.float32)
    return w, b, DenseF32(w, b, activation)


def make_gru(rng, m, n, activation, reset_after, slope=0.0):
    w = rng.normal(0, 1.5 / np.sqrt(m), (m, 3 * n)).astype(np.float32)
    r = rng.normal(0, 1.5 / np.sqrt(n), (n, 3 * n)).astype(np.float32)
    b = rng.normal(0, 0.5, (6 if reset_after else 3) * n).astype(np.float32)
    return w, r, b, GruF32(w, r, b, activation, reset_after, gate_slope=slope)


def activate(x, activation):
    """The kernel's activation of float32 x: a layer of weight 1, which adds nothing and rounds nothing."""
    x = np.asarray(x, np.float32)
    layer = DenseF32(np.ones((1, 1), np.float32), np.zeros(1, np.float32), activation)
    return layer.run(x.reshape(-1, 1)).reshape(x.shape)


def gru_step_with_bound(w, r, b, activation, reset_after, x, h):
    """One step in float64 and how far float32 may be from it: the rounding of every sum (its terms and the sum of their
    magnitudes), the promised error of every activation, and what the gates' errors do downstream (sigmoid's slope is at
    most 1/4, the other activations' at most 1)."""
    m, n = w.shape[0], r.shape[0]
    w, r, b, x, h = (a.astype(np.float64) for a in (w, r, b, x, h))
    zr, cand = slice(0, 2 * n), slice(2 * n, 3 * n)
    rounding = (m + n + 4) * EPS
    c = b[3 * n :] if reset_after else np.zeros(3 * n)

    pre = b[: 3 * n][zr] + c[zr] + x @ w[:, zr] + h @ r[:, zr]
    size = np.abs(b[: 3 * n][zr]) + np.abs(c[zr]) + np.abs(x) @ np.abs(w[:, zr]) + np.abs(h) @ np.abs(r[:, zr])
    gates = sigmoid(pre)
    gates_error = rounding * size / 4 + ACTIVATION_ERROR * gates
    (z, reset), (z_error, reset_error) = np.split(gates, 2), np.split(gates_error, 2)

    pre = b[: 3 * n][cand] + x @ w[:, cand]
    size = np.abs(b[: 3 * n][cand]) + np.abs(x) @ np.abs(w[:, cand])
    if reset_after:
        inner = c[cand] + h @ r[:, cand]
        inner_size = np.abs(c[cand]) + np.abs(h) @ np.abs(r[:, cand])
        pre = pre + reset * inner
        pre_error = rounding * (size + inner_size) + np.abs(inner) * reset_error
    else:
        pre = pre + (reset * h) @ r[:, cand]
        pre_error = rounding * (size + np.abs(h) @ np.abs(r[:, cand])) + (np.abs(h) * reset_error) @ np.abs(r[:, cand])
    candidate = REFERENCE[activation](pre)
    candidate_error = pre_error + ACTIVATION_ERROR * np.abs(candidate)

    expected = z * h + (1 - z) * candidate
    bound = (np.abs(h) + np.abs(candidate)) * (z_error + 4 * EPS) + candidate_error
    return expected, bound * 1.01  # products of two errors


def gru_step_bits(w, r, b, activation, reset_after, x, h, slope=0.0):
    """One step in numpy float32, operation by operation in the kernel's order."""
    n = r.shape[0]

    def columns(sums, weights, values):
        for column, value in zip(weights, values, strict=True):
            sums = sums + column * value
        return sums

    gates = b[: 2 * n] + b[3 * n : 5 * n] if reset_after else b[: 2 * n]
    gates = columns(columns(gates, w[:, : 2 * n], x), r[:, : 2 * n], h)
    hard = np.clip(np.float32(slope) * gates + np.float32(0.5), np.float32(0), np.float32(1))
    z, reset = np.split(hard if slope else activate(gates, "sigmoid"), 2)
    if reset_after:
        inner = columns(b[5 * n :], r[:, 2 * n :], h)
        pre = columns(b[2 * n : 3 * n] + inner * reset, w[:, 2 * n :], x)
    else:
        pre = columns(columns(b[2 * n :], w[:, 2 * n :], x), r[:, 2 * n :], h * reset)
    candidate = activate(pre, activation)
    return z * h + (np.float32(1) - z) * candidate


widths = st.integers(1, 200)
seeds = st.integers(0, 2**32 - 1)
activations = st.sampled_from(sorted(ACTIVATIONS))


@settings(max_examples=60, deadline=None)
@given(m=widths, n=widths, activation=activations, seed=seeds)
def test_dense_is_near_float64(m, n, activation, seed):
    rng = np.random.default_rng(seed)
    w, b, layer = make_dense(rng, m, n, activation)
    x = rng.normal(0, 2, (3, m)).astype(np.float32)
    expected = REFERENCE[activation](b + x.astype(np.float64) @ w)
    # m products and m sums are rounded; every activation's slope is at most 1
    bound = (m + 2) * EPS * (np.abs(b) + np.abs(x).astype(np.float64) @ np.abs(w)) + ACTIVATION_ERROR * np.abs(expected)
    assert_close(f"dense {m}x{n} {activation}", layer.run(x), expected, bound, seed)


@settings(max_examples=60, deadline=None)
@given(m=widths, n=widths, activation=activations, reset_after=st.integers(0, 1), seed=seeds)
def test_gru_step_is_near_float64(m, n, activation, reset_after, seed):
    rng = np.random.default_rng(seed)
    w, r, b, gru = make_gru(rng, m, n, activation, reset_after)
    h = rng.uniform(-1, 1, n).astype(np.float32)
    for step in range(3):
        x = rng.normal(0, 2, m).astype(np.float32)
        gru.state = h
        actual = gru.step(x)
        expected, bound = gru_step_with_bound(w, r, b, activation, reset_after, x, h)
        assert_close(f"gru {m}x{n} {activation} {reset_after=} {step=}", actual, expected, bound, seed)
        h = actual


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 23, 24, 31, 97])
def test_dense_bits_are_those_of_sums_in_order(n):
    rng = np.random.default_rng(n)
    w, b, layer = make_dense(rng, 29, n, "linear")
    x = rng.normal(0, 2, 29).astype(np.float32)
    sums = b
    for column, value in zip(w, x, strict=True):
        sums = sums + column * value
    assert_bits(f"dense 29x{n}", layer.step(x), sums, n)


@pytest.mark.parametrize("slope", [0.0, 1 / 6, 0.2])
@pytest.mark.parametrize("reset_after", [0, 1])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 3), (7, 24), (42, 29)])
def test_gru_bits_are_those_of_sums_in_order(m, n, activation, reset_after, slope):
    seed = 1000 * m + n
    rng = np.random.default_rng(seed)
    w, r, b, gru = make_gru(rng, m, n, activation, reset_after, slope)
    h = np.zeros(n, np.float32)
    for step in range(4):
        x = rng.normal(0, 1, m).astype(np.float32)
        h = gru_step_bits(w, r, b, activation, reset_after, x, h, slope)
        assert_bits(f"gru {m}x{n} {activation} {reset_after=} {step=}", gru.step(x), h, seed)


def every_exponent():
    """Every sign and exponent with 257 mantissas; dense where the curves bend and around the kernels' thresholds."""
    exponents = np.arange(255, dtype=np.uint32) << 23
    mantissas = np.minimum(np.arange(257, dtype=np.uint32) << 15, 2**23 - 1)
    spread = (exponents[:, None] | mantissas).ravel().view(np.float32)
    bend = np.linspace(0, 20, 400_001, dtype=np.float32)
    around = np.float32([0.625, 10, 87.33655, 88.72284, 103.972084, 104]).view(np.uint32)
    thresholds = (around[:, None] + np.arange(-2000, 2000)).astype(np.uint32).ravel().view(np.float32)
    deep = np.linspace(80, 105, 100_001, dtype=np.float32)
    x = np.concatenate((spread, bend, thresholds, deep))
    return np.concatenate((x, -x))


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_activation_accuracy_over_all_exponents(activation):
    x = every_exponent()
    actual = activate(x, activation).astype(np.float64)
    expected = REFERENCE[activation](x.astype(np.float64))
    assert np.ptp(np.log2(np.abs(x[x != 0]).astype(np.float64))) > 260  # the inputs do spread
    normal = np.abs(expected) >= NORMAL
    error = np.abs(actual - expected)[normal] / np.abs(expected)[normal]
    worst = int(error.argmax())
    print(f"{activation}: worst relative error {error[worst]:.3g} at {x[normal][worst]!r}")
    assert_close(activation, actual[normal], expected[normal], ACTIVATION_ERROR * np.abs(expected[normal]), "none")
    # below the normal range the spacing is 2^-149: one rounding of an accurate value is less than one of it away
    assert_close(f"{activation}, subnormal", actual[~normal], expected[~normal], 2.0**-149, "none")
    assert np.abs(actual).max() <= 1


def test_activations_at_the_ends():
    huge = np.finfo(np.float32).max
    x = np.float32([0, 1e30, -1e30, huge, -huge, 1e-40, -1e-40])
    assert activate(x, "tanh").tolist() == [0, 1, -1, 1, -1, np.float32(1e-40), np.float32(-1e-40)]
    assert activate(x, "sigmoid").tolist() == [0.5, 1, 0, 1, 0, 0.5, 0.5]
    assert activate(x, "relu").tolist() == [0, np.float32(1e30), 0, huge, 0, np.float32(1e-40), 0]
    assert_bits("linear", activate(x, "linear"), x, "none")


PROBE = r"""
#include <stdio.h>
#include <string.h>
#include "rtcore.h"
#include "rtcore_math_f32.h"
/* specials through every activation and exp; a GRU on poisoned scratch; the codes of the checks */
int main(void) {
    const float inf = 1e30f * 1e30f, nan = inf - inf;
    const float x[] = {0.0f, -0.0f, inf, -inf, nan, -nan, 3.4e38f, -3.4e38f, 1e-45f, 88.8f, 89.5f, -103.9f, -104.1f};
    const float table[6] = {0.5f, -0.25f, 1.0f, 0.75f, -1.5f, 2.0f};
    enum { N = sizeof(x) / sizeof(x[0]) };
    for (int activation = 0; activation < 4; activation++) {
        float y[N];
        rtcore_activation_f32(y, x, N, activation);
        for (int i = 0; i < N; i++) {
            printf("%.9g ", (double)y[i]);
        }
        printf("\n");
    }
    for (int i = 0; i < N; i++) {
        printf("%.9g ", (double)rtcore_exp_f32(x[i]));
    }
    printf("\n");
    for (int reset_after = 0; reset_after < 2; reset_after++) {
        const rtcore_gru_f32 gru = {table, table, table, 1, 1, RTCORE_ACTIVATION_TANH, reset_after};
        float scratch[3], first[1] = {0.5f}, second[1] = {0.5f};
        memset(scratch, 0xA5, sizeof(scratch));
        rtcore_gru_f32_step(&gru, first, table, scratch);
        memset(scratch, 0, sizeof(scratch));
        rtcore_gru_f32_step(&gru, second, table, scratch);
        printf("%d ", memcmp(first, second, sizeof(first)) == 0);
    }
    printf("\n");
    const rtcore_dense_f32 dense[] = {{table, table, 1, 1, 3}, {table, table, 0, 1, 3}, {table, table, 1, 0, 3},
                                      {table, table, 1, 1, 4}, {table, table, 1, 1, -1}, {0, table, 1, 1, 3},
                                      {table, 0, 1, 1, 3}};
    const rtcore_gru_f32 gru[] = {{table, table, table, 1, 1, 0, 1}, {table, table, table, 0, 1, 0, 1},
                                  {table, table, table, 1, 0, 0, 1}, {table, table, table, 1, 2, 0, 1},
                                  {table, table, table, 1, 1, 4, 1}, {0, table, table, 1, 1, 0, 1},
                                  {table, 0, table, 1, 1, 0, 1}, {table, table, 0, 1, 1, 0, 1}};
    for (int i = 0; i < 7; i++) {
        printf("%d ", rtcore_dense_f32_check(&dense[i]));
    }
    printf("\n");
    for (int i = 0; i < 8; i++) {
        printf("%d ", rtcore_gru_f32_check(&gru[i], 1));
    }
    printf("\n");
    return 0;
}
"""


@needs_cc
def test_specials_scratch_and_checks_under_sanitizers(tmp_path):
    """NaN gives NaN, infinities their limits, no conversion out of range; the scratch holds nothing between steps."""
    (tmp_path / "probe.c").write_text(PROBE)
    sources = [_build.CSRC / name for name in _build.SOURCES_F32]
    flags = [*_build.WARNINGS, *_build.KERNEL_FLAGS, "-O1", "-g", "-fno-sanitize-recover=all"]
    sanitize = "-fsanitize=address,undefined,float-cast-overflow"
    command = ["cc", *flags, sanitize, f"-I{_build.CSRC}", "probe.c", *sources, "-o", "probe"]
    subprocess.run(command, cwd=tmp_path, check=True)
    output = subprocess.run([tmp_path / "probe"], capture_output=True, text=True, check=True).stdout
    rows = [[float(v) for v in line.split()] for line in output.splitlines()]
    inf, nan, big, tiny = float("inf"), float("nan"), float("3.39999995e+38"), float("1.40129846e-45")
    linear, logistic, tangent, relu, exp, scratch, dense, gru = rows
    expected = [0, 0, inf, -inf, nan, nan, big, -big, tiny]
    np.testing.assert_array_equal(linear[:9], expected)
    np.testing.assert_array_equal(relu[:9], [0, 0, inf, 0, nan, nan, big, 0, tiny])
    np.testing.assert_array_equal(tangent, [0, 0, 1, -1, nan, nan, 1, -1, tiny, 1, 1, -1, -1])
    np.testing.assert_array_equal(logistic, [0.5, 0.5, 1, 0, nan, nan, 1, 0, 0.5, 1, 1, tiny, 0])
    np.testing.assert_array_equal(exp, [1, 1, inf, 0, nan, nan, inf, 0, 1, inf, inf, tiny, 0])
    assert scratch == [1, 1]
    assert dense == [0, -1, -1, -3, -3, -4, -4]
    assert gru == [0, -1, -1, -2, -3, -4, -4, -4]


@pytest.mark.parametrize("reset_after", [0, 1])
def test_run_is_steps_and_resumes_anywhere(reset_after):
    seed = 7
    rng = np.random.default_rng(seed)
    *tables, gru = make_gru(rng, 5, 11, "tanh", reset_after)
    x = rng.normal(0, 1, (9, 5)).astype(np.float32)
    whole = gru.run(x)
    assert np.ptp(whole) > 0.1
    gru.reset()
    assert not gru.state.any()
    assert_bits("gru steps", np.stack([gru.step(frame) for frame in x]), whole, seed)
    for t in range(len(x) + 1):
        gru.reset()
        first = gru.run(x[:t])
        other = GruF32(*tables, "tanh", reset_after)
        other.state = gru.state
        assert_bits(f"gru split at {t}", np.concatenate((first, other.run(x[t:]))), whole, seed)
        assert_bits("gru state", other.state, whole[-1], seed)


def test_dense_run_is_steps():
    rng = np.random.default_rng(3)
    _, _, layer = make_dense(rng, 13, 10, "sigmoid")
    x = rng.normal(0, 1, (6, 13)).astype(np.float32)
    assert_bits("dense", np.stack([layer.step(frame) for frame in x]), layer.run(x), 3)
    assert layer.run(x[:0]).shape == (0, 10)
    assert_bits("dense, strided frames", layer.run(np.asfortranarray(x)), layer.run(x), 3)


def test_from_torch_orders_the_gates():
    """torch: rows r, z, n of [3N, M]; the lineage: columns z, r, h of [M][3N]."""
    m, n, seed = 4, 3, 11
    rng = np.random.default_rng(seed)
    w, r, b, lineage = make_gru(rng, m, n, "tanh", 1)
    rzn = np.r_[n : 2 * n, :n, 2 * n : 3 * n]
    x = rng.normal(0, 1, (5, m)).astype(np.float32)
    gru = GruF32.from_torch(w.T[rzn], r.T[rzn], b[: 3 * n][rzn], b[3 * n :][rzn])
    assert_bits("gru", gru.run(x), lineage.run(x), seed)

    before = GruF32.from_torch(w.T[rzn], r.T[rzn], b[: 3 * n][rzn], b[3 * n :][rzn], reset_after=0)
    summed = (b[: 3 * n].astype(np.float64) + b[3 * n :]).astype(np.float32)
    assert_bits("gru, reset before", before.run(x), GruF32(w, r, summed, "tanh", 0).run(x), seed)

    unbiased = GruF32.from_torch(w.T[rzn], r.T[rzn])
    assert_bits("gru, no bias", unbiased.run(x), GruF32(w, r, np.zeros(6 * n, np.float32)).run(x), seed)

    weights, bias, dense = make_dense(rng, m, n, "relu")
    assert_bits("dense", DenseF32.from_torch(weights.T, bias, "relu").run(x), dense.run(x), seed)


def test_tables_are_copied():
    w, b = np.ones((2, 1), np.float32), np.zeros(1, np.float32)
    layer = DenseF32(w, b)
    w[:] = np.nan
    assert layer.step(np.ones(2, np.float32)).tolist() == [2.0]


def f32(*shape, value=0.0):
    return np.full(shape, value, np.float32)


BAD = {
    "dense, NaN": (
        lambda: DenseF32(f32(2, 3, value=np.nan), f32(3), name="fc"),
        r"layer fc: input_weights.*\[0, 0\] is nan",
    ),
    "dense, too big for float32": (lambda: DenseF32(np.full((2, 3), 1e39), f32(3)), r"\[0, 0\] is 1e\+39"),
    "dense, infinite bias": (lambda: DenseF32(f32(2, 3), f32(3, value=np.inf)), r"bias: element \[0\] is inf"),
    "dense, bias length": (lambda: DenseF32(f32(2, 3), f32(4)), r"bias: shape is \[4\], expected \[3\]"),
    "dense, weights of one axis": (lambda: DenseF32(f32(3), f32(3)), r"shape is \[3\], expected \[any, any\]"),
    "dense, int8 weights": (lambda: DenseF32(np.ones((2, 3), np.int8), f32(3)), "dtype is int8, expected float32"),
    "dense, no inputs": (lambda: DenseF32(f32(0, 3), f32(3)), r"0 inputs, 3 neurons.*below 1"),
    "dense, too wide": (
        lambda: DenseF32(f32(1, 2049), f32(2049), name="fc"),
        r"fc \(1 inputs, 2049 neurons.*capacity 2048",
    ),
    "dense, name": (lambda: DenseF32(f32(2, 3), f32(3), "softmax"), "'softmax' is none of linear, sigmoid, tanh, relu"),
    "dense, number": (lambda: DenseF32(f32(2, 3), f32(3), 4), r"activation 4\).*linear \(0\)"),
    "dense, frame": (lambda: DenseF32(f32(2, 3), f32(3)).step(f32(3)), r"x: shape is \[3\], expected \[2\]"),
    "dense, NaN frame": (
        lambda: DenseF32(f32(2, 3), f32(3)).run(f32(4, 2, value=np.nan)),
        r"x: element \[0, 0\] is nan",
    ),
    "gru, rows": (lambda: GruF32(f32(2, 9), f32(3, 8), f32(18)), r"shape \[3, 8\], expected \[N, 3 N\]"),
    "gru, input rows": (lambda: GruF32(f32(2, 8), f32(3, 9), f32(18)), r"input_weights: shape is \[2, 8\]"),
    "gru, bias before": (
        lambda: GruF32(f32(2, 9), f32(3, 9), f32(18), reset_after=0),
        r"shape is \[18\], expected \[9\]",
    ),
    "gru, bias after": (lambda: GruF32(f32(2, 9), f32(3, 9), f32(9)), r"shape is \[9\], expected \[18\]"),
    "gru, reset": (lambda: GruF32(f32(2, 9), f32(3, 9), f32(18), reset_after=2), "reset_after is 2, expected 0 or 1"),
    "gru, too wide": (
        lambda: GruF32(f32(1, 6147), f32(2049, 6147), f32(12294)),
        r"2049 neurons.*capacity 2048.*RTCORE_MAX",
    ),
    "gru, NaN": (lambda: GruF32(f32(2, 9), f32(3, 9, value=np.nan), f32(18)), r"recurrent_weights: element \[0, 0\]"),
    "gru, state": (lambda: setattr(GruF32(f32(2, 9), f32(3, 9), f32(18)), "state", f32(2)), r"state: shape is \[2\]"),
    "gru, torch rows": (lambda: GruF32.from_torch(f32(8, 2), f32(8, 3)), r"weight_ih has 8 rows, expected 3 N"),
    "gru, torch bias": (lambda: GruF32.from_torch(f32(9, 2), f32(9, 3), f32(8)), r"bias_ih: shape is \[8\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_layers_and_frames_are_refused_by_message(case):
    call, message = BAD[case]
    with pytest.raises(RtcoreError, match=message) as raised:
        call()
    assert str(raised.value).startswith("layer ") and isinstance(raised.value, ValueError)


def test_every_code_of_the_header_has_its_message():
    header = (_build.CSRC / "rtcore.h").read_text()
    codes = {int(value): name for name, value in re.findall(r"#define RTCORE_E_(\w+) \((-\d+)\)", header)}
    assert codes == {code: name for code, (name, _) in CODES.items()}
    assert check(0, "layer a") is None
    for code in codes:
        with pytest.raises(RtcoreError, match="layer a: "):
            check(code, "layer a")
    with pytest.raises(RtcoreError, match="layer a: nb_neurons is above the capacity 7; "):
        check(-2, "layer a", 7)
    with pytest.raises(RtcoreError, match="unknown code -99"):
        check(-99, "layer a")
