"""ONNX files as a whole: sizes, names, files, refusals.

Neighbours: `test_onnx_exports.py` (equal tables from torch and from its export), `test_onnx_operators.py` (each against
onnxruntime), `onnx_models.py`.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="an optional extra: rtcore[torch]")
pytest.importorskip("onnx", reason="an optional extra: rtcore[onnx]")

import onnx
from click.testing import CliRunner
from onnx import TensorProto, helper

import quantize
from firmware_sim import Simulator
from firmware_sim.cli import main
from onnx_models import array, ints, model, one, saved, value_info
from quantize.errors import FormatError, QuantizeError, UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export's, about its own treatment of nn.GRU

X = array(3, 7, 6, low=-3, high=3)


def load(proto, tmp_path, sample=X, form="auto"):
    return quantize.import_model(saved(proto, tmp_path / "net.onnx"), sample, form)


def test_layer_normalization_of_an_old_opset(tmp_path):
    """Written out in nine operators, as exporters did before opset 17."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[-1]),
        helper.make_node("Sub", ["x", "m"], ["d"]),
        helper.make_node("Pow", ["d", "two"], ["p"]),
        helper.make_node("ReduceMean", ["p"], ["v"], axes=[-1]),
        helper.make_node("Add", ["v", "eps"], ["e"]),
        helper.make_node("Sqrt", ["e"], ["s"]),
        helper.make_node("Div", ["d", "s"], ["q"]),
        helper.make_node("Mul", ["q", "norm.weight"], ["w"]),
        helper.make_node("Add", ["w", "norm.bias"], ["y"]),
    ]
    constants = {"two": np.float32(2), "eps": np.float32(1e-5)}
    constants |= {"norm.weight": array(6, seed=1), "norm.bias": array(6, seed=2)}
    graph = load(model(nodes, {"x": X}, ["y"], constants, 13), tmp_path)
    (node,) = graph.nodes
    assert (node.op, node.attrs["eps"]) == ("layer_norm", 1e-5)
    assert np.array_equal(node.params["weight"], constants["norm.weight"])
    assert np.array_equal(node.params["bias"], constants["norm.bias"])


# --- sizes and names ------------------------------------------------------------------------------------------------


def gru(shape, **graph):
    """Time first, a stream; sizes in the file as given."""
    node = helper.make_node("GRU", ["input.1", "enc.gru.w", "enc.gru.r"], ["y", ""], name="/enc/gru/GRU", hidden_size=4)
    squeeze = helper.make_node("Squeeze", ["y", "one"], ["out"], name="/enc/gru/Squeeze")
    constants = {"enc.gru.w": array(1, 12, 6, seed=1), "enc.gru.r": array(1, 12, 4, seed=2), "one": ints(1)}
    return model([node, squeeze], {"input.1": shape}, ["out"], constants, 13, **graph)


def test_free_sizes_come_from_the_sample(tmp_path):
    graph = load(gru(["time", "batch", 6]), tmp_path)
    assert graph.notes == ("streaming: time is axis 0 of input_1",)


def test_fixed_sizes_bind_neither_batch_nor_time_of_a_stream(tmp_path):
    path = saved(gru([10, 1, 6]), tmp_path / "net.onnx")
    qmodel = quantize.quantize(path, X)
    free = quantize.quantize(saved(gru(["time", "batch", 6]), tmp_path / "free.onnx"), X)
    assert np.array_equal(Simulator(qmodel).run(X), Simulator(free).run(X))


def test_layers_are_called_as_in_the_file(tmp_path):
    (node,) = load(gru(["time", "batch", 6]), tmp_path).nodes
    assert node.name == "enc.gru"
    weights = {"w": array(6, 4, seed=1), "b": array(4, seed=2)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="/head/fc/MatMul"),
        helper.make_node("Add", ["p", "b"], ["q"], name="/head/fc/Add"),
        helper.make_node("Relu", ["q"], ["r"], name="/head/Relu"),
        helper.make_node("Tanh", ["r"], ["0"]),
    ]
    graph = load(model(nodes, {"x": X}, ["0"], weights), tmp_path)
    assert [n.name for n in graph.nodes] == ["head.fc", "head.Relu", "tanh_0"]


def test_names_that_a_module_has_of_its_own(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "forward.step.weight"], ["p"]),
        helper.make_node("MatMul", ["p", "forward.weight"], ["y"]),
    ]
    weights = {"forward.step.weight": array(6, 4, seed=1), "forward.weight": array(4, 4, seed=2)}
    names = [n.name for n in load(model(nodes, {"x": X}, ["y"], weights), tmp_path).nodes]
    assert names == ["forward_.step", "forward__"]


