"""FunctionF32 and NormalizeF32 against float64: the accuracy that rtcore_f32.h promises, over all exponents and where
the curves bend; ends, domains, and what a wrong layer is told.

Neighbours: `rtcore/csrc/rtcore_function_f32.c`, `rtcore_normalize_f32.c`; `tests/quantize/test_f32_torch.py` (torch).
"""

import math
import re

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rtcore.function_f32 import FUNCTIONS, KINDS

from rtcore import FunctionF32, NormalizeF32, _build
from rtcore.errors import RtcoreError

NORMAL = 2.0**-126  # least normal float32; below, a result, or the factor of x in it, is within a spacing of 2^-149
EPS = 2.0**-24
erf = np.vectorize(math.erf, otypes=[float])
erfc = np.vectorize(math.erfc, otypes=[float])


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


def hard(x):
    return np.clip(x / 6 + 0.5, 0, 1)


# kind -> float64 form, (relative to y, to |x|, absolute) error, domain (low, high)
CASES = {
    "exp": (np.exp, (1.2e-7, 0, 0), (-120, 88.7)),
    "expm1": (np.expm1, (5e-7, 0, 0), (-120, 88.7)),
    "log": (np.log, (2e-7, 0, 0), (0, np.inf)),
    "log1p": (np.log1p, (4e-7, 0, 0), (-1, np.inf)),
    "sqrt": (np.sqrt, (EPS, 0, 0), (0, np.inf)),
    "rsqrt": (lambda x: 1 / np.sqrt(x), (1.2e-7, 0, 0), (0, np.inf)),
    "reciprocal": (lambda x: 1 / x, (EPS, 0, 0), (3e-39, np.inf)),
    "sin": (np.sin, (0, 0, 1.5e-7), (-6000, 6000)),
    "cos": (np.cos, (0, 0, 1.5e-7), (-6000, 6000)),
    "atan": (np.arctan, (3e-7, 0, 0), (-np.inf, np.inf)),
    "erf": (erf, (3e-7, 0, 0), (-np.inf, np.inf)),
    "softplus": (lambda x: np.where(x > 20, x, np.logaddexp(0, x)), (5e-7, 0, 0), (-np.inf, np.inf)),
    "log_sigmoid": (lambda x: -np.logaddexp(0, -x), (5e-7, 0, 0), (-np.inf, np.inf)),
    "softsign": (lambda x: x / (1 + np.abs(x)), (2e-7, 0, 0), (-np.inf, np.inf)),
    "silu": (lambda x: x * sigmoid(x), (4e-7, 0, 0), (-np.inf, np.inf)),
    "mish": (lambda x: x * np.tanh(np.logaddexp(0, x)), (6e-7, 0, 0), (-np.inf, np.inf)),
    "elu": (lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), (7e-7, 0, 0), (-np.inf, np.inf)),
    "gelu": (lambda x: x * erfc(-x / math.sqrt(2)) / 2, (7e-7, 0, 0), (-np.inf, np.inf)),
    "gelu_tanh": (
        lambda x: x * sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)),
        (0, 3e-7, 0),
        (-np.inf, np.inf),
    ),
    "hard_sigmoid": (hard, (0, 0, 2e-7), (-np.inf, np.inf)),
    "hard_swish": (lambda x: x * hard(x), (0, 2e-7, 0), (-np.inf, np.inf)),
}


def every_exponent():
    """Every sign and exponent with 129 mantissas; dense where the curves bend, at the kernels' seams, far out."""
    exponents = np.arange(255, dtype=np.uint32) << 23
    mantissas = np.minimum(np.arange(129, dtype=np.uint32) << 16, 2**23 - 1)
    spread = (exponents[:, None] | mantissas).ravel().view(np.float32)
    bend = np.concatenate([np.linspace(0, top, 100_001, dtype=np.float32) for top in (1, 20)])
    seams = [0.29, 0.346573591, 0.41, 0.414213562, 0.70710678, 0.9375, 1.3258, 1.41421356, 2.41421356, 11, 20, 87.33655]
    around = np.float32(seams).view(np.uint32)
    seam = (around[:, None] + np.arange(-500, 500)).astype(np.uint32).ravel().view(np.float32)
    deep = np.linspace(80, 110, 30_001, dtype=np.float32)
    far = np.linspace(0, 6000, 60_001, dtype=np.float32)
    x = np.concatenate((spread, bend, seam, deep, far))
    return np.concatenate((x, -x))


def apply(kind, x, **constants):
    x = np.asarray(x, np.float32)
    return FunctionF32(kind, x.size, **constants).step(x.ravel()).reshape(x.shape)


