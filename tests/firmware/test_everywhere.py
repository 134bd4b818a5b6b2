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
from boards import EVERYWHERE, M55, on
from firmware_sim import Simulator
from firmware_sim.engines import HostEngine
from firmware_sim.toolchain import TARGETS
from graphs import Argument, Graph, Node, Result, Signature, gru_node, linear_node, lstm_node, rnn_node, signature
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


def mixed_model(rng, weight_bits):
    """LSTM, its cell beside its output, projected LSTM, RNN of either kind, GRU: quantized, with every state given and
    returned; as `random_model`. The LSTMs' gates are coupled and have peepholes, and all gates are hard, by chance."""
    forms = [dict(coupled=bool(k & 1), peephole=bool(k & 2), gate_slope=0.2 * (k > 3)) for k in rng.integers(8, size=2)]
    after, slope = bool(rng.integers(2)), float(rng.choice([0, 1 / 6, rng.uniform(0.01, 1)]))
    m, n, p, q, r = (int(v) for v in rng.integers(1, 25, 5))
    nodes = (
        lstm_node("a", "x", rng, m, n, scale=1.5, initial=("h", 0), initial_cell=("h", 1), **forms[0]),
        Node("cell", "a.cell", ("a",), "a.cell"),
        Node("concat", "both", ("a", "a.cell"), "both"),
        lstm_node("b", "both", rng, 2 * n, p, q, scale=1.5, initial=("hb", 0), initial_cell=("cb", 0), **forms[1]),
        rnn_node("c", "b", rng, q, r, "relu" if rng.integers(2) else "tanh", initial=("hc", 0)),
        gru_node("d", "c", rng, r, n, reset_after=after, gate_slope=slope),
        linear_node("fc", "d", rng, n, m),
    )
    widths = {"x": m, "a": n, "a.cell": n, "both": 2 * n, "b": q, "c": r, "d": n, "fc": m}
    axes = ("layer", "batch", "feature")
    states = {"h": (("a", "a:cell"), n), "hb": (("b",), q), "cb": (("b:cell",), p), "hc": (("c",), r)}
    arguments = [Argument("x", "frames", ("batch", "time", "feature"), "x", (), m)]
    arguments += [Argument(name, "state", axes, "", rows, width) for name, (rows, width) in states.items()]
    results = tuple(
        Result(
            name, tuple((axis,) for axis in (("batch", "time", "feature") if name == "fc" else axes)), (name,), state
        )
        for name, state in (("fc", False), ("a", True), ("a.cell", True))
    )
    graph = Graph(nodes, widths, Signature(tuple(arguments), results, "tuple"))
    frames = rng.standard_normal((1, STEPS, m))
    given_ = [rng.uniform(-1, 1, (len(rows), 1, width)) for rows, width in states.values()]
    qmodel = quantize_graph(graph, [(frames, *given_)], weight_bits)
    tables = qmodel.tables
    raw, _ = to_raw(frames[0], tables.tensors["x"].frac)
    raw[2], raw[3] = rng.choice([32767, -32767, -32768], (2, m))
    formats = {row: part.frac for row, (_, part) in tables.state_rows.items()}
    initial = [
        np.concatenate([to_raw(values[k, 0], formats[row])[0] for k, row in enumerate(rows)])
        for (rows, _), values in zip(states.values(), given_, strict=True)
    ]
    return qmodel, raw, initial


@pytest.mark.parametrize("weight_bits", [8, 16])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5)
def test_every_recurrent_kind_gives_the_oracles_bits_on_every_engine(weight_bits, seed):
    qmodel, raw, initial = mixed_model(np.random.default_rng(seed), weight_bits)
    expected = oracle.run(qmodel.tables, [raw], initial)
    outputs, states = PlainC(qmodel.tables).run([raw], initial)
    assert_equal_bits(expected[0][0], outputs[0], "plain C, output", seed)
    for name, values in expected[2].items():
        assert_equal_bits(values, states[name], f"plain C, state of {name}", seed)
    for target in EVERYWHERE:
        check(qmodel.tables, raw, initial, target, expected, seed)


def test_final_states_come_out_as_views():
    """Of an LSTM the output and the cell, from the state alone."""
    qmodel, raw, initial = mixed_model(np.random.default_rng(3), 16)
    _, trace, _ = oracle.run(qmodel.tables, [raw], initial)
    shaped = [v.reshape(len(a.layers), 1, -1) for v, a in zip(initial, qmodel.signature.arguments[1:], strict=True)]
    for target in ("host", "cortex-m4"):
        _, h, c = Simulator(qmodel, target).run_raw((raw[None], *shaped))
        assert_equal_bits(trace["a"][-1], h[0, 0], f"{target}, h_n", 3)
        assert_equal_bits(trace["a.cell"][-1], c[0, 0], f"{target}, c_n", 3)


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
    for target in EVERYWHERE:
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


@pytest.mark.parametrize("target", on("host", *TARGETS, M55))
@pytest.mark.parametrize("kind", ["reset after", "reset before", "mixed"])
def test_disturbed_firmware_gives_the_same_bits(target, kind):
    """State saved, everything poisoned, state restored, before every step; then a reset, and the first bits again."""
    seed = 17
    rng = np.random.default_rng(seed)
    if kind == "mixed":
        qmodel, raw, initial = mixed_model(rng, 8)
        tables = qmodel.tables
    else:
        tables, raw, initial = random_model(rng, 2, 33, 8, "tanh", kind == "reset after")
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
