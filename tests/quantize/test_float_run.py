"""The float reference and its axes: against torch in float64, what it observes, what it refuses, and the round trip
between a model's own axes and frames in any dtype.

Both sides compute in float64, where a dozen steps of a few products each stay within 1e-12 of the peak.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from quantize import nn as own
from quantize.errors import QuantizeError
from quantize.float_run import ACTIVATIONS, run_graph, sigmoid
from quantize.graph import Argument, Graph, Node, Result, Signature
from quantize.signature import from_frames, to_frames
from quantize.torch_import import import_model

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export's, about its own treatment of nn.GRU


class Denoiser(nn.Module):
    """A bit of everything: several layers, states in and out, a skip, a gate."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(5, 6)
        self.rnn = nn.GRU(6, 4, num_layers=2, batch_first=True)
        self.own = own.GRU(4, 3, "relu", False, batch_first=True)
        self.out = nn.Linear(9, 5)

    def forward(self, x, h):
        y = torch.tanh(self.dense(x - 0.25))
        z, h_n = self.rnn(y, h)
        w, _ = self.own(z)
        mask = torch.sigmoid(self.out(torch.cat([w, y], -1)))
        return {"mask": mask, "clean": mask * x, "h_n": h_n, "last": w[:, -1]}


@pytest.fixture(scope="module")
def denoiser():
    torch.manual_seed(0)
    model = Denoiser().eval()
    return model, import_model(model, (torch.randn(2, 6, 5), torch.randn(2, 2, 4)))


def frames(streams, steps, seed=1):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((streams, steps, 5)), generator.standard_normal((2, streams, 4))


@pytest.mark.parametrize(("streams", "steps"), [(1, 1), (1, 40), (5, 1), (3, 17)])
def test_float64_is_torch_in_float64(denoiser, streams, steps):
    model, graph = denoiser
    x, h = frames(streams, steps)
    with torch.no_grad():
        want = copy.deepcopy(model).double()(torch.tensor(x), torch.tensor(h))
    got = run_graph(graph, (x, h))
    assert list(got) == list(want)
    for name, value in got.items():
        assert value.dtype == np.float64
        assert np.abs(value - want[name].numpy()).max() <= 1e-12 * np.abs(want[name].numpy()).max()


def test_float32_is_computed_in_float32(denoiser):
    """Within float32 rounding of float64 (6e-8 an operation; 1e-5 of the peak leaves room for 17 steps), not equal."""
    _, graph = denoiser
    x, h = frames(3, 17)
    seen = {}
    got = run_graph(graph, (x, h), np.float32, lambda name, array: seen.setdefault(name, array))
    want = run_graph(graph, (x, h))
    for name, value in got.items():
        assert value.dtype == np.float32
        assert 0 < np.abs(value - want[name]).max() <= 1e-5 * np.abs(want[name]).max()
    assert {array.dtype for array in seen.values()} == {np.dtype(np.float32)}


def test_other_dtypes_are_refused(denoiser):
    with pytest.raises(QuantizeError, match="runs in float64 or float32, not int16"):
        run_graph(denoiser[1], frames(1, 1), np.int16)


def test_streams_do_not_mix_and_steps_carry_on(denoiser):
    """Each stream alone gives the same; so do two halves with the state carried over."""
    x, h = frames(3, 10)
    _, graph = denoiser
    whole = run_graph(graph, (x, h))
    for i in range(3):
        alone = run_graph(graph, (x[i], h[:, i]))
        assert alone["mask"].shape == (10, 5) and alone["h_n"].shape == (2, 4) and alone["last"].shape == (3,)
        np.testing.assert_allclose(alone["mask"], whole["mask"][i], rtol=1e-12)
        np.testing.assert_allclose(alone["h_n"], whole["h_n"][:, i], rtol=1e-12)
    rnn = import_model(nn.GRU(5, 4, batch_first=True).eval(), (torch.randn(2, 6, 5), torch.randn(1, 2, 4)))
    y, h_n = run_graph(rnn, (x, h[:1]))
    y1, h1 = run_graph(rnn, (x[:, :4], h[:1]))
    y2, h2 = run_graph(rnn, (x[:, 4:], h1))
    np.testing.assert_allclose(np.concatenate([y1, y2], 1), y, rtol=1e-12)
    np.testing.assert_allclose(h2, h_n, rtol=1e-12)


