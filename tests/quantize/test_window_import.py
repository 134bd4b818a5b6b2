"""Models that are seen a window at a time, and convolutions over a stream: imported, and compared with torch.

Every case is imported at one batch size and run at another; `torch_models.check` holds the graph to the module. What
can be no stream and no window is read by its message. Neighbours: `test_import.py` (streams), `test_networks.py` (whole
networks).
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import quantize
from quantize.errors import QuantizeError, UnsupportedError
from quantize.float_run import run_graph
from quantize.torch_import import import_model
from torch_models import check, module, randn

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export's, about its own treatment of nn.GRU


def normed(kind, n):
    """A batch norm whose statistics are not those of a fresh one."""
    norm = kind(n)
    generator = torch.Generator().manual_seed(1)
    norm.running_mean.normal_(generator=generator)
    norm.running_var.uniform_(0.5, 2, generator=generator)
    nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
    return norm


def gru_loop(self, x):
    h = x.new_zeros(len(x), 6)
    steps = []
    for t in range(x.shape[1]):
        h = self.cell(x[:, t], h)
        steps.append(h)
    return torch.stack(steps, 1)


def stacked_loop(self, x):
    h, c = x.new_zeros(len(x), 6), x.new_zeros(len(x), 6)
    h2 = x.new_zeros(len(x), 5)
    for t in range(x.shape[1]):
        h, c = self.lstm(x[:, t], (h, c))
        h2 = self.rnn(h, h2)
    return h2, c


def feedback_loop(self, x):
    """Each step reads the one before: no layer over a sequence, the cells stay apart."""
    h = x.new_zeros(len(x), 5)
    for t in range(x.shape[1]):
        h = self.cell(x[:, t] + h, h)
    return h


def conv(*args, **kwargs):
    return lambda: nn.Conv1d(*args, **kwargs)


def conv2(*args, **kwargs):
    return lambda: nn.Conv2d(*args, **kwargs)


BOTH = dict(batch_first=True, bidirectional=True)
SEQUENCE, CHANNELS, IMAGE = (9, 5), (4, 12), (2, 12, 10)
WINDOW, STREAM = "window", "stream"

# name -> (forward, members, shape beside the batch, form, operations of the graph)
CASES = {
    "gru both ways, two layers": (
        lambda self, x: self.rnn(x),
        {"rnn": lambda: nn.GRU(5, 6, num_layers=2, **BOTH)},
        SEQUENCE,
        WINDOW,
        "gru final gru final concat gru final gru final concat concat",
    ),
    "gru both ways, last states": (
        lambda self, x: torch.cat([self.rnn(x)[1][-2], self.rnn(x)[1][-1]], 1),
        {"rnn": lambda: nn.GRU(5, 6, bias=False, **BOTH)},
        SEQUENCE,
        WINDOW,
        None,
    ),
    "lstm both ways, projected": (
        lambda self, x: (lambda y, states: (y, *states))(*self.rnn(x)),
        {"rnn": lambda: nn.LSTM(5, 6, proj_size=3, **BOTH)},
        SEQUENCE,
        WINDOW,
        None,
    ),
    "rnn both ways, mean over time": (
        lambda self, x: self.fc(self.rnn(x)[0].mean(1)),
        {"rnn": lambda: nn.RNN(5, 6, nonlinearity="relu", **BOTH), "fc": lambda: nn.Linear(12, 2)},
        SEQUENCE,
        WINDOW,
        "rnn rnn concat pool linear",
    ),
    "backwards alone": (
        lambda self, x: self.rnn(x.flip(1))[0].flip(1),
        {"rnn": lambda: nn.GRU(5, 6, batch_first=True)},
        SEQUENCE,
        WINDOW,
        "copy gru copy",
    ),
    "state handed on": (
        lambda self, x: self.b(x, self.a(x)[1])[0],
        {"a": lambda: nn.LSTM(5, 6, batch_first=True), "b": lambda: nn.LSTM(5, 6, batch_first=True)},
        SEQUENCE,
        WINDOW,
        "lstm final cell lstm",
    ),
    "gru cells in a loop": (gru_loop, {"cell": lambda: nn.GRUCell(5, 6)}, SEQUENCE, WINDOW, "slice gru"),
    "stacked cells in a loop": (
        stacked_loop,
        {"lstm": lambda: nn.LSTMCell(5, 6), "rnn": lambda: nn.RNNCell(6, 5)},
        SEQUENCE,
        WINDOW,
        "slice lstm slice rnn cell slice",
    ),
    "cells with feedback": (
        feedback_loop,
        {"cell": lambda: nn.GRUCell(5, 5)},
        (3, 5),
        WINDOW,
        "slice affine gru slice add gru slice add gru",
    ),
    "first and last step": (
        lambda self, x: self.rnn(x)[0][:, 0] - self.rnn(x)[0][:, -1],
        {"rnn": lambda: nn.GRU(5, 6, batch_first=True)},
        SEQUENCE,
        WINDOW,
        None,
    ),
    "attention over time": (
        lambda self, x: (torch.softmax(self.fc(self.rnn(x)[0]), 1) * self.rnn(x)[0]).sum(1),
        {"rnn": lambda: nn.GRU(5, 6, batch_first=True), "fc": lambda: nn.Linear(6, 1)},
        SEQUENCE,
        WINDOW,
        None,
    ),
    "every other step": (
        lambda self, x: self.rnn(x[:, ::2])[0][:, 1:4],
        {"rnn": lambda: nn.GRU(5, 6, **BOTH)},
        SEQUENCE,
        WINDOW,
        None,
    ),
    "positions added": (
        lambda self, x: self.rnn(x + self.p)[0],
        {"rnn": lambda: nn.GRU(5, 6, **BOTH), "p": lambda: nn.Parameter(randn(1, 9, 5))},
        SEQUENCE,
        WINDOW,
        None,
    ),
    "last step against all": (
        lambda self, x: self.rnn(x)[0] - self.rnn(x)[0][:, -1:],
        {"rnn": lambda: nn.GRU(5, 6, batch_first=True)},
        SEQUENCE,
        WINDOW,
        None,
    ),
    "last step repeated": (
        lambda self, x: torch.cat([x, self.rnn(x)[0][:, -1:].expand(-1, 9, -1)], 2),
        {"rnn": lambda: nn.GRU(5, 6, batch_first=True)},
        SEQUENCE,
        WINDOW,
        None,
    ),
    "tiled": (
        lambda self, x: self.rnn(x)[0][:, -1:].repeat(1, 4, 2),
        {"rnn": lambda: nn.GRU(5, 6, **BOTH)},
        SEQUENCE,
        WINDOW,
        None,
    ),
    "frames regrouped": (
        lambda self, x: self.fc(x.reshape(len(x), 3, 15)),
        {"fc": lambda: nn.Linear(15, 2)},
        SEQUENCE,
        WINDOW,
        "linear",
    ),
    "linear over time": (
        lambda self, x: self.fc(self.rnn(x)[0].mT),
        {"rnn": lambda: nn.GRU(5, 6, batch_first=True), "fc": lambda: nn.Linear(9, 2)},
        SEQUENCE,
        WINDOW,
        "gru copy linear",
    ),
    "whole window flattened": (
        lambda self, x: self.fc(self.rnn(x)[0].flatten(1)),
        {"rnn": lambda: nn.GRU(5, 6, batch_first=True), "fc": lambda: nn.Linear(54, 2)},
        SEQUENCE,
        WINDOW,
        "gru linear",
    ),
    "norm over time and features": (
        lambda self, x: self.norm(x),
        {"norm": lambda: nn.LayerNorm((9, 5))},
        SEQUENCE,
        STREAM,
        "layer_norm",
    ),
    "stacked and averaged": (
        lambda self, x: torch.stack([self.fc(x), torch.tanh(self.fc(x))], 1).flatten(1, 2).mean(1),
        {"fc": lambda: nn.Linear(5, 3)},
        SEQUENCE,
        WINDOW,
        None,
    ),
    "outer product": (lambda self, x: x.unsqueeze(-1) * x.unsqueeze(-2), {}, (4,), STREAM, "copy mul"),
    # convolutions over a window
    "strided conv with batch norm": (
        lambda self, x: torch.relu(self.norm(self.conv(x))),
        {"conv": conv(4, 8, 3, stride=2, padding=1), "norm": lambda: normed(nn.BatchNorm1d, 8)},
        CHANNELS,
        WINDOW,
        "conv activation copy",
    ),
    "same conv": (
        lambda self, x: self.conv(x),
        {"conv": conv(4, 6, 4, padding="same", dilation=2)},
        CHANNELS,
        WINDOW,
        "conv copy",
    ),
    "grouped conv": (
        lambda self, x: self.conv(x),
        {"conv": conv(4, 6, 3, groups=2, bias=False, padding=1)},
        CHANNELS,
        WINDOW,
        None,
    ),
    "image": (
        lambda self, x: torch.relu(self.norm(self.conv(x))).mean((2, 3)),
        {"conv": conv2(2, 8, (4, 3), stride=(2, 1), padding=(1, 1)), "norm": lambda: normed(nn.BatchNorm2d, 8)},
        IMAGE,
        WINDOW,
        "conv activation pool",
    ),
    "dilated image": (
        lambda self, x: self.conv(x).amax(-1),
        {"conv": conv2(2, 4, 3, dilation=(2, 1), padding=(3, 0))},
        IMAGE,
        WINDOW,
        "conv pool copy",
    ),
    "depthwise separable": (
        lambda self, x: self.fc(F.adaptive_avg_pool2d(F.relu(self.point(F.relu(self.depth(x)))), 1).flatten(1)),
        {
            "depth": conv2(2, 6, 3, padding=1, groups=2),
            "point": conv2(6, 5, 1),
            "fc": lambda: nn.Linear(5, 3),
        },
        IMAGE,
        WINDOW,
        "conv activation conv activation pool linear",
    ),
    "padded unevenly": (
        lambda self, x: self.conv(F.pad(x, (0, 1, 2, 0))),
        {"conv": conv2(2, 3, 3)},
        IMAGE,
        WINDOW,
        "conv copy",
    ),
    "padded with ones": (
        lambda self, x: self.conv(F.pad(x, (1, 1), value=1.0)),
        {"conv": conv2(2, 3, 3)},
        IMAGE,
        WINDOW,
        None,
    ),
    "prelu by channel": (
        lambda self, x: self.act(self.conv(x)),
        {"conv": conv2(2, 3, 3), "act": lambda: nn.PReLU(3)},
        IMAGE,
        WINDOW,
        "conv prelu copy",
    ),
    "squeeze and excite": (
        lambda self, x: x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None],
        {"fc": lambda: nn.Linear(2, 2)},
        IMAGE,
        WINDOW,
        None,
    ),
    "max pool, ceil": (
        lambda self, x: self.fc(F.max_pool2d(self.conv(x), 2, ceil_mode=True).flatten(1)),
        {"conv": conv2(2, 4, 3, padding=0), "fc": lambda: nn.Linear(4 * 5 * 4, 3)},
        IMAGE,
        WINDOW,
        "conv pool linear",
    ),
    "max pool, padded, dilated": (
        lambda self, x: F.max_pool2d(x, 3, stride=(2, 1), padding=1, dilation=2),
        {},
        IMAGE,
        WINDOW,
        None,
    ),
    "average, what is inside": (
        lambda self, x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        {},
        IMAGE,
        WINDOW,
        None,
    ),
    "average, padding counted": (
        lambda self, x: F.avg_pool2d(x, (3, 4), (2, 3), (1, 2), ceil_mode=True),
        {},
        IMAGE,
        WINDOW,
        None,
    ),
    "average, divided by 5": (
        lambda self, x: F.avg_pool2d(x, 2, divisor_override=5),
        {},
        IMAGE,
        WINDOW,
        None,
    ),
    "pools over time": (
        lambda self, x: F.max_pool1d(F.avg_pool1d(self.conv(x), 2), 3, stride=1, padding=1),
        {"conv": conv(4, 6, 3)},
        CHANNELS,
        WINDOW,
        "conv pool pool copy",
    ),
    "adaptive": (
        lambda self, x: F.adaptive_max_pool1d(F.adaptive_avg_pool1d(x, 6), 3),
        {},
        CHANNELS,
        WINDOW,
        None,
    ),
    "largest over features": (lambda self, x: x.max(dim=2).values, {}, SEQUENCE, WINDOW, "pool"),
    "image and gru": (
        lambda self, x: self.rnn(torch.relu(self.conv(x)).permute(0, 2, 1, 3).flatten(2))[0],
        {"conv": conv2(2, 4, 3, padding=1, stride=(1, 2)), "rnn": lambda: nn.GRU(20, 6, **BOTH)},
        IMAGE,
        WINDOW,
        "conv activation gru gru concat",
    ),
    # convolutions over a stream
    "causal convs": (
        lambda self, x: self.b(F.pad(torch.relu(self.a(F.pad(x, (4, 0)))), (2, 0))),
        {"a": conv(4, 8, 3, dilation=2), "b": conv(8, 8, 3, groups=8)},
        CHANNELS,
        STREAM,
        "delay conv activation delay conv",
    ),
    "causal by cutting off": (
        lambda self, x: self.conv(x)[:, :, :-4],
        {"conv": conv(4, 8, 3, dilation=2, padding=4)},
        CHANNELS,
        STREAM,
        "delay conv",
    ),
    "point by point": (
        lambda self, x: self.rnn(self.conv(x).mT)[0],
        {"conv": conv(4, 8, 1), "rnn": lambda: nn.GRU(8, 3, batch_first=True)},
        CHANNELS,
        STREAM,
        "conv gru",
    ),
    "causal image and gru": (
        lambda self, x: self.rnn(torch.relu(self.conv(F.pad(x, (1, 1, 2, 0)))).permute(0, 2, 1, 3).flatten(2))[0],
        {"conv": conv2(2, 4, 3, stride=(1, 2)), "rnn": lambda: nn.GRU(20, 6, batch_first=True)},
        IMAGE,
        STREAM,
        "pad delay conv activation gru",
    ),
    "causal image, time last": (
        lambda self, x: self.rnn(self.pool(self.conv(F.pad(x, (2, 0, 1, 1)))).flatten(1, 2).mT)[0],
        {
            "conv": conv2(2, 4, 3),
            "pool": lambda: nn.MaxPool2d((2, 1)),
            "rnn": lambda: nn.GRU(24, 6, batch_first=True),
        },
        IMAGE,
        STREAM,
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_windows_import_as_torch_computes_them(name):
    forward, members, shape, form, ops = CASES[name]
    model = module(forward, **members)
    graph = check(model, randn(3, *shape), randn(2, *shape, seed=1))
    assert any("time" in argument.axes for argument in graph.signature.arguments) == (form == STREAM), graph.notes
    if ops:
        assert " ".join(node.op for node in graph.nodes) == ops


@pytest.mark.parametrize("name", CASES)
def test_windows_are_accurate(name):
    """75 dB with int16 weights, 40 with int8, against float64: the accuracy that DESIGN promises."""
    forward, members, shape, _, _ = CASES[name]
    model = module(forward, **members)
    x = randn(8, *shape, seed=2).numpy()
    graph = import_model(model, x)
    reference = run_graph(graph, x)
    from firmware_sim import Simulator  # noqa: PLC0415 (torch's thread pool first)

    for bits, bound in ((16, 75), (8, 40)):
        got = Simulator(quantize.quantize_graph(graph, [x], weight_bits=bits)).run(x)
        pairs = zip(*([r] if isinstance(r, np.ndarray) else list(r) for r in (reference, got)), strict=True)
        for i, (want, have) in enumerate(pairs):
            noise = ((want - have) ** 2).sum()
            sqnr = 10 * np.log10((want**2).sum() / noise) if noise else np.inf
            print(f"{name}: result {i}, {bits} bits: {sqnr:.1f} dB")
            assert sqnr >= bound, f"{name}: result {i}, {bits} bits: {sqnr:.1f} dB"


def test_features_on_several_axes_of_a_stream():
    """They may be turned, cut and returned; what needs another order in memory gets a copy or other columns."""
    rnn = {"rnn": lambda: nn.GRU(6, 4, batch_first=True)}
    x, square = randn(2, 5, 2, 3), randn(2, 5, 3, 3)
    check(module(lambda self, x: (self.rnn(x.flatten(2))[0], x), **rnn), x)
    graph = check(module(lambda self, x: self.rnn(x.mT.flatten(2))[0], **rnn), x)
    assert [node.op for node in graph.nodes] == ["gru"]
    check(module(lambda self, x: self.fc((x + x.mT).flatten(2)), fc=lambda: nn.Linear(9, 2)), square)
    check(module(lambda self, x: x.mT.flatten(2) * self.p, p=lambda: nn.Parameter(randn(6))), x)
    half = {"rnn": lambda: nn.GRU(3, 4, batch_first=True)}
    check(module(lambda self, x: self.rnn(x[:, :, 0])[0] + self.rnn(x[:, :, 1:].flatten(2))[0], **half), x)
    check(module(lambda self, x: self.rnn(x)[0].unflatten(-1, (2, 2)), **half), randn(2, 5, 3))
    check(module(lambda self, x: self.rnn(x)[0][..., ::2], **half), randn(2, 5, 3))


def test_embedding_of_indices():
    model = module(
        lambda self, i: self.rnn(self.table(i))[0],
        table=lambda: nn.Embedding(11, 5),
        rnn=lambda: nn.GRU(5, 6, **BOTH),
    )
    index = torch.randint(0, 11, (3, 7), generator=torch.Generator().manual_seed(0))
    graph = check(model, index)
    assert [node.op for node in graph.nodes] == ["embedding", "gru", "gru", "concat"]
    stream = module(
        lambda self, i: self.rnn(self.table(i))[0],
        table=lambda: nn.Embedding(11, 5),
        rnn=lambda: nn.GRU(5, 6, batch_first=True),
    )
    graph = check(stream, index)
    assert graph.signature.arguments[0].axes == ("batch", "time")


def test_cells_called_per_frame_are_streams():
    """The state is the model's argument and its result: the caller's loop, one frame per call."""
    model = module(lambda self, x, h: self.cell(x, h), cell=lambda: nn.GRUCell(5, 6))
    graph = check(model, (randn(3, 5), randn(3, 6)))
    assert graph.signature.arguments[1].kind == "state"
    model = module(lambda self, x, h, c: self.cell(x, (h, c)), cell=lambda: nn.LSTMCell(5, 6))
    graph = check(model, (randn(3, 5), randn(3, 6), randn(3, 6)))
    assert graph.signature.arguments[2].layers == ("cell:cell",)


def test_states_given_to_a_window():
    """An initial state of a window is an input like any other, and may be computed."""
    model = module(lambda self, x, h: self.rnn(x, torch.tanh(h)), rnn=lambda: nn.GRU(5, 6, **BOTH))
    graph = check(model, (randn(3, 9, 5), randn(2, 3, 6)))
    assert [a.kind for a in graph.signature.arguments] == ["frames", "frames"]


def test_an_input_is_taken_in_the_order_that_its_reader_wants():
    """[batch, channels, time] into a convolution: the firmware's buffer is [time][channels], nothing is copied."""
    model = module(lambda self, x: self.conv(x).mean(2), conv=conv(4, 8, 3, stride=2))
    graph = check(model, randn(3, *CHANNELS))
    assert [node.op for node in graph.nodes] == ["conv", "pool"]
    assert graph.signature.arguments[0].layout == (1, 0)
    assert "x lies in memory as [12][4], its axes in the order (1, 0)" in graph.notes


