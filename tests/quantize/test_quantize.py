"""quantize(): options, calibration, formats, and the saved file; every refusal by its message."""

import json

import numpy as np
import pytest
import torch

import quantize
from bits import assert_equal_bits
from graphs import gru_graph, gru_node, linear_node, signature
from quantize.graph import Graph
from quantize.plan import frac_for
from rtcore import Net


def small_graph(rng, activation="tanh"):
    nodes = (gru_node("rnn", "x", rng, 6, 10, activation), linear_node("fc", "rnn", rng, 10, 3))
    return Graph(nodes, {"x": 6, "rnn": 10, "fc": 3}, signature(6, "fc"))


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def frames(rng, scale=1.0):
    return rng.standard_normal((2, 30, 6)) * scale


# --------------------------------------------------------------------------------------------------------- formats --


def test_the_slope_of_hard_gates_is_in_the_record_of_those_alone(rng, tmp_path):
    """Files of nets whose gates are sigmoids stay as they were; a slope beyond the format names the layer."""
    for slope, expected in ((0.0, None), (1 / 6, 178956971), (0.2, 214748365), (1.0, 2**30), (2.0**-9, 2**21)):
        graph = gru_graph(rng, 6, 5, gate_slope=slope)
        quantize.quantize_graph(graph, [frames(rng)]).save(tmp_path / "net.safetensors")
        (layer, *_) = quantize.load(tmp_path / "net.safetensors").tables.layers
        assert layer.ints.get("gate_slope") == expected
    for slope in (1.01, 2.0**-10, -0.2):
        message = rf"gru rnn \(graphs.py\): gate_slope is {slope}, expected 0 \(sigmoid gates\) or that of hard"
        with pytest.raises(quantize.PlanError, match=message):
            quantize.quantize_graph(gru_graph(rng, 6, 5, gate_slope=slope), [frames(rng)])


@pytest.mark.parametrize(
    ("limit", "frac"), [(0.999, 15), (1.0, 14), (1.25, 14), (18 * 1.25, 10), (30000, 0), (0, 15), (1e-9, 30)]
)
def test_frac_is_the_finest_that_holds_the_limit(limit, frac):
    assert frac_for(limit) == frac


def test_formats_follow_the_calibration(rng):
    graph = small_graph(rng)
    for scale in (0.01, 1.0, 300.0):
        x = frames(rng, scale)
        tensors = quantize.quantize_graph(graph, [x]).tables.tensors
        largest = np.abs(x).max() * 1.25
        assert largest * 2.0 ** tensors["x"].frac <= 32767 < largest * 2.0 ** (tensors["x"].frac + 1)
        assert tensors["rnn"].frac == 15
    assert quantize.quantize_graph(graph, [frames(rng)], headroom=16).tables.tensors["x"].frac == 9


def test_percentile_ignores_outliers(rng):
    graph = small_graph(rng)
    x = frames(rng)
    x[0, 0, 0] = 1000.0
    assert quantize.quantize_graph(graph, [x]).tables.tensors["x"].frac == 4
    assert quantize.quantize_graph(graph, [x], percentile=99).tables.tensors["x"].frac >= 12


def test_an_initial_state_beyond_one_widens_the_states_format(rng):
    node = gru_node("rnn", "x", rng, 6, 10, initial=("h0", 0))
    graph = Graph((node,), {"x": 6, "rnn": 10}, signature(6, "rnn", initial=("rnn",), units=10))
    h0 = np.full((1, 2, 10), 0.9)
    assert quantize.quantize_graph(graph, [(frames(rng), h0)]).tables.tensors["rnn"].frac == 15
    tables = quantize.quantize_graph(graph, [(frames(rng), 3 * h0)]).tables
    assert tables.tensors["rnn"].frac == 13 and tables.layers[0].ints["state_frac"] == 13
    assert [s.layers for s in tables.state_inputs] == [("rnn",)]


def test_weight_bits_per_layer_and_matrix(rng):
    graph = small_graph(rng)

    def dtypes(weight_bits):
        layers = {x.name: x for x in quantize.quantize_graph(graph, [frames(rng)], weight_bits).tables.layers}
        arrays = [layers["rnn"].arrays["input_weights"], layers["rnn"].arrays["recurrent_weights"]]
        return [a.dtype.itemsize * 8 for a in [*arrays, layers["fc"].arrays["weights"]]]

    assert dtypes(16) == [16, 16, 16]
    assert dtypes(8) == [8, 8, 8]
    assert dtypes({"rnn.recurrent": 8}) == [16, 8, 16]
    assert dtypes({"*": 8, "rnn": 16}) == [16, 16, 8]


def test_accumulators_are_proven_or_narrowed_on_request(rng):
    graph = gru_graph(rng, 60, 90)
    x = rng.standard_normal((1, 20, 60))
    wide = quantize.quantize_graph(graph, [x]).tables
    assert wide.meta["proofs"]["rnn.recurrent"]["acc_bits"] == 64 == wide.layers[0].ints["recurrent_acc_bits"]
    narrow = quantize.quantize_graph(graph, [x], accumulator_bits=32).tables
    assert {p["acc_bits"] for p in narrow.meta["proofs"].values()} == {32}
    assert all(max(p["high"], -p["low"]) <= 2**31 - 1 for p in narrow.meta["proofs"].values())