def test_every_function_of_the_header_is_tested():
    header = (_build.CSRC / "rtcore_f32.h").read_text()
    numbers = re.findall(r"#define RTCORE_FUNCTION_(\w+) (\d+)", header)
    assert [name.lower() for name, _ in numbers] == list(FUNCTIONS) == list(CASES)
    assert [int(number) for _, number in numbers] == list(range(len(FUNCTIONS)))


@pytest.mark.parametrize("kind", CASES)
def test_accuracy_over_all_exponents(kind):
    form, (relative, of_x, absolute), (low, high) = CASES[kind]
    x = every_exponent()
    x = x[(x >= low) & (x <= high) & ((x != 0) | (low < 0))]
    x = x[x > low] if kind == "log1p" else x
    assert np.ptp(np.log2(np.abs(x[x != 0]).astype(np.float64))) > 25  # the inputs do spread
    with np.errstate(over="ignore", invalid="ignore"):
        expected = form(x.astype(np.float64))
    expected = np.where(np.isfinite(expected), expected, 0.0)  # -inf * 0 of a product far out
    actual = apply(kind, x).astype(np.float64)
    size = np.abs(expected)
    difference = np.abs(actual - expected)
    bound = relative * size + of_x * np.abs(x) + absolute + (1 + np.abs(x).astype(np.float64)) * 2.0**-149
    worst = int((difference / bound).argmax())
    own = np.max(difference[size > NORMAL] / size[size > NORMAL], initial=0)
    summary = f"{kind}: worst relative {own:.3g}; worst of its bound {difference[worst] / bound[worst]:.3g} at "
    summary += f"{x[worst]!r}: {actual[worst]!r}, expected {expected[worst]!r}"
    print(summary)
    assert (difference <= bound).all(), summary


def test_sqrt_is_correctly_rounded_and_the_reciprocal_too():
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 0x7F800000, 400_000).astype(np.uint32)
    x = np.concatenate((bits.view(np.float32), every_exponent()))
    x = np.abs(x)
    assert np.array_equal(apply("sqrt", x).view(np.uint32), np.sqrt(x).view(np.uint32))
    x = x[(x > 3e-39) & (x < 1e38)]
    assert np.array_equal(apply("reciprocal", x).view(np.uint32), (np.float32(1) / x).view(np.uint32))


def test_sines_of_large_arguments_against_mpmath():
    x = np.float32([6000, -6000, 5999.5, 4712.389, 3141.5927, 355, 710, 1e-30, 5998.229])
    for kind, form in (("sin", mpmath.sin), ("cos", mpmath.cos)):
        expected = [float(form(mpmath.mpf(float(v)))) for v in x]
        assert np.abs(apply(kind, x) - expected).max() <= 1.5e-7
    assert np.isnan(apply("sin", [6001, -1e30])).all() and np.isnan(apply("cos", [6001, 3e38])).all()


def test_ends_and_domains():
    inf, nan, tiny, huge = math.inf, math.nan, 1e-45, 3.4e38
    with np.errstate(all="ignore"):
        for kind, x, expected in (
            ("log", [0, -1, -0.0, 1, tiny], [-inf, nan, -inf, 0, -103.27893]),
            ("log1p", [-1, -2, 0, tiny], [-inf, nan, 0, tiny]),
            ("sqrt", [0, -1, 4], [0, nan, 2]),
            ("rsqrt", [0, -1, 4], [inf, nan, 0.5]),
            ("reciprocal", [0, -0.0, -4], [inf, -inf, -0.25]),
            ("exp", [huge, -huge], [inf, 0]),
            ("expm1", [huge, -huge, tiny], [inf, -1, tiny]),
            ("gelu", [huge, -huge, 0], [huge, 0, 0]),
            ("mish", [huge, -huge, 0], [huge, 0, 0]),
            ("atan", [huge, -huge], [math.pi / 2, -math.pi / 2]),
            ("erf", [huge, -huge, tiny], [1, -1, tiny]),
            ("softplus", [huge, -huge], [huge, 0]),
            ("log_sigmoid", [huge, -huge], [0, -huge]),
            ("hard_swish", [-3, 3, -5, 5], [0, 3, 0, 5]),
            ("hard_sigmoid", [-3, 3, 0], [0, 1, 0.5]),
        ):
            np.testing.assert_array_equal(apply(kind, x), np.float32(expected), err_msg=kind)


