"""quantize.nn.GRU: against torch.nn.GRU where they agree, against its formulas where they do not, and as an operator.

Values and gradients are compared in float64, where both sides round at 1e-16 and a dozen steps stay below 1e-12.
"""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import pytest
import torch

from quantize.nn import ACTIVATIONS, GRU, _gate

SHAPES = [("batch_first", (3, 7, 5), True), ("time_first", (7, 3, 5), False), ("one_stream", (7, 5), False)]


def make(*args, **kwargs):
    torch.manual_seed(1)
    return GRU(*args, **kwargs).double()


def formula(layer, x, h):
    """The docstring's formulas, frame by frame: x [T, F], h [N]."""
    n = layer.hidden_size
    zeros = torch.zeros(3 * n, dtype=x.dtype)
    w, u = layer.weight_ih, layer.weight_hh
    b, c = (layer.bias_ih, layer.bias_hh) if layer.bias else (zeros, zeros)
    act = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "linear": lambda v: v}[layer.activation]
    s = (lambda a: (layer.gate_slope * a + 0.5).clamp(0, 1)) if layer.gate_slope else torch.sigmoid
    steps = []
    for frame in x:
        r = s(w[:n] @ frame + b[:n] + u[:n] @ h + c[:n])
        z = s(w[n : 2 * n] @ frame + b[n : 2 * n] + u[n : 2 * n] @ h + c[n : 2 * n])
        if layer.reset_after:
            candidate = act(w[2 * n :] @ frame + b[2 * n :] + r * (u[2 * n :] @ h + c[2 * n :]))
        else:
            candidate = act(w[2 * n :] @ frame + b[2 * n :] + u[2 * n :] @ (r * h) + c[2 * n :])
        h = (1 - z) * candidate + z * h
        steps.append(h)
    return torch.stack(steps), h


def reference(layer, x, h0):
    """`formula` over whatever axes x has."""
    if x.dim() == 2:
        y, h = formula(layer, x, torch.zeros(layer.hidden_size, dtype=x.dtype) if h0 is None else h0[0])
        return y, h[None]
    streams = x.unbind(0) if layer.batch_first else x.unbind(1)
    states = h0[0] if h0 is not None else torch.zeros(len(streams), layer.hidden_size, dtype=x.dtype)
    results = [formula(layer, stream, state) for stream, state in zip(streams, states, strict=True)]
    y = torch.stack([y for y, _ in results], 0 if layer.batch_first else 1)
    return y, torch.stack([h for _, h in results])[None]


def gradients(layer, function, inputs, weight):
    """Gradients of a scalar that depends on y and h_n in different ways, of the inputs and the parameters."""
    tensors = [t for t in (*inputs, *layer.parameters()) if t is not None]
    y, h_n = function(*inputs)
    return torch.autograd.grad((y * weight[0]).sum() + (h_n * weight[1]).square().sum(), tensors)


