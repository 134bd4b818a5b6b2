"""Simulator: the same bits on every target, in the model's own axes, and clear words for what it cannot take.

The reference is the oracle (SPEC.md in Python integers); host runtime and every emulated core must equal it, per layer
and per step, states included. Neighbours: `firmware_sim/simulator.py`, `firmware_sim/engines.py` (what is tested),
`test_c_api.py` (the same bits from plain C).
"""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from bits import assert_equal_bits
from firmware_sim.engines import view_of
from firmware_sim.simulator import Simulator
from firmware_sim.toolchain import TARGETS
from nets import Builder, random_frames, random_initial, random_tables
from quantize.errors import QuantizeError
from quantize.formats import to_float, to_raw
from quantize.graph import Argument, Result, Signature
from rtcore.tables import StateInput

for module in ("ziglang", "unicorn", "elftools"):
    pytest.importorskip(module, reason="an optional extra: rtcore[mcu]")

SEED = 83
STEPS = 8
EVERYWHERE = ("host", *TARGETS)
SOME = ("host", "cortex-m0", "cortex-m4", "rv32imc")


def small(seed=SEED):
    """dense -> two grus, one input; outputs: a dense, every step. Both states are inputs: (tables, gru names)."""
    b = Builder(np.random.default_rng(seed))
    x = b.input(6)
    first = b.gru(b.dense(x, 5, "tanh"), 4, "tanh", True)
    second = b.gru(first, 4, "relu", False)
    y = b.tensor("y", 3, 10, "output", index=0)
    b.outputs.append(y)
    b.dense(second, 3, "linear", into=y)
    names = tuple(layer.name for layer in b.layers if layer.kind == "gru_i16")
    return b.tables((StateInput("h0", names),)), names


def as_model(tables, grus, batch_first=True, container="tuple", last=False):
    """The tables as a QuantizedModel would carry them: called (x, h0) -> (y, h_n) like nn.GRU."""
    width = tables.tensors[tables.inputs[0]].width
    time = ("batch", "time", "feature") if batch_first else ("time", "batch", "feature")
    views = tuple(f"{name}.view" for name in grus)
    y_axes = (("batch",), ("feature",)) if last else tuple((axis,) for axis in time)
    return SimpleNamespace(
        tables=tables,
        signature=Signature(
            (
                Argument("x", "frames", time, tables.inputs[0], (), width),
                Argument("h0", "state", ("layer", "batch", "feature"), "", grus, 4),
            ),
            (
                Result("y", y_axes, (tables.outputs[0],)),
                Result("h_n", (("layer",), ("batch",), ("feature",)), views, state=True),
            ),
            container,
        ),
    )


def floats(rng, *shape):
    return rng.uniform(-4, 4, shape).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------- bits --


@pytest.mark.parametrize("target", EVERYWHERE)
@pytest.mark.parametrize(("seed", "width"), [(0, 40), (1, 40), (4, 40), (5, 40), (8, 40), (12, 200)])
def test_bits_are_the_oracles_per_layer_and_per_step(target, seed, width):
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, width)
    frames, initial = random_frames(rng, tables, STEPS), random_initial(rng, tables)
    outputs, trace, states = oracle.run(tables, frames, initial)
    simulator = Simulator(tables, target)
    arguments = (*frames, *(initial or []))
    found = simulator.run_raw(arguments if len(arguments) > 1 else frames[0], trace=True)
    found = found if isinstance(found, tuple) else (found,)
    for name, expected in trace.items():
        actual = simulator.last_run.trace[name][0]
        assert_equal_bits(np.array(expected, np.int16), actual, f"{target}, tensor {name}", seed)
    for name, expected in states.items():
        actual = simulator.last_run.state_trace[name][0]
        assert_equal_bits(np.array(expected, np.int32), actual, f"{target}, state of {name}", seed)
        assert_equal_bits(actual[-1], simulator.state[name], f"{target}, last state of {name}", seed)
    for name, expected, actual in zip(tables.outputs, outputs, found, strict=True):
        assert_equal_bits(np.array(expected, np.int16), actual, f"{target}, output {name}", seed)


