"""The demo on real data: what the fully trained model must keep in fixed point, and the command's way with few digits.

Neighbours: `firmware_sim/demo.py` (what is tested), `firmware_sim/compare.py`.
"""

import dataclasses
import importlib.util
import json
import re
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import quantize
from firmware_sim import cli, demo
from firmware_sim.compare import sqnr_db, validate
from firmware_sim.engines import McuEngine
from firmware_sim.simulator import Simulator
from quantize import QuantizeError
from quantize.dequantize import dequantized_graph
from quantize.float_run import run_graph
from quantize.formats import to_float, to_raw
from quantize.plan import STATE_EXTRA
from rtcore import Net

torch = pytest.importorskip("torch", reason="torch is an optional extra: rtcore[torch]")
pytest.importorskip("sklearn", reason="the digits come with an optional extra: rtcore[demo]")

EXTRAS = [importlib.util.find_spec(name) for name in ("ziglang", "unicorn", "elftools", "matplotlib")]
needs_everything = pytest.mark.skipif(None in EXTRAS, reason="the whole demo needs rtcore[mcu] and rtcore[report]")
FAST = demo.Settings(epochs=2)  # the way, not the result


@pytest.fixture(scope="module")
def digits():
    return demo.load_digits_frames()


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """(.pt2, float torch's logits of the held-out digits) of the fully trained model."""
    return demo.trained(tmp_path_factory.mktemp("digits"), digits)


@pytest.fixture(scope="module")
def fast_folder(tmp_path_factory):
    """A folder that holds a model of two epochs."""
    folder = tmp_path_factory.mktemp("fast")
    demo.trained(folder, demo.load_digits_frames(FAST), FAST)
    return folder


# ---------------------------------------------------------------------------------------------------- the real model --


def test_the_digits_are_scaled_and_split_evenly(digits):
    assert digits.frames.shape == (1257, 8, 8) and digits.held_out_frames.shape == (540, 8, 8)
    assert digits.frames.dtype == np.float32 and digits.frames.min() == 0 and digits.frames.max() == 1
    shares = np.bincount(digits.held_out_labels) / np.bincount(np.r_[digits.labels, digits.held_out_labels])
    assert np.all(np.abs(shares - 0.3) < 0.01)


def test_float_torch_reads_96_percent(digits, trained):
    assert demo.accuracy(trained[1], digits.held_out_labels) >= 96


@pytest.mark.parametrize("weight_bits", [16, 8])
def test_the_state_keeps_80_db_against_float64_on_the_same_weights(digits, trained, weight_bits):
    """The 32-bit state of the GRU over every held-out digit, arithmetic alone: weights and frames are the integers'."""
    graph = quantize.import_model(trained[0], digits.frames[:2])
    tables = quantize.quantize_graph(graph, [digits.frames[: demo.CALIBRATION]], weight_bits).tables
    raw, _ = to_raw(digits.held_out_frames, tables.tensors[tables.inputs[0]].frac)
    seen = {}
    exact = to_float(raw, tables.tensors[tables.inputs[0]].frac)
    run_graph(dequantized_graph(graph, tables), exact, observe=lambda name, array: seen.update({name: array}))
    gru = tables.states[0]
    state = Net(tables).run([raw], trace=True).state_trace[gru.name] * 2.0 ** -(gru.ints["state_frac"] + STATE_EXTRA)
    found = sqnr_db(seen[gru.output], state)
    print(f"int{weight_bits}: {found:.1f} dB")
    assert found >= 80


@pytest.mark.parametrize(("weight_bits", "floor", "points"), [(16, 80, 0.3), (8, 42, 0.6)])
def test_fixed_point_keeps_the_logits_and_the_accuracy(digits, trained, weight_bits, floor, points):
    """Floors of the logits against float torch in dB, and points of accuracy, over every held-out digit."""
    path, float_logits = trained
    qmodel = quantize.quantize(path, digits.frames[: demo.CALIBRATION], weight_bits=weight_bits)
    logits = Simulator(qmodel).run(digits.held_out_frames)
    found = sqnr_db(float_logits, logits)
    lost = demo.accuracy(float_logits, digits.held_out_labels) - demo.accuracy(logits, digits.held_out_labels)
    print(f"int{weight_bits}: {found:.1f} dB, {lost:+.2f} points lost")
    assert found >= floor and abs(lost) <= points
    report = validate(qmodel, path, digits.held_out_frames)
    assert report.ok and report.saturated == 0
    assert report.sqnr_db == pytest.approx(found, abs=0.1), "the float reference is float torch's"


