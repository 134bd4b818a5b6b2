"""The importer against torch itself: every supported form at other batch sizes and lengths than the sample's, every
refusal by its message.

Agreement is 1e-5 of the peak: the graph runs in float64, torch in float32, whose rounding over a dozen steps of sums of a
few products stays below 1e-6 of the peak; a wrong axis, weight or gate is off by tenths.
"""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from quantize import nn as own
from quantize.errors import FormatError, QuantizeError, UnsupportedError
from quantize.float_run import run_graph
from quantize.torch_import import import_model

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export's, about its own treatment of nn.GRU


def module(forward, **members):
    """An nn.Module with this forward(self, ...) and these members (modules, parameters, tensors).

    torch records source lines of functions called forward only, hence the renaming.
    """
    torch.manual_seed(7)
    forward.__code__ = forward.__code__.replace(co_name="forward")
    made = type("Model", (nn.Module,), {"forward": forward})()
    for name, member in members.items():
        setattr(made, name, member if isinstance(member, (nn.Module, torch.Tensor)) else member())
    return made.eval()


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(got, want):
    """got (arrays) equals want (tensors): container, shapes, and values to 1e-5 of the peak."""
    if isinstance(want, torch.Tensor):
        want = want.detach().numpy()
        assert isinstance(got, np.ndarray)
        assert got.shape == want.shape
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max() + 1e-7
        assert want.any() or want.size < 10  # zeros would prove nothing
        return
    assert type(got) is type(want)
    assert len(got) == len(want)
    if isinstance(want, dict):
        assert list(got) == list(want)
        got, want = list(got.values()), list(want.values())
    for one, other in zip(got, want, strict=True):
        same(one, other)


def check(model, sample, *others):
    """Import at the sample; run on it and on the others; compare with the module. Returns the graph."""
    torch.manual_seed(3)
    graph = import_model(model, sample)
    for inputs in (sample, *others):
        with torch.no_grad():
            args = inputs if isinstance(inputs, tuple) else (inputs,)
            want = model(**inputs) if isinstance(inputs, dict) else model(*args)
        same(run_graph(graph, inputs), want)
    names = [node.name for node in graph.nodes] + [a.tensor for a in graph.signature.arguments if a.tensor]
    assert len({re.sub(r"\W", "_", name) for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name) for name in names)
    return graph


def ops(graph):
    return [node.op for node in graph.nodes]


# --- forms with one input [B, T, 3] ---------------------------------------------------------------------------------

GRU = {"rnn": lambda: nn.GRU(3, 4, batch_first=True)}
FC = {"fc": lambda: nn.Linear(3, 2)}
BOTH = {**GRU, "fc": lambda: nn.Linear(4, 2)}


def hidden_state(self, x):
    h0 = torch.zeros(2, x.shape[0], 4)
    y, h = self.rnn(x, h0)
    return y, h


def inplace(self, x):
    y = self.fc(self.rnn(x)[0])
    y += 1
    y = self.act(y)
    return y


def inplace_seen_twice(self, x):
    y = self.fc(x)
    turned = y.transpose(0, 1)
    turned.mul_(3)
    return y * 2


def merged_steps(self, x):
    y, _ = self.rnn(x)
    b, t, n = y.shape
    return torch.sigmoid(self.fc(y.reshape(b * t, n))).view(b, t, -1)


def no_grad(self, x):
    with torch.no_grad():
        y, h = self.rnn(x)
    return self.fc(y), h


