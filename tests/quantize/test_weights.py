"""Rounding weights: the overflow proof driven to its bound, scales, lossless int8, and what cannot be carried."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import oracle
from bits import assert_equal_bits
from quantize.errors import PlanError
from quantize.weights import finest_target, lossless_shift, peephole_arrays, quantize_matrix
from rtcore import DenseI16, Layer


def layer_of(m):
    rows, columns = m.weights.shape
    ints = dict(nb_inputs=columns, nb_neurons=rows, activation=0, acc_bits=m.proof.acc_bits)
    return Layer("dense_i16", "fc", ("x",), "y", ints, dict(weights=m.weights, bias=m.bias, mult=m.mult, shift=m.shift))


def random_matrix(rng, bits, acc_bits=None):
    rows, columns = rng.integers(1, 24, 2)
    w = rng.standard_normal((rows, columns)) * 2.0 ** rng.integers(-6, 3)
    if rng.integers(4) == 0:
        w[rng.integers(rows)] *= 1e-4  # a small row beside an ordinary bias: its bias is huge in its own scale
    b = rng.standard_normal(rows) * 2.0 ** rng.integers(-4, 4)
    x_frac = int(rng.integers(6, 16))
    target = min(int(rng.integers(8, 23)), finest_target(w, x_frac, bits))
    return w, b, x_frac, target, quantize_matrix(w, b, x_frac, target, bits, acc_bits, "test")


@given(seed=st.integers(0, 2**32 - 1), bits=st.sampled_from([8, 16]))
@settings(max_examples=150)
def test_worst_inputs_reach_the_proven_bound_and_never_cross_it(seed, bits):
    """The kernel's own accumulators, on the inputs that maximise and minimise each row."""
    rng = np.random.default_rng(seed)
    *_, m = random_matrix(rng, bits)
    arrays = [a.tolist() for a in (m.weights, m.bias, m.mult, m.shift)]
    bounds = oracle.worst_sums(*arrays)
    assert (m.proof.low, m.proof.high) == (min(low for low, _ in bounds), max(high for _, high in bounds))
    limit = 2**31 - 1
    assert m.proof.wide_rows == sum(max(high, -low) > limit for low, high in bounds)
    assert m.proof.acc_bits == (32 if m.proof.wide_rows == 0 else 64)
    dense = DenseI16(layer_of(m))
    plain = bool((m.mult == 1).all())
    for r, (low, high) in enumerate(bounds):
        half = (1 << (int(m.shift[r]) - 1)) if plain and m.shift[r] else 0
        start = int(m.bias[r]) + half
        top = dense.sums(np.where(m.weights[r] > 0, 32767, -32768).astype(np.int16))[r]
        bottom = dense.sums(np.where(m.weights[r] > 0, -32768, 32767).astype(np.int16))[r]
        assert top == high - max(start, 0) + start, f"row {r}, seed {seed}"
        assert bottom == low - min(start, 0) + start, f"row {r}, seed {seed}"
        assert low <= bottom <= top <= high
        for x in rng.integers(-32768, 32768, (4, m.weights.shape[1])).astype(np.int16):
            assert low <= dense.sums(x)[r] <= high
    for x in rng.integers(-32768, 32768, (4, m.weights.shape[1])).astype(np.int16):
        assert_equal_bits(oracle.dense(dense.table, x.tolist()), dense.step(x), "dense", seed)


@given(seed=st.integers(0, 2**32 - 1), bits=st.sampled_from([8, 16]))
@example(seed=9166, bits=8)
@settings(max_examples=100)
def test_integers_are_the_nearest_at_the_rows_scale(seed, bits):
    rng = np.random.default_rng(seed)
    w, b, x_frac, target, m = random_matrix(rng, bits)
    weights, biases = m.dequantized
    assert (np.abs(weights - w) <= m.scale[:, None] * 0.5000001).all()
    assert (np.abs(biases - b) <= m.bias_scale * 0.5000001).all()
    for r in range(len(w)):  # the scale is what mult and shift express, exactly
        expressed = Fraction(int(m.mult[r])) * Fraction(2) ** (x_frac - target - int(m.shift[r]))
        assert Fraction(float(m.scale[r])) == expressed
    if bits == 8 and lossless_shift(w) is None:
        used = np.abs(m.weights.astype(int)).max(axis=1)
        finest = np.maximum(2.0**-30, np.abs(b) * 2.0 ** (target - 45))  # that a row's mult * 2^-shift may be
        free = np.abs(w).max(axis=1) / 127 * 2.0 ** (target - x_frac) > finest
        assert (used[free] >= 126).all(), "an int8 row uses its whole range"