def test_both_forms_by_request():
    model = module(lambda self, x: self.rnn(x)[0][:, -1], rnn=lambda: nn.GRU(5, 6, batch_first=True))
    stream, window = (import_model(model, randn(3, 9, 5), form) for form in ("stream", "window"))
    assert stream.signature.arguments[0].axes == ("batch", "time", "feature")
    assert window.signature.arguments[0].axes == ("batch", "feature", "feature")
    assert [node.op for node in window.nodes] == ["gru", "slice"]
    with pytest.raises(QuantizeError, match="form 'both': one of auto, stream, window"):
        import_model(model, randn(3, 9, 5), "both")


NEITHER = {
    "batch mixed": (
        lambda self, x: self.conv(x) - self.conv(x).mean(0),
        {"conv": conv(4, 4, 1)},
        CHANNELS,
        r"mean .*takes the batch axis",
    ),
    "batch pooled": (
        lambda self, x: self.conv(x).flatten(0, 1).mean(0),
        {"conv": conv(4, 4, 1)},
        CHANNELS,
        r"mean .*takes the batch axis",
    ),
    "reflected": (
        lambda self, x: F.pad(x, (1, 1), mode="reflect"),
        {},
        CHANNELS,
        r"pad .*in mode 'reflect'; only constants",
    ),
    "computed kernel": (
        lambda self, x: F.conv1d(x, self.fc(x)[:1]),
        {"fc": lambda: nn.Linear(12, 3)},
        CHANNELS,
        r"conv1d .*computes its weights from the model's inputs",
    ),
    "one state of two": (
        lambda self, x: self.rnn(x, (x.new_zeros(1, len(x), 6), torch.tanh(self.fc(x[:, 0]))[None]))[0],
        {"rnn": lambda: nn.LSTM(5, 6, batch_first=True), "fc": lambda: nn.Linear(5, 6)},
        SEQUENCE,
        r"lstm .*starts from one state that is zero and another that is not; give both, or none",
    ),
    "adaptive, uneven": (
        lambda self, x: F.adaptive_avg_pool1d(x, 5),
        {},
        CHANNELS,
        r"adaptive_avg_pool1d .*pools 12 positions to 5, in windows of unequal size",
    ),
    "computed table": (
        lambda self, x: F.embedding(torch.zeros(2, dtype=torch.long), x[0]),
        {},
        SEQUENCE,
        r"embedding .*looks up in a table that the model computes",
    ),
}


