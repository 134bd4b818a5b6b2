"""Functions and normalizations from torch to int16: the importer against torch, tables against float64, refusals."""

import math
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graphs import sqnr
from quantize import quantize, quantize_graph
from quantize.dequantize import dequantized_graph
from quantize.errors import PlanError, UnsupportedError
from quantize.float_run import run_graph
from quantize.formats import to_float, to_raw
from quantize.functions import DOMAINS, FUNCTIONS, evaluate, make_table
from quantize.torch_import import import_model
from rtcore import Net
from torch_models import FC, check, exported, module, ops, randn

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export's


def weighted(layer, seed=0):
    """A layer whose weights and statistics are not those of its start."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in [*layer.parameters(), *(t for t in layer.buffers() if t.is_floating_point())]:
        tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5
    return layer


def on(layer, **kwargs):
    """The module spelling: forward and members."""
    return lambda self, x: self.f(1.5 * x), {"f": lambda: layer(**kwargs)}


def plain(function):
    """The function or method spelling."""
    return lambda self, x: function(x), {}


SMOOTH = {
    "elu module": on(nn.ELU, alpha=0.7),
    "elu": plain(F.elu),
    "celu": plain(lambda x: F.celu(x, 0.5)),
    "celu module": on(nn.CELU),
    "selu": plain(torch.selu),
    "selu module": on(nn.SELU),
    "gelu": plain(F.gelu),
    "gelu module": on(nn.GELU),
    "gelu tanh": plain(lambda x: F.gelu(x, approximate="tanh")),
    "silu": plain(F.silu),
    "silu module": on(nn.SiLU),
    "mish": plain(F.mish),
    "softplus": plain(F.softplus),
    "softplus module": on(nn.Softplus, beta=2, threshold=10),
    "log sigmoid": plain(F.logsigmoid),
    "log sigmoid module": on(nn.LogSigmoid),
    "softsign": plain(F.softsign),
    "softsign module": on(nn.Softsign),
    "exp": plain(torch.exp),
    "exp method": plain(lambda x: x.exp()),
    "expm1": plain(torch.expm1),
    "sin": plain(torch.sin),
    "cos": plain(lambda x: x.cos()),
    "atan": plain(torch.atan),
    "erf": plain(torch.erf),
}
POSITIVE = {
    "sqrt": plain(lambda x: torch.sqrt(x.abs() + 0.5)),
    "sqrt method": plain(lambda x: x.abs().sqrt()),
    "root as a power": plain(lambda x: x.abs() ** 0.5),
    "log": plain(lambda x: torch.log(x.abs() + 0.5)),
    "log1p": plain(lambda x: torch.log1p(x.abs())),
    "rsqrt": plain(lambda x: torch.rsqrt(x.abs() + 0.5)),
    "reciprocal": plain(lambda x: (x.abs() + 1).reciprocal()),
}
LINEAR = {
    "relu6": plain(F.relu6),
    "relu6 module": on(nn.ReLU6, inplace=True),
    "leaky relu": plain(lambda x: F.leaky_relu(x, 0.2)),
    "leaky relu module": on(nn.LeakyReLU),
    "prelu": on(nn.PReLU),
    "prelu of channels": (lambda self, x: self.f(x.mT).mT, {"f": lambda: weighted(nn.PReLU(3))}),
    "clamp": plain(lambda x: torch.clamp(x, -0.5, 0.7)),
    "clamp method": plain(lambda x: x.clamp(min=-0.3)),
    "clamp by tensors": plain(lambda x: x.clamp(torch.tensor(-0.2), torch.tensor(0.4))),
    "clip": plain(lambda x: torch.clip(x, max=0.3)),
    "clamp_min": plain(lambda x: x.clamp_min(0.1)),
    "clamp_max": plain(lambda x: torch.clamp_max(x, 0.1)),
    "hardtanh": plain(F.hardtanh),
    "hardtanh module": on(nn.Hardtanh, min_val=-0.5, max_val=2.0),
    "abs": plain(torch.abs),
    "abs method": plain(lambda x: x.abs()),
    "hardsigmoid": plain(lambda x: F.hardsigmoid(2 * x)),
    "hardsigmoid module": on(nn.Hardsigmoid),
    "hardswish": plain(F.hardswish),
    "hardswish module": on(nn.Hardswish, inplace=True),
    "square": plain(torch.square),
    "power of two": plain(lambda x: x**2),
    "minimum": plain(lambda x: torch.minimum(x, 0.3 * x + 0.1)),
    "maximum": plain(lambda x: torch.maximum(x.tanh(), 2 * x)),
    "maximum with one": plain(lambda x: torch.max(x, x[..., :1] * 3)),
    "minimum with a constant": plain(lambda x: torch.minimum(torch.tensor(0.25), x)),
}
NORMAL = {
    "softmax": plain(lambda x: torch.softmax(x, -1)),
    "softmax module": on(nn.Softmax, dim=2),
    "softmax method": plain(lambda x: x.softmax(dim=-1)),
    "softmax of channels": plain(lambda x: x.mT.softmax(1)),
    "softmin": plain(lambda x: F.softmin(x, -1)),
    "log softmax": plain(lambda x: F.log_softmax(x, -1)),
    "log softmax module": on(nn.LogSoftmax, dim=-1),
    "layer norm": (lambda self, x: self.f(x), {"f": lambda: weighted(nn.LayerNorm(3))}),
    "layer norm function": plain(lambda x: F.layer_norm(x, (3,))),
    "layer norm without bias": (lambda self, x: self.f(x), {"f": lambda: weighted(nn.LayerNorm(3, bias=False))}),
    "batch norm of channels": (lambda self, x: self.f(x.mT).mT, {"f": lambda: weighted(nn.BatchNorm1d(3))}),
    "batch norm without weights": (
        lambda self, x: self.f(x.mT),
        {"f": lambda: weighted(nn.BatchNorm1d(3, affine=False))},
    ),
    "linear, batch norm, relu": (
        lambda self, x: torch.relu(self.f(self.fc(x).mT)).mT,
        {"fc": lambda: nn.Linear(3, 5), "f": lambda: weighted(nn.BatchNorm1d(5))},
    ),
}
FORMS = SMOOTH | POSITIVE | LINEAR | NORMAL


@pytest.mark.parametrize("name", FORMS)
def test_functions_import_as_torch_computes_them(name):
    forward, members = FORMS[name]
    check(module(forward, **members), 2 * randn(2, 5, 3), 2 * randn(1, 1, 3, seed=1), 2 * randn(3, 9, 3, seed=2))


@pytest.mark.parametrize("name", ["gelu", "softsign", "prelu", "softmax", "layer norm", "linear, batch norm, relu"])
def test_a_program_gives_the_same_graph(name):
    forward, members = FORMS[name]
    model, x = module(forward, **members), randn(2, 5, 3)
    assert ops(import_model(exported(model, x))) == ops(import_model(model, x))


def test_a_batch_norm_goes_into_the_linear_before_it_if_nobody_else_reads_that():
    members = {"fc": lambda: nn.Linear(3, 5), "f": lambda: weighted(nn.BatchNorm1d(5))}
    x = randn(4, 3)
    graph = check(module(lambda self, x: torch.tanh(self.f(self.fc(x))), **members), x)
    assert ops(graph) == ["linear", "activation"]
    tables = quantize_graph(graph, [x.numpy()]).tables
    assert [layer.kind for layer in tables.layers] == ["dense_i16"]
    twice = check(module(lambda self, x: (lambda y: self.f(y) + y)(self.fc(x)), **members), x)
    assert ops(twice) == ["linear", "affine", "add"]
    result = check(module(lambda self, x: (lambda y: (self.f(y), y))(self.fc(x)), **members), x)
    assert ops(result) == ["linear", "affine"]


def accuracy(name, x):
    """(SQNR of every output against float64 on the same int16 input and weights, the tables)."""
    forward, members = FORMS[name]
    graph = import_model(module(forward, **members), torch.tensor(x, dtype=torch.float32))
    tables = quantize_graph(graph, [x]).tables
    frac = tables.tensors["x"].frac
    raw, _ = to_raw(x, frac)
    exact = to_float(raw, frac).astype(np.float64)
    seen = {}
    run_graph(dequantized_graph(graph, tables), exact, observe=lambda name, array: seen.update({name: array}))
    run = Net(tables).run([raw], trace=True)
    assert sum(run.saturated.values()) == 0
    name = graph.nodes[-1].output
    return sqnr(seen[name], to_float(run.trace[name], tables.tensors[name].frac)), tables


# The formats hold 1.25 times the largest value of 3,000 normal ones, which is about 5 deviations: rounding alone, to
# half an LSB, leaves 84 dB of an even signal; results that are mostly small (exp, square, softmax, the tail of a SiLU)
# lose what they are smaller by; a clamp keeps its input's format, whose LSB is large for what little it lets through,
# and errs by the same part of it wherever it cuts.
FLOORS = dict.fromkeys(("clamp", "clamp method", "clamp by tensors", "clip", "clamp_min", "clamp_max"), 60) | {
    "exp": 65,
    "exp method": 65,
    "expm1": 65,
    "square": 70,
    "power of two": 70,
}


@pytest.mark.parametrize("name", FORMS)
def test_functions_are_accurate(name):
    x = np.random.default_rng(5).standard_normal((4, 250, 3)) * 2
    found, tables = accuracy(name, x)
    errors = [entry["max_error"] for entry in tables.meta["functions"].values()]
    print(f"{name}: {found:.1f} dB, {errors}")
    assert found >= FLOORS.get(name, 75)
    assert all(error <= 2.5 for error in errors)


@pytest.mark.parametrize("width", [8, 64, 500])
@pytest.mark.parametrize("name", ["softmax", "log softmax", "layer norm"])
def test_wide_vectors_are_accurate(name, width):
    """A layer norm reaches 75 dB on wide formats; a softmax over many has small results, in Q0.15."""
    rng = np.random.default_rng(width)
    graphs = {"softmax": nn.Softmax(-1), "log softmax": nn.LogSoftmax(-1), "layer norm": weighted(nn.LayerNorm(width))}
    x = rng.standard_normal((2, 100, width)) * 3 + 1
    graph = import_model(graphs[name].eval(), torch.tensor(x, dtype=torch.float32))
    tables = quantize_graph(graph, [x]).tables
    frac = tables.tensors[tables.inputs[0]].frac
    raw, _ = to_raw(x, frac)
    expected = run_graph(dequantized_graph(graph, tables), to_float(raw, frac).astype(np.float64))
    y = to_float(Net(tables).run([raw]).outputs[0], tables.tensors[tables.outputs[0]].frac)
    error = np.abs(y - expected).max() * 2.0 ** tables.tensors[tables.outputs[0]].frac
    print(f"{name} {width}: {sqnr(expected, y):.1f} dB, {error:.2f} LSB")
    assert error <= 2
    assert sqnr(expected, y) >= (75 if name != "softmax" else 75 - 20 * math.log10(width / 8))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_table_errs_as_it_says(name):
    """The largest error over all codes of the calibrated range, measured again, through the kernel."""
    attrs, low, high = {"function": name}, *((0.5, 6.0) if name in DOMAINS else (-6.0, 6.0))
    x_frac, out_frac = 12, {"exp": 6, "expm1": 6}.get(name, 12)
    table = make_table(attrs, x_frac, out_frac, low, high, name)
    codes = np.arange(math.floor(low * 4096), math.ceil(high * 4096) + 1)
    exact = evaluate(attrs, codes / 4096) * 2.0**out_frac
    u = codes + 32768
    k, f = u >> table.step, u & ((1 << table.step) - 1)
    nodes = table.nodes.astype(np.int64)
    sums = nodes[k] * ((1 << table.step) - f) + nodes[np.minimum(k + 1, len(nodes) - 1)] * f
    y = (sums + (1 << (table.shift - 1))) >> table.shift
    held = np.abs(exact) <= 32767
    assert abs(np.abs(y - exact)[held].max() - table.max_error) < 1e-6
    assert table.max_error <= 1.5 and np.abs(sums).max() < 2**31


def test_a_function_of_zero_stays_zero():
    """A unit that is off stays off."""
    for name in ("elu", "gelu", "silu", "softsign", "mish", "sin", "atan", "erf", "expm1"):
        table = make_table({"function": name}, 12, 12, -6.0, 6.0, name)
        assert (int(table.nodes[32768 >> table.step]) * 2**table.step + 2 ** (table.shift - 1)) >> table.shift == 0, (
            name
        )


REFUSED = {
    "softmax over time": (
        lambda self, x: self.rnn(x)[0].softmax(1),
        r"softmax .*takes the time axis .*as its feature axis",
    ),
    "softmax over the batch": (lambda self, x: self.rnn(x)[0].softmax(0), r"softmax .*takes the batch axis"),
    "layer norm over two axes": (
        lambda self, x: F.layer_norm(self.rnn(x)[0], (5, 4)),
        r"layer_norm .*takes the time axis",
    ),
    "layer norm over time": (
        lambda self, x: F.layer_norm(self.rnn(x)[0].mT, (5,)),
        r"layer_norm .*takes the time axis",
    ),
    "batch norm of batch statistics": (
        lambda self, x: F.batch_norm(self.rnn(x)[0].mT, None, None, training=True),
        r"batch_norm .*statistics of the batch.*model\.eval\(\)",
    ),
    "batch norm over time": (lambda self, x: self.bn(self.rnn(x)[0]), r"batch_norm .*takes the time axis"),
    "prelu over time": (lambda self, x: self.pr(self.rnn(x)[0]), r"prelu .*takes the time axis"),
    "power": (lambda self, x: x**3, r"pow .*raises to the power 3; supported are 2, 0\.5"),
    "varying limit": (lambda self, x: torch.maximum(x, torch.arange(3.0)), r"maximum .*a constant that varies"),
    "one plus another's abs": (lambda self, x: x / (x.tanh().abs() + 1), r"div .*only division by constants"),
    "two plus abs": (lambda self, x: x / (x.abs() + 2), r"div .*only division by constants"),
    "one plus nothing": (lambda self, x: x / (x + 1), r"div .*only division by constants"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    forward, message = REFUSED[name]
    model = module(
        forward,
        rnn=lambda: nn.GRU(3, 4, batch_first=True),
        bn=lambda: nn.BatchNorm1d(5),
        pr=lambda: nn.PReLU(5),
    )
    with pytest.raises(UnsupportedError, match=re.compile(message, re.S)) as error:
        import_model(model, randn(2, 5, 3), "stream")
    assert "test_torch_functions.py" in str(error.value)


def test_a_batch_norm_in_training_mode_is_refused():
    model = module(lambda self, x: self.bn(x), bn=lambda: nn.BatchNorm1d(3)).train()
    with pytest.raises(UnsupportedError, match=r"bn\..*batch norm was exported in training mode; call model\.eval"):
        import_model(exported(model, randn(4, 3)))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.sqrt, r"sqrt .*its input reaches -[\d.]+ on the calibration data, and must be at least 0: clamp it"),
        (torch.log, r"log .*must be above 0"),
        (lambda x: x.clamp(min=0).log(), r"log .*its input reaches 0 .*must be above 0"),
        (lambda x: x.clamp(min=0.0005).reciprocal(), r"reciprocal .*too steep for its range: .*errs by \d+ LSB"),
        (lambda x: torch.sin(300 * x), r"sin .*too steep for its range"),
    ],
)
def test_data_that_a_function_cannot_take_is_refused_by_name(function, message):
    model = module(lambda self, x: function(self.fc(x)), **FC)
    with pytest.raises(PlanError, match=message) as error:
        quantize(model, 3 * randn(2, 50, 3))
    assert "test_torch_functions.py" in str(error.value)
