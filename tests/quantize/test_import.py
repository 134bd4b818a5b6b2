"""The importer against torch itself: every supported form, at other batch sizes and lengths than the sample's; inputs
laid out in other ways, initial states, what the graph says, and random compositions. `torch_models.py` holds the forms.
"""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from quantize import nn as own
from quantize.errors import QuantizeError
from quantize.float_run import run_graph
from quantize.graph import lstm_form
from quantize.torch_import import import_model
from torch_models import BOTH, FC, FORMS, GRU, TWO, check, module, ops, randn, same, two_grus

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export's, about its own treatment of nn.GRU


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
    for sample in (x.numpy(), x.numpy()[::-1, :, ::-1], x.numpy().astype(">f8"), x.double(), x.requires_grad_()):
        same(run_graph(import_model(model, sample), x), model(x))
    twin = copy.deepcopy(model).double()
    same(run_graph(import_model(twin, x), x), model(x))


# --- initial states -------------------------------------------------------------------------------------------------


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


LSTM = {"rnn": lambda: nn.LSTM(3, 4, num_layers=2, batch_first=True)}


def flat(y, states):
    return y, *states


def test_states_of_an_lstm():
    model = module(lambda self, x, h, c: flat(*self.rnn(x, (h, c))), **LSTM)
    graph = check(
        model, (randn(2, 5, 3), randn(2, 2, 4), randn(2, 2, 4)), (randn(3, 7, 3), randn(2, 3, 4), randn(2, 3, 4))
    )
    assert [a.layers for a in graph.signature.arguments[1:]] == [("rnn.0", "rnn.1"), ("rnn.0:cell", "rnn.1:cell")]
    assert [result.state for result in graph.signature.results] == [False, True, True]
    assert graph.notes[2] == "c is the initial state of rnn.0:cell, rnn.1:cell"


def test_one_argument_for_both_states_of_an_lstm():
    model = module(lambda self, x, s: self.rnn(x, (s[0:1], s[1:2]))[0], rnn=lambda: nn.LSTM(3, 4, batch_first=True))
    graph = check(model, (randn(2, 5, 3), randn(2, 2, 4)), (randn(3, 7, 3), randn(2, 3, 4)))
    assert graph.signature.arguments[1].layers == ("rnn", "rnn:cell")


def test_states_of_a_projected_lstm_differ_in_width():
    model = module(
        lambda self, x, h, c: flat(*self.rnn(x, (h, c))), rnn=lambda: nn.LSTM(3, 4, proj_size=2, batch_first=True)
    )
    graph = check(model, (randn(2, 5, 3), randn(1, 2, 2), randn(1, 2, 4)))
    assert [a.width for a in graph.signature.arguments] == [3, 2, 4]
    assert graph.nodes[0].params["weight_hr"].shape == (2, 4)


def test_unbatched_lstm_and_rnn():
    lstm = module(lambda self, x, h, c: flat(*self.rnn(x, (h, c))), rnn=lambda: nn.LSTM(3, 4))
    check(lstm, (randn(5, 3), randn(1, 4), randn(1, 4)), (randn(7, 3), randn(1, 4), randn(1, 4)))
    check(module(lambda self, x, h: self.rnn(x, h), rnn=lambda: nn.RNN(3, 4)), (randn(5, 3), randn(1, 4)))


def test_an_lstm_itself_returns_nested_states():
    graph = import_model(nn.LSTM(3, 4, batch_first=True).eval(), randn(2, 5, 3))
    assert [result.name for result in graph.signature.results] == ["output0", "output1_0", "output1_1"]
    assert [node.name for node in graph.nodes] == ["lstm", "lstm.cell"]


def test_state_of_own_gru():
    model = module(lambda self, x, h: self.rnn(x, h), rnn=lambda: own.GRU(3, 4, "relu", False))
    check(model, (randn(5, 2, 3), randn(1, 2, 4)), (randn(7, 3, 3), randn(1, 3, 4)))