def test_torch_and_integer_input(denoiser):
    _, graph = denoiser
    x, h = np.arange(30).reshape(1, 6, 5) % 7 - 3, np.zeros((2, 1, 4))
    want = run_graph(graph, (x.astype(float), h))["mask"]
    for dtype in (np.int16, np.int64, np.uint8, np.float32):
        given = x.astype(dtype)
        if dtype != np.uint8:
            np.testing.assert_array_equal(run_graph(graph, (given, h))["mask"], want)
        else:
            np.testing.assert_array_equal(
                run_graph(graph, (given, h))["mask"], run_graph(graph, (given.astype(float), h))["mask"]
            )
    tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    np.testing.assert_array_equal(run_graph(graph, {"h": h, "x": tensor})["mask"], want)
    np.testing.assert_array_equal(run_graph(graph, [x.tolist(), h])["mask"], want)


# --- what is observed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset_after", [True, False])
def test_observations(reset_after):
    """The parts of each pre-activation, recomputed here from the observed tensors themselves."""
    torch.manual_seed(2)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 3)
            self.rnn = own.GRU(3, 4, "relu", reset_after, batch_first=True)

        def forward(self, x, h):
            return self.rnn(self.fc(x), h)[0]

    graph = import_model(Net().eval(), (torch.randn(2, 6, 5), torch.randn(1, 2, 4)))
    seen = {}
    x, h = frames(3, 7)
    y = run_graph(graph, (x, h[:1]), observe=lambda name, array: seen.setdefault(name, array.copy()))
    parts = ("gates_input", "gates_recurrent", "candidate_input", "candidate_recurrent", "candidate", "initial")
    assert set(seen) == {"x", "fc", "rnn"} | {f"rnn:{part}" for part in parts}
    assert list(seen)[:2] == ["x", "fc"]
    np.testing.assert_array_equal(seen["x"], x)
    np.testing.assert_array_equal(seen["rnn"], y)
    np.testing.assert_array_equal(seen["rnn:initial"], h[0])
    p = graph.nodes[-1].params
    n = 4
    before = np.concatenate([h[0][:, None], y[:, :-1]], 1)  # h of the step before
    wx = seen["fc"] @ p["weight_ih"].T + p["bias_ih"]
    uh = before @ p["weight_hh"].T + p["bias_hh"]
    np.testing.assert_allclose(seen["rnn:gates_input"], wx[..., : 2 * n], rtol=1e-12)
    np.testing.assert_allclose(seen["rnn:gates_recurrent"], uh[..., : 2 * n], rtol=1e-12)
    np.testing.assert_allclose(seen["rnn:candidate_input"], wx[..., 2 * n :], rtol=1e-12)
    gates = sigmoid(wx[..., : 2 * n] + uh[..., : 2 * n])
    r, z = gates[..., :n], gates[..., n:]
    if reset_after:
        recurrent, total = uh[..., 2 * n :], wx[..., 2 * n :] + r * uh[..., 2 * n :]
    else:
        recurrent = (r * before) @ p["weight_hh"][2 * n :].T + p["bias_hh"][2 * n :]
        total = wx[..., 2 * n :] + recurrent
    np.testing.assert_allclose(seen["rnn:candidate_recurrent"], recurrent, rtol=1e-12)
    np.testing.assert_allclose(seen["rnn:candidate"], total, rtol=1e-10)
    np.testing.assert_allclose(y, (1 - z) * np.maximum(total, 0) + z * before, rtol=1e-10, atol=1e-14)


def test_a_model_without_time_is_one_step():
    graph = import_model(nn.Linear(5, 3).eval(), torch.randn(5))
    seen = {}
    result = run_graph(graph, np.ones(5), observe=seen.__setitem__)
    assert result.shape == (3,) and seen["x" if "x" in seen else "input"].shape == (1, 1, 5)