def test_extreme_frames_give_the_same_bits_everywhere():
    tables = dataclasses.replace(random_tables(np.random.default_rng(6), 30), state_inputs=())
    rows = np.array([32767, -32768, 0, -32768, 32767], np.int16)
    frames = tuple(np.repeat(rows[:, None], tables.tensors[x].width, 1) for x in tables.inputs)
    outputs, _, _ = oracle.run(tables, frames, None)
    for target in EVERYWHERE:
        found = Simulator(tables, target).run_raw(frames)
        found = found if isinstance(found, tuple) else (found,)
        for name, expected, actual in zip(tables.outputs, outputs, found, strict=True):
            assert_equal_bits(np.array(expected, np.int16), actual, f"{target}, output {name}", 6)


@pytest.mark.parametrize("target", SOME)
def test_streams_do_not_touch_each_other(target):
    tables, _ = small()
    rng = np.random.default_rng(SEED)
    x, h0 = floats(rng, 3, STEPS, 6), floats(rng, 3, 8)
    simulator = Simulator(tables, target)
    together = simulator.run((x, h0), raw=True)
    counts = simulator.instructions
    for s in range(3):
        assert_equal_bits(together[s], simulator.run((x[s], h0[s]), raw=True), f"{target}, stream {s}", SEED)
        if counts is not None:
            assert np.array_equal(counts[s * STEPS : (s + 1) * STEPS], simulator.instructions)


@pytest.mark.parametrize("target", SOME)
def test_a_run_may_be_cut_at_every_step(target):
    """run, then state out, reset, state in, then step by step: the bits of one run."""
    tables, _ = small()
    x, h0 = floats(np.random.default_rng(SEED), STEPS, 6), np.zeros(8)
    simulator = Simulator(tables, target)
    whole = simulator.run((x, h0), raw=True)
    end = simulator.state
    for cut in range(1, STEPS + 1):
        parts = [simulator.run((x[:cut], h0), raw=True)]
        kept = simulator.state
        simulator.reset()
        assert all(not h.any() for h in simulator.state.values())
        simulator.state = kept
        parts += [simulator.step(row, raw=True)[None] for row in x[cut:]]
        assert_equal_bits(whole, np.concatenate(parts), f"{target}, cut at {cut}", SEED)
        for name, h in simulator.state.items():
            assert_equal_bits(end[name], h, f"{target}, state of {name}, cut at {cut}", SEED)


@given(st.integers(-(2**30), 2**30))
def test_view_of_is_the_oracles(state):
    assert view_of(np.array([state], np.int32))[0] == oracle.view_of(state)


# --------------------------------------------------------------------------------------------------------- axes --


@pytest.mark.parametrize("target", SOME)
@pytest.mark.parametrize("batch_first", [True, False])
def test_takes_and_returns_what_the_model_does(target, batch_first):
    tables, grus = small()
    rng = np.random.default_rng(SEED)
    x, h0 = floats(rng, 2, STEPS, 6), floats(rng, 2, 2, 4)
    simulator = Simulator(as_model(tables, grus, batch_first), target)
    raw = simulator.run((x if batch_first else x.swapaxes(0, 1), h0), raw=True)
    y, h_n = raw if batch_first else (raw[0].swapaxes(0, 1), raw[1])
    formats = {layer.name: layer.ints["state_frac"] for layer in tables.states}
    for s in range(2):
        frames = [to_raw(x[s], tables.tensors["x0"].frac)[0]]
        given_ = np.concatenate([to_raw(h0[k, s], formats[name])[0] for k, name in enumerate(grus)])
        (expected,), _, states = oracle.run(tables, frames, [given_])
        assert_equal_bits(np.array(expected, np.int16), y[s], f"{target}, stream {s}", SEED)
        for k, name in enumerate(grus):
            view = np.array([oracle.view_of(v) for v in states[name][-1]], np.int16)
            assert_equal_bits(view, h_n[k, s], f"{target}, h_n of {name}, stream {s}", SEED)
    values = simulator.run((x if batch_first else x.swapaxes(0, 1), h0))
    assert isinstance(values, tuple) and all(v.dtype == np.float32 for v in values)
    assert np.array_equal(values[0], to_float(raw[0], tables.tensors["y"].frac))
    for k, name in enumerate(grus):
        assert np.array_equal(values[1][k], to_float(raw[1][k], formats[name]))
    assert simulator.last_run.states[grus[0]].shape == (2, 4)


