"""The promise itself, on random quantized nets: oracle, host, plain C and every emulated core give the same bits,
outputs and 32-bit states, at every layer and step; with memory poisoned, cut at any step, after a reset, at the
extremes of int16.

Nets go the whole way: a random float graph (stacked GRUs of widths 1..200, both reset forms, tanh and ReLU, int8 and
int16 weights, with and without an initial state), calibrated, planned and rounded by quantize. Neighbours:
`test_simulator.py` (hand-made integer tables of every kind), `oracle.py`, `plain_c.py`.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from bits import assert_equal_bits
from firmware_sim import Simulator
from firmware_sim.engines import HostEngine
from firmware_sim.toolchain import TARGETS
from graphs import Graph, gru_node, linear_node, signature
from plain_c import PlainC
from quantize import quantize_graph
from quantize.formats import to_raw

STEPS = 6


def random_model(rng, depth, widest, weight_bits, activation, reset_after):
    """A quantized stack of GRUs and a linear layer; and the frames it was calibrated on, with extremes put in, as
    int16."""
    widths = [int(rng.integers(1, widest + 1)) for _ in range(depth + 2)]
    initial = bool(rng.integers(2))
    if initial:  # one state argument has one width
        widths[1 : depth + 1] = [widths[1]] * depth
    names = [f"rnn.{i}" for i in range(depth)]
    form = dict(activation=activation, reset_after=reset_after, scale=1.5)
    nodes = [
        gru_node(name, x, rng, widths[i], widths[i + 1], **form, initial=("h0", i) if initial else None)
        for i, (name, x) in enumerate(zip(names, ["x", *names[:-1]], strict=True))
    ] + [linear_node("fc", names[-1], rng, widths[depth], widths[-1])]
    sizes = {"x": widths[0], "fc": widths[-1]} | {name: widths[i + 1] for i, name in enumerate(names)}
    graph = Graph(
        tuple(nodes), sizes, signature(widths[0], "fc", initial=tuple(names) if initial else (), units=widths[1])
    )
    frames = rng.standard_normal((1, STEPS, widths[0]))
    h0 = rng.uniform(-1, 1, (depth, 1, widths[1]))
    sample = (frames, h0) if initial else frames
    tables = quantize_graph(graph, [sample], weight_bits).tables
    raw, _ = to_raw(frames[0], tables.tensors["x"].frac)
    raw[2], raw[3] = rng.choice([32767, -32767, -32768], (2, widths[0]))
    views = [to_raw(h0[i, 0], tables.tensors[name].frac)[0] for i, name in enumerate(names)]
    return tables, raw, [np.concatenate(views)] if initial else None


def check(tables, raw, initial, target, expected, seed):
    """One engine against the oracle's outputs and states at every step."""
    (outputs,), trace, states = expected
    simulator = Simulator(tables, target)
    arguments = (raw, *(initial or []))
    y = simulator.run_raw(arguments if initial else raw, trace=True)
    assert_equal_bits(outputs, y, f"{target}, output", seed)
    for name, values in trace.items():
        assert_equal_bits(values, simulator.last_run.trace[name][0], f"{target}, tensor {name}", seed)
    for name, values in states.items():
        assert_equal_bits(values, simulator.last_run.state_trace[name][0], f"{target}, state of {name}", seed)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("weight_bits", [8, 16])
@given(seed=st.integers(0, 2**32 - 1), depth=st.integers(1, 3), reset_after=st.booleans())
@settings(max_examples=5)
def test_every_engine_gives_the_oracles_bits(activation, weight_bits, seed, depth, reset_after):
    rng = np.random.default_rng(seed)
    widest = (200, 60, 30)[depth - 1]
    tables, raw, initial = random_model(rng, depth, widest, weight_bits, activation, reset_after)
    expected = oracle.run(tables, [raw], initial)
    outputs, states = PlainC(tables).run([raw], initial)
    assert_equal_bits(expected[0][0], outputs[0], "plain C, output", seed)
    for name, values in expected[2].items():
        assert_equal_bits(values, states[name], f"plain C, state of {name}", seed)
    for target in ("host", *TARGETS):
        check(tables, raw, initial, target, expected, seed)


def poison(engine):
    """Fills everything that holds nothing between steps; on an MCU the whole state struct, which a reset must then
    mend."""
    if isinstance(engine, HostEngine):
        engine.net.poison(0xA5)
    else:
        symbol = engine.board.symbol("board_state")
        engine.board.write(symbol.address, b"\xa5" * symbol.size)
        engine.reset()


@pytest.mark.parametrize("target", ["host", *TARGETS])
@pytest.mark.parametrize("reset_after", [True, False])
def test_disturbed_firmware_gives_the_same_bits(target, reset_after):
    """State saved, everything poisoned, state restored, before every step; then a reset, and the first bits again."""
    seed = 17
    tables, raw, initial = random_model(np.random.default_rng(seed), 2, 33, 8, "tanh", reset_after)
    (outputs,), _, states = oracle.run(tables, [raw], initial)
    simulator = Simulator(tables, target)
    simulator.run_raw((raw[:1], *initial) if initial else raw[:1])
    for t in range(1, STEPS):
        saved = simulator.state
        poison(simulator.engine)
        simulator.state = saved
        y = simulator.engine.step([raw[t]])[0][0]
        assert_equal_bits(outputs[t], y, f"{target}, output of step {t}", seed)
        for name, h in simulator.state.items():
            assert_equal_bits(states[name][t], h, f"{target}, state of {name} after step {t}", seed)
    simulator.reset()
    fresh = oracle.run(tables, [raw[:2]])[0][0]
    for t in range(2):
        y = simulator.engine.step([raw[t]])[0][0]
        assert_equal_bits(fresh[t], y, f"{target}, step {t} after a reset", seed)