def test_sigmoid_and_activations():
    for dtype in (np.float64, np.float32):
        x = np.array([-1e4, -700, -80, -20, -1, 0, 1, 20, 100, 1e4], dtype)
        with np.errstate(over="raise", invalid="raise"):
            y = sigmoid(x)
        assert y.dtype == dtype
        small = np.longdouble(x[2:7])
        np.testing.assert_allclose(y[2:7], np.exp(small) / (1 + np.exp(small)), rtol=4 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(y[[0, -1]], [0, 1])
    x = np.array([-2.0, 0.0, 3.0])
    assert [ACTIVATIONS[k](x).tolist() for k in ("relu", "linear")] == [[0, 0, 3], [-2, 0, 3]]
    assert ACTIVATIONS["tanh"] is np.tanh and set(ACTIVATIONS) == {"linear", "sigmoid", "tanh", "relu"}


# --- axes -----------------------------------------------------------------------------------------------------------


def argument(name, *axes, width=3, **rest):
    return Argument(name, "frames", axes, tensor=name, width=width, **rest)


def result(name, *axes, tensors=("x",), **rest):
    return Result(name, tuple((axis,) if isinstance(axis, str) else axis for axis in axes), tensors, **rest)


def echo(arguments, *results, container="single"):
    return Signature(tuple(arguments), results, container)


BTF = ("batch", "time", "feature")


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        (("feature",), (3,)),
        (("time", "feature"), (6, 3)),
        (("time",), (6,)),
        (("batch", "time"), (2, 6)),
        (BTF, (2, 6, 3)),
        (("time", "batch", "feature"), (6, 2, 3)),
        (("feature", "batch", "time"), (3, 2, 6)),
        (("batch", "feature", "time"), (1, 3, 1)),
        (("batch", "batch", "time", "feature"), (2, 4, 6, 3)),
        (("batch", "time", "batch", "feature"), (2, 6, 4, 3)),
        (("time", "batch", "feature", "batch"), (6, 2, 3, 4)),
    ],
)
def test_there_and_back(axes, shape, dtype):
    width = 3 if "feature" in axes else 1
    signature = echo([argument("x", *axes, width=width)], result("y", *axes))
    x = np.random.default_rng(0).integers(-9, 9, shape).astype(dtype)
    found, states, restore = to_frames(signature, x, dtype)
    streams = int(np.prod([n for n, axis in zip(shape, axes) if axis == "batch"]))
    steps = shape[axes.index("time")] if "time" in axes else 1
    assert found["x"].shape == (streams, steps, width) and found["x"].dtype == dtype and states == {}
    assert found["x"].flags.c_contiguous
    back = from_frames(signature, found, restore)
    assert back.dtype == dtype and back.shape == x.shape
    np.testing.assert_array_equal(back, x)


def test_frames_are_where_they_should_be():
    signature = echo([argument("x", "feature", "batch", "time", "batch")])
    x = np.random.default_rng(0).standard_normal((3, 2, 6, 4))
    found, _, restore = to_frames(signature, x)
    assert restore.batch == (2, 4) and restore.steps == 6 and not restore.single
    for b in range(2):
        for c in range(4):
            np.testing.assert_array_equal(found["x"][b * 4 + c], x[:, b, :, c].T)


def test_features_over_two_axes():
    signature = echo([argument("x", "feature", "time", "feature", width=6)])
    x = np.random.default_rng(0).standard_normal((2, 5, 3))
    found, _, _ = to_frames(signature, x)
    np.testing.assert_array_equal(found["x"][0, 4], x[:, 4].reshape(-1))


def test_results_in_all_forms():
    x = np.random.default_rng(0).standard_normal((2, 6, 3))
    other = np.random.default_rng(1).standard_normal((2, 6, 3))
    signature = echo(
        [argument("x", *BTF)],
        result("merged", ("batch", "time"), "feature"),
        result("turned", ("time", "batch"), "feature"),
        result("window", "batch", ("time", "feature")),
        result("one", "batch", (), "feature"),
        result("last", "feature", "batch"),
        result("rows", "layer", "batch", "feature", tensors=("x", "other"), state=True),
        result("rows first", "batch", ("layer", "feature"), tensors=("x", "other")),
        result("sequences", "batch", "layer", "time", "feature", tensors=("x", "other")),
        container="dict",
    )
    _, _, restore = to_frames(signature, x)
    got = from_frames(signature, {"x": x, "other": other}, restore)
    np.testing.assert_array_equal(got["merged"], x.reshape(12, 3))
    np.testing.assert_array_equal(got["turned"], x.transpose(1, 0, 2).reshape(12, 3))
    np.testing.assert_array_equal(got["window"], x.reshape(2, 18))
    np.testing.assert_array_equal(got["one"], x[:, -1:])
    np.testing.assert_array_equal(got["last"], x[:, -1].T)
    np.testing.assert_array_equal(got["rows"], np.stack([x[:, -1], other[:, -1]]))
    np.testing.assert_array_equal(got["rows first"], np.concatenate([x[:, -1], other[:, -1]], 1))
    np.testing.assert_array_equal(got["sequences"], np.stack([x, other], 1))

    finals = {"other": np.full((2, 3), 7.0)}
    got = from_frames(signature, {"x": x, "other": other}, restore, finals)
    np.testing.assert_array_equal(got["rows"], np.stack([x[:, -1], finals["other"]]))
    np.testing.assert_array_equal(got["sequences"], np.stack([x, other], 1))

    _, _, restore = to_frames(signature, x[0])
    assert restore.single
    got = from_frames(signature, {"x": x[:1], "other": other[:1]}, restore)
    np.testing.assert_array_equal(got["merged"], x[0])
    np.testing.assert_array_equal(got["window"], x[0].reshape(18))
    np.testing.assert_array_equal(got["one"], x[0, -1:])
    np.testing.assert_array_equal(got["last"], x[0, -1])
    np.testing.assert_array_equal(got["rows"], np.stack([x[0, -1], other[0, -1]]))