def test_several_inputs_and_outputs_by_name(tmp_path):
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Tanh", ["sum"], ["bent"])]
    path = saved(model(nodes, {"a": X, "b": X}, ["sum", "bent"], {}), tmp_path / "net.onnx")
    other = array(3, 7, 6, seed=4)
    results = [Simulator(quantize.quantize(path, call)).run(call) for call in ((X, other), {"b": other, "a": X})]
    for found in results:
        assert list(found) == ["sum", "bent"]
        assert np.abs(found["sum"] - X - other).max() < 1e-3
    with pytest.raises(QuantizeError, match="the sample has 1 array.*takes 'a', 'b'"):
        quantize.import_model(path, X)
    with pytest.raises(QuantizeError, match="the sample has 'a', 'c', the model takes 'a', 'b'"):
        quantize.import_model(path, {"a": X, "c": X})


def test_a_sample_of_another_rank(tmp_path):
    with pytest.raises(QuantizeError, match=r"input 'x' is \[3, 7, 6\], the sample's has shape \[7, 6\]"):
        load(one("Tanh", X), tmp_path, X[0])


def test_a_sample_of_another_width(tmp_path):
    with pytest.raises(QuantizeError, match="6"):
        load(one("MatMul", X, (array(6, 2),)), tmp_path, X[..., :4])


def test_no_sample(tmp_path):
    with pytest.raises(QuantizeError, match="a sample of the model's inputs is needed"):
        load(one("Tanh", X), tmp_path, None)


def test_double_and_half_precision(tmp_path):
    for dtype, code in ((np.float64, TensorProto.DOUBLE), (np.float16, TensorProto.FLOAT16)):
        weight = array(6, 2).astype(dtype)
        proto = one("MatMul", X.astype(dtype), (weight,))
        assert proto.graph.output[0].type.tensor_type.elem_type == code
        (node,) = load(proto, tmp_path).nodes
        assert np.array_equal(node.params["weight"], weight.astype(np.float64).T)


# --- files ----------------------------------------------------------------------------------------------------------


def test_external_data(tmp_path):
    proto = one("MatMul", X, (array(6, 2),))
    path = tmp_path / "net.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="net.bin", size_threshold=0)
    (node,) = quantize.import_model(path, X).nodes
    assert np.array_equal(node.params["weight"], array(6, 2).T)
    (tmp_path / "net.bin").write_bytes(b"1234")
    with pytest.raises(FormatError, match="net.onnx: "):
        quantize.import_model(path, X)
    (tmp_path / "net.bin").unlink()
    with pytest.raises(FormatError, match="external data cannot be read.*keep both files together"):
        quantize.import_model(path, X)


def test_external_data_outside_the_folder(tmp_path):
    (tmp_path / "inner").mkdir()
    onnx.save(
        one("MatMul", X, (array(6, 2),)),
        tmp_path / "n.onnx",
        save_as_external_data=True,
        location="n.bin",
        size_threshold=0,
    )
    proto = onnx.load(tmp_path / "n.onnx", load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = "../n.bin"
    (tmp_path / "inner" / "n.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(FormatError, match="external data cannot be read"):
        quantize.import_model(tmp_path / "inner" / "n.onnx", X)


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04 a zip", b"plain text\n" * 9, bytes(range(256)), one("Tanh", X).SerializeToString()[:-9]],
    ids=["empty", "zip", "text", "bytes", "truncated"],
)
def test_other_files(data, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    with pytest.raises(FormatError, match="net.onnx"):
        quantize.import_model(path, X)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FormatError, match="cannot read .*none.onnx: No such file"):
        quantize.import_model(tmp_path / "none.onnx", X)


def test_without_the_onnx_package(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("quantize.onnx_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(QuantizeError, match=r"reading an ONNX file needs onnx: pip install 'rtcore\[onnx\]'"):
        quantize.import_model("net.onnx", X)


def test_an_invalid_graph(tmp_path):
    proto = one("Tanh", X)
    proto.graph.node[0].input[0] = "nowhere"
    with pytest.raises(FormatError, match="not a valid ONNX model"):
        load(proto, tmp_path)


def test_an_old_opset(tmp_path):
    with pytest.raises(UnsupportedError, match="opset 9; 11 and newer are read: convert it"):
        load(one("Tanh", X, opset=9), tmp_path)


def test_weights_that_are_not_finite(tmp_path):
    weight = array(6, 2)
    weight[1, 0] = np.nan
    with pytest.raises(QuantizeError, match="holds nan at index"):
        load(one("MatMul", X, (weight,)), tmp_path)


# --- refusals -------------------------------------------------------------------------------------------------------


def test_every_unknown_operator_is_named(tmp_path):
    nodes = [
        helper.make_node("Floor", ["x"], ["a"], name="down"),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("Round", ["b"], ["y"]),
    ]
    with pytest.raises(UnsupportedError) as found:
        load(model(nodes, {"x": X}, ["y"], {}), tmp_path)
    assert "\nFloor (node 'down')\nRound (node 'y')\nsupported: Abs, Add," in str(found.value)
    assert "Rsqrt" not in str(found.value)


def test_operators_of_others_and_random_ones(tmp_path):
    nodes = [
        helper.make_node("FusedGemm", ["x"], ["a"], domain="com.microsoft"),
        helper.make_node("RandomNormalLike", ["a"], ["n"]),
        helper.make_node("Add", ["a", "n"], ["y"]),
    ]
    proto = model(nodes, {"x": ["b", 6]}, [value_info("y", ["b", 6])], {})
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(
        UnsupportedError, match="FusedGemm .* of com.microsoft\nRandomNormalLike .*draws random numbers"
    ):
        load(proto, tmp_path, X[0])


@pytest.mark.parametrize("op", ["QuantizeLinear", "DynamicQuantizeLinear"])
def test_quantized_files(op, tmp_path):
    constants = {"s": np.float32(0.1), "z": np.uint8(3)}
    if op == "QuantizeLinear":
        nodes = [helper.make_node(op, ["x", "s", "z"], ["q"])]
    else:
        nodes = [helper.make_node(op, ["x"], ["q", "s2", "z2"])]
    nodes.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]))
    with pytest.raises(UnsupportedError, match=f"{op} .*DequantizeLinear.*quantized already.*give the float file"):
        load(model(nodes, {"x": X}, ["y"], constants), tmp_path)


