"""sigmoid and tanh over the whole int32 range: errors, shape, and the committed table.

Every code is visited where the functions move (|a| <= 16, 2 * 2^26 codes); beyond, where they are constant, the tails
are sampled. The maxima found here must be the ones that SPEC.md section 4 states.
"""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import oracle
from rtcore import fixed

ROOT = Path(__file__).resolve().parents[2]
CLAMP = 16 << 22  # PRE code from which sigma is constant
CHUNK = 1 << 22


def chunks():
    """Every non-negative PRE code up to and a little beyond the clamp."""
    for start in range(0, CLAMP + CHUNK, CHUNK):
        yield np.arange(start, start + CHUNK + 1, dtype=np.int32)  # one shared code, so that steps between chunks count


@pytest.fixture(scope="module")
def maxima():
    """Largest errors over all codes: name -> value."""
    worst: dict[str, float] = {}

    def note(name, value):
        worst[name] = max(worst.get(name, 0.0), float(np.max(value)))

    for a in chunks():
        x = a / 2.0**22
        small = 1 / (1 + np.exp(x))
        s = fixed.sigma(a)
        error = np.abs(s / 2.0**32 - small)
        note("sigma abs", error)
        tail = small > 2.0**-20
        if tail.any():
            note("sigma rel", (np.maximum(error - 2.0**-32, 0) / small)[tail])
        t = fixed.tanh(a)
        error = np.abs(t / 2.0**30 - np.tanh(x))
        note("tanh abs", error)
        rest = 1 - np.tanh(x)
        tail = rest > 2.0**-20
        if tail.any():
            note("1 - tanh rel", (np.maximum(error - 2.0**-30, 0) / rest)[tail])
        note("sigmoid q15", np.abs(fixed.sigmoid_q15(a) - 32768 * (1 - small)))
        note("sigmoid q15", np.abs(fixed.sigmoid_q15(-a) - 32768 * small))
        note("tanh q15", np.abs(fixed.tanh_q15(a) - 32768 * np.tanh(x)))
    return worst


def test_errors_are_within_the_contract(maxima):
    """DESIGN section 4: 2^-17 absolute; z and 1 - z within 2^-12 of themselves plus one gate LSB down to 2^-20; int16
    outputs at most 1 LSB of Q0.15 from the truth."""
    assert maxima["sigma abs"] <= 2.0**-17
    assert maxima["tanh abs"] <= 2.0**-17
    assert maxima["sigma rel"] <= 2.0**-12
    assert maxima["sigmoid q15"] <= 1.0
    assert maxima["tanh q15"] <= 1.0


def test_spec_states_these_maxima(maxima):
    """The table of SPEC.md section 4, re-derived: each figure to the digits it is printed with."""
    rows = dict(re.findall(r"^\| `([a-z0-9 -]+)` \|.*\| ([0-9.e-]+) \|$", (ROOT / "SPEC.md").read_text(), re.M))
    assert {name: f"{value:.4g}" for name, value in maxima.items()} == rows


def test_monotone_and_constant_beyond_the_clamp():
    previous = {}
    for a in chunks():
        for name, sign in (("sigma", -1), ("tanh", 1), ("sigmoid_q15", 1), ("tanh_q15", 1)):
            y = getattr(fixed, name)(a)
            assert (sign * np.diff(y.astype(np.int64)) >= 0).all(), name
            assert sign * int(y[0]) >= sign * int(previous.get(name, y[0])), name
            previous[name] = y[-1]
    rng = np.random.default_rng(1)
    tail = np.concatenate([rng.integers(CLAMP, 2**31, 1 << 20), [CLAMP, 2**31 - 1]]).astype(np.int32)
    assert set(fixed.sigma(tail)) == {oracle.sigma_nodes()[1024]}
    assert set(fixed.tanh_q15(tail)) == {32767} and set(fixed.tanh_q15(-tail)) == {-32767}
    assert set(fixed.sigmoid_q15(tail)) == {32767} and set(fixed.sigmoid_q15(-tail)) == {0}