@pytest.mark.parametrize("form", [{}, dict(peephole=True), dict(coupled=True), dict(peephole=True, coupled=True)])
def test_states_of_own_lstm(form):
    model = module(lambda self, x, h, c: flat(*self.rnn(x, (h, c))), rnn=lambda: own.LSTM(3, 4, **form))
    first = (randn(5, 2, 3), randn(1, 2, 4), randn(1, 2, 4))
    graph = check(model, first, (randn(7, 3, 3), randn(1, 3, 4), randn(1, 3, 4)))
    assert [a.layers for a in graph.signature.arguments[1:]] == [("rnn",), ("rnn:cell",)]
    assert lstm_form(graph.nodes[0]) == (4, form.get("coupled", False))
    assert ("weight_peephole" in graph.nodes[0].params) == form.get("peephole", False)


def test_operators_called_without_a_slope(tmp_path):
    """As in a .pt2 from before gates could be hard: they are sigmoids."""

    class Before(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = own.GRU(3, 4)

        def forward(self, x):
            return torch.ops.rtcore.gru(x, None, *self.rnn.parameters(), "tanh", True, True)[0]

    x = randn(2, 5, 3)
    torch.export.save(torch.export.export(Before().eval(), (x,)), tmp_path / "before.pt2")
    (node,) = import_model(tmp_path / "before.pt2", x).nodes
    assert (node.op, node.attrs["gate_slope"]) == ("gru", 0.0)


def test_the_slope_of_gates_is_an_attribute():
    for kind in (own.GRU, own.LSTM):
        graph = import_model(kind(3, 4, batch_first=True, gate_slope=0.2).eval(), randn(2, 5, 3))
        assert graph.nodes[0].attrs["gate_slope"] == 0.2


def test_optional_state_left_out():
    model = module(lambda self, x, h=None: self.rnn(x, h)[0], **GRU)
    check(model, randn(2, 5, 3), randn(3, 6, 3))


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


# --- compositions ---------------------------------------------------------------------------------------------------

STEPS = {
    "linear": lambda m, x: F.linear(x, m.w[:2, : x.shape[-1]]),
    "gru": lambda m, x: m.gru(F.linear(x, m.w[:3, : x.shape[-1]]))[0],
    "state": lambda m, x: m.gru(F.linear(x, m.w[:3, : x.shape[-1]]))[1],
    "transpose": lambda m, x: x.transpose(0, 1),
    "turn": lambda m, x: x.transpose(-1, -2),
    "merge": lambda m, x: x.flatten(0, 1),
    "split": lambda m, x: x.unflatten(0, (m.batch, -1)),
    "regroup": lambda m, x: x.reshape(x.shape[1], x.shape[0], -1),
    "last": lambda m, x: x[:, -1],
    "last kept": lambda m, x: x[:, -1:],
    "first": lambda m, x: x[..., 0],
    "halves": lambda m, x: (lambda parts: torch.cat(parts[::-1], -1))(x.chunk(2, -1)),
    "double": lambda m, x: torch.cat([x, 3 * x], 1),
    "stack": lambda m, x: torch.stack([x, x.tanh()], 0),
    "gate": lambda m, x: x.sigmoid() * x + (1 - x.sigmoid()) * 0.5,
    "against itself": lambda m, x: x + x.transpose(0, 1),
    "against a row": lambda m, x: x - x[..., -1:],
    "unsqueeze": lambda m, x: x.unsqueeze(1),
    "by size": lambda m, x: x / x.shape[1],
}


@pytest.mark.parametrize("seed", range(60))
def test_any_composition_is_right_or_refused(seed):
    """Random chains of operations, most of them senseless: what is accepted agrees at other sizes."""
    generator = np.random.default_rng(seed)
    names = generator.choice(list(STEPS), generator.integers(1, 5))

    def forward(self, x):
        self.batch = x.shape[0]
        for name in names:
            x = STEPS[name](self, x)
        return x

    model = module(forward, w=lambda: nn.Parameter(randn(3, 40)), gru=lambda: nn.GRU(3, 3, batch_first=True))
    shape = [(2, 5, 4), (1, 5, 4), (2, 1, 4), (4, 4, 4)][seed % 4]
    try:
        graph = import_model(model, randn(*shape))
    except QuantizeError:
        return
    free = "sample's sizes only" not in graph.notes[-1]
    if not free or graph.signature.arguments[0].axes != ("batch", "time", "feature"):
        return  # not free, or other axes than these have to keep their length
    for other in ((3, 7, 4), (2, 6, 4)):
        x = randn(*other, seed=1)
        try:
            want = model(x)
        except (RuntimeError, IndexError):
            continue
        same(run_graph(graph, x), want)