@pytest.mark.parametrize("target", ("host", "cortex-m4"))
def test_a_model_that_ends_in_the_last_step(target):
    tables, grus = small()
    x = floats(np.random.default_rng(SEED), STEPS, 6)
    every = Simulator(as_model(tables, grus, container="dict"), target).run({"x": x, "h0": np.zeros((2, 4))}, raw=True)
    last = Simulator(as_model(tables, grus, container="list", last=True), target).run((x, np.zeros((2, 4))), raw=True)
    assert set(every) == {"y", "h_n"} and isinstance(last, list)
    assert last[0].shape == (3,) and np.array_equal(every["y"][-1], last[0]) and np.array_equal(every["h_n"], last[1])


@pytest.mark.parametrize("target", SOME)
def test_step_returns_the_models_results_of_one_frame(target):
    tables, grus = small()
    x = floats(np.random.default_rng(SEED), STEPS, 6)
    simulator = Simulator(as_model(tables, grus), target)
    y, h_n = simulator.run((x, np.zeros((2, 4))))
    simulator.reset()
    for t in range(STEPS):
        y_t, h_t = simulator.step(x[t])
        assert y_t.dtype == np.float32 and np.array_equal(y_t, y[t])
    assert h_t.shape == (2, 4) and np.array_equal(h_t, h_n)
    first, again = simulator.step({"x": x[0]}), simulator.step((x[0],))
    assert not np.array_equal(first[0], again[0]), "the state is carried on"


def test_several_inputs_and_outputs_keep_their_order():
    rng = np.random.default_rng(SEED)
    b = Builder(rng)
    x, z = b.input(3), b.input(2)
    b.output(b.rescale(z, 1))
    b.output(x)
    for target in ("host", "cortex-m0"):
        simulator = Simulator(b.tables(), target)
        a, c = rng.integers(-999, 999, (4, 3)).astype(np.int16), rng.integers(-999, 999, (4, 2)).astype(np.int16)
        first, second = simulator.run_raw((a, c))
        assert np.array_equal(first, (c + 1) >> 1) and np.array_equal(second, a)
        first, second = simulator.step((to_float(a[0], b.tensors[x].frac), to_float(c[0], b.tensors[z].frac)), raw=True)
        assert np.array_equal(first, (c[0] + 1) >> 1) and np.array_equal(second, a[0])


# ----------------------------------------------------------------------------------------------- in and out, counts --


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-16, 30))
def test_to_raw_rounds_half_up_and_saturates(x, frac):
    exact = oracle.Fraction(x) * oracle.Fraction(2) ** frac
    expected = (2 * exact + 1).__floor__() // 2
    raw, clipped = to_raw(np.array([x]), frac)
    assert int(raw[0]) == max(-32768, min(32767, expected)) and raw.dtype == np.int16
    assert clipped == int(expected > 32768 or expected < -32768)


def test_to_float_is_exact_and_undone():
    every = np.arange(-32768, 32768).astype(np.int16)
    for frac in (-16, 0, 15, 30):
        assert to_float(every, frac).dtype == np.float32
        assert np.array_equal(to_raw(to_float(every, frac), frac)[0], every)


def test_frames_outside_the_format_are_counted():
    tables, _ = small()
    limit = 32768 * 2.0 ** -tables.tensors["x0"].frac
    x = np.zeros((5, 6))
    x[1, 2], x[3, 4], x[4, 5] = 1.01 * limit, -1.01 * limit, limit
    for target in ("host", "cortex-m4"):
        simulator = Simulator(tables, target)
        simulator.run((x, np.zeros(8)))
        assert simulator.input_saturations == 2, "the third is clipped by one LSB alone"
        simulator.run((np.zeros((5, 6)), np.full(8, 1e9)))
        assert simulator.input_saturations == 8, "initial states count too"
        simulator.step(x[1])
        assert simulator.input_saturations == 1
        simulator.run_raw((np.zeros((5, 6), np.int16), np.zeros(8, np.int16)))
        assert simulator.input_saturations == 0


def test_integers_are_frames_as_well():
    tables, _ = small()
    x = np.arange(-12, 12).reshape(4, 6)
    simulator = Simulator(tables)
    whole = simulator.run((x.tolist(), np.zeros(8, int)), raw=True)
    assert np.array_equal(whole, simulator.run((x.astype(float), np.zeros(8)), raw=True))


