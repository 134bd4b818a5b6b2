"""The accuracy of LSTM and RNN: the arithmetic against float64 on the dequantized weights, as SQNR of the state in dB
(an LSTM's cell and output together), and end to end against the float net.

Neighbours: `test_accuracy.py` (the same for GRU and the elementwise operations).
"""

import numpy as np
import pytest

from graphs import Graph, linear_node, lstm_node, rnn_node, signature, sqnr
from quantize import quantize_graph
from quantize.dequantize import dequantized_graph
from quantize.float_run import run_graph
from quantize.formats import to_float, to_raw
from rtcore import Net
from rtcore.tables import state_parts


def graph_of(node, inputs):
    width = node.params["weight_hh"].shape[1]
    return Graph((node,), {"x": inputs, "rnn": width}, signature(inputs, "rnn"))


def parts(tables, trace):
    """Row -> float [S, T, N] of the layer rnn."""
    layer = next(layer for layer in tables.layers if layer.name == "rnn")
    return {
        part.row: trace["rnn"][..., part.start : part.start + part.size] * 2.0 ** -(part.frac + 15 * bool(part.wide))
        for part in state_parts(layer)
    }


def state_sqnr(graph, x, **options):
    """SQNR of the state's parts together against float64 on the weights that the integers stand for."""
    tables = quantize_graph(graph, [x], **options).tables
    raw, clipped = to_raw(x, tables.tensors["x"].frac)
    assert clipped == 0
    seen = {}
    exact = to_float(raw, tables.tensors["x"].frac).astype(np.float64)
    run_graph(dequantized_graph(graph, tables), exact, observe=lambda name, array: seen.update({name: array}))
    run = Net(tables).run([raw], trace=True)
    assert run.saturated["rnn"] == 0
    found = parts(tables, run.state_trace)
    reference = np.concatenate([seen[row].ravel() for row in found])
    return sqnr(reference, np.concatenate([values.ravel() for values in found.values()]))


@pytest.mark.parametrize("weight_bits", [16, 8])
@pytest.mark.parametrize("outputs", [0, 12])
@pytest.mark.parametrize(("seed", "units", "scale"), [(0, 64, 1.0), (1, 33, 2.0), (2, 128, 3.0), (3, 16, 1.0)])
def test_lstm_arithmetic_reaches_75_db(seed, units, scale, outputs, weight_bits):
    rng = np.random.default_rng(seed)
    graph = graph_of(lstm_node("rnn", "x", rng, 20, units, outputs, scale=scale), 20)
    found = state_sqnr(graph, rng.standard_normal((4, 100, 20)), weight_bits=weight_bits)
    print(f"{found:.1f} dB")
    assert found >= 75, f"{found:.1f} dB, seed {seed}"


FORMS = [dict(peephole=True), dict(coupled=True), dict(peephole=True, coupled=True), dict(gate_slope=1 / 6)]
FORMS += [dict(peephole=True, coupled=True, gate_slope=0.2)]


@pytest.mark.parametrize("weight_bits", [16, 8])
@pytest.mark.parametrize("outputs", [0, 12])
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("seed", "units", "scale"), [(0, 64, 1.0), (1, 33, 2.0), (2, 128, 3.0)])
def test_other_forms_reach_75_db(seed, units, scale, form, outputs, weight_bits):
    rng = np.random.default_rng(seed)
    graph = graph_of(lstm_node("rnn", "x", rng, 20, units, outputs, scale=scale, **form), 20)
    found = state_sqnr(graph, rng.standard_normal((4, 100, 20)), weight_bits=weight_bits)
    print(f"{found:.1f} dB")
    assert found >= 75, f"{found:.1f} dB, seed {seed}"


def test_a_peephole_holds_a_unit_by_its_cell():
    """Units that forget by what their own cells say: candidates near 1, p_f of -2 on cells of 2 to 3."""
    rng = np.random.default_rng(9)
    node = lstm_node("rnn", "x", rng, 8, 16, peephole=True)
    node.params["bias_ih"][16:48] += np.repeat([4, 2], 16)
    node.params["weight_peephole"][16:32] = -2
    found = state_sqnr(graph_of(node, 8), rng.standard_normal((1, 5000, 8)) + 0.2)
    print(f"{found:.1f} dB")
    assert found >= 75, f"{found:.1f} dB"


