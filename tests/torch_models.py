"""Torch models that the importer's tests share, and the comparison of a graph with the module it came from.

Agreement is 1e-5 of the peak: the graph runs in float64, torch in float32, whose rounding over a dozen steps of sums of
a few products stays below 1e-6 of the peak; a wrong axis, weight or gate is off by tenths.
"""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from quantize import nn as own
from quantize.float_run import run_graph
from quantize.torch_import import import_model


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
    return self.act(y)


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
    "lstm": (lambda self, x: self.rnn(x)[0], {"rnn": lambda: nn.LSTM(3, 4, batch_first=True)}),
    "lstm with states": (
        lambda self, x: (lambda y, states: (y, *states))(*self.rnn(x)),
        {"rnn": lambda: nn.LSTM(3, 4, num_layers=2, batch_first=True)},
    ),
    "lstm with a projection": (
        lambda self, x: (lambda y, states: (y, *states))(*self.rnn(x)),
        {"rnn": lambda: nn.LSTM(3, 5, num_layers=2, proj_size=2, batch_first=True)},
    ),
    "lstm without bias, projected": (
        lambda self, x: self.rnn(x)[0],
        {"rnn": lambda: nn.LSTM(3, 5, bias=False, proj_size=2, batch_first=True)},
    ),
    "lstm time first": (lambda self, x: self.rnn(x.transpose(0, 1))[0], {"rnn": lambda: nn.LSTM(3, 4)}),
    "lstm from zeros": (
        lambda self, x: self.rnn(x, (x.new_zeros(1, len(x), 4), x.new_zeros(1, len(x), 4)))[0],
        {"rnn": lambda: nn.LSTM(3, 4, batch_first=True)},
    ),
    "lstm with peepholes": (
        lambda self, x: (lambda y, states: (y, *states))(*self.rnn(x)),
        {"rnn": lambda: own.LSTM(3, 4, batch_first=True, peephole=True)},
    ),
    "lstm with coupled gates": (
        lambda self, x: self.rnn(x)[0],
        {"rnn": lambda: own.LSTM(3, 4, batch_first=True, coupled=True)},
    ),
    "lstm with both, without bias": (
        lambda self, x: self.fc(self.rnn(x)[1][1][-1]),
        {
            "rnn": lambda: own.LSTM(3, 4, bias=False, batch_first=True, peephole=True, coupled=True),
            "fc": lambda: nn.Linear(4, 2),
        },
    ),
    "gru with hard gates": (
        lambda self, x: self.rnn(x),
        {"rnn": lambda: own.GRU(3, 4, batch_first=True, gate_slope=1 / 6)},
    ),
    "lstm with hard gates": (
        lambda self, x: (lambda y, states: (y, *states))(*self.rnn(x)),
        {"rnn": lambda: own.LSTM(3, 4, batch_first=True, gate_slope=0.2)},
    ),
    "c_n[-1]": (
        lambda self, x: self.fc(self.rnn(x)[1][1][-1]),
        {"rnn": lambda: nn.LSTM(3, 4, num_layers=2, batch_first=True), "fc": lambda: nn.Linear(4, 2)},
    ),
    "h_n and c_n joined": (
        lambda self, x: (lambda h, c: torch.cat([h[-1], c[-1]], -1))(*self.rnn(x)[1]),
        {"rnn": lambda: nn.LSTM(3, 4, batch_first=True)},
    ),
    "rnn": (lambda self, x: self.rnn(x), {"rnn": lambda: nn.RNN(3, 4, num_layers=2, batch_first=True)}),
    "rnn with relu": (
        lambda self, x: self.rnn(x),
        {"rnn": lambda: nn.RNN(3, 4, nonlinearity="relu", bias=False, batch_first=True)},
    ),
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
    "states stacked": (lambda self, x: torch.stack([self.rnn(x)[1], self.rnn(x)[1].tanh()], 1), GRU),
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
    "sub with alpha": (
        lambda self, x: torch.rsub(torch.sub(x, self.fc(x), alpha=2), x, alpha=3),
        {"fc": nn.Linear(3, 3)},
    ),
    "buffers": (
        lambda self, x: (x - self.mean) * self.scale / self.std,
        {
            "mean": lambda: nn.Parameter(randn(3, seed=1)),
            "scale": lambda: nn.Parameter(torch.tensor(2.5)),
            "std": lambda: nn.Parameter(randn(1, 1, 3, seed=2).abs() + 1),
        },
    ),
    "constants first": (
        lambda self, x: self.shift + self.gain * x + (self.shift - x),
        {"shift": lambda: nn.Parameter(randn(3)), "gain": lambda: nn.Parameter(randn(3, seed=1))},
    ),
    "nothing taken away": (
        lambda self, x: torch.cat(
            [torch.cat([x.narrow(-1, 0, 3), x.chunk(1, -1)[0], torch.ops.aten.slice(x, 1)], -1)], 1
        ).expand(-1, -1, 9),
        {},
    ),
    "constants computed": (
        lambda self, x: (x * self.gain.exp() + torch.arange(3)) @ (2 * self.w).t(),
        {"gain": lambda: nn.Parameter(randn(3)), "w": lambda: nn.Parameter(randn(2, 3))},
    ),
    "ones_like": (lambda self, x: (torch.ones_like(x) - torch.sigmoid(x)) * x, {}),
    "gate": (
        lambda self, x: torch.sigmoid(self.fc(x)) * x + (1 - torch.sigmoid(self.fc(x))) * x.tanh(),
        {"fc": nn.Linear(3, 3)},
    ),
    "width 1 against 3": (lambda self, x: self.fc(x) * x - x[..., :1], {"fc": nn.Linear(3, 1)}),
    "width 1 against a constant": (
        lambda self, x: x[..., 1:2] * self.w + self.w,
        {"w": lambda: nn.Parameter(randn(4))},
    ),
    "one feature against a constant": (
        lambda self, x: x[..., 1].unsqueeze(-1) + self.w,
        {"w": lambda: nn.Parameter(randn(4))},
    ),
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


TWO = {"a": lambda: nn.GRU(3, 4, batch_first=True), "b": lambda: nn.GRU(4, 4, batch_first=True)}


def two_grus(rows):
    def forward(self, x, h):
        first, second = rows(h)
        y, h1 = self.a(x, first)
        z, h2 = self.b(y, second)
        return z, torch.cat([h1, h2])

    return forward


def exported(model, *args, **kwargs):
    return torch.export.export(model, args, **kwargs)


def saved(program, path):
    torch.export.save(program, path)
    return path