def test_integer_operators(tmp_path):
    nodes = [helper.make_node("MatMulInteger", ["x", "w"], ["y"], name="mm")]
    proto = model(nodes, {"x": np.zeros((3, 6), np.uint8)}, ["y"], {"w": np.zeros((6, 2), np.uint8)})
    with pytest.raises(UnsupportedError, match="MatMulInteger .node 'mm'.*quantized already"):
        load(proto, tmp_path)


def cell(op, gates, **attrs):
    constants = (array(1, gates * 4, 6), array(1, gates * 4, 4, seed=1))
    return one(op, X, constants, hidden_size=4, **attrs)


W = array(4, 3, 3, 3)
REFUSED = {
    "clip": (cell("GRU", 3, clip=3.0), "GRU .node 'the_gru'.: has clip 3.0, which bounds"),
    "gates": (cell("GRU", 3, activations=["Softsign", "Tanh"]), "activations softsign, tanh; the kernels have"),
    "rows of W": (
        one("GRU", X, (array(1, 9, 6), array(1, 12, 4)), hidden_size=4),
        r"W of shape \[1, 9, 6\], .*1, 12, 6",
    ),
    "rows of B": (
        one("GRU", X, (array(1, 12, 6), array(1, 12, 4), array(1, 12)), hidden_size=4),
        r"B of shape \[1, 12\], its other weights ask for \[.., 1, 24\]",
    ),
    "peepholes": (
        one("LSTM", X, (array(1, 16, 6), array(1, 16, 4), *[None] * 4, array(1, 8)), hidden_size=4),
        r"has P of shape \[1, 8\]",
    ),
    "gates of an LSTM": (cell("LSTM", 4, activations=["Relu", "Tanh", "Tanh"]), "activations relu, tanh, tanh; the"),
    "shifted gates": (
        cell("GRU", 3, activations=["HardSigmoid", "Tanh"], activation_beta=[0.4]),
        "has HardSigmoid gates with alpha 0.2 and beta 0.4; the kernels have them with alpha .* and beta 0.5",
    ),
    "steep gates": (
        cell("LSTM", 4, activations=["HardSigmoid", "Tanh", "Tanh"], activation_alpha=[1.5]),
        "has HardSigmoid gates with alpha 1.5 and beta 0.5; the kernels have them with alpha 0.00195312 to 1 and",
    ),
    "whose constants": (
        cell("GRU", 3, activations=["Tanh", "HardSigmoid"], activation_alpha=[0.1, 0.3]),
        "has 2 values in activation_alpha and 1 activations that take one",
    ),
    "cell": (cell("LSTM", 4, activations=["Sigmoid", "Tanh", "Relu"]), "activations sigmoid, tanh, relu"),
    "rnn": (cell("RNN", 1, activations=["Sigmoid"]), "the kernels have Tanh and Relu"),
    "affine": (
        cell("GRU", 3, activations=["Sigmoid", "Affine"], activation_alpha=[2.0], activation_beta=[0.0]),
        "activations sigmoid, affine",
    ),
    "lengths": (
        one("GRU", X, (array(1, 12, 6), array(1, 12, 4), None, np.full(7, 2, np.int32)), hidden_size=4),
        r"sequence_lens \[2\] over 3 steps",
    ),
    "learned state": (
        one("GRU", X, (array(1, 12, 6), array(1, 12, 4), None, None, array(1, 7, 4)), hidden_size=4),
        "starts from a constant initial state that is not zero",
    ),
    "indices": (
        one("MaxPool", array(2, 3, 8, 8), outputs=("y", "i"), kernel_shape=[2, 2]),
        "gives 'i' as a second output",
    ),
    "far window": (
        one("MaxPool", array(2, 3, 8, 8), kernel_shape=[2, 2], strides=[1, 1], pads=[0, 0, 1, 1]),
        "pads 0 before and 1 after",
    ),
    "dilated average": (
        one("AveragePool", array(2, 3, 8, 8), opset=19, kernel_shape=[2, 2], dilations=[2, 2]),
        "dilations",
    ),
    "three directions": (one("Conv", array(2, 3, 4, 4, 4), (array(4, 3, 2, 2, 2),)), "slides in 3 directions"),
    "reflection": (one("Pad", X, (ints(0, 0, 1, 0, 0, 1),), mode="reflect"), "pads in mode 'reflect'"),
    "training dropout": (one("Dropout", X, (np.float32(0.5), np.array(True))), "training mode"),
    "training norm": (
        one("BatchNormalization", X, (array(7),) * 4, outputs=("y", "m", "v"), training_mode=1),
        "training mode",
    ),
    "irregular": (one("Gather", X, (ints(0, 2, 3),), axis=2), "picks elements in no regular order"),
    "to integers": (one("Cast", X, to=TensorProto.INT64), "another kind of number"),
    "powers": (one("Pow", X, (array(6, low=1, high=2),)), "exponent of shape"),
    "slopes": (one("PRelu", X, (array(7, 6),)), "may vary along one axis"),
    "constant result": (
        model(
            [helper.make_node("Tanh", ["x"], ["y"])],
            {"x": X},
            [value_info("y", X.shape), value_info("c", [3])],
            {"c": array(3)},
        ),
        "output 'c' is a constant",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    proto, message = REFUSED[name]
    x = proto.graph.input[0].type.tensor_type.shape
    with pytest.raises(UnsupportedError, match=message):
        load(proto, tmp_path, array(*(d.dim_value for d in x.dim)))


def test_weights_from_the_data(tmp_path):
    node = helper.make_node("GRU", ["x", "w", "r"], ["y"], hidden_size=4)
    feeds = {"x": X, "w": array(1, 12, 6), "r": array(1, 12, 4)}
    with pytest.raises(UnsupportedError, match="GRU .*takes its weights from the data"):
        load(model([node], feeds, ["y"], {}), tmp_path, feeds)


def test_lengths_from_the_data(tmp_path):
    node = helper.make_node("GRU", ["x", "w", "r", "", "n"], ["y"], hidden_size=4)
    constants = {"w": array(1, 12, 6), "r": array(1, 12, 4)}
    feeds = {"x": X, "n": np.full(7, 3, np.int64)}
    cast = helper.make_node("Cast", ["n"], ["m"], to=TensorProto.INT32)
    node.input[4] = "m"
    with pytest.raises(UnsupportedError, match="takes sequence_lens from the data; all sequences must have the length"):
        load(model([cast, node], feeds, ["y"], constants), tmp_path, feeds)


def test_shapes_from_the_data(tmp_path):
    proto = model(
        [helper.make_node("Reshape", ["x", "s"], ["y"])], {"x": X, "s": ints(1, 2)}, [value_info("y", [1, 126])], {}
    )
    with pytest.raises(UnsupportedError, match="takes its shape from the data"):
        load(proto, tmp_path, {"x": X, "s": ints(1, 126)})


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_takes_the_file(tmp_path):
    path = saved(gru(["time", "batch", 6]), tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", X)
    out = str(tmp_path / "net.safetensors")
    found = CliRunner().invoke(
        main, ["quantize", str(path), "--calibration", str(tmp_path / "x.npy"), "-o", out, "--json"]
    )
    assert found.exit_code == 0, found.output
    assert [layer["name"] for layer in json.loads(found.output)["layers"]] == ["enc.gru", "enc.gru:out0"]
    found = CliRunner().invoke(
        main, ["validate", out, "--model", str(path), "--input", str(tmp_path / "x.npy"), "--json"]
    )
    assert found.exit_code == 0, found.output
    (tmp_path / "net.onnx").write_bytes(b"no")
    found = CliRunner().invoke(main, ["quantize", str(path), "--calibration", str(tmp_path / "x.npy"), "-o", out])
    assert (found.exit_code, "not an ONNX file" in found.output) == (2, True)
