"""What the importer refuses, read by its message: the operation, its layer, the line of this file, the remedy."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from quantize.errors import QuantizeError, UnsupportedError
from quantize.float_run import run_graph
from quantize.torch_import import import_model as import_any
from torch_models import BOTH, FC, GRU, TWO, check, exported, module, randn, same, two_grus

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export's, about its own treatment of nn.GRU


def import_model(model, sample=None):
    """As a stream; much of what is refused here is a window's business (test_window_import.py)."""
    return import_any(model, sample, "stream")


def steps_in_a_loop(self, x):
    h = x.new_zeros(len(x), 4)
    for t in range(x.shape[1]):
        h = torch.tanh(self.fc(x[:, t])) + h
    return h


def write_slice(self, x):
    y = self.fc(x)
    y[:, :, 0] = 0
    return y


def branch(self, x):
    return x if x.sum() > 0 else -x


def keeps_state(self, x):
    y, h = self.rnn(x, self.h)
    self.h.copy_(h)
    return y


def with_buffer(model, **buffers):
    for name, value in buffers.items():
        model.register_buffer(name, value)
    return model


RNN_X = {"rnn": lambda: nn.GRU(3, 3, batch_first=True)}

REFUSED = {
    # operations that have no form here, by name
    "lstm cell": (lambda self, x: self.cell(x[:, 0])[0], {"cell": lambda: nn.LSTMCell(3, 4)}, r"lstm_cell .*nn.LSTM"),
    "rnn cell": (lambda self, x: self.cell(x[:, 0]), {"cell": lambda: nn.RNNCell(3, 4)}, r"rnn_tanh_cell .*nn.RNN"),
    "bidirectional lstm": (
        lambda self, x: self.rnn(x)[0],
        {"rnn": lambda: nn.LSTM(3, 4, bidirectional=True)},
        r"lstm .*layer 'rnn' \(LSTM\).*bidirectional=True needs the whole window",
    ),
    "bidirectional rnn": (
        lambda self, x: self.rnn(x)[0],
        {"rnn": lambda: nn.RNN(3, 4, bidirectional=True)},
        r"rnn_tanh .*layer 'rnn' \(RNN\).*bidirectional=True needs the whole window",
    ),
    "learned cell": (
        lambda self, x: self.rnn(x, (x.new_zeros(1, len(x), 4), self.c.expand(-1, len(x), -1).contiguous()))[0],
        {"rnn": lambda: nn.LSTM(3, 4, batch_first=True), "c": lambda: nn.Parameter(randn(1, 1, 4))},
        r"lstm .*constant initial state that is not zero",
    ),
    "state of another lstm": (
        lambda self, x: self.b(x, self.rnn(x)[1])[0],
        {"rnn": lambda: nn.LSTM(3, 4, batch_first=True), "b": lambda: nn.LSTM(3, 4, batch_first=True)},
        r"lstm .*layer 'b'.*starts from a state that the model computes",
    ),
    "gru cell": (lambda self, x: self.cell(x[:, 0]), {"cell": lambda: nn.GRUCell(3, 4)}, r"gru_cell .*nn.GRU"),
    "cumsum": (lambda self, x: self.fc(x).cumsum(-1), FC, r"cumsum .*in the model \(Model\)"),
    "digamma": (lambda self, x: self.fc(x).digamma(), FC, r"digamma \(aten\.digamma\.default\)"),
    "index": (lambda self, x: x[:, :, [2, 0]], {}, r"index .*not supported"),
    "mean over time": (lambda self, x: self.rnn(x)[0].mean(1), GRU, r"mean .*takes the time axis .*whole window"),
    "flip": (lambda self, x: self.rnn(x.flip(1))[0], GRU, r"flip .*not supported"),
    "random": (lambda self, x: x + torch.randn(3), {}, r"randn .*random"),
    "bidirectional": (
        lambda self, x: self.rnn(x)[0],
        {"rnn": lambda: nn.GRU(3, 4, bidirectional=True)},
        r"gru .*layer 'rnn' \(GRU\).*bidirectional=True needs the whole window",
    ),
    "addmm turned": (
        lambda self, x: torch.addmm(self.b, self.w, x.flatten(0, 1).t()),
        {"w": lambda: nn.Parameter(randn(2, 3)), "b": lambda: nn.Parameter(randn(2, 1))},
        r"addmm .*supported as addmm\(bias \[N\], x, constant weight",
    ),
    "gru with computed weights": (
        lambda self, x: torch.ops.rtcore.gru(x, None, self.fc(x)[0], self.w, None, None, "tanh", True, True)[0],
        {"fc": lambda: nn.Linear(3, 3), "w": lambda: nn.Parameter(randn(6, 2))},
        r"gru .*computes its weights",
    ),
    "lstm with computed peepholes": (
        lambda self, x: torch.ops.rtcore.lstm(x, None, None, self.w, self.u, None, None, self.fc(x)[0, 0], False, True)[
            0
        ],
        {
            "fc": lambda: nn.Linear(3, 6),
            "w": lambda: nn.Parameter(randn(8, 3)),
            "u": lambda: nn.Parameter(randn(8, 2)),
        },
        r"lstm .*computes its weights",
    ),
    "constant on two new axes": (
        lambda self, x: x[..., :1, None] + self.p,
        {"p": lambda: nn.Parameter(randn(3, 4))},
        r"add .*a constant that widens one of several axes",
    ),
    "nothing": (lambda self, x: x[..., 2:2], {}, r"slice .*takes an empty part, 2:2"),
    "nothing of one": (lambda self, x: x.unsqueeze(1)[:, 1:], {}, r"slice .*takes nothing from an axis of length 1"),
    "constant stacked": (lambda self, x: torch.stack([x, torch.ones(2, 5, 3)]), {}, r"stack .*constant tensor"),
    "features of layers interleaved": (
        lambda self, x: self.rnn(x)[1].permute(1, 2, 0).reshape(len(x), -1),
        {"rnn": lambda: nn.GRU(3, 4, num_layers=2, batch_first=True)},
        r"reshape .*interleaves the features of several layers",
    ),
    "steps and streams as time": (
        lambda self, x: self.rnn(self.rnn(x)[0].flatten(0, 1))[0],
        RNN_X,
        r"gru .*runs over an axis that merges batch and time as its time axis",
    ),
    "number from the data": (lambda self, x: x * x[0, 0, 0].item(), {}, r"item .*takes a number from the data"),
    # time
    "step other than the last": (lambda self, x: self.rnn(x)[0][:, 2], GRU, r"select .*part of the time axis"),
    "first step": (lambda self, x: self.rnn(x)[0][:, 0], GRU, r"select .*part of the time axis"),
    "some steps": (lambda self, x: self.rnn(x)[0][:, 1:], GRU, r"slice .*part of the time axis"),
    "loop over steps": (
        steps_in_a_loop,
        {"fc": lambda: nn.Linear(3, 4)},
        r"select .*loop over the steps has to be a recurrent layer",
    ),
    "cat on time": (lambda self, x: torch.cat([self.rnn(x)[0], self.rnn(x)[0]], 1), GRU, r"cat .*along the time axis"),
    "last step against all": (
        lambda self, x: self.rnn(x)[0] - self.rnn(x)[0][:, -1:],
        GRU,
        r"sub .*mixes the last step",
    ),
    "last state against all": (
        lambda self, x: self.rnn(x)[0] * self.rnn(x)[1].transpose(0, 1),
        GRU,
        r"mul .*mixes the last step",
    ),
    "expand over time": (
        lambda self, x: torch.cat([x, self.rnn(x)[0][:, -1:].expand(-1, x.shape[1], -1)], 2),
        GRU,
        r"expand .*repeats a value along an axis",
    ),
    "repeat": (lambda self, x: self.rnn(x)[0][:, -1:].repeat(1, x.shape[1], 1), GRU, r"repeat .*not supported"),
    "gru over the last step": (
        lambda self, x: self.b(self.rnn(x)[0][:, -1:])[0],
        {**GRU, "b": lambda: nn.GRU(4, 2, batch_first=True)},
        r"gru .*layer 'b'.*runs over the last step",
    ),
    "linear over time": (
        lambda self, x: self.fc(self.rnn(x)[0].mT),
        {**GRU, "fc": lambda: nn.Linear(5, 2)},
        r"linear .*layer 'fc'.*takes the time axis \(so used by gru in layer 'rnn'.*as its feature axis.*whole window",
    ),
    "flattened window after a gru": (
        lambda self, x: self.fc(self.rnn(x)[0].flatten(1)),
        {**GRU, "fc": lambda: nn.Linear(20, 2)},
        r"linear .*takes the time axis",
    ),
    "window regrouped": (
        lambda self, x: self.fc(x.reshape(2, 2, 6)),
        {"fc": lambda: nn.Linear(6, 2)},
        r"reshape .*regroups axes \(2x4x3 to 2x2x6\)",
    ),
    "constant over time": (
        lambda self, x: self.rnn(x + self.p)[0],
        {**GRU, "p": lambda: nn.Parameter(randn(5, 3))},
        r"add .*varies along the time axis",
    ),
    # batch
    "batch and time swapped": (
        lambda self, x: self.a(x)[0] + self.b(x)[0],
        {"a": lambda: nn.GRU(3, 4, batch_first=True), "b": lambda: nn.GRU(3, 4)},
        r"gru .*takes the batch axis \(so used by gru in layer 'a'.*as its time axis",
    ),
    "view instead of transpose": (
        lambda self, x: self.rnn(x.reshape(x.shape[1], x.shape[0], 3))[0],
        {"rnn": lambda: nn.GRU(3, 4)},
        r"reshape .*regroups axes",
    ),
    "one element of the batch": (lambda self, x: self.rnn(x)[0][0], GRU, r"select .*part of the batch axis"),
    "cat on batch": (lambda self, x: torch.cat([self.rnn(x)[0], self.rnn(x)[0]]), GRU, r"cat .*along the batch axis"),
    "constant over batch": (
        lambda self, x: self.rnn(x * self.p)[0],
        {**GRU, "p": lambda: nn.Parameter(randn(2, 1, 1))},
        r"mul .*varies along the batch axis",
    ),
    # features
    "constant joined": (lambda self, x: torch.cat([x, torch.ones(2, 5, 1)], -1), {}, r"cat .*joins a constant tensor"),
    "division by a value": (
        lambda self, x: x / (2 + torch.sigmoid(self.fc(x))),
        {"fc": nn.Linear(3, 3)},
        r"div .*only division by constants",
    ),
    "floor division": (lambda self, x: torch.div(x, 2, rounding_mode="floor"), {}, r"div .*rounding_mode='floor'"),
    "division by zero": (lambda self, x: x / 0, {}, r"div .*constant holds inf"),
    "matmul of two values": (lambda self, x: x @ x.mT, {}, r"matmul .*both depend on the inputs"),
    "linear with a computed weight": (
        lambda self, x: F.linear(x, self.fc(x)[0]),
        {"fc": nn.Linear(3, 3)},
        r"linear .*constant weights",
    ),
    "wrong dtype inside": (
        lambda self, x: x.to(torch.float16).float() + 1,
        {},
        r"to .*makes a tensor of torch.float16",
    ),
    "comparison": (lambda self, x: (x > 0) * x, {}, r"gt .*not supported"),
    "write into a slice": (write_slice, FC, r"scatter|fill.*not supported"),
    # control flow, effects, results
    "branch on values": (branch, {}, r"torch\.export cannot capture the model.*control flow"),
    "size as a number": (
        lambda self, x: x / x.shape[1],
        {},
        r"'output' differs by .*depends on its batch size or length",
    ),
    "constant result": (lambda self, x: (x, self.fc.bias * 2), FC, r"result 'output1' is a constant"),
    "no result": (lambda self, x: (x, None), {}, r"result 'output1' is None"),
    # initial states
    "learned initial state": (
        lambda self, x: self.rnn(x, self.h0.expand(-1, len(x), -1).contiguous())[0],
        {**GRU, "h0": lambda: nn.Parameter(randn(1, 1, 4))},
        r"gru .*constant initial state that is not zero",
    ),
    "ones as initial state": (
        lambda self, x: self.rnn(x, torch.ones(1, len(x), 4))[0],
        GRU,
        r"gru .*constant initial state",
    ),
    "state of another layer": (
        lambda self, x: self.b(x, self.rnn(x)[1])[0],
        {**GRU, "b": lambda: nn.GRU(3, 4, batch_first=True)},
        r"gru .*layer 'b'.*starts from a state that the model computes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    forward, members, message = REFUSED[name]
    model = module(forward, **members)
    sample = randn(2, 4 if name == "window regrouped" else 5, 3)
    with pytest.raises(QuantizeError) as caught:
        import_model(model, sample)
    assert re.search(message, str(caught.value)), str(caught.value)
    if name not in ("branch on values", "size as a number", "constant result", "no result"):
        line = re.search(r"test_import_refusals\.py:(\d+) in (\S+):", str(caught.value))
        assert line, str(caught.value)
        code, start = inspect.getsourcelines(forward)
        assert start <= int(line[1]) < start + len(code)
        assert line[2] == "forward"
    if name != "division by zero":
        assert isinstance(caught.value, UnsupportedError)


def test_every_unsupported_operation_is_listed():
    model = module(
        lambda self, x: self.cell(self.fc(x).digamma().digamma()[0])[0].cumsum(1), **FC, cell=nn.LSTMCell(2, 2)
    )
    with pytest.raises(UnsupportedError) as caught:
        import_model(model, randn(2, 5, 3))
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == ["digamma", "cumsum", "supported:"]
    assert "nn.GRU" in lines[-1]


def test_refusals_under_no_grad_name_the_line():
    def forward(self, x):
        with torch.no_grad():
            return self.fc(x).digamma()

    with pytest.raises(
        UnsupportedError, match=r"digamma .*test_import_refusals\.py:\d+ in forward: return self\.fc\(x\)\.digamma"
    ):
        import_model(module(forward, **FC), randn(2, 5, 3))


def test_refusals_after_a_rewrite_name_a_line():
    """Where in-place writes are rewritten torch loses lines of views; the one before it stands in."""

    def forward(self, x):
        y, _ = self.rnn(x)
        y.mul_(2)
        return y[:, 0]

    with pytest.raises(
        UnsupportedError, match=r"select .*at .*test_import_refusals\.py:\d+ in forward: .*part of the time axis"
    ):
        import_model(module(forward, **GRU), randn(2, 5, 3))


def test_computed_module_weights():
    """Weights under a parametrization fold into constants; the old weight_norm cannot even be copied."""
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    check(module(lambda self, x: self.fc(x), fc=normed), randn(2, 5, 3))
    model = module(lambda self, x: self.fc(x), fc=nn.utils.weight_norm(nn.Linear(3, 2)))
    with pytest.raises(UnsupportedError, match="the module cannot be copied: RuntimeError: .*deepcopy"):
        import_model(model, randn(2, 5, 3))


def test_result_whose_form_depends_on_the_batch():
    model = module(lambda self, x: self.fc(x) if len(x) > 1 else self.fc(x).flatten(0, 1), **FC)
    with pytest.raises(
        UnsupportedError, match=r"has shape \(5, 2\), but streamed it has \(1, 5, 2\): .*depends on its"
    ):
        import_model(model, randn(1, 5, 3))


def test_check_run_of_a_program(monkeypatch):
    """Were the importer wrong about a program, the check run would say so."""
    program = exported(module(lambda self, x: self.fc(x), **FC), randn(2, 5, 3))
    monkeypatch.setattr("quantize.torch_import.run_graph", lambda graph, inputs: run_graph(graph, inputs) * 1.01)
    with pytest.raises(UnsupportedError, match="result 'output' differs by"):
        import_model(program)


def test_no_input():
    with pytest.raises(UnsupportedError, match="the model takes no tensor"):
        import_model(module(lambda self: self.fc.bias * 2, **FC), ())


def test_gru_over_a_constant():
    model = module(lambda self, x, h: (self.fc(x), self.rnn(torch.ones(2, 5, 3), h)[0]), **GRU, **FC)
    with pytest.raises(UnsupportedError, match="gru .*runs over a constant sequence"):
        import_model(model, (randn(2, 5, 3), randn(1, 2, 4)))


def test_two_batch_axes_meet():
    model = module(lambda self, x: self.fc(x + x.transpose(0, 1)), **FC)
    with pytest.raises(UnsupportedError, match="add .*lets two different batch axes meet"):
        import_model(model, randn(2, 2, 5, 3))


def test_argument_without_time():
    model = module(lambda self, x, c: torch.cat([self.rnn(x)[1][0], c], -1), **GRU)
    with pytest.raises(UnsupportedError, match=r"argument 'c' with the axes \[batch, feature\] has no time axis"):
        import_model(model, (randn(2, 5, 3), randn(2, 2)))


def test_arguments_with_other_batch_axes():
    model = module(lambda self, x, y: (self.rnn(x)[0], self.fc(y)), **GRU, **FC)
    with pytest.raises(UnsupportedError, match=r"same number of batch axes, but 'x' has 1, 'y' has 0"):
        import_model(model, (randn(2, 5, 3), randn(5, 3)))


def test_batch_axes_reordered():
    model = module(lambda self, x: self.fc(x).transpose(0, 1), **FC)
    with pytest.raises(UnsupportedError, match="result 'output' reorders or loses batch axes"):
        import_model(model, randn(2, 3, 5, 3))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda h: (h[0:1], h[0:1]), r"gru in layer 'b'.*starts from row 0 of 'h', as 'a' does already"),
        (lambda h: (h[0:1], h[0:1] * 0), r"gru in layer 'b'.*starts from a state that the model computes"),
        (
            lambda h: (h[0:1], torch.zeros_like(h[0:1])),
            r"row 1 of argument 'h', an initial state, starts no recurrent layer",
        ),
        (lambda h: (torch.tanh(h[0:1]), h[1:2]), r"gru in layer 'a'.*starts from a state that the model computes"),
    ],
)
def test_misused_states(rows, message):
    with pytest.raises(UnsupportedError, match=message):
        import_model(module(two_grus(rows), **TWO), (randn(2, 5, 3), randn(2, 2, 4)))


