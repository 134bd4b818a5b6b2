"""Equal tables from torch and from its own ONNX export, and what the exporter has lost, refused or said.

Neighbours: `test_onnx.py` (files, names, refusals), `test_onnx_operators.py` (each operator against onnxruntime).
"""

from __future__ import annotations

import contextlib
import io
import logging

import numpy as np
import pytest

pytest.importorskip("torch", reason="an optional extra: rtcore[torch]")
pytest.importorskip("onnx", reason="an optional extra: rtcore[onnx]")

import torch
from torch import nn
from torch.nn import functional as F

import quantize
from bits import assert_equal_bits
from networks import NETWORKS
from onnx_models import array
from quantize.errors import UnsupportedError
from quantize.float_run import run_graph

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export's, about its own treatment of nn.GRU

X = array(3, 7, 6, low=-3, high=3)


def exported(torch_model, sample, path, **options):
    """The torch.onnx export, whose messages are not ours."""
    pytest.importorskip("onnxscript", reason="torch.onnx needs it, a development extra: rtcore[dev]")
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        given = tuple(map(torch.from_numpy, sample if isinstance(sample, tuple) else (sample,)))
        torch.onnx.export(torch_model, given, path, dynamo=True, verbose=False, **options)
    return path


class Functions(nn.Module):
    """What the exporter writes as one operator in some opsets, as several in others."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.rnn = nn.LSTM(8, 8, num_layers=2, batch_first=True)
        self.down = nn.Linear(8, 5, bias=False)

    def forward(self, x):
        x = F.silu(self.up(x))
        x = x + F.softplus(self.norm(x), 2, 10) - F.logsigmoid(x) * F.gelu(x)
        y, (h, _) = self.rnn(x)
        return F.hardswish(self.down(y)), h[-1].exp().rsqrt()


def functions():
    torch.manual_seed(1)
    return Functions().eval(), X


# optimize=False where there are batch norms: torch's exporter folds them in float32, the importer in float64
SAME = {
    "functions": (functions, {}),
    "functions, batch free": (functions, {"dynamic_shapes": ({0: "batch"},)}),
    "functions, opset 18": (functions, {"opset_version": 18}),
    **{
        name: (lambda name=name: (NETWORKS[name]().model, NETWORKS[name]().frames[:3]), {"optimize": optimize})
        for name, optimize in {
            "denoiser": True,
            "lstm forecaster": True,
            "ds-cnn": False,
            "keyword spotter": False,
        }.items()
    },
}


def same_tables(mine, its, name):
    """Kinds, numbers, arrays and formats; layers may be called otherwise, a mean of all see another shape."""

    def numbers(tables):
        return [(layer.kind, layer.ints if layer.kind != "pool_i16" else {}) for layer in tables.layers]

    assert numbers(mine) == numbers(its)
    for one_, other in zip(mine.layers, its.layers, strict=True):
        assert one_.arrays.keys() == other.arrays.keys()
        for key in other.arrays:
            assert one_.arrays[key].dtype == other.arrays[key].dtype
            bits = (found.astype(np.int64) for found in (other.arrays[key], one_.arrays[key]))
            assert_equal_bits(*bits, f"{name}: {other.name}.{key}", 0)
        assert mine.tensors[one_.output].frac == its.tensors[other.output].frac


@pytest.mark.parametrize("name", SAME)
def test_the_export_gives_the_tables_of_the_module(name, tmp_path):
    make, options = SAME[name]
    torch_model, x = make()
    path = exported(torch_model, x, tmp_path / "net.onnx", **options)
    mine, its = (quantize.quantize(source, x, weight_bits=8).tables for source in (path, torch_model))
    same_tables(mine, its, name)
    assert {n for n in (layer.name for layer in its.layers) if n in dict(torch_model.named_modules())} <= {
        layer.name for layer in mine.layers
    }


class Recurrent(nn.Module):
    def __init__(self, kind, **options) -> None:
        super().__init__()
        self.rnn = kind(6, 4, batch_first=True, **options)

    def forward(self, x):
        return self.rnn(x)[0]


RECURRENT = {
    f"{kind.__name__}, {options}": (kind, options)
    for kind in (nn.RNN, nn.GRU, nn.LSTM)
    for options in ({}, {"bias": False}, {"num_layers": 2}, {"bidirectional": True, "num_layers": 2})
}
RECURRENT["RNN, relu"] = (nn.RNN, {"nonlinearity": "relu"})
HOW = {"": {}, ", batch free": {"dynamic_shapes": ({0: "batch"},)}, ", as traced": {"optimize": False}}
RECURRENT = {
    f"{name}{how}": (*case, options)
    for name, case in RECURRENT.items()
    for how, options in HOW.items()
    if not how or case[0] is nn.RNN
}


@pytest.mark.parametrize("name", RECURRENT)
def test_exported_recurrent_layers_give_the_tables_of_the_module(name, tmp_path):
    """Also nn.RNN, which torch's exporter unrolls over its steps: one layer again, and a stream where that has one."""
    kind, options, how = RECURRENT[name]
    torch.manual_seed(2)
    torch_model = Recurrent(kind, **options).eval()
    path = exported(torch_model, X, tmp_path / "net.onnx", **how)
    mine, its = (quantize.quantize(source, X, weight_bits=8) for source in (path, torch_model))
    same_tables(mine.tables, its.tables, name)
    assert [a.axes for a in mine.signature.arguments] == [a.axes for a in its.signature.arguments]
    assert ("time" in mine.signature.arguments[0].axes) == ("bidirectional" not in options)


