"""Functions of vectors on integers: the kernels against double precision on the same integers, and their corners.

The bounds are those that SPEC.md section 6 states. Bits are compared with the oracle in `test_net.py`.
"""

import runpy
from pathlib import Path

import numpy as np
import pytest

from rtcore import Layer, Net, Tables, Tensor

ROOT = Path(__file__).resolve().parents[2]
CODES = np.arange(-32768, 32768).astype(np.int16)


def run(kind, x, x_frac=0, y_frac=0, ints=None, arrays=None):
    """One layer on rows of x, int16 [T, n]."""
    n = x.shape[1]
    layer = Layer(kind, "f", ("x",), "y", {"n": n, **(ints or {})}, arrays or {})
    tensors = {"x": Tensor("x", n, x_frac, "input"), "y": Tensor("y", n, y_frac, "output")}
    return Net(Tables(tensors, (layer,), ("x",), ("y",))).run([x[None]]).outputs[0][0].astype(np.int64)


def rows(seed, n, frac, steps=200):
    """Vectors of all spreads, from constant ones to the full range."""
    rng = np.random.default_rng(seed)
    spread = 2.0 ** rng.uniform(0, 16, (steps, 1))
    x = rng.standard_normal((steps, n)) * spread + rng.uniform(-32768, 32768, (steps, 1)) * (
        rng.random((steps, 1)) < 0.3
    )
    return np.clip(np.round(x), -32768, 32767).astype(np.int16)


@pytest.mark.parametrize("frac", [-16, -8, -6, 0, 8, 11, 15, 30])
@pytest.mark.parametrize("n", [1, 2, 10, 300, 2048])
def test_softmax_is_within_one_lsb(n, frac):
    x = rows(n + 100 * abs(frac), n, frac)
    value = x * 2.0**-frac
    power = np.exp(value - value.max(1, keepdims=True))
    exact = power / power.sum(1, keepdims=True) * 32768
    error = np.abs(run("softmax_i16", x, frac, 15, {"frac": frac}) - np.minimum(exact, 32767)).max()
    print(f"{error:.3f} LSB")
    assert error <= 1


@pytest.mark.parametrize("out", [8, 11, 15])
@pytest.mark.parametrize("frac", [-6, 8, 11, 15])
@pytest.mark.parametrize("n", [1, 2, 10, 2048])
def test_log_softmax_is_within_one_lsb(n, frac, out):
    x = rows(n + 100 * abs(frac), n, frac)
    value = x * 2.0**-frac
    value = value - value.max(1, keepdims=True)
    exact = np.clip((value - np.log(np.exp(value).sum(1, keepdims=True))) * 2.0**out, -32768, 32767)
    error = np.abs(run("log_softmax_i16", x, frac, out, {"frac": frac, "shift": 30 - out}) - exact).max()
    print(f"{error:.3f} LSB")
    assert error <= 1


@pytest.mark.parametrize("epsilon", [1, 2**20, 2**61])
@pytest.mark.parametrize("n", [1, 2, 10, 300, 2048])
def test_the_normalized_vector_is_within_its_bound(n, epsilon):
    """z itself, by mult 1 and a shift: to 2^-12 here, so the kernel's own error shows as that of its rounding."""
    x = rows(n, n, 0)
    arrays = {"mult": np.ones(n, np.int16), "bias": np.zeros(n, np.int64), "shift": np.full(n, 8, np.uint8)}
    v = x.astype(object)
    total, squares = v.sum(1, keepdims=True), (v * v).sum(1, keepdims=True)
    variance = (n * squares - total * total + epsilon).astype(np.float64)
    z = (n * v - total).astype(np.float64) / np.sqrt(variance) * 2.0**12
    held = np.abs(z) < 32767
    error = np.abs(run("layernorm_i16", x, 0, 12, {"epsilon": epsilon}, arrays) - z)[held]
    assert error.max() <= 0.5 + 2.0**12 * (2.0**-19 + 2.0**-20 * np.abs(z).max() * 2.0**-12)


@pytest.mark.parametrize("shift", [0, 1, 15, 16, 31])
def test_roots_are_to_nearest(shift):
    y = run("sqrt_i16", CODES[:, None], ints={"shift": shift})[:, 0]
    exact = np.sqrt(np.maximum(CODES, 0) * 2.0**shift)
    held = exact < 32767
    assert np.abs(y - exact)[held].max() <= 0.5 and (y[~held] == 32767).all()


def test_abs_saturates_and_slopes_are_exact():
    one = {"stride": 0, "shift_positive": 0}
    minus = {"mult": np.array([-1], np.int16), "shift": np.zeros(1, np.uint8)}
    assert (
        run("prelu_i16", CODES[:, None], 0, 0, one, minus)[:, 0] == np.minimum(np.abs(CODES.astype(int)), 32767)
    ).all()
    quarter = {"mult": np.array([1], np.int16), "shift": np.array([2], np.uint8)}
    expected = np.where(CODES < 0, np.floor(CODES / 4 + 0.5), CODES)
    assert (run("prelu_i16", CODES[:, None], 0, 0, one, quarter)[:, 0] == expected).all()


def test_the_committed_tables_are_the_generators():
    tool = runpy.run_path(str(ROOT / "tools" / "make_scalar_tables.py"))
    assert tool["render"]() == (ROOT / "rtcore" / "csrc" / "rtcore_scalar.c").read_text()


@pytest.mark.parametrize(
    ("kind", "ints", "arrays", "message"),
    [
        ("table_i16", {"step": 8, "shift": 15}, {"nodes": np.zeros(256, np.int32)}, "nodes has shape"),
        ("table_i16", {"step": 8, "shift": 15}, {"nodes": np.full(257, 2**22 + 1, np.int32)}, "a node is beyond"),
        ("table_i16", {"step": 9, "shift": 15}, {"nodes": np.zeros(129, np.int32)}, "step is outside 1..8"),
        ("clamp_i16", {"low": 3, "high": 2}, {}, "low 3 is above high 2"),
        ("sqrt_i16", {"shift": 32}, {}, "shift is outside"),
        ("softmax_i16", {"frac": 31}, {}, "frac is outside"),
        ("layernorm_i16", {"epsilon": 0}, {}, "epsilon is outside"),
        ("layernorm_i16", {"epsilon": 1}, {"mult": np.zeros(2, np.int16)}, "bias is missing"),
        (
            "prelu_i16",
            {"stride": 1, "shift_positive": 0, "shift": 1},
            {"mult": np.ones(2, np.int16)},
            "shift is missing",
        ),
        (
            "prelu_i16",
            {"stride": 1, "shift_positive": 0},
            {"mult": np.ones(2, np.int64), "shift": np.ones(2, np.uint8)},
            "mult is int64, expected int16",
        ),
    ],
)
def test_a_wrong_record_is_named(kind, ints, arrays, message):
    with pytest.raises(ValueError, match=f"layer f: {message}"):
        run(kind, np.zeros((1, 2), np.int16), 0, 0, ints, arrays)