FORMS = {
    "linear": (lambda self, x: self.fc(x), FC),
    "linear without bias": (lambda self, x: self.fc(x), {"fc": lambda: nn.Linear(3, 2, bias=False)}),
    "linear of a free weight": (lambda self, x: F.linear(x, self.w), {"w": lambda: nn.Parameter(randn(2, 3))}),
    "matmul": (lambda self, x: x @ self.w, {"w": lambda: nn.Parameter(randn(3, 2))}),
    "matmul transposed": (lambda self, x: torch.matmul(x, self.w.t()), {"w": lambda: nn.Parameter(randn(2, 3))}),
    "matmul with a vector": (lambda self, x: x @ self.w, {"w": lambda: nn.Parameter(randn(3))}),
    "matmul from the left": (
        lambda self, x: (self.w @ x.transpose(1, 2)).transpose(1, 2),
        {"w": lambda: nn.Parameter(randn(2, 3))},
    ),
    "addmm": (
        lambda self, x: torch.addmm(self.b, x.flatten(0, 1), self.w, beta=2, alpha=3),
        {"w": lambda: nn.Parameter(randn(3, 2)), "b": lambda: nn.Parameter(randn(2))},
    ),
    "gru": (lambda self, x: self.rnn(x)[0], GRU),
    "gru with state": (lambda self, x: self.rnn(x), GRU),
    "gru of two layers": (lambda self, x: self.rnn(x), {"rnn": lambda: nn.GRU(3, 4, num_layers=2, batch_first=True)}),
    "gru without bias": (lambda self, x: self.rnn(x)[0], {"rnn": lambda: nn.GRU(3, 4, bias=False, batch_first=True)}),
    "gru time first": (lambda self, x: self.rnn(x.transpose(0, 1))[0], {"rnn": lambda: nn.GRU(3, 4)}),
    "gru with dropout": (
        lambda self, x: self.rnn(x)[0],
        {"rnn": lambda: nn.GRU(3, 4, num_layers=2, dropout=0.5, batch_first=True)},
    ),
    "gru from zeros": (hidden_state, {"rnn": lambda: nn.GRU(3, 4, num_layers=2, batch_first=True)}),
    "gru from new_zeros": (lambda self, x: self.rnn(x, x.new_zeros(1, len(x), 4))[0], GRU),
    "gru from zeros_like": (lambda self, x: self.rnn(x, torch.zeros_like(self.rnn(x)[1]))[0], GRU),
    "own gru": (lambda self, x: self.rnn(x), {"rnn": lambda: own.GRU(3, 4, "relu", False, batch_first=True)}),
    "own gru without bias": (
        lambda self, x: self.rnn(x)[0],
        {"rnn": lambda: own.GRU(3, 4, "sigmoid", True, bias=False, batch_first=True)},
    ),
    "last step": (lambda self, x: self.fc(self.rnn(x)[0])[:, -1], BOTH),
    "last step, features named": (lambda self, x: self.fc(self.rnn(x)[0][:, -1, :]), BOTH),
    "last step kept": (lambda self, x: self.fc(self.rnn(x)[0])[:, -1:], BOTH),
    "last step by narrow": (lambda self, x: self.rnn(x)[0].narrow(1, -1, 1).squeeze(1), GRU),
    "last step, time first": (lambda self, x: self.rnn(x.transpose(0, 1))[0][-1], {"rnn": lambda: nn.GRU(3, 4)}),
    "last step of a linear": (lambda self, x: self.fc(x)[:, -1], FC),
    "h_n[-1]": (lambda self, x: self.fc(self.rnn(x)[1][-1]), BOTH),
    "h_n[0]": (lambda self, x: self.fc(self.rnn(x)[1][0]), BOTH),
    "h_n.squeeze(0)": (lambda self, x: self.fc(self.rnn(x)[1].squeeze(0)), BOTH),
    "h_n itself": (lambda self, x: self.fc(self.rnn(x)[1]), BOTH),
    "h_n of two layers, rows joined": (
        lambda self, x: (lambda h: torch.cat([h[0], h[1]], -1))(self.rnn(x)[1]),
        {"rnn": lambda: nn.GRU(3, 4, num_layers=2, batch_first=True)},
    ),
    "h_n of two layers, reshaped": (
        lambda self, x: self.rnn(x)[1].transpose(0, 1).reshape(len(x), -1),
        {"rnn": lambda: nn.GRU(3, 4, num_layers=2, batch_first=True)},
    ),
    "h_n of two layers, transformed": (
        lambda self, x: torch.tanh(self.fc(self.rnn(x)[1])).transpose(0, 1),
        {"rnn": lambda: nn.GRU(3, 4, num_layers=2, batch_first=True), "fc": lambda: nn.Linear(4, 2)},
    ),
    "states of two grus joined": (
        lambda self, x: torch.cat([self.a(x)[1], self.b(x)[1]]),
        {"a": lambda: nn.GRU(3, 4, batch_first=True), "b": lambda: nn.GRU(3, 4, batch_first=True)},
    ),
    "states of two grus stacked": (
        lambda self, x: torch.stack([self.a(x)[1][0], self.b(x)[1][0]]),
        {"a": lambda: nn.GRU(3, 4, batch_first=True), "b": lambda: nn.GRU(3, 4, batch_first=True)},
    ),
    "steps as batch": (merged_steps, BOTH),
    "steps as batch returned": (lambda self, x: self.rnn(x)[0].flatten(0, 1), GRU),
    "steps as features returned": (lambda self, x: self.rnn(x)[0].flatten(1), GRU),
    "axes permuted": (lambda self, x: self.fc(self.rnn(x)[0]).permute(2, 0, 1), BOTH),
    "movedim": (lambda self, x: torch.movedim(self.rnn(x)[0], 1, 0), GRU),
    "unflatten": (lambda self, x: self.rnn(x)[0].flatten(0, 1).unflatten(0, (-1, x.shape[1])), GRU),
    "copies": (lambda self, x: self.rnn(x)[0].contiguous().clone().detach().float().to(torch.float32), GRU),
    "sigmoid": (lambda self, x: torch.sigmoid(x), {}),
    "tanh method": (lambda self, x: x.tanh(), {}),
    "relu function": (lambda self, x: F.relu(x), {}),
    "activation modules": (
        lambda self, x: self.seq(x),
        {"seq": lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Sigmoid())},
    ),
    "dropout": (lambda self, x: F.dropout(self.drop(self.fc(x)), 0.5, self.training), {**FC, "drop": nn.Dropout(0.3)}),
    "in place": (inplace, {**BOTH, "act": nn.ReLU(inplace=True)}),
    "in place, seen by another": (inplace_seen_twice, FC),
    "no_grad": (no_grad, BOTH),
    "scalars": (lambda self, x: 2 - (x * 3 + 1 - 0.5) / 4 - (-x), {}),
    "alpha": (lambda self, x: torch.add(torch.sub(x, 0.5, alpha=3), self.fc(x), alpha=2), {"fc": nn.Linear(3, 3)}),
    "sub with alpha": (lambda self, x: torch.rsub(torch.sub(x, self.fc(x), alpha=2), x, alpha=3), {"fc": nn.Linear(3, 3)}),
    "buffers": (
        lambda self, x: (x - self.mean) * self.scale / self.std,
        {
            "mean": lambda: nn.Parameter(randn(3, seed=1)),
            "scale": lambda: nn.Parameter(torch.tensor(2.5)),
            "std": lambda: nn.Parameter(randn(1, 1, 3, seed=2).abs() + 1),
        },
    ),
    "constants computed": (
        lambda self, x: (x * self.gain.exp() + torch.arange(3)) @ (2 * self.w).t(),
        {"gain": lambda: nn.Parameter(randn(3)), "w": lambda: nn.Parameter(randn(2, 3))},
    ),
    "ones_like": (lambda self, x: (torch.ones_like(x) - torch.sigmoid(x)) * x, {}),
    "gate": (lambda self, x: torch.sigmoid(self.fc(x)) * x + (1 - torch.sigmoid(self.fc(x))) * x.tanh(), {"fc": nn.Linear(3, 3)}),
    "width 1 against 3": (lambda self, x: self.fc(x) * x - x[..., :1], {"fc": nn.Linear(3, 1)}),
    "width 1 against a constant": (
        lambda self, x: x[..., 1:2] * self.w + self.w,
        {"w": lambda: nn.Parameter(randn(4))},
    ),
    "one feature against a constant": (lambda self, x: x[..., 1].unsqueeze(-1) + self.w, {"w": lambda: nn.Parameter(randn(4))}),
    "chunk": (lambda self, x: (lambda a, b: a * b)(*self.rnn(x)[0].chunk(2, dim=-1)), GRU),
    "uneven chunk": (lambda self, x: torch.cat(self.rnn(x)[0].chunk(3, dim=2)[::-1], 2), GRU),
    "split": (lambda self, x: torch.cat(torch.split(self.rnn(x)[0], [1, 3], -1)[::-1], -1), GRU),
    "split evenly": (lambda self, x: (lambda a, b: a - b)(*self.rnn(x)[0].split(2, -1)), GRU),
    "tensor_split": (lambda self, x: torch.cat(self.rnn(x)[0].tensor_split(3, -1)[::-1], -1), GRU),
    "unbind": (lambda self, x: torch.stack(x.unbind(-1)[::-1], -1), {}),
    "narrow": (lambda self, x: x.narrow(2, 1, 2), {}),
    "one feature": (lambda self, x: x[..., 1], {}),
    "last feature": (lambda self, x: self.fc(x)[..., -1:], FC),
    "middle features": (lambda self, x: self.fc(x[:, :, 1:]), {"fc": nn.Linear(2, 2)}),
    "features joined with negative axis": (lambda self, x: torch.cat([x, self.fc(x), x], dim=-1), FC),
    "features joined channel first": (
        lambda self, x: torch.cat([x.mT, x.mT.tanh()], dim=1).permute(0, 2, 1) @ self.w,
        {"w": lambda: nn.Parameter(randn(6, 2))},
    ),
    "constant channel first": (
        lambda self, x: (x.mT * self.w).mT + self.fc(x),
        {"w": lambda: nn.Parameter(randn(3, 1)), "fc": lambda: nn.Linear(3, 3)},
    ),
    "input and sum": (lambda self, x: (x, x + x), {}),
    "list": (lambda self, x: [x, self.fc(x)], FC),
    "dict": (lambda self, x: {"mask": self.fc(x).sigmoid(), "x": x}, FC),
    "shared layer": (lambda self, x: self.fc(self.fc(x)), {"fc": nn.Linear(3, 3)}),
    "two layers of one kind": (
        lambda self, x: self.enc(x) + self.dec(x),
        {"enc": lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), "dec": lambda: nn.Linear(3, 2)},
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name):
    forward, members = FORMS[name]
    model = module(forward, **members)
    check(model, randn(2, 5, 3), randn(3, 8, 3, seed=1), randn(1, 1, 3, seed=2))