def test_a_row_that_does_not_fit_int32_gets_int64():
    w = np.full((2, 64), 0.9)
    w[0] = 1e-3
    m = quantize_matrix(w, np.zeros(2), 15, 12, 16, None, "fc")
    assert (m.proof.acc_bits, m.proof.row, m.proof.wide_rows) == (64, 1, 2)
    narrow = quantize_matrix(w, np.zeros(2), 15, 12, 16, 32, "fc")
    assert narrow.proof.acc_bits == 32 and narrow.proof.wide_rows == 0
    assert np.abs(narrow.weights).max() < np.abs(m.weights).max()
    assert quantize_matrix(w, np.zeros(2), 15, 12, 8, None, "fc").proof.acc_bits == 32


def test_a_bias_alone_can_need_int64():
    """BASELINES: the largest overflow seen came from a bias on a small row."""
    w = np.array([[0.5, 0.5], [1e-6, 1e-6]])
    assert quantize_matrix(w, np.array([0.0, 3.0]), 15, 22, 16, None, "fc").proof.acc_bits == 64
    assert quantize_matrix(w[:1], np.array([0.0]), 15, 22, 16, None, "fc").proof.acc_bits == 32


def test_int8_tables_pass_through_losslessly():
    rng = np.random.default_rng(1)
    integers = rng.integers(-128, 128, (6, 9))
    integers[0, 0], integers[1, 1] = -128, 127
    m = quantize_matrix(integers / 256.0, rng.standard_normal(6), 12, 22, 8, None, "fc")
    assert np.array_equal(m.weights, integers) and m.weights.dtype == np.int8
    assert np.array_equal(m.scale, np.full(6, 1 / 256))
    assert lossless_shift(integers / 256.0 * 1.1) is None


@pytest.mark.parametrize("bits", [8, 16])
def test_zero_rows_keep_their_bias(bits):
    m = quantize_matrix(np.zeros((1, 3)), np.array([0.75]), 15, 22, bits, None, "fc")
    out = DenseI16(layer_of(m)).sums(np.zeros(3, np.int16))
    assert abs(m.dequantized[1][0] - 0.75) < 2.0**-22 and out.shape == (1,)


def test_what_cannot_be_carried_is_named():
    with pytest.raises(PlanError, match="fc, row 0: outputs are 2.* times smaller than its sums"):
        quantize_matrix(np.array([[3.0]]), np.zeros(1), 0, 40, 16, None, "fc")
    with pytest.raises(PlanError, match=r"fc, row 0: bias 1e\+30 is too large beside weights of 1"):
        quantize_matrix(np.array([[1.0]]), np.array([1e30]), 15, 12, 16, None, "fc")


@given(seed=st.integers(0, 2**32 - 1), cell_frac=st.integers(-1, 30))
@settings(max_examples=100)
def test_peepholes_keep_15_bits_and_their_products_are_proven(seed, cell_frac):
    """Every weight within half a unit of its last place, no shift beyond the kernel's, |product| below 2^45."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(9) * 2.0 ** rng.uniform(-12, cell_frac - 9, 9)
    w[0] = 0
    a = peephole_arrays(w, cell_frac, 22, "test")
    integers, shift = a["peephole_weights"].astype(np.int64), a["peephole_shift"].astype(np.int64)
    fracs = shift + 22 - cell_frac
    assert shift.min() >= 0 and shift.max() <= 46 and np.abs(integers).max() <= 32767
    assert (np.abs(integers * 2.0**-fracs - w) <= 2.0 ** -(fracs + 1.0)).all(), seed
    assert ((np.abs(integers) >= 16383) | (shift == 46)).all(), seed
    assert int(np.abs(integers).max()) * 2**30 < 2**45


def test_a_peephole_beyond_its_products_is_named():
    with pytest.raises(
        PlanError, match=r"lstm a: the peephole weight -5000 \(element 1\) is too large beside cells of up"
    ):
        peephole_arrays(np.array([1.0, -5000.0]), 5, 22, "lstm a")