def test_state_used_otherwise_too():
    model = module(lambda self, x, h: (self.rnn(x, h)[0], self.fc(h)), **BOTH)
    with pytest.raises(
        UnsupportedError, match="linear in layer 'fc'.*computes with 'h', which is the initial state of a"
    ):
        import_model(model, (randn(2, 5, 3), randn(1, 2, 4)))


def test_state_joined_to_a_final_one():
    model = module(lambda self, x, h: torch.cat([self.rnn(x, h)[1], h]), **GRU)
    with pytest.raises(UnsupportedError, match="cat .*joins a state argument with other values"):
        import_model(model, (randn(2, 5, 3), randn(1, 2, 4)))


def test_state_with_too_many_axes():
    model = module(lambda self, x, h: self.rnn(x, h[0])[0], **GRU)
    with pytest.raises(
        UnsupportedError, match=r"argument 'h' with the axes \[layer, layer, batch, feature\] cannot be"
    ):
        import_model(model, (randn(2, 5, 3), randn(3, 1, 2, 4)))


def test_state_returned_unchanged():
    model = module(lambda self, x, h: (self.rnn(x, h)[0], h), **GRU)
    with pytest.raises(UnsupportedError, match="result 'output1' is the model's state argument itself"):
        import_model(model, (randn(2, 5, 3), randn(1, 2, 4)))