@pytest.mark.parametrize("shape", [(1, 6, 3), (4, 1, 3), (1, 1, 3), (4, 4, 3), (3, 3, 3), (13, 3, 3)])
@pytest.mark.parametrize("name", ["steps as batch", "h_n of two layers, reshaped", "last step kept", "gru from zeros"])
def test_lengths_of_the_sample_do_not_matter(name, shape):
    forward, members = FORMS[name]
    check(module(forward, **members), randn(*shape), randn(2, 5, 3), randn(1, 7, 3))


# --- other inputs and axes ------------------------------------------------------------------------------------------


def test_single_stream_drops_the_batch_axis():
    model = module(lambda self, x: (self.rnn(x)[0][:, -1], self.rnn(x)[0]), **GRU)
    graph = import_model(model, randn(2, 5, 3))
    x = randn(9, 3)
    last, every = run_graph(graph, x.numpy())
    same((last[None], every[None]), tuple(t for t in model(x[None])))
    assert last.shape == (4,) and every.shape == (9, 4)


@pytest.mark.parametrize("layers", [1, 2])
def test_unbatched(layers):
    model = module(lambda self, x: self.rnn(x), rnn=lambda: nn.GRU(3, 4, num_layers=layers, batch_first=True))
    graph = check(model, randn(5, 3), randn(8, 3))
    assert graph.signature.arguments[0].axes == ("time", "feature")


