"""`validate`: its figures against figures computed here, its comparison of bits against bits that are wrong on purpose.

Neighbours: `firmware_sim/compare.py` (what is tested), `graphs.py` (float graphs without torch).
"""

import dataclasses
import importlib.util
import json
import math

import numpy as np
import pytest

import firmware_sim
import quantize
from firmware_sim import compare
from firmware_sim.compare import first_mismatch, sqnr_db, validate
from firmware_sim.engines import McuEngine
from firmware_sim.simulator import Simulator
from graphs import BTF, gru_graph, gru_node, linear_node, lstm_node, signature, sqnr
from quantize import QuantizeError, quantize_graph
from quantize.dequantize import dequantized_graph
from quantize.float_run import run_graph
from quantize.graph import Argument, Graph, Node, Result, Signature

SEED = 11
MCU = [importlib.util.find_spec(name) for name in ("ziglang", "unicorn", "elftools")]
needs_emulator = pytest.mark.skipif(None in MCU, reason="the emulator is an optional extra: rtcore[mcu]")


def wide_graph(rng):
    """Fused and plain activations, a concatenation, a slice, two GRUs of both forms; results of every kind."""
    nodes = (
        gru_node("rnn", "x", rng, 5, 8, initial=("h0", 0)),
        linear_node("lin", "rnn", rng, 8, 6),
        Node("activation", "act", ("lin",), "act", {"activation": "tanh"}),
        Node("concat", "cat", ("act", "x"), "cat"),
        Node("slice", "part", ("cat",), "part", {"start": 2, "stop": 9}),
        gru_node("top", "part", rng, 7, 6, activation="relu", reset_after=False),
        linear_node("head", "top", rng, 6, 3),
    )
    widths = {"x": 5, "rnn": 8, "lin": 6, "act": 6, "cat": 11, "part": 7, "top": 6, "head": 3}
    arguments = (
        Argument("x", "frames", BTF, "x", (), 5),
        Argument("h0", "state", ("layer", "batch", "feature"), "", ("rnn",), 8),
    )
    results = (
        Result("y", tuple((axis,) for axis in BTF), ("head",)),
        Result("last", (("batch",), ("feature",)), ("top",)),
        Result("h_n", (("layer",), ("batch",), ("feature",)), ("rnn",), state=True),
    )
    return Graph(nodes, widths, Signature(arguments, results, "tuple"))


@pytest.fixture(scope="module")
def wide():
    """(graph, qmodel, frames): three streams of 20 steps and their initial states."""
    rng = np.random.default_rng(SEED)
    graph = wide_graph(rng)
    frames = (rng.standard_normal((3, 20, 5)), 0.5 * rng.standard_normal((1, 3, 8)))
    return graph, quantize_graph(graph, [frames]), frames


@pytest.fixture(scope="module")
def small():
    """(graph, qmodel, frames): one GRU, two streams of 12 steps."""
    rng = np.random.default_rng(SEED)
    graph = gru_graph(rng, 4, 6)
    frames = rng.standard_normal((2, 12, 4))
    return graph, quantize_graph(graph, [frames]), frames


def seen_by(graph, frames):
    seen = {}
    run_graph(graph, frames, observe=lambda name, array: seen.update({name: array}))
    return seen


# -------------------------------------------------------------------------------------------------------- figures --


def test_sqnr_of_known_errors():
    ones = np.ones((2, 5))
    assert sqnr_db(ones, 1.1 * ones) == pytest.approx(20)
    assert sqnr_db(ones, ones) == math.inf
    assert sqnr_db(0 * ones, ones) == -math.inf
    assert sqnr_db(0 * ones, 0 * ones) == math.inf


def test_rows_are_the_net_s_tensors_in_order_without_those_fused_away(wide):
    report = validate(wide[1], wide[0], wide[2])
    assert [t.name for t in report.tensors] == ["x", "rnn", "act", "cat", "part", "top", "head"]
    kinds = ["input", "gru_i16", "dense_i16", "rescale_i16", "part", "gru_i16", "dense_i16"]
    assert [t.kind for t in report.tensors] == kinds
    assert [t.name for t in report.tensors if t.state_sqnr_db is not None] == ["rnn", "top"]
    assert (report.target, report.streams, report.steps, report.mcu) == ("host", 3, 20, None)
    assert report.digest == wide[1].digest and report.ok