@pytest.mark.parametrize("state", [False, True], ids=["zeros", "h0"])
@pytest.mark.parametrize("bias", [False, True], ids=["nobias", "bias"])
@pytest.mark.parametrize("reset_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("name", "shape", "batch_first"), SHAPES, ids=[s[0] for s in SHAPES])
def test_formulas_and_gradients(name, shape, batch_first, activation, reset_after, bias, state):
    layer = make(5, 4, activation, reset_after, bias, batch_first)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    h_shape = (1, 4) if len(shape) == 2 else (1, 3, 4)
    h0 = torch.randn(h_shape, dtype=torch.float64, requires_grad=True) if state else None
    y, h_n = layer(x, h0)
    want_y, want_h = reference(layer, x, h0)
    assert y.shape == want_y.shape and h_n.shape == want_h.shape
    torch.testing.assert_close(y, want_y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(h_n, want_h, rtol=1e-12, atol=1e-12)
    weight = (torch.randn_like(y), torch.randn_like(h_n))
    got = gradients(layer, layer, (x, h0), weight)
    want = gradients(layer, lambda x, h: reference(layer, x, h), (x, h0), weight)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        assert other.abs().max() > 0


@pytest.mark.parametrize("slope", [1 / 6, 0.2, 1.0])
@pytest.mark.parametrize("reset_after", [False, True], ids=["before", "after"])
def test_hard_gates(reset_after, slope):
    """Values and gradients; torch's own hardsigmoid is the one of 1/6."""
    layer = make(5, 4, "tanh", reset_after, batch_first=True, gate_slope=slope)
    x = 3 * torch.randn(3, 7, 5, dtype=torch.float64)
    x.requires_grad_(True)
    gates = layer.weight_ih[:8] @ x.reshape(-1, 5).T  # some gates are shut, some open, some between
    open_ = (slope * gates + 0.5).clamp(0, 1)
    assert ((open_ == 0).any() and (open_ == 1).any()) or slope < 1
    (y, h_n), (want_y, want_h) = layer(x), reference(layer, x, None)
    torch.testing.assert_close(y, want_y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(h_n, want_h, rtol=1e-12, atol=1e-12)
    weight = (torch.randn_like(y), torch.randn_like(h_n))
    got = gradients(layer, lambda x: layer(x), (x,), weight)
    want = gradients(layer, lambda x: reference(layer, x, None), (x,), weight)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(_gate(1 / 6)(x), torch.nn.functional.hardsigmoid(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("name", "shape", "batch_first"), SHAPES, ids=[s[0] for s in SHAPES])
def test_is_torch_gru_where_they_agree(name, shape, batch_first, bias):
    layer = make(5, 4, bias=bias, batch_first=batch_first)
    peer = torch.nn.GRU(5, 4, bias=bias, batch_first=batch_first).double()
    with torch.no_grad():
        for mine, its in zip(layer.parameters(), peer.parameters(), strict=True):
            assert mine.shape == its.shape
            its.copy_(mine)
    assert [n + "_l0" for n, _ in layer.named_parameters()] == [n for n, _ in peer.named_parameters()]
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    h0 = torch.randn((1, 4) if len(shape) == 2 else (1, 3, 4), dtype=torch.float64, requires_grad=True)
    for got, want in zip(layer(x, h0), peer(x, h0), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    weight = (torch.randn((*shape[:-1], 4)), torch.randn(h0.shape))
    got = gradients(layer, layer, (x, h0), weight)
    want = gradients(peer, peer, (x, h0), weight)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_trains():
    torch.manual_seed(0)
    layer = GRU(3, 8, "relu", False, batch_first=True)
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
    assert losses[-1] < losses[0] / 3


def test_only_what_needs_a_gradient_gets_one():
    layer = make(3, 4)
    layer.weight_hh.requires_grad_(False)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    layer(x)[0].sum().backward()
    assert layer.weight_hh.grad is None and layer.weight_ih.grad is not None and x.grad is None


def test_operator_contract():
    """torch's own checks: schema, fake tensors, autograd registration, aliasing."""
    other = {"activation": "relu", "reset_after": False, "bias": False, "batch_first": True}
    for kwargs in ({}, other, {"gate_slope": 0.2}):
        layer = GRU(3, 4, **kwargs)
        args = (layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh)
        options = (layer.activation, layer.reset_after, layer.batch_first, layer.gate_slope)
        for x, h0 in (
            (torch.randn(2, 5, 3, requires_grad=True), None),
            (torch.randn(2, 5, 3), torch.randn(1, 2 if layer.batch_first else 5, 4, requires_grad=True)),
            (torch.randn(5, 3), torch.randn(1, 4)),
        ):
            checks = ("test_schema", "test_autograd_registration", "test_faketensor")
            torch.library.opcheck(torch.ops.rtcore.gru.default, (x, h0, *args, *options), test_utils=checks)


def test_stays_one_node_and_survives_a_file(tmp_path):
    layer = GRU(3, 4, "relu", False, batch_first=True).eval()
    x = torch.randn(2, 5, 3)
    program = torch.export.export(layer, (x,))
    calls = [n.target for n in program.graph.nodes if n.op == "call_function" and "getitem" not in str(n.target)]
    assert calls == [torch.ops.rtcore.gru.default]
    torch.export.save(program, tmp_path / "gru.pt2")
    for got, want in zip(torch.export.load(tmp_path / "gru.pt2").module()(x), layer(x), strict=True):
        assert torch.equal(got, want)
    code = f"import torch, quantize.nn; torch.export.load({str(tmp_path / 'gru.pt2')!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_is_a_module_like_others():
    layer = GRU(3, 4, "sigmoid", bias=False, batch_first=True)
    assert repr(layer) == "GRU(3, 4, activation='sigmoid', reset_after=True, bias=False, batch_first=True)"
    hard = "GRU(3, 4, activation='tanh', reset_after=True, bias=True, batch_first=False, gate_slope=0.2)"
    assert repr(GRU(3, 4, gate_slope=0.2)) == hard
    assert list(layer.state_dict()) == ["weight_ih", "weight_hh"]
    assert list(GRU(3, 4).state_dict()) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    assert all(p.abs().max() <= 1 / math.sqrt(4) and p.std() > 0.1 for p in GRU(3, 4).parameters())
    twin = copy.deepcopy(layer)
    x = torch.randn(2, 5, 3)
    assert torch.equal(twin(x)[0], layer(x)[0])


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((0, 4), ValueError, "input_size must be at least 1, got 0"),
        ((3, -1), ValueError, "hidden_size must be at least 1, got -1"),
        ((3.0, 4), TypeError, "input_size must be an int, got float"),
        ((3, True), TypeError, "hidden_size must be an int, got bool"),
        ((3, 4, "gelu"), ValueError, "activation must be one of tanh, relu, sigmoid, linear; got 'gelu'"),
        ((3, 4, "tanh", 1), TypeError, "reset_after must be True or False, got 1"),
        ((3, 4, "tanh", True, None), TypeError, "bias must be True or False, got None"),
        ((3, 4, "tanh", True, True, "yes"), TypeError, "batch_first must be True or False, got 'yes'"),
        (
            (3, 4, "tanh", True, True, False, 1.5),
            ValueError,
            "GRU: gate_slope is 1.5, expected 0 (sigmoid gates) or that of hard sigmoids, 0.001953125..1.0",
        ),
        ((3, 4, "tanh", True, True, False, "hard"), TypeError, "GRU: gate_slope must be a number, got 'hard'"),
        ((3, 4, "tanh", True, True, False, True), TypeError, "GRU: gate_slope must be a number, got True"),
    ],
)
def test_bad_arguments(args, error, message):
    with pytest.raises(error) as caught:
        GRU(*args)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("x", "h0", "message"),
    [
        (torch.zeros(3), None, "2-D or 3-D input, got shape (3,)"),
        (torch.zeros(5, 2, 4), None, "made for 3 input features, got 4"),
        (torch.zeros(5, 2, 3, dtype=torch.float64), None, "parameters are torch.float32, its input is torch.float64"),
        (torch.zeros(0, 2, 3), None, "at least one step"),
        (torch.zeros(5, 2, 3), torch.zeros(2, 4), "expects h0 of shape (1, 2, 4), got (2, 4)"),
        (torch.zeros(5, 3), torch.zeros(1, 2, 4), "expects h0 of shape (1, 4), got (1, 2, 4)"),
    ],
)
def test_bad_calls(x, h0, message):
    with pytest.raises(ValueError) as caught:
        GRU(3, 4)(x, h0)
    assert message in str(caught.value)