def test_unbatched_made_a_batch():
    model = module(lambda self, x: self.rnn(x.unsqueeze(0))[0].squeeze(0), **GRU)
    check(model, randn(5, 3), randn(8, 3))


def test_one_frame_model():
    graph = check(module(lambda self, x: self.fc(x), **FC), randn(3), randn(3, seed=2))
    assert graph.signature.arguments[0].axes == ("feature",)
    assert "no time axis" in graph.notes[0]


def test_rank_two_is_time_and_features():
    graph = check(module(lambda self, x: self.fc(x), **FC), randn(6, 3), randn(2, 3))
    assert graph.signature.arguments[0].axes == ("time", "feature")


def test_two_batch_axes():
    model = module(lambda self, x: self.fc(x).flatten(0, 1), **FC)
    graph = check(model, randn(2, 3, 5, 3), randn(4, 2, 6, 3))
    assert graph.signature.arguments[0].axes == ("batch", "batch", "time", "feature")


def test_channel_first():
    model = module(lambda self, x: self.rnn(x.transpose(1, 2))[0].mT, **GRU)
    graph = check(model, randn(2, 3, 5), randn(3, 3, 9))
    assert graph.signature.arguments[0].axes == ("batch", "feature", "time")
    assert graph.notes == ("streaming: time is axis 2 of x",)


def test_features_without_an_axis():
    model = module(lambda self, x: self.rnn(x.unsqueeze(-1))[0], rnn=lambda: nn.GRU(1, 4, batch_first=True))
    graph = check(model, randn(2, 5), randn(3, 9))
    assert graph.signature.arguments[0].axes == ("batch", "time") and graph.signature.arguments[0].width == 1


def test_features_over_two_axes():
    model = module(lambda self, x: self.rnn(torch.relu(x).flatten(2))[0], rnn=lambda: nn.GRU(6, 4, batch_first=True))
    graph = check(model, randn(2, 5, 2, 3), randn(3, 9, 2, 3))
    assert graph.signature.arguments[0].axes == ("batch", "time", "feature", "feature")


def test_window_of_frames_is_features():
    """An MLP over a flattened window sees windows as its steps."""
    model = module(lambda self, x: self.fc(x.flatten(1)), fc=lambda: nn.Linear(12, 2))
    graph = check(model, randn(5, 4, 3), randn(9, 4, 3))
    assert graph.signature.arguments[0].axes == ("time", "feature", "feature")


def test_two_inputs_meet():
    model = module(lambda self, a, b: self.rnn(torch.cat([a, b], 2))[0], rnn=lambda: nn.GRU(5, 4, batch_first=True))
    graph = check(model, (randn(2, 5, 3), randn(2, 5, 2, seed=1)), (randn(3, 7, 3), randn(3, 7, 2, seed=1)))
    assert [a.axes for a in graph.signature.arguments] == [("batch", "time", "feature")] * 2
    assert [a.name for a in graph.signature.arguments] == ["a", "b"]


def test_role_comes_back_from_the_other_input():
    """b is channel first; only its sum with a says so."""
    model = module(lambda self, a, b: self.rnn(a)[0] + torch.tanh(b.mT), **GRU)
    graph = check(model, (randn(2, 5, 3), randn(2, 4, 5)), (randn(3, 7, 3), randn(3, 4, 7)))
    assert graph.signature.arguments[1].axes == ("batch", "feature", "time")


def test_keyword_inputs():
    model = module(lambda self, first, second=None: self.fc(first) * second, **FC)
    for order in (("first", "second"), ("second", "first")):
        sample = {"first": randn(2, 5, 3), "second": randn(2, 5, 1, seed=1)}
        other = {"first": randn(3, 4, 3), "second": randn(3, 4, 1, seed=1)}
        check(model, {k: sample[k] for k in order}, {k: other[k] for k in order})


def test_awkward_argument_names():
    model = module(lambda self, input, *, lambda_: {"sum": input + lambda_}, rnn=nn.Identity())
    check(model, {"input": randn(2, 5, 3), "lambda_": randn(2, 5, 3, seed=1)})


def test_nested_results_are_flattened():
    model = module(lambda self, x: {"y": (x * 2, [self.fc(x)]), "x": x}, **FC)
    graph = import_model(model, randn(2, 5, 3))
    x = randn(3, 4, 3)
    want = model(x)
    same(run_graph(graph, x), (want["y"][0], want["y"][1][0], want["x"]))
    assert [r.name for r in graph.signature.results] == ["y_0", "y_1_0", "x"]