@pytest.mark.parametrize(("container", "kind"), [("tuple", tuple), ("list", list), ("dict", dict)])
def test_containers(container, kind):
    signature = echo([argument("x", *BTF)], result("a", *BTF), result("b", "batch", "feature"), container=container)
    found, _, restore = to_frames(signature, np.ones((2, 6, 3)))
    got = from_frames(signature, found, restore)
    assert type(got) is kind and len(got) == 2
    if kind is dict:
        assert list(got) == ["a", "b"]


def test_states():
    state = Argument("h", "state", ("layer", "batch", "feature"), layers=("a", "b"), width=4)
    x, h = np.zeros((3, 6, 3)), np.random.default_rng(0).standard_normal((2, 3, 4))
    for axes, array in (
        (("layer", "batch", "feature"), h),
        (("batch", "layer", "feature"), h.transpose(1, 0, 2)),
        (("layer", "one", "batch", "feature"), h[:, None]),
    ):
        signature = echo([argument("x", *BTF), Argument("h", "state", axes, layers=("a", "b"), width=4)])
        _, states, _ = to_frames(signature, (x, array))
        np.testing.assert_array_equal(states["h"], h.transpose(1, 0, 2))
    signature = echo([argument("x", *BTF), state])
    _, states, restore = to_frames(signature, {"h": h[:, 0], "x": x[0]})
    np.testing.assert_array_equal(states["h"][0], h[:, 0])
    assert restore.single
    one = echo([argument("x", *BTF), Argument("h", "state", ("batch", "feature"), layers=("a",), width=4)])
    _, states, _ = to_frames(one, (x, h[0]))
    np.testing.assert_array_equal(states["h"], h[0][:, None])


X, H = argument("x", *BTF), Argument("h", "state", ("layer", "batch", "feature"), layers=("a", "b"), width=4)
GOOD, STATE = np.zeros((2, 6, 3)), np.zeros((2, 2, 4))