def test_part_of_a_state():
    model = module(lambda self, x, h: self.rnn(x, h[..., :4])[0], **GRU)
    with pytest.raises(UnsupportedError, match="slice .*computes with 'h', which is the initial state"):
        import_model(model, (randn(2, 5, 3), randn(1, 2, 5)))


def test_squeeze_of_a_batch_of_one():
    """squeeze() of one stream drops its batch axis; the same model keeps it for two."""
    model = module(lambda self, x: self.rnn(x)[0].squeeze(), **GRU)
    with pytest.raises(UnsupportedError, match=r"squeeze .*removes the batch axis because its length happens to be 1"):
        import_model(model, randn(1, 5, 3))
    check(model, randn(2, 5, 3), randn(3, 4, 3))


def test_sizes_written_into_the_module():
    """A module that takes one batch size only is imported for any."""
    model = module(lambda self, x: self.rnn(x, torch.zeros(1, 1, 4))[0].view(1, 6, 4), **GRU)
    graph = check(model, randn(1, 6, 3))
    free = module(lambda self, x: self.rnn(x)[0], rnn=model.rnn)
    x = randn(3, 9, 3)
    same(run_graph(graph, x), free(x))
    assert "runs at its sample's sizes only" in graph.notes[-1]


@pytest.mark.parametrize("target", ["rnn.weight_hh_l0", "fc.bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(target, value):
    model = module(lambda self, x: self.fc(self.rnn(x)[0]), **BOTH)
    parameter = dict(model.named_parameters())[target]
    with torch.no_grad():
        parameter[(1,) * parameter.dim()] = value
    with pytest.raises(QuantizeError) as caught:
        import_model(model, randn(2, 5, 3))
    index = "(1, 1)" if "weight" in target else "(1,)"
    assert f"parameter '{target}' holds {value} at index {index}" in str(caught.value)


def test_unused_weights_do_not_matter():
    model = module(lambda self, x: self.fc(x), **FC, spare=lambda: nn.Parameter(torch.tensor([float("nan")])))
    check(model, randn(2, 5, 3))


def test_refused_operations_come_before_bad_weights():
    model = module(lambda self, x: self.fc(x).digamma(), **FC)
    with torch.no_grad():
        model.fc.weight[0, 0] = float("nan")
    with pytest.raises(UnsupportedError, match="digamma"):
        import_model(model, randn(2, 5, 3))


def test_half_precision_model():
    model = module(lambda self, x: self.fc(x.to(torch.bfloat16)).float(), fc=lambda: nn.Linear(3, 2).bfloat16())
    with pytest.raises(
        UnsupportedError, match=r"parameter 'fc\.\w+' is torch\.bfloat16; convert the model with \.float"
    ):
        import_model(model, randn(2, 5, 3))


@pytest.mark.parametrize("train", [nn.Dropout(0.5), nn.GRU(3, 3, num_layers=2, dropout=0.5, batch_first=True)])
def test_program_exported_in_training_mode(train):
    forward = (lambda self, x: self.m(x)) if isinstance(train, nn.Dropout) else (lambda self, x: self.m(x)[0])
    model = module(forward, m=train).train()
    with pytest.raises(UnsupportedError, match=r"training mode.*model\.eval\(\)"):
        import_model(exported(model, randn(2, 5, 3)))


def test_buffers_and_arguments_written_to():
    model = with_buffer(module(keeps_state, **GRU), h=torch.zeros(1, 2, 4))
    with pytest.raises(UnsupportedError, match="writes to its buffer 'h': a state kept in a buffer"):
        import_model(model, randn(2, 5, 3))
    model = module(lambda self, x: self.fc(x.mul_(2)), **FC)
    sample = randn(2, 5, 3)
    with pytest.raises(UnsupportedError, match="writes to its argument 'x'"):
        import_model(model, sample)
    assert torch.equal(sample, randn(2, 5, 3))


def test_arguments_that_are_no_tensors():
    model = module(lambda self, x, pair: self.rnn(x, pair[0])[0], **GRU)
    with pytest.raises(UnsupportedError, match="argument 1 of the model is a tuple; let it take tensors one by one"):
        import_model(exported(model, randn(2, 5, 3), (randn(1, 2, 4), randn(1))))
    model = module(lambda self, x, n: x * n)
    with pytest.raises(UnsupportedError, match="argument 'n' of the model is 3; only tensors"):
        import_model(exported(model, randn(2, 5, 3), 3))
    with pytest.raises(UnsupportedError, match="argument 'n' of the model has dtype torch.int64"):
        import_model(exported(model, randn(2, 5, 3), torch.tensor([3])))
    with pytest.raises(UnsupportedError, match="argument 'n' of the model is a single number"):
        import_model(exported(model, randn(2, 5, 3), torch.tensor(3.0)))


@pytest.mark.parametrize(
    ("sample", "error", "message"),
    [
        (None, QuantizeError, "a sample of the model's input is needed"),
        ([[1.0, 2.0, 3.0]], QuantizeError, "the sample's argument 0 is a list"),
        (
            np.zeros((2, 5, 3), np.int64),
            QuantizeError,
            "the model does not run on the sample: ValueError: .*integers are for an Embedding",
        ),
        (np.zeros((2, 5, 3), np.float16), UnsupportedError, "dtype float16"),
        (np.zeros((2, 5, 3), object), UnsupportedError, "dtype object"),
        (
            {"x": torch.zeros(2, 5, 3, dtype=torch.int32)},
            QuantizeError,
            "integers are for an Embedding, all else takes",
        ),
        (np.zeros((2, 5, 4), np.float32), QuantizeError, "the model does not run on the sample: RuntimeError: .*"),
        ((np.zeros((2, 5, 3), np.float32),) * 2, QuantizeError, "the model does not run on the sample: TypeError"),
        (np.full((2, 5, 3), np.nan, np.float32), QuantizeError, r"argument 'x' holds nan at index \(0, 0, 0\)"),
    ],
)
def test_bad_samples(sample, error, message):
    with pytest.raises(error, match=message):
        import_model(module(lambda self, x: self.rnn(x)[0], **GRU), sample)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (randn(2, 5, 4), "argument 'x' has 4 features .*, but the model takes 3"),
        (randn(2, 2, 5, 3), "argument 'x' has 4 axes"),
        ((randn(2, 5, 3), randn(2, 5, 3)), "got 2 argument"),
        ({"y": randn(2, 5, 3)}, "missing argument 'x', unknown argument 'y'"),
        (randn(0, 5, 3), "argument 'x' is empty"),
    ],
)
def test_bad_samples_of_a_program(sample, message):
    program = exported(module(lambda self, x: self.rnn(x)[0], **GRU), randn(2, 5, 3))
    with pytest.raises(QuantizeError, match=message):
        import_model(program, sample)
    import_model(program, randn(7, 3))  # a single stream is a sample too


def test_things_that_are_no_models():
    with pytest.raises(QuantizeError, match="cannot import a dict: give an nn.Module"):
        import_model({}, randn(2, 5, 3))