def test_numpy_samples_and_float64_models():
    model = module(lambda self, x: self.rnn(x)[0], **GRU)
    x = randn(2, 5, 3)
    for sample in (x.numpy(), x.numpy().astype(np.float64), x.double()):
        same(run_graph(import_model(model, sample), x), model(x))
    twin = copy.deepcopy(model).double()
    same(run_graph(import_model(twin, x.numpy()), x), model(x))


# --- initial states -------------------------------------------------------------------------------------------------

TWO = {"a": lambda: nn.GRU(3, 4, batch_first=True), "b": lambda: nn.GRU(4, 4, batch_first=True)}


def two_grus(rows):
    def forward(self, x, h):
        first, second = rows(h)
        y, h1 = self.a(x, first)
        z, h2 = self.b(y, second)
        return z, torch.cat([h1, h2])

    return forward


STATES = {
    "slices": lambda h: (h[0:1], h[1:2]),
    "open slices": lambda h: (h[:1], h[1:]),
    "rows": lambda h: (h[0].unsqueeze(0), h[-1][None]),
    "chunk": lambda h: h.chunk(2, 0),
    "split": lambda h: h.split(1),
    "swapped": lambda h: (h[1:2].contiguous(), h[0:1].contiguous()),
}


@pytest.mark.parametrize("name", STATES)
def test_one_state_for_two_grus(name):
    model = module(two_grus(STATES[name]), **TWO)
    graph = check(model, (randn(2, 5, 3), randn(2, 2, 4, seed=1)), (randn(3, 7, 3), randn(2, 3, 4, seed=1)))
    state = graph.signature.arguments[1]
    assert state.kind == "state" and state.axes == ("layer", "batch", "feature") and state.width == 4
    assert state.layers == (("b", "a") if name == "swapped" else ("a", "b"))
    assert graph.signature.results[1].state and not graph.signature.results[0].state


def test_state_of_two_layers():
    model = module(lambda self, x, h: self.rnn(x, h), rnn=lambda: nn.GRU(3, 4, num_layers=2, batch_first=True))
    graph = check(model, (randn(2, 5, 3), randn(2, 2, 4)), (randn(1, 6, 3), randn(2, 1, 4)))
    assert graph.signature.arguments[1].layers == ("rnn.0", "rnn.1")
    assert [node.attrs["initial"] for node in graph.nodes] == [("h", 0), ("h", 1)]


def test_states_as_separate_arguments():
    model = module(
        lambda self, x, h1, h2: self.rnn(x, torch.stack([h1, h2])),
        rnn=lambda: nn.GRU(3, 4, num_layers=2, batch_first=True),
    )
    graph = check(model, (randn(2, 5, 3), randn(2, 4), randn(2, 4)), (randn(3, 6, 3), randn(3, 4), randn(3, 4)))
    assert [a.axes for a in graph.signature.arguments[1:]] == [("batch", "feature")] * 2


def test_state_batch_first():
    model = module(lambda self, x, h: self.rnn(x, h.transpose(0, 1).contiguous())[0], **GRU)
    graph = check(model, (randn(2, 5, 3), randn(2, 1, 4)), (randn(3, 6, 3), randn(3, 1, 4)))
    assert graph.signature.arguments[1].axes == ("batch", "layer", "feature")


def test_state_unbatched():
    model = module(lambda self, x, h: self.rnn(x, h), **GRU)
    check(model, (randn(5, 3), randn(1, 4)), (randn(7, 3), randn(1, 4)))


def test_state_with_an_axis_of_one():
    model = module(lambda self, x, h: self.rnn(x.unsqueeze(0), h)[0].squeeze(0), **GRU)
    graph = check(model, (randn(5, 3), randn(1, 1, 4)), (randn(7, 3), randn(1, 1, 4)))
    assert graph.signature.arguments[1].axes == ("layer", "one", "feature")


def test_state_of_own_gru():
    model = module(lambda self, x, h: self.rnn(x, h), rnn=lambda: own.GRU(3, 4, "relu", False))
    check(model, (randn(5, 2, 3), randn(1, 2, 4)), (randn(7, 3, 3), randn(1, 3, 4)))


def test_optional_state_left_out():
    model = module(lambda self, x, h=None: self.rnn(x, h)[0], **GRU)
    check(model, randn(2, 5, 3), randn(3, 6, 3))


# --- exported programs and files ------------------------------------------------------------------------------------


def exported(model, *args, **kwargs):
    return torch.export.export(model, args, **kwargs)


def saved(program, path):
    torch.export.save(program, path)
    return path


FILED = ["steps as batch", "own gru", "in place", "in place, seen by another", "no_grad", "h_n of two layers, reshaped"]


@pytest.mark.parametrize("name", FILED)
def test_pt2_round_trip(name, tmp_path):
    forward, members = FORMS[name]
    model = module(forward, **members)
    path = saved(exported(model, randn(2, 5, 3)), tmp_path / "model.pt2")
    graph = import_model(path, randn(4, 9, 3))
    x = randn(3, 8, 3)
    same(run_graph(graph, x), model(x))
    direct = import_model(model, randn(2, 5, 3))
    assert ops(direct) == ops(graph)
    assert [node.where for node in direct.nodes if node.op in ("gru", "linear")] == [
        node.where for node in graph.nodes if node.op in ("gru", "linear")
    ]


