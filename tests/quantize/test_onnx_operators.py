"""Every ONNX operator that is read, in every form its attributes have, against onnxruntime.

The graph in float64 against float32: see `onnx_models.py` for the bound. Neighbours: `test_onnx.py` (files, names,
refusals), `test_onnx_exports.py` (equal tables).
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="an optional extra: rtcore[torch]")
pytest.importorskip("onnx", reason="an optional extra: rtcore[onnx]")
pytest.importorskip("onnxruntime", reason="the reference, a development extra: rtcore[dev]")

import onnx
from onnx import helper

import quantize
from graphs import sqnr
from onnx_models import agree, array, ints, model, one, reference, saved
from quantize.float_run import run_graph
from quantize.onnx_import import OPERATORS

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export's, about its own treatment of nn.GRU

NEWEST = min(onnx.defs.onnx_opset_version(), 24)  # what the pinned onnxruntime knows

ROWS = array(3, 7, 6, low=-3, high=3)  # [B, T, F]
FLAT = array(5, 6, low=-3, high=3)
POSITIVE = array(3, 7, 6, low=0.2, high=4)
WAVE = array(2, 3, 11)  # [B, C, T]
IMAGE = array(2, 3, 8, 9)


def check(proto, feeds, tmp_path, form="auto"):
    path = saved(proto, tmp_path / "net.onnx")
    graph = quantize.import_model(path, feeds if len(feeds) > 1 else next(iter(feeds.values())), form)
    agree(run_graph(graph, feeds), reference(proto, feeds))
    return graph


# --- one input ------------------------------------------------------------------------------------------------------
# name -> (operator, input, constants, attributes, opsets); opsets None: 11 and the newest, as far as it exists

CASES = {
    **{
        name: (name, ROWS, (), {}, None)
        for name in ("Sigmoid", "Tanh", "Relu", "Abs", "Exp", "Erf", "Sin", "Cos", "Atan", "Neg", "Softplus")
    },
    **{name: (name, ROWS, (), {}, None) for name in ("Softsign", "Selu", "Celu", "Elu", "Identity")},
    **{name: (name, POSITIVE, (), {}, None) for name in ("Log", "Sqrt", "Reciprocal")},
    **{
        name: (name, ROWS, (), {}, None)
        for name in ("HardSigmoid", "HardSwish", "Mish", "Gelu", "LeakyRelu", "Softmax")
    },
    "Gelu tanh": ("Gelu", ROWS, (), {"approximate": "tanh"}, None),
    "Elu alpha": ("Elu", ROWS, (), {"alpha": 0.7}, None),
    "Selu alpha": ("Selu", ROWS, (), {"alpha": 1.2, "gamma": 0.9}, None),
    "Celu alpha": ("Celu", ROWS, (), {"alpha": 0.5}, None),
    "LeakyRelu alpha": ("LeakyRelu", ROWS, (), {"alpha": 0.2}, None),
    "HardSigmoid alpha": ("HardSigmoid", ROWS, (), {"alpha": 0.3, "beta": 0.4}, None),
    "HardSigmoid of torch": ("HardSigmoid", 2 * ROWS, (), {"alpha": 1 / 6}, None),
    "Swish": ("Swish", ROWS, (), {}, (24,)),
    "Swish alpha": ("Swish", ROWS, (), {"alpha": 1.5}, (24,)),
    "PRelu one": ("PRelu", ROWS, (array(1, seed=1),), {}, None),
    "PRelu last": ("PRelu", ROWS, (array(6, seed=1),), {}, None),
    "PRelu channels": ("PRelu", IMAGE, (array(3, 1, 1, seed=1),), {}, None),
    "Softmax last": ("Softmax", ROWS, (), {"axis": -1}, None),
    "Softmax of all": ("Softmax", FLAT, (), {"axis": 1}, None),
    "Softmax channels": ("Softmax", WAVE, (), {"axis": 1}, (13, NEWEST)),
    "LogSoftmax": ("LogSoftmax", ROWS, (), {"axis": 2}, None),
    "Clip": ("Clip", ROWS, (np.float32(-0.5), np.float32(1.5)), {}, None),
    "Clip low": ("Clip", ROWS, (np.float32(-0.5),), {}, None),
    "Clip high": ("Clip", ROWS, (None, np.float32(0.25)), {}, None),
    "Clip to infinity": ("Clip", ROWS, (np.float32(0), np.float32(np.inf)), {}, None),
    # arithmetic
    "Add": ("Add", ROWS, (array(6, seed=1),), {}, None),
    "Sub": ("Sub", ROWS, (array(1, 1, 6, seed=1),), {}, None),
    "Mul": ("Mul", ROWS, (array(seed=1),), {}, None),
    "Div": ("Div", ROWS, (array(6, seed=1, low=0.5, high=2),), {}, None),
    "Min": ("Min", ROWS, (np.float32(0.5),), {}, None),
    "Max": ("Max", ROWS, (np.float32(0.5),), {}, None),
    "Pow": ("Pow", ROWS, (np.float32(2),), {}, None),
    "Pow one": ("Pow", ROWS, (np.float32(1),), {}, None),
    "Pow half": ("Pow", POSITIVE, (np.float32(0.5),), {}, None),
    # weights
    "MatMul": ("MatMul", ROWS, (array(6, 4, seed=1),), {}, None),
    "MatMul vector": ("MatMul", ROWS, (array(6, seed=1),), {}, None),
    "Gemm": ("Gemm", FLAT, (array(6, 4, seed=1), array(4, seed=2)), {}, None),
    "Gemm all": (
        "Gemm",
        FLAT,
        (array(4, 6, seed=1), array(1, 4, seed=2)),
        {"alpha": 0.5, "beta": 2.0, "transB": 1},
        None,
    ),
    "Gemm transposed": ("Gemm", FLAT.T.copy(), (array(4, 6, seed=1),), {"transA": 1, "transB": 1, "alpha": 2.0}, None),
    "Gemm no bias": ("Gemm", FLAT, (array(6, 4, seed=1),), {"alpha": 3.0}, None),
    "Gemm one bias": ("Gemm", FLAT, (array(6, 4, seed=1), array(seed=2)), {}, None),
    # windows
    "Conv 1d": ("Conv", WAVE, (array(4, 3, 3, seed=1), array(4, seed=2)), {}, None),
    "Conv 1d causal": (
        "Conv",
        WAVE,
        (array(4, 3, 3, seed=1), array(4, seed=2)),
        {"pads": [4, 0], "dilations": [2]},
        None,
    ),
    "Conv 1d strided": ("Conv", WAVE, (array(4, 3, 3, seed=1),), {"pads": [1, 1], "strides": [2]}, None),
    "Conv": ("Conv", IMAGE, (array(4, 3, 3, 3, seed=1), array(4, seed=2)), {"pads": [1, 1, 1, 1]}, None),
    "Conv asymmetric": ("Conv", IMAGE, (array(4, 3, 3, 2, seed=1),), {"pads": [0, 1, 2, 0], "strides": [2, 1]}, None),
    "Conv upper": ("Conv", IMAGE, (array(4, 3, 4, 3, seed=1),), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, None),
    "Conv lower": ("Conv", IMAGE, (array(4, 3, 4, 3, seed=1),), {"auto_pad": "SAME_LOWER", "strides": [1, 2]}, None),
    "Conv valid": ("Conv", IMAGE, (array(4, 3, 4, 3, seed=1),), {"auto_pad": "VALID"}, None),
    "Conv dilated": ("Conv", IMAGE, (array(4, 3, 2, 3, seed=1),), {"dilations": [3, 2]}, None),
    "Conv grouped": ("Conv", array(2, 4, 8, 9), (array(6, 2, 3, 3, seed=1), array(6, seed=2)), {"group": 2}, None),
    "Conv 1d upper": ("Conv", WAVE, (array(4, 3, 4, seed=1),), {"auto_pad": "SAME_UPPER", "strides": [2]}, None),
    "Conv depthwise": ("Conv", IMAGE, (array(6, 1, 3, 3, seed=1), array(6, seed=2)), {"group": 3}, None),
    "MaxPool": ("MaxPool", IMAGE, (), {"kernel_shape": [2, 3], "strides": [2, 2]}, None),
    "MaxPool 1d": ("MaxPool", WAVE, (), {"kernel_shape": [3], "strides": [2]}, None),
    "MaxPool padded": ("MaxPool", IMAGE, (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, None),
    "MaxPool ceil": ("MaxPool", IMAGE, (), {"kernel_shape": [3, 2], "strides": [3, 2], "ceil_mode": 1}, None),
    "MaxPool upper": (
        "MaxPool",
        IMAGE,
        (),
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        None,
    ),
    "MaxPool lower": (
        "MaxPool",
        IMAGE,
        (),
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
        None,
    ),
    "MaxPool asymmetric": (
        "MaxPool",
        IMAGE,
        (),
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 1, 0]},
        None,
    ),
    "MaxPool dilated": ("MaxPool", IMAGE, (), {"kernel_shape": [2, 2], "dilations": [3, 2]}, None),
    "AveragePool": ("AveragePool", IMAGE, (), {"kernel_shape": [2, 3], "strides": [2, 3]}, None),
    "AveragePool 1d": ("AveragePool", WAVE, (), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}, None),
    "AveragePool uncounted": ("AveragePool", IMAGE, (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, None),
    "AveragePool counted": (
        "AveragePool",
        IMAGE,
        (),
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        None,
    ),
    "AveragePool counted asymmetric": (
        "AveragePool",
        IMAGE,
        (),
        {"kernel_shape": [3, 3], "pads": [0, 1, 2, 0], "count_include_pad": 1},
        None,
    ),
    "AveragePool upper": (
        "AveragePool",
        IMAGE,
        (),
        {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        None,
    ),
    "AveragePool ceil": ("AveragePool", IMAGE, (), {"kernel_shape": [3, 2], "strides": [3, 2], "ceil_mode": 1}, None),
    "AveragePool ceil, padded": (
        "AveragePool",
        IMAGE,
        (),
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        None,
    ),
    "AveragePool ceil, counted": (
        "AveragePool",
        IMAGE,
        (),
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1, "count_include_pad": 1},
        (19, NEWEST),
    ),
    "MaxPool ceil, padded": (
        "MaxPool",
        IMAGE,
        (),
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        None,
    ),
    "GlobalAveragePool": ("GlobalAveragePool", IMAGE, (), {}, None),
    "GlobalMaxPool": ("GlobalMaxPool", IMAGE, (), {}, None),
    **{
        f"{name} as {how}": (name, IMAGE, constants, attrs, opsets)
        for name, since in (("ReduceMean", 18), ("ReduceMax", 18), ("ReduceSum", 13))
        for how, constants, attrs, opsets in (
            ("attribute", (), {"axes": [2, -1], "keepdims": 0}, (11,)),
            ("attribute, kept", (), {"axes": [1]}, (11,)),
            ("input", (ints(2, -1),), {"keepdims": 0}, (since, NEWEST)),
            ("input, kept", (ints(1),), {}, (since,)),
            ("nothing", (ints(),), {"noop_with_empty_axes": 1}, (since,)),
        )
    },
    # normalization
    "BatchNormalization": (
        "BatchNormalization",
        IMAGE,
        (array(3, seed=1), array(3, seed=2), array(3, seed=3), array(3, seed=4, low=0.3, high=2)),
        {"epsilon": 0.01},
        None,
    ),
    **{
        f"BatchNormalization {name}": (
            "BatchNormalization",
            x,
            tuple(array(n, seed=k, low=0.3 if k == 4 else -1.0) for k in (1, 2, 3, 4)),
            {},
            None,
        )
        for name, x, n in (("1d", WAVE, 3), ("of features", FLAT, 6))
    },
    "LayerNormalization over two": (
        "LayerNormalization",
        ROWS,
        (array(7, 6, seed=1), array(7, 6, seed=2)),
        {"axis": 1},
        (17, NEWEST),
    ),
    "LayerNormalization": ("LayerNormalization", ROWS, (array(6, seed=1), array(6, seed=2)), {}, (17, NEWEST)),
    "LayerNormalization unbiased": ("LayerNormalization", ROWS, (array(6, seed=1),), {"epsilon": 0.1}, (17, NEWEST)),
    # moves
    "Slice": ("Slice", ROWS, (ints(1), ints(4), ints(2)), {}, None),
    "Slice to the end": ("Slice", ROWS, (ints(-3), ints(2**63 - 1), ints(-1)), {}, None),
    "Slice stepped": ("Slice", ROWS, (ints(0, 1), ints(7, 6), ints(1, 2), ints(1, 2)), {}, None),
    "Slice backwards": ("Slice", ROWS, (ints(-1), ints(-(2**63)), ints(2), ints(-1)), {}, None),
    "Slice backwards, thinned": ("Slice", ROWS, (ints(4), ints(0), ints(2), ints(-2)), {}, None),
    "Slice without axes": ("Slice", ROWS, (ints(0, 0, 1), ints(9, 9, 3)), {}, None),
    "Gather one": ("Gather", ROWS, (np.int64(2),), {"axis": 2}, None),
    "Gather last step": ("Gather", ROWS, (np.int64(-1),), {"axis": 1}, None),
    "Gather last step, kept": ("Gather", ROWS, (ints(-1),), {"axis": 1}, None),
    "Gather run": ("Gather", ROWS, (ints(1, 2, 3),), {"axis": 2}, None),
    "Gather every other": ("Gather", ROWS, (ints(0, 2, -2),), {"axis": -1}, None),
    "Reshape": ("Reshape", ROWS, (ints(0, 0, 2, 3),), {}, None),
    "Reshape rest": ("Reshape", ROWS, (ints(-1, 6),), {}, None),
    "Flatten": ("Flatten", IMAGE, (), {}, None),
    "Flatten last": ("Flatten", ROWS, (), {"axis": -1}, None),
    "Transpose": ("Transpose", ROWS, (), {"perm": [1, 0, 2]}, None),
    "Transpose all": ("Transpose", FLAT, (), {}, None),
    "Expand": ("Expand", array(2, 3, 1), (ints(3, 4),), {}, None),
    "Pad": ("Pad", IMAGE, (ints(0, 0, 1, 2, 0, 0, 0, 1), np.float32(0.5)), {}, None),
    "Pad cut": ("Pad", IMAGE, (ints(0, 0, -1, 0, 0, 0, 1, -2),), {}, None),
    "Pad axes": ("Pad", IMAGE, (ints(1, 2), None, ints(-1)), {}, (18, NEWEST)),
    "CastLike": ("CastLike", ROWS, (np.float32(1),), {}, None),
    "Cast": ("Cast", ROWS, (), {"to": onnx.TensorProto.FLOAT}, None),
}
CASES["Squeeze"] = ("Squeeze", array(3, 7, 1, 6), (ints(2),), {}, (13, NEWEST))
CASES["Squeeze old"] = ("Squeeze", array(3, 7, 1, 6), (), {"axes": [2]}, (11,))
CASES["Unsqueeze"] = ("Unsqueeze", ROWS, (ints(1, -1),), {}, (13, NEWEST))
CASES["Unsqueeze old"] = ("Unsqueeze", ROWS, (), {"axes": [1, 4]}, (11,))


def opsets_of(op, given):
    known = given or (11, NEWEST)
    since = min(s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == op and s.domain == "")
    return sorted({max(opset, since) for opset in known})


@pytest.mark.parametrize(
    ("name", "opset"), [(name, opset) for name, case in CASES.items() for opset in opsets_of(case[0], case[4])]
)
def test_operator(name, opset, tmp_path):
    op, x, constants, attrs, _ = CASES[name]
    check(one(op, x, constants, opset, **attrs), {"x": x}, tmp_path)


def test_every_operator_has_a_case():
    elsewhere = {"GRU", "LSTM", "RNN", "Concat", "Split", "Sum", "Dropout"}
    elsewhere |= {"Linear", "LogSigmoid", "Log1p", "Rsqrt", "Expm1", "UnrolledRNN"}  # made by fusions
    assert elsewhere | {case[0] for case in CASES.values()} == set(OPERATORS)


# --- several inputs and outputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Min", "Max", "Sum"])
def test_two_values(op, tmp_path):
    feeds = {"a": ROWS, "b": array(3, 7, 6, seed=5)}
    check(model([helper.make_node(op, ["a", "b"], ["y"])], feeds, ["y"], {}), feeds, tmp_path)


def test_softsign_as_a_quotient(tmp_path):
    nodes = [
        helper.make_node("Abs", ["x"], ["m"]),
        helper.make_node("Add", ["m", "one"], ["d"]),
        helper.make_node("Div", ["x", "d"], ["y"]),
    ]
    check(model(nodes, {"x": ROWS}, ["y"], {"one": np.float32(1)}), {"x": ROWS}, tmp_path)


@pytest.mark.parametrize(
    ("opset", "more", "attrs"),
    [(11, (), {"split": [4, 2]}), (13, (ints(4, 2),), {}), (18, (), {"num_outputs": 2})],
)
def test_split_and_concat(opset, more, attrs, tmp_path):
    nodes = [
        helper.make_node("Split", ["x", *(f"c{i}" for i in range(len(more)))], ["a", "b"], axis=2, **attrs),
        helper.make_node("Concat", ["b", "a"], ["y"], axis=-1),
    ]
    proto = model(nodes, {"x": ROWS}, ["y"], {f"c{i}": v for i, v in enumerate(more)}, opset)
    check(proto, {"x": ROWS}, tmp_path)


def test_dropout_is_nothing(tmp_path):
    check(one("Dropout", ROWS, (np.float32(0.5), np.array(False)), 13), {"x": ROWS}, tmp_path)


def test_embedding(tmp_path):
    index = np.random.default_rng(0).integers(0, 9, (3, 7)).astype(np.int32)
    nodes = [
        helper.make_node("Cast", ["i"], ["wide"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["table", "wide"], ["e"]),
        helper.make_node("Add", ["e", "bias"], ["y"]),
    ]
    proto = model(nodes, {"i": index}, ["y"], {"table": array(9, 4), "bias": array(4, seed=1)})
    graph = check(proto, {"i": index}, tmp_path)
    assert [node.op for node in graph.nodes] == ["embedding", "affine"]


def test_shapes_are_computed_from_the_sizes(tmp_path):
    """What older exporters write for x.view(x.size(0), -1, 3) and for zeros(1, x.size(0), 4)."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["batch"], axis=0),
        helper.make_node("Unsqueeze", ["batch", "first"], ["b"]),
        helper.make_node("Concat", ["b", "rest", "three"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("Concat", ["one", "b", "four"], ["state"], axis=0),
        helper.make_node("ConstantOfShape", ["state"], ["h0"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["t", "w", "r_", "", "", "h0"], ["y"], hidden_size=4),
    ]
    numbers = {
        "zero": np.int64(0),
        "first": ints(0),
        "rest": ints(-1),
        "three": ints(3),
        "one": ints(1),
        "four": ints(4),
    }
    constants = numbers | {"w": array(1, 12, 3), "r_": array(1, 12, 4, seed=1)}
    proto = model(nodes, {"x": ["batch", "time", 6]}, ["y"], constants)
    check(proto, {"x": ROWS}, tmp_path, "window")


# --- recurrent ------------------------------------------------------------------------------------------------------

GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}


def recurrent(op, *, layout=0, bias=True, states="none", outputs=None, lengths=None, peepholes=None, opset=17, **attrs):
    """A model of one recurrent node of 5 units on 4 features, 6 steps, 3 streams, and its feeds."""
    d = 2 if attrs.get("direction") == "bidirectional" else 1
    n, m, g = 5, 4, GATES[op]
    x = array(*((3, 6, m) if layout else (6, 3, m)), low=-2, high=2)
    constants = {"w": array(d, g * n, m, seed=1), "r": array(d, g * n, n, seed=2)}
    if bias:
        constants["b"] = array(d, 2 * g * n, seed=3)
    if lengths is not None:
        constants["lengths"] = np.array(lengths, np.int32)
    shape = (3, d, n) if layout else (d, 3, n)
    own = ["h0", "c0"][: 1 + (op == "LSTM")]
    feeds = {"x": x}
    for i, name in enumerate(own):
        if states == "zero":
            constants[name] = np.zeros(shape, np.float32)
        elif states == "given":
            feeds[name] = array(*shape, seed=7 + i)
    if peepholes is not None:
        constants["p"] = peepholes
    names = ["x", "w", "r", "b", "lengths", *own, *(["p"] if peepholes is not None else [])]
    names = [name if name in constants or name in feeds else "" for name in names]
    outputs = outputs or ["y", "h", *(["c"] if op == "LSTM" else [])]
    attrs |= {"layout": layout} if layout else {}
    node = helper.make_node(op, names, outputs, name="layer", hidden_size=n, **attrs)
    return model([node], feeds, [name for name in outputs if name], constants, opset), feeds


RECURRENT = {
    f"{op} {how}": (op, options)
    for op in GATES
    for how, options in {
        "plain": {},
        "old": {"opset": 11},
        "newest": {"opset": NEWEST},
        "without bias": {"bias": False},
        "reverse": {"direction": "reverse"},
        "both ways": {"direction": "bidirectional"},
        "from zeros": {"states": "zero"},
        "of full lengths": {"lengths": [6, 6, 6]},
        "last state": {"outputs": ["", "h"]},
        "from states, both ways": {"states": "given", "direction": "bidirectional"},
        "from states, in reverse": {"states": "given", "direction": "reverse"},
    }.items()
}
RECURRENT |= {
    f"GRU reset after {how}": ("GRU", {"linear_before_reset": 1, **options})
    for how, options in {
        "plain": {},
        "both ways": {"direction": "bidirectional"},
        "relu": {"activations": ["Sigmoid", "Relu"]},
        "from states": {"states": "given"},
    }.items()
}
RECURRENT |= {
    "GRU relu": ("GRU", {"activations": ["Sigmoid", "Relu"]}),
    "GRU sigmoid": ("GRU", {"activations": ["sigmoid", "sigmoid"]}),
    "GRU linear": ("GRU", {"activations": ["Sigmoid", "Affine"], "activation_alpha": [1.0], "activation_beta": [0.0]}),
    "GRU of two kinds": (
        "GRU",
        {"direction": "bidirectional", "linear_before_reset": 1, "activations": ["Sigmoid", "Tanh", "Sigmoid", "Relu"]},
    ),
    "GRU hard": ("GRU", {"activations": ["HardSigmoid", "Tanh"]}),
    "GRU hard, of a slope": (
        "GRU",
        {"activations": ["HardSigmoid", "Tanh"], "activation_alpha": [0.35], "linear_before_reset": 1},
    ),
    "GRU hard, both ways": (
        "GRU",
        {
            "direction": "bidirectional",
            "activations": ["HardSigmoid", "Affine", "HardSigmoid", "Tanh"],
            "activation_alpha": [0.35, 1.0],  # the third takes the default
            "activation_beta": [0.5, 0.0, 0.5],
        },
    ),
    "GRU hard one way": (
        "GRU",
        {
            "direction": "bidirectional",
            "activations": ["Sigmoid", "Tanh", "HardSigmoid", "Tanh"],
            "activation_alpha": [0.3],
            "linear_before_reset": 1,
        },
    ),
    "GRU hard, a constant for each": (
        "GRU",
        {"activations": ["HardSigmoid", "Tanh"], "activation_alpha": [0.3, 0.0], "activation_beta": [0.5, 0.0]},
    ),
    "LSTM hard": ("LSTM", {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [1 / 6]}),
    "LSTM hard, with all": (
        "LSTM",
        {
            "activations": ["HardSigmoid", "Tanh", "Tanh"] * 2,
            "direction": "bidirectional",
            "peepholes": array(2, 15, seed=9),
            "input_forget": 1,
            "states": "given",
        },
    ),
    "RNN relu": ("RNN", {"activations": ["Relu"]}),
    "RNN of two kinds": ("RNN", {"direction": "bidirectional", "activations": ["Tanh", "Relu"]}),
    "LSTM without peepholes": ("LSTM", {"peepholes": np.zeros((1, 15), np.float32)}),
    "LSTM with peepholes": ("LSTM", {"peepholes": array(1, 15, seed=9), "states": "given"}),
    "LSTM with peepholes, both ways": ("LSTM", {"peepholes": array(2, 15, seed=9), "direction": "bidirectional"}),
    "LSTM coupled": ("LSTM", {"input_forget": 1}),
    "LSTM coupled, without bias": ("LSTM", {"input_forget": 1, "bias": False}),
    "LSTM coupled, with peepholes": ("LSTM", {"input_forget": 1, "peepholes": array(1, 15, seed=9)}),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent(name, tmp_path):
    op, options = RECURRENT[name]
    proto, feeds = recurrent(op, **options)
    check(proto, feeds, tmp_path)


@pytest.mark.parametrize("op", GATES)
def test_recurrent_in_a_layout_of_streams_first(op, tmp_path):
    """onnxruntime has no layout 1, so the reference is its layout 0 on transposed axes."""
    for direction in ("forward", "bidirectional"):
        proto, feeds = recurrent(op, layout=1, direction=direction)
        graph = quantize.import_model(saved(proto, tmp_path / "net.onnx"), feeds["x"])
        other, _ = recurrent(op, direction=direction)
        y, *states = reference(other, {"x": feeds["x"].swapaxes(0, 1)})
        want = [y.transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in states)]
        agree(run_graph(graph, feeds["x"]), want)


def test_an_output_that_is_left_out_is_nobodys_input(tmp_path):
    """Left-out outputs and inputs are both called ""."""
    nodes = [
        helper.make_node("GRU", ["x", "w", "r"], ["", "h"], hidden_size=4),
        helper.make_node("GRU", ["h", "v", "s", "", "", ""], ["y"], hidden_size=4),
        helper.make_node("Squeeze", ["y", "axes"], ["z"]),
    ]
    constants = {"w": array(1, 12, 6), "r": array(1, 12, 4, seed=1), "v": array(1, 12, 4, seed=2)}
    constants |= {"s": array(1, 12, 4, seed=3), "axes": ints(0, 1)}
    check(model(nodes, {"x": ROWS}, ["z"], constants), {"x": ROWS}, tmp_path, "window")


NEAR = {
    "sigmoid of another": [("Add", "x", "one", "z"), ("Sigmoid", "z", "s"), ("Mul", "x", "s", "y")],
    "log of two plus": [("Abs", "x", "a"), ("Add", "a", "two", "s"), ("Log", "s", "y")],
    "one minus exp": [("Exp", "x", "e"), ("Sub", "one", "e", "y")],
    "exp minus two": [("Exp", "x", "e"), ("Sub", "e", "two", "y")],
    "exp plus minus one": [("Exp", "x", "e"), ("Add", "minus", "e", "y")],
    "bias of one": [("MatMul", "x", "w", "p"), ("Add", "p", "vector", "y")],
    "product read twice": [("MatMul", "x", "w", "p"), ("Add", "p", "bias", "q"), ("Mul", "p", "q", "y")],
    "nearly gelu": [
        ("Div", "x", "two", "d"),
        ("Erf", "d", "e"),
        ("Add", "e", "one", "s"),
        ("Mul", "x", "s", "m"),
        ("Mul", "m", "half", "y"),
    ],
    "gelu": [
        ("Div", "x", "root", "d"),
        ("Erf", "d", "e"),
        ("Add", "e", "one", "s"),
        ("Mul", "x", "s", "m"),
        ("Mul", "m", "half", "y"),
    ],
}


@pytest.mark.parametrize("name", NEAR)
def test_what_looks_like_a_layer_and_is_none(name, tmp_path):
    """The fusions of exporters' habits, and what is just beside them."""
    numbers = {"one": 1, "two": 2, "minus": -1, "half": 0.5, "root": 2**0.5}
    constants = {key: np.float32(value) for key, value in numbers.items()}
    constants |= {"w": array(6, 4, seed=1), "bias": array(4, seed=2), "vector": array(1, seed=3)}
    nodes = [helper.make_node(op, list(names[:-1]), [names[-1]]) for op, *names in NEAR[name]]
    graph = check(model(nodes, {"x": ROWS}, ["y"], constants), {"x": ROWS}, tmp_path)
    gelu = [node.attrs.get("function") == "gelu" for node in graph.nodes]
    assert any(gelu) == (name == "gelu")


@pytest.mark.parametrize("op", GATES)
def test_recurrent_to_fixed_point(op, tmp_path):
    """The tables too: 60 dB is far below what int16 reaches on so small a layer, and far above a wrong gate."""
    proto, feeds = recurrent(op, outputs=["y"])
    qmodel = quantize.quantize(saved(proto, tmp_path / "net.onnx"), feeds["x"])
    from firmware_sim import Simulator  # noqa: PLC0415 (above the package under test)

    got, (want,) = Simulator(qmodel).run(feeds["x"]), reference(proto, feeds)
    assert sqnr(want, got) > 60