@pytest.mark.parametrize("weight_bits", [16, 8])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(("seed", "units"), [(0, 64), (1, 33), (3, 8)])
def test_rnn_arithmetic_reaches_75_db(seed, units, activation, weight_bits):
    """Its state has 16 bits and no more."""
    rng = np.random.default_rng(seed)
    graph = graph_of(rnn_node("rnn", "x", rng, 20, units, activation), 20)
    found = state_sqnr(graph, rng.standard_normal((4, 100, 20)), weight_bits=weight_bits)
    print(f"{found:.1f} dB")
    assert found >= 75, f"{found:.1f} dB, seed {seed}"


@pytest.mark.parametrize("weight_bits", [16, 8])
def test_a_long_memory_over_20000_steps(weight_bits):
    """Forget gates held at 1 - 1e-3: cells sum a thousand steps; a relative error e of 1 - f costs -20 log10 e dB."""
    rng = np.random.default_rng(7)
    node = lstm_node("rnn", "x", rng, 8, 16)
    node.params["weight_ih"][16:32] = node.params["weight_hh"][16:32] = 0
    node.params["bias_ih"][16:32], node.params["bias_hh"][16:32] = np.log(1e3 - 1), 0
    found = state_sqnr(graph_of(node, 8), rng.standard_normal((1, 20000, 8)) + 0.2, weight_bits=weight_bits)
    print(f"{found:.1f} dB")
    assert found >= 70, f"{found:.1f} dB"


def test_a_cell_that_outgrows_its_format_is_clipped_and_counted():
    """f = 1 and i * g = 1 at every step, calibrated over 10 steps, run over 60: it stays at the format's end."""
    node = lstm_node("rnn", "x", np.random.default_rng(0), 1, 4)
    for key in ("weight_hh", "bias_hh"):
        node.params[key][:] = 0
    node.params["weight_ih"][:] = 0.01
    node.params["bias_ih"][:] = 20
    graph = graph_of(node, 1)
    x = np.random.default_rng(1).standard_normal((1, 10, 1))
    tables = quantize_graph(graph, [x]).tables
    assert tables.layers[0].ints["cell_frac"] == 11  # 10 steps with headroom: 12.5
    run = Net(tables).run([np.zeros((1, 60, 1), np.int16)], trace=True)
    assert run.saturated["rnn"] == 4 * (60 - 16)
    assert run.states["rnn"][0, :4].tolist() == [2**30] * 4
    assert np.all(run.state_trace["rnn"][0, :15, :4] < 2**30)


@pytest.mark.parametrize(("weight_bits", "floor"), [(16, 75), (8, 40)])
@pytest.mark.parametrize(
    "kind", ["lstm", "projected", "peephole", "coupled", "coupled peephole", "hard", "tanh", "relu"]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_end_to_end_against_the_float_net(kind, seed, weight_bits, floor):
    rng = np.random.default_rng(seed)
    if kind not in ("tanh", "relu"):
        form = dict(coupled="coupled" in kind, peephole="peephole" in kind, gate_slope=(kind == "hard") / 6)
        node = lstm_node("rnn", "x", rng, 20, 48, 24 if kind == "projected" else 0, **form)
    else:
        node = rnn_node("rnn", "x", rng, 20, 48, kind)
    width = node.params["weight_hh"].shape[1]
    nodes = (node, linear_node("fc", "rnn", rng, width, 6))
    graph = Graph(nodes, {"x": 20, "rnn": width, "fc": 6}, signature(20, "fc"))
    x = rng.standard_normal((4, 100, 20))
    tables = quantize_graph(graph, [x], weight_bits).tables
    raw, _ = to_raw(x, tables.tensors["x"].frac)
    run = Net(tables).run([raw])
    assert sum(run.saturated.values()) == 0
    found = sqnr(run_graph(graph, x), to_float(run.outputs[0], tables.tensors["fc"].frac))
    print(f"{kind}, int{weight_bits}: {found:.1f} dB")
    assert found >= floor, f"{found:.1f} dB, seed {seed}"