def test_program_with_free_sizes():
    model = module(merged_steps, **BOTH)
    batch = torch.export.Dim("batch")
    program = exported(model, randn(2, 5, 3), dynamic_shapes={"x": {0: batch}})
    graph = import_model(program, randn(4, 9, 3))
    x = randn(3, 8, 3)
    same(run_graph(graph, x), model(x))


def test_program_with_free_length():
    model = module(lambda self, x: self.fc(x) * 2, **FC)
    program = exported(model, randn(2, 5, 3), dynamic_shapes={"x": {1: torch.export.Dim("time", min=2, max=30)}})
    x = randn(3, 40, 3)
    same(run_graph(import_model(program), x), model(x))


def test_program_with_an_argument_left_out():
    model = module(lambda self, h, x: self.rnn(x, h)[0], **GRU)
    graph = import_model(exported(model, None, randn(2, 5, 3)))
    x = randn(3, 8, 3)
    same(run_graph(graph, x), model(None, x))


def test_older_pt2(tmp_path):
    """The archive that torch wrote before 2.8."""
    serialize = pytest.importorskip("torch._export.serde.serialize").serialize
    model = module(lambda self, x: self.fc(x), **FC)
    parts = serialize(exported(model, randn(2, 5, 3)))
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_exported_program.json", parts.exported_program)
        archive.writestr("serialized_state_dict.pt", parts.state_dict)
        archive.writestr("serialized_constants.pt", parts.constants)
        archive.writestr("serialized_example_inputs.pt", parts.example_inputs)
    x = randn(3, 8, 3)
    same(run_graph(import_model(str(tmp_path / "old.pt2")), x), model(x))


class Bomb:
    """Unpickling it would leave a mark."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_files_that_are_no_programs(tmp_path):
    path = tmp_path / "model.pt2"
    with pytest.raises(FormatError, match=r"cannot read .*model\.pt2: No such file"):
        import_model(path, randn(2, 5, 3))
    for content in (b"", b"garbage" * 100, pickle.dumps(Bomb())):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"model\.pt2 is not a \.pt2 file.*torch\.export\.save"):
            import_model(path, randn(2, 5, 3))
    torch.save(Bomb(), path)
    with pytest.raises(FormatError, match="pickled Python objects .torch.save"):
        import_model(path, randn(2, 5, 3))
    torch.jit.save(torch.jit.script(nn.Linear(3, 2)), path)
    with pytest.raises(FormatError, match="TorchScript"):
        import_model(path, randn(2, 5, 3))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.txt", "hello")
    with pytest.raises(FormatError, match="holds other files, it is not a .pt2"):
        import_model(path, randn(2, 5, 3))
    with pytest.raises(FormatError, match="cannot read"):
        import_model(tmp_path, randn(2, 5, 3))


def rewritten(path, target, edit):
    """Copy a zip, each member's bytes through edit(name, bytes)."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, edit(name, old.read(name)))
    return target