def spoiled(value, index=(1, 2, 0)):
    array = GOOD.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("arguments", "inputs", "message"),
    [
        ([X], (GOOD, GOOD), "got 2 argument(s), but the model takes 'x' (1)"),
        ([X, H], GOOD, "got 1 argument(s), but the model takes 'x', 'h' (2)"),
        ([X, H], {"x": GOOD}, "missing argument 'h': the model takes 'x', 'h'"),
        ([X], {"x": GOOD, "z": GOOD}, "unknown argument 'z': the model takes 'x'"),
        ([X], np.zeros(3), "argument 'x' has 1 axes (shape (3,)), but the model takes [batch, time, feature] or [time"),
        ([X], np.zeros((1, 2, 6, 3)), "argument 'x' has 4 axes"),
        ([argument("x", "time", "feature")], np.zeros(3), "but the model takes [time, feature]"),
        ([X], np.zeros((2, 6, 4)), "argument 'x' has 4 features (shape (2, 6, 4)), but the model takes 3"),
        ([X], np.zeros((2, 0, 3)), "argument 'x' is empty: its time axis (1) has length 0"),
        ([X], np.zeros((0, 6, 3)), "argument 'x' is empty: its batch axis (0) has length 0"),
        ([X], spoiled(np.nan), "argument 'x' holds nan at index (1, 2, 0): every value must be finite"),
        ([X], spoiled(-np.inf), "argument 'x' holds -inf at index (1, 2, 0)"),
        ([X], GOOD.astype(bool), "argument 'x' has dtype bool: give float (or integer) frames"),
        ([X], GOOD.astype(complex), "argument 'x' has dtype complex128"),
        ([X], GOOD.astype(object), "argument 'x' has dtype object"),
        ([X], np.full((2, 6, 3), "a"), "argument 'x' has dtype <U1"),
        ([X], [[[1.0, 2.0], [3.0]]], "argument 'x' is not an array of numbers"),
        ([X], None, "argument 'x' has dtype object"),
        (
            [X, X],
            (GOOD, GOOD[:1]),
            "argument 'x' has batch 1, but 'x' has batch 2: give every argument the same streams",
        ),
        ([X, X], (GOOD, GOOD[0]), "argument 'x' has a single stream (no batch axis), but 'x' has batch 2"),
        (
            [X, X],
            (GOOD, GOOD[:, :5]),
            "argument 'x' has 5 time steps, but 'x' has 6: give every argument the same length",
        ),
        ([X, H], (GOOD, STATE[:, :1]), "argument 'h' has batch 1, but 'x' has batch 2"),
        ([X, H], (GOOD, STATE[:1]), "argument 'h' has 1 layers (shape (1, 2, 4)), but the model takes 2"),
        ([X, H], (GOOD, STATE[..., :3]), "argument 'h' has 3 features (shape (2, 2, 3)), but the model takes 4"),
        (
            [X, Argument("h", "state", ("one", "batch", "feature"), layers=("a",), width=4)],
            (GOOD, STATE),
            "argument 'h' has 2 elements along its axis of length 1 (shape (2, 2, 4)), but the model takes 1",
        ),
    ],
)
def test_bad_input(arguments, inputs, message):
    with pytest.raises(QuantizeError) as caught:
        to_frames(echo(arguments), inputs)
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_too_large_for_float32():
    to_frames(echo([X]), spoiled(1e300))
    with pytest.raises(
        QuantizeError, match=r"holds 1e\+300 at index \(1, 2, 0\): every value must be finite in float32"
    ):
        to_frames(echo([X]), spoiled(1e300), np.float32)


def test_raw_input():
    found, _, _ = to_frames(echo([X]), np.full((2, 6, 3), -32768), np.int16)
    assert found["x"].dtype == np.int16 and (found["x"] == -32768).all()
    for value, message in (
        (32768, "holds 32768 at index (0, 0, 0): raw input must lie in -32768..32767"),
        (0.5, "float64"),
    ):
        with pytest.raises(QuantizeError) as caught:
            to_frames(echo([X]), np.full((2, 6, 3), value), np.int16)
        assert message in str(caught.value)


def test_a_graph_by_hand():
    """Every operation once, on numbers that can be followed."""
    nodes = (
        Node(
            "linear",
            "l",
            ("x",),
            "l",
            params={"weight": np.array([[1.0, 2.0], [0.0, -1.0]]), "bias": np.array([0.5, 0.0])},
        ),
        Node("activation", "r", ("l",), "r", {"activation": "relu"}),
        Node("affine", "a", ("r",), "a", params={"scale": np.array([2.0, 3.0]), "offset": np.array([0.0, 1.0])}),
        Node("slice", "s", ("a",), "s", {"start": 1, "stop": 2}),
        Node("add", "p", ("a", "s"), "p"),
        Node("sub", "m", ("s", "a"), "m"),
        Node("mul", "t", ("p", "m"), "t"),
        Node("concat", "c", ("s", "t"), "c"),
    )
    names = ("x", *(node.output for node in nodes))
    signature = echo(
        [argument("x", "time", "feature", width=2)],
        *(result(name, "time", "feature", tensors=(name,)) for name in names),
        container="dict",
    )
    got = run_graph(Graph(nodes, dict.fromkeys(names, 2), signature), [[[3.0, -1.0], [1.0, 1.0]]])
    assert got["l"].tolist() == [[1.5, 1.0], [3.5, -1.0]]
    assert got["r"].tolist() == [[1.5, 1.0], [3.5, 0.0]]
    assert got["a"].tolist() == [[3.0, 4.0], [7.0, 1.0]]
    assert got["s"].tolist() == [[4.0], [1.0]]
    assert got["p"].tolist() == [[7.0, 8.0], [8.0, 2.0]]
    assert got["m"].tolist() == [[1.0, 0.0], [-6.0, 0.0]]
    assert got["t"].tolist() == [[7.0, 0.0], [-48.0, 0.0]]
    assert got["c"].tolist() == [[4.0, 7.0, 0.0], [1.0, -48.0, 0.0]]