def test_constants():
    x = np.linspace(-9, 9, 4001, dtype=np.float32)
    wide = x.astype(np.float64)
    alpha, scale, inner = 1.7, 1.05, 0.6
    elu = scale * np.where(wide > 0, wide, alpha * np.expm1(np.minimum(wide, 0) * inner))
    # the constants and their product with x round, too
    np.testing.assert_allclose(apply("elu", x, alpha=alpha, scale=scale, input_scale=inner), elu, rtol=2e-6, atol=0)
    soft = np.where(wide * 3 > 4, wide, np.logaddexp(0, 3 * wide) / 3)
    np.testing.assert_allclose(apply("softplus", x, beta=3, threshold=4), soft, rtol=4e-6, atol=0)
    np.testing.assert_array_equal(apply("clamp", x, low=0, high=6), np.clip(x, 0, 6))
    np.testing.assert_array_equal(apply("clamp", x, high=1), np.minimum(x, 1))
    np.testing.assert_array_equal(apply("prelu", x, slope=np.float32([-1])), np.abs(x))
    slope = np.linspace(-1, 2, x.size, dtype=np.float32)
    np.testing.assert_array_equal(apply("prelu", x, slope=slope), np.where(x < 0, slope * x, x))
    np.testing.assert_array_equal(apply("affine", x, scale=slope, offset=x), slope * x + x)
    np.testing.assert_array_equal(apply("relu", x), np.maximum(x, 0))
    assert set(KINDS) == {"linear", "sigmoid", "tanh", "relu", "clamp", "prelu", "affine", *CASES}


@given(n=st.integers(1, 700), seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([1e-3, 1.0, 30.0, 1e4]))
@settings(max_examples=60)
def test_normalizations_are_near_float64(n, seed, spread):
    rng = np.random.default_rng(seed)
    x = (spread * rng.standard_normal(n) + rng.normal()).astype(np.float32)
    wide = x.astype(np.float64)
    rounding = (n + 4) * EPS  # a sum of n terms
    log = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
    # x - largest rounds to half an ulp of itself, which exp turns into a relative error of its result
    shifted = np.abs(wide - wide.max()) * EPS
    error = np.exp(log) * (rounding + 3e-7 + shifted + (np.exp(log) * shifted).sum()) + 2.0**-148
    actual = NormalizeF32("softmax", n).step(x)
    assert (np.abs(actual - np.exp(log)) <= error).all(), seed
    assert abs(actual.astype(np.float64).sum() - 1) <= 2 * rounding
    actual = NormalizeF32("log_softmax", n).step(x)
    assert (np.abs(actual - log) <= rounding + 3e-7 + (np.abs(log) + np.log(n)) * 2 * EPS + shifted).all(), seed

    weight, bias = rng.standard_normal((2, n)).astype(np.float32)
    mean, variance = wide.mean(), wide.var()
    z = (wide - mean) / np.sqrt(variance + 1e-5)
    # the mean's error moves every element; a variance's relative error halves in the root
    moved = rounding * np.abs(wide).mean() / np.sqrt(variance + 1e-5)
    error = np.abs(weight) * (np.abs(z) * (rounding + 8 * EPS + moved) + moved + moved**2) + 2 * EPS * np.abs(bias)
    actual = NormalizeF32("layernorm", n, weight, bias).step(x)
    assert (np.abs(actual - (z * weight + bias)) <= error * 1.01 + 1e-30).all(), seed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FunctionF32("cosh", 3), "kind is 'cosh', expected one of linear, sigmoid"),
        (lambda: FunctionF32("exp", 0), "a vector of 0"),
        (lambda: FunctionF32("exp", 3, alpha=1), "exp takes no constants; alpha is not among them"),
        (lambda: FunctionF32("elu", 3, beta=1), "elu takes alpha, scale, input_scale; beta is not among them"),
        (lambda: FunctionF32("affine", 3, scale=np.ones(3, np.float32)), "takes scale, offset; offset is missing"),
        (lambda: FunctionF32("prelu", 3, slope=np.ones(2, np.float32)), r"slope: shape is \[2\], expected \[3\]"),
        (lambda: FunctionF32("prelu", 3, slope=np.float32([1, np.nan, 1])), r"slope: element \[1\] is nan"),
        (lambda: FunctionF32("clamp", 3, low=2, high=1), "low above high"),
        (lambda: FunctionF32("softplus", 3, beta=math.nan), "NaN"),
        (lambda: FunctionF32("exp", 3, name="f").step(np.zeros(4, np.float32)), r"layer f: x: shape is \[4\]"),
        (lambda: NormalizeF32("batchnorm", 3), "kind is 'batchnorm', expected one of softmax, log_softmax, layernorm"),
        (lambda: NormalizeF32("softmax", 0), "a vector of 0"),
        (lambda: NormalizeF32("softmax", 3, weight=np.ones(3, np.float32)), "a softmax has no weight"),
        (lambda: NormalizeF32("layernorm", 3, bias=np.ones(2, np.float32)), r"bias: shape is \[2\], expected \[3\]"),
        (lambda: NormalizeF32("layernorm", 3, epsilon=-1), "epsilon is -1"),
    ],
)
def test_a_wrong_layer_is_named(make, message):
    with pytest.raises(RtcoreError, match=message) as error:
        make()
    assert str(error.value).startswith("layer ")