def test_damaged_files(tmp_path):
    path = saved(exported(module(lambda self, x: self.fc(x), **FC), randn(2, 5, 3)), tmp_path / "model.pt2")
    whole = path.read_bytes()
    for end in (10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:end])
        with pytest.raises(FormatError, match=r"model\.pt2"):
            import_model(path)
    at = whole.index(b'"graph_module"')
    path.write_bytes(whole[:at] + b"X" + whole[at + 1 :])
    with pytest.raises(FormatError, match="model.json fails its checksum"):
        import_model(path)
    path.write_bytes(whole)
    edited = rewritten(path, tmp_path / "e.pt2", lambda n, b: b[: len(b) // 2] if n.endswith("model.json") else b)
    with pytest.raises(FormatError, match="e.pt2 cannot be loaded"):
        import_model(edited)
    edited = rewritten(path, tmp_path / "e.pt2", lambda n, b: b"{" if n.endswith("weights_config.json") else b)
    with pytest.raises(FormatError, match="e.pt2 is damaged"):
        import_model(edited)


def test_pickles_inside_a_pt2_are_refused(tmp_path):
    path = saved(exported(module(lambda self, x: self.fc(x), **FC), randn(2, 5, 3)), tmp_path / "model.pt2")
    buffer = io.BytesIO()
    torch.save((Bomb(),), buffer)
    bomb = buffer.getvalue()
    edits = {
        "sample": lambda n, b: bomb if "sample_inputs" in n else b,
        "weights": lambda n, b: b.replace(b'"use_pickle": false', b'"use_pickle": true') if "config" in n else b,
        "constants": lambda n, b: b.replace(b"weight_0", b"opaque_obj_0") if "config" in n else b,
    }
    for name, edit in edits.items():
        edited = rewritten(path, tmp_path / f"{name}.pt2", edit)
        with pytest.raises(FormatError, match="holds pickled Python objects"):
            import_model(edited)


def test_the_module_stays_as_it_is():
    model = module(lambda self, x: self.fc(self.drop(self.rnn(x)[0])), **BOTH, drop=nn.Dropout(0.5)).train()
    model.drop.eval()
    before = copy.deepcopy(model.state_dict())
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    flags = [m.training for m in model.modules()]
    import_model(model, randn(2, 5, 3))
    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(model.fc.weight.grad, torch.ones_like(model.fc.weight)) and model.fc.weight.requires_grad


# --- the graph itself -----------------------------------------------------------------------------------------------


def test_names_places_and_params():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(3, 4)
            self.stack = nn.ModuleDict({"a-b": nn.Linear(4, 4)})

        def forward(self, x):
            return torch.tanh(self.stack["a-b"](self.fc1(x))) * 2

    model = module(
        lambda self, x: self.out(self.rnn(self.enc(x) + self.enc(x))[0]),
        enc=Encoder,
        rnn=lambda: nn.GRU(4, 5, num_layers=2, batch_first=True),
        out=lambda: nn.Sequential(nn.Linear(5, 2), nn.Sigmoid()),
    )
    graph = check(model, randn(2, 5, 3), randn(3, 6, 3))
    first = ["enc.fc1", "enc.stack.a_b", "enc.tanh", "enc.mul"]
    assert [n.name for n in graph.nodes] == [
        *first,
        *(f"{name}_2" for name in first),
        "add",
        "rnn.0",
        "rnn.1",
        "out.0",
        "out.1",
    ]
    assert [n.output for n in graph.nodes] == [n.name for n in graph.nodes]
    rnn = graph.nodes[-4]
    assert rnn.op == "gru" and rnn.attrs == {"activation": "tanh", "reset_after": True, "initial": None}
    assert {k: v.shape for k, v in rnn.params.items()} == {
        "weight_ih": (15, 4),
        "weight_hh": (15, 5),
        "bias_ih": (15,),
        "bias_hh": (15,),
    }
    assert all(v.dtype == np.float64 for v in rnn.params.values())
    assert np.array_equal(rnn.params["weight_ih"], model.rnn.weight_ih_l0.detach().double().numpy())
    assert re.match(r"test_import\.py:\d+ in forward: lambda self, x: self\.out", rnn.where)
    assert re.match(r"test_import\.py:\d+ in forward: return torch\.tanh", graph.nodes[0].where)
    assert graph.widths == {"x": 3} | {n.name: {"out.0": 2, "out.1": 2}.get(n.name, 4) for n in graph.nodes} | {
        "rnn.0": 5,
        "rnn.1": 5,
    }


def test_sequential_at_the_root_gets_identifiers():
    graph = check(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), randn(2, 5, 3))
    assert [n.name for n in graph.nodes] == ["linear_0", "relu_1", "linear_2"]


def test_a_layer_is_a_model():
    assert [n.name for n in check(nn.GRU(3, 4).eval(), randn(5, 2, 3)).nodes] == ["gru"]


def test_a_layer_named_like_an_argument():
    graph = check(module(lambda self, rnn: self.rnn(rnn)[0], **GRU), randn(2, 5, 3))
    assert graph.nodes[0].name == "rnn_2" and graph.nodes[0].inputs == ("rnn",)


def test_unused_parts_are_dropped():
    model = module(lambda self, x: (self.rnn(x)[0], self.fc(x).chunk(2, -1))[1][0], **GRU, fc=lambda: nn.Linear(3, 2))
    graph = check(model, randn(2, 5, 3))
    assert ops(graph) == ["linear", "slice"] and set(graph.widths) == {"x", "fc", "chunk"}


def test_notes():
    model = module(lambda self, x, h: self.rnn(x, h), **GRU)
    graph = import_model(model, (randn(2, 5, 3), randn(1, 2, 4)))
    assert graph.notes == (
        "streaming: time is axis 1 of x",
        "h is the initial state of rnn",
        "output1 is the value after the last step",
    )


# --- refusals -------------------------------------------------------------------------------------------------------


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
    "lstm": (lambda self, x: self.lstm(x)[0], {"lstm": lambda: nn.LSTM(3, 4)}, r"lstm .*layer 'lstm' \(LSTM\).*use nn.GRU"),
    "rnn": (lambda self, x: self.rnn(x)[0], {"rnn": lambda: nn.RNN(3, 4)}, r"rnn_tanh .*layer 'rnn'"),
    "gru cell": (lambda self, x: self.cell(x[:, 0]), {"cell": lambda: nn.GRUCell(3, 4)}, r"gru_cell .*nn.GRU"),
    "conv": (lambda self, x: self.conv(x.mT), {"conv": lambda: nn.Conv1d(3, 4, 1)}, r"conv1d .*layer 'conv' \(Conv1d\)"),
    "batch norm": (lambda self, x: self.bn(x.mT), {"bn": lambda: nn.BatchNorm1d(3)}, r"batch_norm .*fold"),
    "softmax": (lambda self, x: self.fc(x).softmax(-1), FC, r"softmax .*in the model \(Model\)"),
    "exp": (lambda self, x: self.fc(x).exp(), FC, r"exp \(aten\.exp\.default\)"),
    "index": (lambda self, x: x[:, :, [2, 0]], {}, r"index .*not supported"),
    "mean over time": (lambda self, x: self.rnn(x)[0].mean(1), GRU, r"mean .*not supported"),
    "sum over features": (lambda self, x: x.sum(-1), {}, r"sum .*not supported"),
    "flip": (lambda self, x: self.rnn(x.flip(1))[0], GRU, r"flip .*not supported"),
    "random": (lambda self, x: x + torch.randn(3), {}, r"randn .*random"),
    "bidirectional": (
        lambda self, x: self.rnn(x)[0],
        {"rnn": lambda: nn.GRU(3, 4, bidirectional=True)},
        r"gru .*layer 'rnn' \(GRU\).*bidirectional=True needs the whole window",
    ),
    # time
    "step other than the last": (lambda self, x: self.rnn(x)[0][:, 2], GRU, r"select .*part of the time axis"),
    "first step": (lambda self, x: self.rnn(x)[0][:, 0], GRU, r"select .*part of the time axis"),
    "some steps": (lambda self, x: self.rnn(x)[0][:, 1:], GRU, r"slice .*part of the time axis"),
    "loop over steps": (steps_in_a_loop, {"fc": lambda: nn.Linear(3, 4)}, r"select .*loop over the steps has to be a GRU"),
    "cat on time": (lambda self, x: torch.cat([self.rnn(x)[0], self.rnn(x)[0]], 1), GRU, r"cat .*along the time axis"),
    "last step against all": (lambda self, x: self.rnn(x)[0] - self.rnn(x)[0][:, -1:], GRU, r"sub .*mixes the last step"),
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
    "window regrouped": (lambda self, x: self.fc(x.reshape(2, 2, 6)), {"fc": lambda: nn.Linear(6, 2)}, r"reshape .*regroups axes \(2x4x3 to 2x2x6\)"),
    "constant over time": (lambda self, x: self.rnn(x + self.p)[0], {**GRU, "p": lambda: nn.Parameter(randn(5, 3))}, r"add .*varies along the time axis"),
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
    "constant over batch": (lambda self, x: self.rnn(x * self.p)[0], {**GRU, "p": lambda: nn.Parameter(randn(2, 1, 1))}, r"mul .*varies along the batch axis"),
    # features
    "every other feature": (lambda self, x: x[..., ::2], {}, r"slice .*has step 2"),
    "features split": (lambda self, x: self.rnn(x)[0].unflatten(-1, (2, 2)), GRU, r"unflatten .*regroups"),
    "outer product": (lambda self, x: self.fc(x).unsqueeze(-1) * x.unsqueeze(-2), FC, r"mul .*on different axes"),
    "constant joined": (lambda self, x: torch.cat([x, torch.ones(2, 5, 1)], -1), {}, r"cat .*joins a constant tensor"),
    "division by a value": (lambda self, x: x / (2 + torch.sigmoid(self.fc(x))), {"fc": nn.Linear(3, 3)}, r"div .*only division by constants"),
    "floor division": (lambda self, x: torch.div(x, 2, rounding_mode="floor"), {}, r"div .*rounding_mode='floor'"),
    "division by zero": (lambda self, x: x / 0, {}, r"div .*constant holds inf"),
    "matmul of two values": (lambda self, x: x @ x.mT, {}, r"matmul .*both depend on the inputs"),
    "linear with a computed weight": (lambda self, x: F.linear(x, self.fc(x)[0]), {"fc": nn.Linear(3, 3)}, r"linear .*constant weights"),
    "wrong dtype inside": (lambda self, x: x.to(torch.float16).float() + 1, {}, r"to .*makes a tensor of torch.float16"),
    "comparison": (lambda self, x: (x > 0) * x, {}, r"gt .*not supported"),
    "write into a slice": (write_slice, FC, r"scatter|fill.*not supported"),
    # control flow, effects, results
    "branch on values": (branch, {}, r"torch\.export cannot capture the model.*control flow"),
    "size as a number": (lambda self, x: x / x.shape[1], {}, r"'output' differs by .*depends on its batch size or length"),
    "constant result": (lambda self, x: (x, self.fc.bias * 2), FC, r"result 'output1' is a constant"),
    "no result": (lambda self, x: (x, None), {}, r"result 'output1' is None"),
    # initial states
    "learned initial state": (
        lambda self, x: self.rnn(x, self.h0.expand(-1, len(x), -1).contiguous())[0],
        {**GRU, "h0": lambda: nn.Parameter(randn(1, 1, 4))},
        r"gru .*constant initial state that is not zero",
    ),
    "ones as initial state": (lambda self, x: self.rnn(x, torch.ones(1, len(x), 4))[0], GRU, r"gru .*constant initial state"),
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
        line = re.search(r"test_import\.py:(\d+) in (\S+):", str(caught.value))
        assert line, str(caught.value)
        code, start = inspect.getsourcelines(forward)
        assert start <= int(line[1]) < start + len(code)
        assert line[2] == "forward"
    if name != "division by zero":
        assert isinstance(caught.value, UnsupportedError)
