"""quantize.nn.LSTM: against torch.nn.LSTM where they agree, against its formulas where they do not, and as an operator.

Values and gradients are compared in float64, where both sides round at 1e-16 and a dozen steps stay below 1e-12.
Neighbours: `test_nn.py` (the same of quantize.nn.GRU).
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from quantize.nn import LSTM

SHAPES = [("batch_first", (3, 7, 5), True), ("time_first", (7, 3, 5), False), ("one_stream", (7, 5), False)]
FORMS = [dict(), dict(peephole=True), dict(coupled=True), dict(peephole=True, coupled=True), dict(gate_slope=1 / 6)]
FORMS += [dict(peephole=True, coupled=True, gate_slope=0.2)]


def make(*args, **kwargs):
    torch.manual_seed(1)
    return LSTM(*args, **kwargs).double()


def formula(layer, x, h, c):
    """The docstring's formulas, frame by frame: x [T, F], h and c [N]."""
    n, names = layer.hidden_size, "igo" if layer.coupled else "ifgo"
    rows = {name: slice(k * n, (k + 1) * n) for k, name in enumerate(names)}
    zeros = torch.zeros(4 * n, dtype=x.dtype)
    b, d = (layer.bias_ih, layer.bias_hh) if layer.bias else (zeros, zeros)
    seeing = names.replace("g", "")
    peepholes = layer.weight_peephole if layer.peephole else zeros
    p = {name: peepholes[k * n : (k + 1) * n] for k, name in enumerate(seeing)}
    s = (lambda a: (layer.gate_slope * a + 0.5).clamp(0, 1)) if layer.gate_slope else torch.sigmoid
    steps = []
    for frame in x:
        a = {k: layer.weight_ih[r] @ frame + b[r] + layer.weight_hh[r] @ h + d[r] for k, r in rows.items()}
        i = s(a["i"] + p["i"] * c)
        f = 1 - i if layer.coupled else s(a["f"] + p["f"] * c)
        c = f * c + i * torch.tanh(a["g"])
        h = s(a["o"] + p["o"] * c) * torch.tanh(c)
        steps.append(h)
    return torch.stack(steps), h, c


def reference(layer, x, h0, c0):
    """`formula` over whatever axes x has."""
    if x.dim() == 2:
        zeros = torch.zeros(layer.hidden_size, dtype=x.dtype)
        y, h, c = formula(layer, x, zeros if h0 is None else h0[0], zeros if c0 is None else c0[0])
        return y, h[None], c[None]
    streams = x.unbind(0) if layer.batch_first else x.unbind(1)
    zeros = torch.zeros(len(streams), layer.hidden_size, dtype=x.dtype)
    first = [zeros if state is None else state[0] for state in (h0, c0)]
    results = [formula(layer, *given) for given in zip(streams, *first, strict=True)]
    y = torch.stack([result[0] for result in results], 0 if layer.batch_first else 1)
    return y, *(torch.stack([result[k] for result in results])[None] for k in (1, 2))


def gradients(layer, function, inputs, weight):
    """Of a scalar that depends on y, h_n and c_n in different ways: of the inputs and the parameters."""
    tensors = [t for t in (*inputs, *layer.parameters()) if t is not None]
    y, h_n, c_n = function(*inputs)
    loss = (y * weight[0]).sum() + (h_n * weight[1]).square().sum() + (c_n * weight[1]).exp().sum()
    return torch.autograd.grad(loss, tensors)


def called(layer):
    def call(x, h0, c0):
        y, states = layer(x, None if h0 is None else (h0, c0))
        return y, *states

    return call


def inputs_of(shape, state):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    h_shape = (1, 4) if len(shape) == 2 else (1, 3, 4)
    states = [torch.randn(h_shape, dtype=torch.float64, requires_grad=True) if state else None for _ in "hc"]
    return x, *states


def same_with_gradients(layer, other, one, two, inputs):
    got, want = one(*inputs), two(*inputs)
    for mine, its in zip(got, want, strict=True):
        assert mine.shape == its.shape
        torch.testing.assert_close(mine, its, rtol=1e-12, atol=1e-12)
    weight = (torch.randn_like(got[0]), torch.randn_like(got[1]))
    got, want = gradients(layer, one, inputs, weight), gradients(other, two, inputs, weight)
    for mine, its in zip(got, want, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-10, atol=1e-12)
        assert its.abs().max() > 0


@pytest.mark.parametrize("state", [False, True], ids=["zeros", "states"])
@pytest.mark.parametrize("bias", [False, True], ids=["nobias", "bias"])
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("name", "shape", "batch_first"), SHAPES, ids=[s[0] for s in SHAPES])
def test_formulas_and_gradients(name, shape, batch_first, form, bias, state):
    layer = make(5, 4, bias, batch_first, **form)
    same_with_gradients(layer, layer, called(layer), lambda *a: reference(layer, *a), inputs_of(shape, state))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("name", "shape", "batch_first"), SHAPES, ids=[s[0] for s in SHAPES])
def test_is_torch_lstm_where_they_agree(name, shape, batch_first, bias):
    layer = make(5, 4, bias=bias, batch_first=batch_first)
    peer = torch.nn.LSTM(5, 4, bias=bias, batch_first=batch_first).double()
    with torch.no_grad():
        for mine, its in zip(layer.parameters(), peer.parameters(), strict=True):
            its.copy_(mine)
    assert [n + "_l0" for n, _ in layer.named_parameters()] == [n for n, _ in peer.named_parameters()]
    same_with_gradients(layer, peer, called(layer), called(peer), inputs_of(shape, True))


