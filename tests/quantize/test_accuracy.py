"""The arithmetic alone: int16 nets against float64 on the same dequantized weights and the same int16 inputs, as SQNR
of the 32-bit state in dB. Floors are those of the number contract: they have 10 dB and more of room on these nets."""

import numpy as np
import pytest

from graphs import Graph, Node, gru_graph, gru_node, linear_node, signature, sqnr
from quantize import quantize_graph
from quantize.dequantize import dequantized_graph
from quantize.float_run import run_graph
from quantize.formats import to_float, to_raw
from rtcore import Net


def state_sqnr(graph, x, **options):
    """(SQNR of the state, tables, float64 tensors seen). One GRU named rnn, whose output is the model's."""
    qmodel = quantize_graph(graph, [x], **options)
    tables = qmodel.tables
    raw, clipped = to_raw(x, tables.tensors["x"].frac)
    assert clipped == 0
    seen = {}
    exact = to_float(raw, tables.tensors["x"].frac).astype(np.float64)
    run_graph(dequantized_graph(graph, tables), exact, observe=lambda name, array: seen.update({name: array}))
    run = Net(tables).run([raw], trace=True)
    layer = next(layer for layer in tables.layers if layer.kind == "gru_i16")
    assert run.saturated[layer.name] == 0
    state = run.state_trace["rnn"] * 2.0 ** -(layer.ints["state_frac"] + 15)
    return sqnr(seen["rnn"], state), tables, seen


@pytest.mark.parametrize("weight_bits", [16, 8])
@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("gate_slope", [0.0, 1 / 6, 0.2])
@pytest.mark.parametrize(("seed", "units", "scale"), [(0, 64, 1.0), (1, 33, 2.0), (2, 128, 3.0), (3, 8, 1.0)])
def test_random_tanh_nets_reach_80_db(seed, units, scale, gate_slope, reset_after, weight_bits):
    rng = np.random.default_rng(seed)
    graph = gru_graph(rng, 20, units, scale=scale, reset_after=reset_after, gate_slope=gate_slope)
    found, *_ = state_sqnr(graph, rng.standard_normal((4, 100, 20)), weight_bits=weight_bits)
    print(f"{found:.1f} dB")
    assert found >= 80, f"{found:.1f} dB, seed {seed}"