def test_odd_and_complementary():
    """tanh(-a) = -tanh(a); sigmoid(-a) = 1 - sigmoid(a), where int16 has no 1.0: it saturates to 32767."""
    for a in chunks():
        assert np.array_equal(fixed.tanh(-a), -fixed.tanh(a))
        assert np.array_equal(fixed.sigma(-a), fixed.sigma(a))  # z and 1 - z are the same number, by the sign of a
        assert np.array_equal(fixed.tanh_q15(-a), -fixed.tanh_q15(a))
        plus, minus = fixed.sigmoid_q15(a).astype(int), fixed.sigmoid_q15(-a).astype(int)
        assert np.array_equal(plus, np.minimum(32768 - minus, 32767))


def test_equals_the_oracle():
    rng = np.random.default_rng(2)
    codes = np.concatenate(
        [
            rng.integers(-(2**31) + 1, 2**31, 2000),
            rng.integers(-CLAMP, CLAMP, 4000),
            np.arange(-40, 40),
            CLAMP + np.arange(-70000, 3, 997),
            [2**31 - 1, -(2**31) + 1],
        ]
    ).astype(np.int32)
    for name, expected in (
        ("sigma", lambda a: oracle.sigma_minus(abs(a))),
        ("tanh", oracle.tanh_q30),
        ("sigmoid_q15", lambda a: oracle.activation_q15(a, oracle.SIGMOID)),
        ("tanh_q15", lambda a: oracle.activation_q15(a, oracle.TANH)),
    ):
        for code, actual in zip(codes.tolist(), getattr(fixed, name)(codes).tolist()):
            assert actual == expected(code), f"{name}({code}): expected {expected(code)}, got {actual}"


SLOPES = (2**21, 178956971, 214748365, 2**30)  # the ends, and those of Keras 3 and of ONNX


@pytest.mark.parametrize("slope", SLOPES)
def test_hard_gates_over_the_whole_range(slope):
    """SPEC.md section 4: within one LSB of 1/2 - slope |a|, where that is positive. Monotone; the same of -a."""
    rng = np.random.default_rng(slope)
    end = 2**51 // slope + 2
    a = np.concatenate([np.linspace(0, min(end, 2**31 - 1), 10**6), rng.integers(0, 2**31, 10**5), [2**31 - 1]])
    a = np.sort(a.astype(np.int64)).astype(np.int32)
    s = fixed.hard_sigma(a, slope)
    exact = np.maximum(2.0**31 - a.astype(np.float64) * (slope / 2**20), 0)
    assert np.abs(s - exact).max() <= 1 and np.abs(s - exact)[1000:].max() <= 0.5 + 2.0**-20  # float64 of 51 bits
    assert s[0] == 2**31 - 1 and s[-1] == 0 and (np.diff(s) <= 0).all() and len(np.unique(s)) > 10**5
    assert np.array_equal(s, fixed.hard_sigma(-a, slope))


def test_hard_gates_equal_the_oracle():
    rng = np.random.default_rng(4)
    for slope in (*SLOPES, *rng.integers(2**21, 2**30, 20).tolist()):
        codes = np.concatenate([rng.integers(-(2**31) + 1, 2**31, 50), rng.integers(-(2**25), 2**25, 300)])
        codes = np.concatenate([codes, [0, 1, -1, 2, 2**31 - 1, -(2**31) + 1]]).astype(np.int32)
        for code, actual in zip(codes.tolist(), fixed.hard_sigma(codes, slope).tolist(), strict=True):
            expected = oracle.gate_minus({"gate_slope": slope}, code)
            assert actual == expected, f"hard_sigma({code}, {slope}): expected {expected}, got {actual}"


def test_committed_table_is_the_generators():
    tool = runpy.run_path(str(ROOT / "tools" / "make_sigma_table.py"))
    nodes = tool["nodes"]()
    assert nodes == list(oracle.sigma_nodes())  # two derivations, decimal and mpmath
    assert tool["render"](nodes) in (ROOT / "rtcore" / "csrc" / "rtcore_sigma.c").read_text()