def test_both_readings_of_coupled_gates_are_one_layer():
    """Trained with a forget gate and i = 1 - f: the rows of i are the negated rows of f."""
    layer = make(5, 4, peephole=True, coupled=True)
    x, h, c = inputs_of((7, 5), True)
    n = 4
    own = {name: p.detach().clone() for name, p in layer.named_parameters()}
    forget = {name: -p[:n] for name, p in own.items()}
    hidden, cell = h[0], c[0]
    for t in range(7):
        f, g, o = (
            (forget if k == 0 else own)["weight_ih"][r] @ x[t]
            + (forget if k == 0 else own)["weight_hh"][r] @ hidden
            + (forget if k == 0 else own)["bias_ih"][r]
            + (forget if k == 0 else own)["bias_hh"][r]
            for k, r in enumerate(slice(k * n, (k + 1) * n) for k in range(3))
        )
        f = torch.sigmoid(f + forget["weight_peephole"] * cell)
        cell = f * cell + (1 - f) * torch.tanh(g)
        hidden = torch.sigmoid(o + own["weight_peephole"][n:] * cell) * torch.tanh(cell)
    torch.testing.assert_close(layer(x, (h, c))[1][1][0], cell, rtol=1e-12, atol=1e-12)


def test_trains():
    torch.manual_seed(0)
    layer = LSTM(3, 8, batch_first=True, peephole=True, coupled=True)
    head = torch.nn.Linear(8, 1)
    x = torch.randn(16, 10, 3)
    target = x.cumsum(1)[..., :1].tanh()
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (head(layer(x)[0]) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_operator_contract(form):
    """torch's own checks: schema, fake tensors, autograd registration, aliasing."""
    layer = LSTM(3, 4, bias="coupled" not in form, batch_first=True, **form)
    args = (layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh, layer.weight_peephole)
    for x, *states in (
        (torch.randn(2, 5, 3, requires_grad=True), None, None),
        (torch.randn(2, 5, 3), torch.randn(1, 2, 4, requires_grad=True), torch.randn(1, 2, 4)),
        (torch.randn(5, 3), torch.randn(1, 4), torch.randn(1, 4)),
    ):
        checks = ("test_schema", "test_autograd_registration", "test_faketensor")
        options = (layer.coupled, layer.batch_first, layer.gate_slope)
        torch.library.opcheck(torch.ops.rtcore.lstm.default, (x, *states, *args, *options), test_utils=checks)


def test_stays_one_node_and_survives_a_file(tmp_path):
    layer = LSTM(3, 4, batch_first=True, peephole=True).eval()
    x = torch.randn(2, 5, 3)
    program = torch.export.export(layer, (x,))
    calls = [n.target for n in program.graph.nodes if n.op == "call_function" and "getitem" not in str(n.target)]
    assert calls == [torch.ops.rtcore.lstm.default]
    torch.export.save(program, tmp_path / "lstm.pt2")
    got, want = torch.export.load(tmp_path / "lstm.pt2").module()(x), layer(x)
    assert torch.equal(got[0], want[0]) and all(map(torch.equal, got[1], want[1]))
    code = f"import torch, quantize.nn; torch.export.load({str(tmp_path / 'lstm.pt2')!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_is_a_module_like_others():
    layer = LSTM(3, 4, bias=False, batch_first=True, peephole=True, coupled=True)
    assert repr(layer) == "LSTM(3, 4, bias=False, batch_first=True, peephole=True, coupled=True)"
    shapes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
    assert shapes == {"weight_ih": (12, 3), "weight_hh": (12, 4), "weight_peephole": (8,)}
    assert LSTM(3, 4, peephole=True).weight_peephole.shape == (12,)
    assert list(LSTM(3, 4).state_dict()) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    assert all(p.abs().max() <= 0.5 and p.std() > 0.1 for p in layer.parameters())


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((0, 4), ValueError, "input_size must be at least 1, got 0"),
        ((3, True), TypeError, "hidden_size must be an int, got bool"),
        ((3, 4, 1), TypeError, "bias must be True or False, got 1"),
        ((3, 4, True, False, 1), TypeError, "peephole must be True or False, got 1"),
        ((3, 4, True, False, True, "no"), TypeError, "coupled must be True or False, got 'no'"),
        (
            (3, 4, True, False, False, False, -0.2),
            ValueError,
            "LSTM: gate_slope is -0.2, expected 0 (sigmoid gates) or that of hard sigmoids, 0.001953125..1.0",
        ),
    ],
)
def test_bad_arguments(args, error, message):
    with pytest.raises(error) as caught:
        LSTM(*args)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("x", "hx", "message"),
    [
        (torch.zeros(3), None, "LSTM takes a 2-D or 3-D input, got shape (3,)"),
        (torch.zeros(5, 2, 4), None, "LSTM was made for 3 input features, got 4"),
        (torch.zeros(0, 2, 3), None, "LSTM takes at least one step"),
        (torch.zeros(5, 3), torch.zeros(1, 4), "a pair (h0, c0)"),
        (torch.zeros(5, 3), (torch.zeros(1, 4), torch.zeros(4)), "LSTM expects c0 of shape (1, 4), got (4,)"),
        (torch.zeros(5, 2, 3), (torch.zeros(2, 4), None), "LSTM expects h0 of shape (1, 2, 4), got (2, 4)"),
    ],
)
def test_bad_calls(x, hx, message):
    with pytest.raises(ValueError) as caught:
        LSTM(3, 4)(x, hx)
    assert message in str(caught.value)