def test_a_torch_module_is_taken_and_left_as_it_was():
    class Voice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.GRU(6, 10, batch_first=True)
            self.drop = torch.nn.Dropout(0.5)
            self.fc = torch.nn.Linear(10, 3)

        def forward(self, x):
            return torch.sigmoid(self.fc(self.drop(self.rnn(x)[0])))

    torch.manual_seed(1)
    model = Voice().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    samples = [torch.randn(2, t, 6) for t in (5, 9)]
    qmodel = quantize.quantize(model, samples, weight_bits=8)
    assert model.training and all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    again = quantize.quantize(model, (s for s in samples), weight_bits=8)
    assert again.digest == qmodel.digest
    assert qmodel.tables.layers[-1].ints["activation"] == 1, "the sigmoid is fused into the linear layer"
    assert quantize.quantize(model, samples, weight_bits=16).digest != qmodel.digest


# -------------------------------------------------------------------------------------------------------- refusals --


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(weight_bits=7), "weight_bits 7: weights are 8 or 16"),
        (dict(weight_bits={"fc2": 8}), "'fc2': the model has .*rnn.recurrent"),
        (dict(accumulator_bits=24), "accumulator_bits 24"),
        (dict(percentile=10), "percentile 10"),
        (dict(headroom=0.5), "headroom 0.5"),
    ],
)
def test_options_that_mean_nothing_are_refused(rng, options, message):
    with pytest.raises(quantize.QuantizeError, match=message):
        quantize.quantize_graph(small_graph(rng), [frames(rng)], **options)


def test_bad_calibration_is_refused(rng):
    graph = small_graph(rng)
    with pytest.raises(quantize.CalibrationError, match="no sample given"):
        quantize.quantize_graph(graph, [])
    with pytest.raises(quantize.CalibrationError, match="no sample given"):
        quantize.quantize(torch.nn.Linear(2, 2), [])
    with pytest.raises(quantize.CalibrationError, match=r"input x: constant calibration data \(always 2\)"):
        quantize.quantize_graph(graph, [np.full((1, 4, 6), 2.0)])
    x = frames(rng)
    x[1, 2, 3] = np.nan
    with pytest.raises(quantize.QuantizeError, match=r"'x' holds nan at index \(1, 2, 3\)"):
        quantize.quantize_graph(graph, [x])
    with pytest.raises(quantize.QuantizeError, match="7 features.*takes 6"):
        quantize.quantize_graph(graph, [np.ones((1, 4, 7))])
    with pytest.raises(quantize.PlanError, match=r"input x: values reach .*e\+12"):
        quantize.quantize_graph(graph, [frames(rng, 1e12)])


# ------------------------------------------------------------------------------------------------------------ file --


@pytest.fixture
def saved(rng, tmp_path):
    qmodel = quantize.quantize_graph(small_graph(rng), [frames(rng)], 8)
    path = tmp_path / "net.safetensors"
    qmodel.save(path)
    return qmodel, path


def test_save_and_load_give_the_same_net(rng, saved):
    qmodel, path = saved
    loaded = quantize.load(path)
    assert loaded.digest == qmodel.digest and loaded.signature == qmodel.signature
    assert loaded.tables.tensors == qmodel.tables.tensors
    raw = rng.integers(-32768, 32768, (2, 9, 6)).astype(np.int16)
    a, b = (Net(m.tables).run([raw]).outputs[0] for m in (qmodel, loaded))
    assert_equal_bits(a, b, "loaded net", 11)
    before = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == before, "deterministic"
    assert [p.name for p in path.parent.iterdir()] == [path.name], "nothing left behind"


def rewrite(path, change):
    """Edits the file's JSON header in place of what `change` returns for it."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = change(json.loads(data[8 : 8 + size]))
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def test_damaged_and_foreign_files_are_refused(saved, tmp_path):
    _, path = saved
    good = path.read_bytes()
    with pytest.raises(quantize.FormatError, match="no such file"):
        quantize.load(tmp_path / "missing.safetensors")
    path.write_bytes(good[:-40])
    with pytest.raises(quantize.FormatError, match="not a whole safetensors file"):
        quantize.load(path)
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(quantize.FormatError, match="SHA-256 differ"):
        quantize.load(path)

    def foreign(header):
        header["__metadata__"] = {"other": "thing"}
        return header

    path.write_bytes(good)
    rewrite(path, foreign)
    with pytest.raises(quantize.FormatError, match="not one of rtcore's"):
        quantize.load(path)

    def older(header):
        meta = json.loads(header["__metadata__"]["rtcore"])
        meta["document"] = meta["document"].replace('"spec":1', '"spec":0')
        header["__metadata__"]["rtcore"] = json.dumps(meta)
        return header

    path.write_bytes(good)
    rewrite(path, older)
    with pytest.raises(quantize.FormatError, match="spec version 0, this rtcore reads version 1"):
        quantize.load(path)

    def edited(header):
        meta = json.loads(header["__metadata__"]["rtcore"])
        meta["document"] = meta["document"].replace('"state_frac":15', '"state_frac":14')
        header["__metadata__"]["rtcore"] = json.dumps(meta)
        return header

    path.write_bytes(good)
    rewrite(path, edited)
    with pytest.raises(quantize.FormatError, match="edited or damaged"):
        quantize.load(path)


def test_saving_into_a_missing_folder_is_refused(saved, tmp_path):
    qmodel, _ = saved
    with pytest.raises(quantize.FormatError, match="folder .* does not exist"):
        qmodel.save(tmp_path / "nowhere" / "net.safetensors")