@pytest.mark.parametrize("name", NEITHER)
def test_what_is_neither_is_refused_by_name(name):
    forward, members, shape, message = NEITHER[name]
    with pytest.raises(UnsupportedError) as caught:
        import_model(module(forward, **members), randn(3, *shape))
    assert re.search(message, str(caught.value)), str(caught.value)


STREAMS = {
    "looks ahead": (
        lambda self, x: self.rnn(self.conv(x).mT)[0],
        {"conv": conv(4, 8, 3, padding=1), "rnn": lambda: nn.GRU(8, 3, batch_first=True)},
        r"conv1d .*sees 2 earlier frames, but 1 zeros come before the first: not a causal convolution",
    ),
    "strided": (
        lambda self, x: self.rnn(self.conv(F.pad(x, (2, 0))).mT)[0],
        {"conv": conv(4, 8, 3, stride=2), "rnn": lambda: nn.GRU(8, 3, batch_first=True)},
        r"conv1d .*has stride 2 over time",
    ),
    "padded and not cut": (
        lambda self, x: self.rnn(self.conv(x).mT)[0],
        {"conv": conv(4, 8, 3, padding=2), "rnn": lambda: nn.GRU(8, 3, batch_first=True)},
        r"gru .*takes a time axis with zeros around it",
    ),
    "pooled over time": (
        lambda self, x: self.rnn(F.max_pool1d(x, 2).mT)[0],
        {"rnn": lambda: nn.GRU(4, 3, batch_first=True)},
        r"max_pool1d .*pools along the time axis; that needs the whole window",
    ),
    "padded with ones": (
        lambda self, x: self.rnn(self.conv(F.pad(x, (2, 0), value=1.0)).mT)[0],
        {"conv": conv(4, 8, 3), "rnn": lambda: nn.GRU(8, 3, batch_first=True)},
        r"pad .*pads time with 1; a stream begins with zeros",
    ),
    "turned round": (
        lambda self, x: self.rnn(x.mT.flip(1))[0],
        {"rnn": lambda: nn.GRU(4, 3, batch_first=True)},
        r"flip .*turns the time axis round; that needs the whole window",
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_what_is_no_stream_says_why(name):
    """Asked for a stream: refused. Left open: a window, whose notes carry the reason."""
    forward, members, message = STREAMS[name]
    model = module(forward, **members)
    with pytest.raises(UnsupportedError) as caught:
        import_model(model, randn(3, *CHANNELS), "stream")
    assert re.search(message, str(caught.value)), str(caught.value)
    graph = check(model, randn(3, *CHANNELS))
    assert re.search(message, " ".join(graph.notes)), graph.notes