@pytest.mark.parametrize("weight_bits", [16, 8])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_relu_nets_with_large_states_reach_70_db(seed, weight_bits):
    """Reset-before, states to 18 and candidate pre-activations to 27 and beyond, as in RNNoise 0.1."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 300, 20))
    node = gru_node("rnn", "x", rng, 20, 48, activation="relu", reset_after=False, scale=2.0)
    node.params["weight_hh"][48:] *= 0.2
    node.params["weight_ih"][48:96] *= 0.2  # update gates that stay slow: candidates reach further than states
    node.params["bias_ih"][48:96] += 1.5
    graph = Graph((node,), {"x": 20, "rnn": 48}, signature(20, "rnn"))
    for _ in range(30):  # states grow with the candidate's input weights, monotonically: scale them to 18
        largest = np.abs(run_graph(graph, x)).max()
        if 17.5 < largest < 18.5:
            break
        node.params["weight_ih"][96:] *= (18 / largest) ** 0.7
    found, _, seen = state_sqnr(graph, x, weight_bits=weight_bits)
    assert 17.5 < np.abs(seen["rnn"]).max() < 18.6 and np.abs(seen["rnn:candidate"]).max() >= 27
    print(f"{found:.1f} dB")
    assert found >= 70, f"{found:.1f} dB, seed {seed}"


@pytest.mark.parametrize("weight_bits", [16, 8])
@pytest.mark.parametrize("gate_slope", [0.0, 1 / 6, 0.2])
@pytest.mark.parametrize(("slowness", "floor"), [(1e-3, 65), (1e-4, 60)])
def test_slow_units_over_20000_steps(slowness, floor, gate_slope, weight_bits):
    """1 - z held at 1e-3 and 1e-4: a relative error e of 1 - z costs -20 log10 e dB."""
    rng = np.random.default_rng(7)
    graph = gru_graph(rng, 8, 16, gate_slope=gate_slope)
    params = graph.nodes[0].params
    params["weight_ih"][16:32] = params["weight_hh"][16:32] = 0
    open_ = (0.5 - slowness) / gate_slope if gate_slope else np.log(1 / slowness - 1)
    params["bias_ih"][16:32], params["bias_hh"][16:32] = open_, 0
    found, *_ = state_sqnr(graph, rng.standard_normal((1, 20000, 8)) + 0.2, weight_bits=weight_bits)
    print(f"{found:.1f} dB")
    assert found >= floor, f"{found:.1f} dB"


def test_error_does_not_drift():
    """The error's rms over the last fifth of 5,000 steps is within 3 dB of the second fifth's."""
    rng = np.random.default_rng(8)
    graph = gru_graph(rng, 12, 32)
    x = rng.standard_normal((1, 5000, 12))
    tables = quantize_graph(graph, [x]).tables
    raw, _ = to_raw(x, tables.tensors["x"].frac)
    reference = run_graph(dequantized_graph(graph, tables), to_float(raw, tables.tensors["x"].frac).astype(np.float64))
    error = Net(tables).run([raw], trace=True).state_trace["rnn"][0] * 2.0**-30 - reference[0]
    early, late = (np.sqrt((part**2).mean()) for part in (error[1000:2000], error[4000:]))
    assert late < early * 2**0.5


def test_every_elementwise_op_and_format_against_float():
    """A graph with every op; int16 tensors against float64: each within 60 dB, as formats fit their ranges (a
    full-scale int16 tensor has about 90; sums of tensors of unequal formats lose the difference)."""
    rng = np.random.default_rng(9)
    scale, offset = rng.uniform(-3, 3, 12), rng.uniform(-1, 1, 12)
    nodes = (
        linear_node("fc", "x", rng, 12, 12),
        Node("activation", "act", ("fc",), "act", dict(activation="tanh")),
        Node("affine", "aff", ("x",), "aff", params=dict(scale=scale, offset=offset)),
        Node("add", "sum", ("act", "aff"), "sum"),
        Node("sub", "difference", ("aff", "act"), "difference"),
        Node("mul", "product", ("sum", "difference"), "product"),
        Node("slice", "part", ("product",), "part", dict(start=3, stop=8)),
        Node("slice", "one", ("act",), "one", dict(start=2, stop=3)),
        Node("mul", "gained", ("part", "one"), "gained"),
        Node("sub", "flipped", ("one", "part"), "flipped"),
        Node("activation", "gate", ("part",), "gate", dict(activation="sigmoid")),
        Node("activation", "positive", ("gained",), "positive", dict(activation="relu")),
        Node("concat", "all", ("gate", "positive", "x", "flipped"), "all"),
        linear_node("head", "all", rng, 27, 6),
        Node("activation", "out", ("head",), "out", dict(activation="relu")),
    )
    widths = {
        "x": 12,
        "part": 5,
        "one": 1,
        "gained": 5,
        "flipped": 5,
        "gate": 5,
        "positive": 5,
        "all": 27,
        "head": 6,
        "out": 6,
    }
    widths |= dict.fromkeys(("fc", "act", "aff", "sum", "difference", "product"), 12)
    graph = Graph(nodes, widths, signature(12, "out", "part", "x", "out", "act"))
    x = rng.standard_normal((3, 50, 12)) * 2
    tables = quantize_graph(graph, [x]).tables
    seen = {}
    run_graph(graph, x, observe=lambda name, array: seen.update({name: array}))
    raw, _ = to_raw(x, tables.tensors["x"].frac)
    run = Net(tables).run([raw], trace=True)
    for name, tensor in tables.tensors.items():
        if name in seen:
            found = sqnr(seen[name], to_float(run.trace[name], tensor.frac))
            assert found >= 60, f"{name}: {found:.1f} dB"
    for name, y in zip(("out", "part", "x", "out", "act"), run.outputs, strict=True):
        assert sqnr(seen[name], to_float(y, tables.tensors[name].frac)) >= 60
    assert sum(run.saturated.values()) == 0