def test_every_row_holds_the_figures_of_its_tensor(wide):
    graph, qmodel, frames = wide
    simulator = Simulator(qmodel)
    simulator.run(frames, trace=True)
    run, reference = simulator.last_run, seen_by(graph, frames)
    for row in validate(qmodel, graph, frames).tensors:
        raw, lsb = run.trace[row.name].astype(np.float64), 2.0**-row.frac
        error = reference[row.name] / lsb - raw
        assert row.sqnr_db == pytest.approx(sqnr(reference[row.name], raw * lsb))
        assert row.max_error_lsb == pytest.approx(np.abs(error).max())
        assert row.rms_first_lsb == pytest.approx(np.sqrt(np.mean(error[:, :5] ** 2)))
        assert row.rms_last_lsb == pytest.approx(np.sqrt(np.mean(error[:, -5:] ** 2)))
        assert (row.low, row.high) == (raw.min() * lsb, raw.max() * lsb)
        assert row.range_used == pytest.approx(np.abs(raw).max() / 32768)
        assert (row.width, row.saturated) == (raw.shape[2], 0)
        if row.state_sqnr_db is not None:
            state = run.state_trace[row.name] * lsb / 2**15
            assert row.state_sqnr_db == pytest.approx(sqnr(reference[row.name], state))
            assert row.state_sqnr_db > row.sqnr_db - 0.1


def test_outputs_are_scored_as_the_model_returns_them(wide):
    graph, qmodel, frames = wide
    results = zip(run_graph(graph, frames), Simulator(qmodel).run(frames), strict=True)
    report = validate(qmodel, graph, frames)
    assert [(o.name, o.steps) for o in report.outputs] == [("y", "every"), ("last", "last"), ("h_n", "last")]
    for output, (reference, fixed) in zip(report.outputs, results, strict=True):
        assert output.sqnr_db == pytest.approx(sqnr(reference, fixed))
    assert report.sqnr_db == min(output.sqnr_db for output in report.outputs)


@pytest.mark.parametrize("weight_bits", [8, 16])
def test_the_error_budget_adds_up(wide, weight_bits):
    graph, _, frames = wide
    qmodel = quantize_graph(graph, [frames], weight_bits)
    rounded = run_graph(dequantized_graph(graph, qmodel.tables), frames)
    for output, reference, on_rounded in zip(
        validate(qmodel, graph, frames).outputs, run_graph(graph, frames), rounded, strict=True
    ):
        assert output.weights_sqnr_db == pytest.approx(sqnr(reference, on_rounded))
        parts = 10 ** (-output.weights_sqnr_db / 10) + 10 ** (-output.arithmetic_sqnr_db / 10)
        assert output.sqnr_db == pytest.approx(-10 * math.log10(parts), abs=2)
        if weight_bits == 8:
            assert output.arithmetic_sqnr_db > output.weights_sqnr_db + 15


def test_weights_that_lose_nothing_cost_nothing():
    rng = np.random.default_rng(SEED)
    graph = gru_graph(rng, 4, 6)
    params = {name: np.round(64 * value) / 64 for name, value in graph.nodes[0].params.items()}
    graph = dataclasses.replace(graph, nodes=(dataclasses.replace(graph.nodes[0], params=params),))
    frames = rng.standard_normal((1, 30, 4))
    (output,) = validate(quantize_graph(graph, [frames], 8), graph, frames).outputs
    assert output.weights_sqnr_db == math.inf and output.arithmetic_sqnr_db == output.sqnr_db > 80


def test_saturation_is_counted_where_it_happens():
    rng = np.random.default_rng(SEED)
    graph = Graph((linear_node("head", "x", rng, 4, 3),), {"x": 4, "head": 3}, signature(4, "head"))
    frames = rng.standard_normal((2, 50, 4))
    qmodel = quantize_graph(graph, [frames], headroom=1)
    loud = 3 * frames
    lsb = 2.0 ** -qmodel.tables.tensors["x"].frac
    beyond = int(np.sum((loud / lsb + 0.5 >= 32769) | (loud / lsb + 0.5 < -32768)))
    quiet, report = validate(qmodel, graph, frames), validate(qmodel, graph, loud)
    assert quiet.saturated == 0
    assert report.tensors[0].saturated == beyond > 0
    assert report.tensors[1].saturated > 0
    assert report.saturated == sum(t.saturated for t in report.tensors)


def test_drift_shows_in_the_last_quarter():
    rng = np.random.default_rng(SEED)
    graph = gru_graph(rng, 4, 6)
    calm = rng.standard_normal((1, 40, 4))
    frames = calm.copy()
    frames[:, 30:] *= 30  # beyond the format: the error rises
    (_, row) = validate(quantize_graph(graph, [calm]), graph, frames).tensors
    assert row.rms_last_lsb > 20 * row.rms_first_lsb