def test_training_is_deterministic(digits):
    first, second = (demo.train(digits, FAST).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_leaves_torch_as_it_was(digits):
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    demo.train(digits, dataclasses.replace(FAST, epochs=1))
    assert torch.get_num_threads() == threads and torch.equal(torch.random.get_rng_state(), state)


def test_the_model_is_trained_once(digits, fast_folder, monkeypatch):
    monkeypatch.setattr(demo, "train", lambda *_: pytest.fail("trained again"))
    path, logits = demo.trained(fast_folder, digits, FAST)
    assert path.parent == fast_folder and logits.shape == (540, 10)
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        demo.trained(fast_folder, digits, demo.Settings(epochs=3))


# ------------------------------------------------------------------------------------------------------ the command --


@needs_everything
def test_the_demo_runs_writes_and_tells(fast_folder):
    found = demo.run_demo(fast_folder, FAST, emulated=3)
    assert found.ok and found.held_out == 540 and found.emulated == 3
    assert [row.name for row in found.rows] == ["float32", "int16", "int8"]
    for row, bits in zip(found.rows[1:], (16, 8), strict=True):
        assert row.equal and row.sqnr_db > 30 and row.flash > row.weight_bytes and row.instructions > 1000
        assert row.weight_bytes == (3 * 32 * (8 + 32) + 32 * 10) * bits // 8
        assert quantize.load(fast_folder / f"digits-int{bits}.safetensors").digest == found.reports[bits].digest
        assert (fast_folder / f"int{bits}" / "digits_weights.h").is_file()
        assert (fast_folder / f"digits-int{bits}.png").read_bytes().startswith(b"\x89PNG")
    trajectories = {t.name: t for t in found.reports[8].trajectories}
    assert trajectories["head"].fixed.shape == (8, 10) and trajectories["gru"].fixed.shape == (8, 32)


@needs_everything
def test_the_command_prints_one_table(fast_folder, monkeypatch):
    fast(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(cli.main, ["demo", "-o", str(fast_folder)])
    assert result.exit_code == 0, result.output
    assert "540 held-out digits on the host, 2 of them on an emulated cortex-m4" in result.stdout
    for weights in ("float32", "int16", "int8"):
        assert re.search(rf"^ {weights} +\d\d\.\d\d ", result.stdout, re.M), result.stdout
    assert str(fast_folder / "int8") in result.stdout and result.stderr == ""
    result = CliRunner().invoke(cli.main, ["demo", "-o", str(fast_folder), "--json"])
    document = json.loads(result.stdout)
    assert document["ok"] and [row["equal"] for row in document["rows"]] == [None, True, True]


@needs_everything
def test_the_demo_ends_with_1_where_bits_differ(fast_folder, monkeypatch):
    fast(monkeypatch)
    right = McuEngine.run

    def wrong(self, inputs, initial, trace):
        found = right(self, inputs, initial, trace)
        found.trace["head"][0, 7, 9] += 1
        return found

    monkeypatch.setattr(McuEngine, "run", wrong)
    result = CliRunner().invoke(cli.main, ["demo", "-o", str(fast_folder)])
    assert result.exit_code == 1 and "DIFFER" in result.stdout
    assert "int16: stream 0, step 7, layer head, tensor head, unit 9: host" in result.stdout


def fast(monkeypatch):
    """The command's demo with few epochs and two emulated digits."""
    whole = demo.run_demo

    def few(folder, target, progress):
        return whole(folder, FAST, 2, target, progress)

    monkeypatch.setattr(demo, "run_demo", few)


@pytest.mark.parametrize(("module", "extra"), [("sklearn", "demo"), ("torch", "torch")])
def test_missing_packages_are_named(tmp_path, monkeypatch, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    for name in [name for name in sys.modules if name.startswith(f"{module}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(QuantizeError, match=re.escape(f"pip install 'rtcore[{extra}]'")):
        demo.run_demo(tmp_path, FAST)