class Half(nn.Module):
    """Loops that are no nn.RNN over all steps."""

    def __init__(self, how) -> None:
        super().__init__()
        self.how, self.ih, self.hh = how, nn.Linear(6, 4), nn.Linear(4, 4)

    def forward(self, x):
        frames = self.ih(x.transpose(0, 1)).unbind(0)
        frames = frames[:-1] if self.how == "all but one" else frames
        h, states = torch.ones(x.shape[0], 4) * (self.how == "from one"), []
        for k, frame in enumerate(frames):
            act = torch.relu if self.how == "two activations" and k == 1 else torch.tanh
            h = (
                act(frame + self.hh(h))
                if self.how != "two steps back" or k < 2
                else torch.tanh(frame + self.hh(states[-2]))
            )
            states.append(h)
        y = torch.stack(states, 1)
        return y + states[1][:, None] if self.how == "inner state" else y


@pytest.mark.parametrize("how", ["all", "all but one", "from one", "two activations", "two steps back", "inner state"])
def test_what_looks_like_an_unrolled_layer_and_is_none(how, tmp_path):
    """The same values as torch's, whatever was recognised."""
    torch.manual_seed(3)
    torch_model = Half(how).eval()
    graph = quantize.import_model(exported(torch_model, X, tmp_path / "net.onnx"), X)
    want = torch_model(torch.from_numpy(X)).detach().numpy()
    assert np.abs(run_graph(graph, X) - want).max() <= 1e-5 * np.abs(want).max()
    advised = any("its exporter has unrolled" in note and "or its .pt2" in note for note in graph.notes)
    assert advised == ("time" not in graph.signature.arguments[0].axes)


def test_an_exported_rnn_takes_and_gives_states(tmp_path):
    class Stated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(6, 4, batch_first=True)

        def forward(self, x, h):
            return self.rnn(x, h)

    torch.manual_seed(4)
    torch_model, h = Stated().eval(), array(1, 3, 4, seed=3)
    path = tmp_path / "net.onnx"
    exported(torch_model, (X, h), path)
    mine, its = (quantize.quantize(source, (X, h)) for source in (path, torch_model))
    same_tables(mine.tables, its.tables, "states")
    assert [s.layers for s in mine.tables.state_inputs] == [s.layers for s in its.tables.state_inputs] == [("rnn",)]


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"num_layers": 2}, {"bidirectional": True}], ids=str)
def test_an_exported_projection_is_refused(options, tmp_path):
    """ONNX has none; torch's exporter leaves a part of the weights, or a graph that cannot be computed."""
    path = exported(Recurrent(nn.LSTM, proj_size=2, **options).eval(), X, tmp_path / "net.onnx")
    lost = r"LSTM .* has initial_c of shape \[1, 3, 4\].*lacks its projection: give the torch module itself"
    broken = "bidirectional" in options or "num_layers" in options
    with pytest.raises(UnsupportedError, match="Concat .*cannot be computed" if broken else lost):
        quantize.import_model(path, X)