def test_trajectories_show_one_stream_and_the_rms_of_all(small):
    graph, qmodel, frames = small
    reference = seen_by(graph, frames)["rnn"]
    first, second = (validate(qmodel, graph, frames, stream=k).trajectories for k in (0, 1))
    assert [(t.name, t.kind) for t in first] == [("rnn", "state"), ("rnn", "output")]
    assert np.array_equal(first[0].reference, reference[0]) and np.array_equal(second[0].reference, reference[1])
    assert first[0].rms_error_lsb.shape == (12,) and np.array_equal(first[0].rms_error_lsb, second[0].rms_error_lsb)


# ------------------------------------------------------------------------------------------------------ the model --


def test_a_single_stream_of_another_length_is_taken(small):
    graph, qmodel, frames = small
    report = validate(qmodel, graph, np.tile(frames[0], (5, 1)))
    assert (report.streams, report.steps) == (1, 60)


@pytest.mark.parametrize("form", ["module", "program", "file"])
def test_torch_models_are_imported(tmp_path, form):
    torch = pytest.importorskip("torch", reason="torch is an optional extra: rtcore[torch]")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.GRU(4, 5)
            self.head = torch.nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    torch.manual_seed(SEED)
    module, frames = Net().eval(), np.random.default_rng(SEED).standard_normal((9, 3, 4)).astype(np.float32)
    qmodel = quantize.quantize(module, frames)
    program = torch.export.export(module, (torch.from_numpy(frames),))
    torch.export.save(program, tmp_path / "net.pt2")
    model = {"module": module, "program": program, "file": tmp_path / "net.pt2"}[form]
    report = validate(qmodel, model, frames)
    assert report.ok and (report.streams, report.steps) == (3, 9)
    expected = sqnr(module(torch.from_numpy(frames)).detach().numpy(), Simulator(qmodel).run(frames))
    assert report.sqnr_db == pytest.approx(expected, abs=0.1)
    assert validate(qmodel, model, frames[:, 0]).steps == 9  # one stream, its batch axis left out
    assert validate(qmodel, model, np.round(frames).astype(np.int64)).ok


def test_another_model_is_refused_by_name(small):
    _, qmodel, frames = small
    rng = np.random.default_rng(SEED)
    wider = gru_graph(rng, 4, 7)
    with pytest.raises(QuantizeError, match=r"not the model that was quantized: layer rnn: .*\(21, 4\).*\(18, 4\)"):
        validate(qmodel, wider, frames)
    other = Graph((gru_node("rnn", "x", rng, 4, 6),), {"x": 4, "rnn": 6}, signature(4, "rnn", "rnn"))
    with pytest.raises(QuantizeError, match=r"results \['y0', 'y1'\].* against \['y0'\]"):
        validate(qmodel, other, frames)


def test_the_same_net_with_other_weights_fails_the_check(small):
    _, qmodel, frames = small
    report = validate(qmodel, gru_graph(np.random.default_rng(SEED + 1), 4, 6), frames)
    assert not report.ok and report.problems[0].startswith("output y0: ")