@pytest.mark.parametrize("target", TARGETS)
def test_instructions_one_entry_per_step_equal_twice(target):
    tables, _ = small()
    x, h0 = floats(np.random.default_rng(SEED), 2, STEPS, 6), np.zeros((2, 8))
    simulator = Simulator(tables, target)
    assert simulator.instructions is None
    simulator.run((x, h0))
    first = simulator.instructions
    assert first.shape == (2 * STEPS,) and first.dtype == np.int64 and first.min() > 500
    simulator.run((x, h0), trace=True)
    assert np.array_equal(first, simulator.instructions), "a trace costs the core nothing"
    again = Simulator(tables, target)
    again.step(x[0, 0])
    assert again.instructions.tolist() == first[:1].tolist()


def test_the_host_counts_saturations_and_no_instructions():
    simulator = Simulator(small()[0])
    simulator.run((np.full((3, 6), 1e6), np.zeros(8)))
    assert simulator.instructions is None and simulator.input_saturations == 18
    assert set(simulator.last_run.saturated) == {layer.name for layer in simulator.tables.layers}


# ------------------------------------------------------------------------------------------------------- refusals --


def test_unknown_targets_and_cores():
    with pytest.raises(QuantizeError, match=r"unknown target 'z80'; targets are host, cortex-m0"):
        Simulator(small()[0], "z80")
    for target in ("host", "cortex-m4"):
        with pytest.raises(QuantizeError, match="unknown core 'helium'"):
            Simulator(small()[0], target, core="helium")


@pytest.mark.parametrize("target", ("host", "cortex-m4"))
def test_frames_that_no_model_takes(target):
    tables, grus = small()
    simulator = Simulator(as_model(tables, grus), target)
    good, h0 = np.zeros((4, 6)), np.zeros((2, 4))
    bad = good.copy()
    bad[2, 1] = np.nan
    for arguments, message in (
        ((bad, h0), r"'x' holds nan at index \(2, 1\)"),
        ((good, h0 + np.inf), "'h0' holds inf"),
        ((good[:, :5], h0), "'x' has 5 features"),
        ((good[:0], h0), "'x' is empty"),
        ((good,), "got 1 argument"),
        ((good, h0[:1]), "'h0' has 1 layers"),
        ((good.astype(str), h0), "'x' has dtype"),
        ({"x": good}, "missing argument 'h0'"),
    ):
        with pytest.raises(QuantizeError, match=message):
            simulator.run(arguments)
    with pytest.raises(QuantizeError, match="raw input must be integer"):
        simulator.run_raw((good, h0))
    with pytest.raises(QuantizeError, match=r"40000 .*-32768\.\.32767"):
        simulator.run_raw((np.full((4, 6), 40000), h0.astype(int)))
    for frame, message in ((good[0, :5], "'x' has 5 features"), (good, "'x' has 2 axes"), (bad[2], "'x' holds nan")):
        with pytest.raises(QuantizeError, match=message):
            simulator.step(frame)


@pytest.mark.parametrize("target", ("host", "cortex-m4"))
def test_states_of_another_model_are_refused(target):
    tables, (first, second) = small()
    simulator = Simulator(tables, target)
    simulator.step(np.ones(6))
    good = simulator.state
    for state, message in (
        ({first: good[first]}, "another model.*this one has gru"),
        ({**good, "gru.99": good[first]}, "another model: got .*'gru.99'"),
        ({**good, second: good[second][:3]}, rf"state of {second}: int32\[3\], expected int32\[4\]"),
        ({**good, second: good[second].astype(np.float32)}, "float32"),
        ({**good, second: good[second].astype(np.int64) + 2**31}, r"beyond \+-2\^30"),
        (None, "another model: got NoneType"),
    ):
        with pytest.raises(QuantizeError, match=message):
            simulator.state = state
        for name, h in simulator.state.items():
            assert_equal_bits(good[name], h, f"{target}, state of {name} after a refusal", SEED)
    simulator.state = {name: h.astype(np.int64) for name, h in good.items()}


def test_a_model_without_states_has_an_empty_one():
    tables = random_tables(np.random.default_rng(7), memory=False)
    for target in ("host", "cortex-m0"):
        simulator = Simulator(tables, target)
        assert simulator.state == {}
        simulator.state = {}
        simulator.reset()
        frame = [np.zeros(tables.tensors[x].width) for x in tables.inputs]
        simulator.step(tuple(frame))