def test_the_threshold_decides(small):
    graph, qmodel, frames = small
    worst = validate(qmodel, graph, frames).sqnr_db
    assert validate(qmodel, graph, frames, min_sqnr=worst - 0.1).ok
    report = validate(qmodel, graph, frames, min_sqnr=worst + 0.1)
    assert not report.ok
    assert report.problems == [f"output y0: {worst:.1f} dB, below the {worst + 0.1:g} dB asked for"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "cortex-m9"}, "unknown target 'cortex-m9'; targets are host, cortex-m0"),
        ({"min_sqnr": math.nan}, "min_sqnr nan"),
        ({"mcu_streams": 0}, "mcu_streams 0"),
        ({"stream": 2}, "stream 2: the frames hold 2, 0 to 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(small, options, message):
    graph, qmodel, frames = small
    with pytest.raises(ValueError, match=message):
        validate(qmodel, graph, frames, **options)


def test_frames_that_are_not_finite_are_refused(small):
    graph, qmodel, frames = small
    frames = frames.copy()
    frames[1, 3, 2] = np.nan
    with pytest.raises(QuantizeError, match=r"'x' holds nan at index \(1, 3, 2\)"):
        validate(qmodel, graph, frames)


# ----------------------------------------------------------------------------------------------- microcontrollers --


@needs_emulator
@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4", "rv32imc"])
@pytest.mark.parametrize("weight_bits", [8, 16])
def test_the_emulated_core_gives_the_host_s_bits(wide, target, weight_bits):
    graph, _, frames = wide
    qmodel = quantize_graph(graph, [frames], weight_bits)
    report = validate(qmodel, graph, frames, target)
    mcu = report.mcu
    assert report.ok and mcu.equal and mcu.mismatch is None
    assert (mcu.target, mcu.streams, mcu.steps) == (target, 3, 20)
    assert 1000 < mcu.instructions_min <= mcu.instructions_mean <= mcu.instructions_max
    assert mcu.flash > report.weight_bytes and mcu.ram > 0
    simulator = Simulator(qmodel, target)
    simulator.run(frames)
    counts = simulator.instructions
    expected = (counts.min(), counts.mean(), counts.max())
    assert (mcu.instructions_min, mcu.instructions_mean, mcu.instructions_max) == expected


@needs_emulator
def test_only_the_first_streams_are_emulated_when_asked(small):
    graph, qmodel, frames = small
    calls = []
    report = validate(qmodel, graph, frames, "cortex-m4", mcu_streams=1, progress=lambda *args: calls.append(args))
    assert report.mcu.streams == 1 and report.streams == 2
    assert calls[-1] == ("emulating cortex-m4", 1, 1)


@needs_emulator
@pytest.mark.parametrize("where", ["state", "tensor", "output"])
def test_one_wrong_bit_is_found_and_named(wide, monkeypatch, where):
    """Stream 1, step 7: a state's lowest bit, a hidden tensor's, an output's; later ones must not hide it."""
    graph, qmodel, frames = wide
    run_right, runs = McuEngine.run, []

    def run_wrong(self, inputs, initial, trace):
        run = run_right(self, inputs, initial, trace)
        if len(runs) == 1:
            run.trace["head"][0, 8] ^= 1
            wrong = {"state": run.state_trace["rnn"], "tensor": run.trace["act"], "output": run.trace["head"]}[where]
            wrong[0, 7, 2] ^= 1
        runs.append(run)
        return run

    monkeypatch.setattr(McuEngine, "run", run_wrong)
    report = validate(qmodel, graph, frames, "cortex-m4")
    found = report.mcu.mismatch
    assert not report.ok and not report.mcu.equal
    assert len(runs) == report.mcu.streams == 2, "the emulation stops where the bits differ"
    layer, what, name = {
        "state": ("rnn", "state", "rnn"),
        "tensor": ("lin", "tensor", "act"),
        "output": ("head", "tensor", "head"),
    }[where]
    assert (found.stream, found.step, found.unit) == (1, 7, 2)
    assert (found.layer, found.what, found.name) == (layer, what, name)
    assert found.expected ^ 1 == found.actual
    assert f"stream 1, step 7, layer {layer}" in report.problems[-1]


def test_the_earliest_step_comes_first_then_the_order_of_execution(wide):
    _, qmodel, frames = wide
    simulator = Simulator(qmodel)
    simulator.run(frames, trace=True)
    host = simulator.last_run
    one = dataclasses.replace(
        host,
        trace={name: array[1:2].copy() for name, array in host.trace.items()},
        state_trace={name: array[1:2].copy() for name, array in host.state_trace.items()},
    )
    assert first_mismatch(qmodel.tables, host, one, 1) is None
    assert first_mismatch(qmodel.tables, host, one, 0) is not None
    one.trace["head"][0, 4, 1] ^= 1
    assert first_mismatch(qmodel.tables, host, one, 1).name == "head"
    one.trace["top"][0, 4, 5] ^= 1
    assert first_mismatch(qmodel.tables, host, one, 1).name == "top"
    one.state_trace["top"][0, 4, 5] ^= 1
    assert first_mismatch(qmodel.tables, host, one, 1).what == "state"
    one.trace["head"][0, 3, 0] ^= 1
    assert first_mismatch(qmodel.tables, host, one, 1).step == 3


# ----------------------------------------------------------------------------------------------------------- form --


def test_json_has_every_figure_and_no_infinity(small):
    graph, qmodel, frames = small
    report = validate(qmodel, graph, frames)
    exact = dataclasses.replace(report.outputs[0], weights_sqnr_db=math.inf)
    parsed = json.loads(dataclasses.replace(report, outputs=(exact,)).to_json(), parse_constant=pytest.fail)
    assert parsed["ok"] is True and parsed["problems"] == [] and parsed["mcu"] is None
    assert parsed["outputs"][0]["weights_sqnr_db"] == "inf"
    assert parsed["tensors"][1]["state_sqnr_db"] == report.tensors[1].state_sqnr_db
    assert parsed["digest"] == qmodel.digest and "trajectories" not in parsed


def test_the_public_names():
    assert firmware_sim.Report is compare.Report and firmware_sim.validate is validate
    assert firmware_sim.Simulator is Simulator
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        firmware_sim.nothing  # noqa: B018


@needs_emulator
def test_an_lstm_is_compared_as_cell_and_output_together():
    rng = np.random.default_rng(SEED)
    lstm = lstm_node("rnn", "x", rng, 5, 8, 4, initial=("h0", 0), initial_cell=("c0", 0))
    axes = ("layer", "batch", "feature")
    signature_ = Signature(
        (
            Argument("x", "frames", BTF, "x", (), 5),
            Argument("h0", "state", axes, "", ("rnn",), 4),
            Argument("c0", "state", axes, "", ("rnn:cell",), 8),
        ),
        (
            Result("y", tuple((axis,) for axis in BTF), ("rnn",)),
            Result("h_n", tuple((axis,) for axis in axes), ("rnn",), state=True),
            Result("c_n", tuple((axis,) for axis in axes), ("rnn.cell",), state=True),
        ),
        "tuple",
    )
    graph = Graph((lstm, Node("cell", "rnn.cell", ("rnn",), "rnn.cell")), {"x": 5, "rnn": 4, "rnn.cell": 8}, signature_)
    frames = (rng.standard_normal((2, 20, 5)), rng.uniform(-1, 1, (1, 2, 4)), rng.uniform(-2, 2, (1, 2, 8)))
    qmodel = quantize_graph(graph, [frames])
    report = validate(qmodel, graph, frames, "cortex-m3")
    assert report.ok and report.mcu.mismatch is None
    tensors = {row.name: row for row in report.tensors}
    seen = {}
    run_graph(graph, frames, observe=lambda name, array: seen.update({name: array}))
    simulator = Simulator(qmodel)
    y, h_n, c_n = simulator.run(frames, trace=True)
    state = simulator.last_run.state_trace["rnn"]
    rows = {row: part for row, (_, part) in qmodel.tables.state_rows.items()}
    cell, view = state[..., :8] * 2.0 ** -(rows["rnn:cell"].frac + 15), state[..., 8:] * 2.0 ** -rows["rnn"].frac
    together = sqnr(np.concatenate([seen["rnn:cell"], seen["rnn"]], -1), np.concatenate([cell, view], -1))
    assert tensors["rnn"].state_sqnr_db == pytest.approx(together) and tensors["rnn.cell"].state_sqnr_db is None
    assert [output.name for output in report.outputs] == ["y", "h_n", "c_n"]
    assert np.array_equal(h_n[0], y[:, -1]) and sqnr(seen["rnn:cell"][:, -1], c_n[0]) > 60


@needs_emulator
@pytest.mark.parametrize("gate_slope", [0.0, 0.2])
@pytest.mark.parametrize("weight_bits", [16, 8])
def test_forms_of_gates_from_torch_to_the_cores(tmp_path, weight_bits, gate_slope):
    """The module, its file, the generated C on emulated cores: the same bits, near the float module."""
    torch = pytest.importorskip("torch", reason="torch is an optional extra: rtcore[torch]")
    own = importlib.import_module("quantize.nn")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = own.LSTM(4, 7, batch_first=True, peephole=True, gate_slope=gate_slope)
            self.second = own.LSTM(7, 5, batch_first=True, peephole=True, coupled=True, gate_slope=gate_slope)
            self.third = own.GRU(5, 5, reset_after=False, batch_first=True, gate_slope=gate_slope)
            self.head = torch.nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.third(self.second(self.first(x)[0])[0])[0])

    torch.manual_seed(SEED)
    module = Net().eval()
    frames = np.random.default_rng(SEED).standard_normal((4, 30, 4)).astype(np.float32)
    quantize.quantize(module, frames, weight_bits=weight_bits).save(tmp_path / "net.safetensors")
    qmodel = quantize.load(tmp_path / "net.safetensors")
    for target in ("cortex-m0", "cortex-m4", "rv32imc"):
        assert validate(qmodel, module, frames[:1], target=target).ok
    found = sqnr(module(torch.from_numpy(frames)).detach().numpy(), Simulator(qmodel).run(frames))
    print(f"int{weight_bits}: {found:.1f} dB")
    assert found >= (75 if weight_bits == 16 else 40)
