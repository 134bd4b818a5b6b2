"""DenseF32 and GruF32 against torch in float32: nn.Linear, nn.GRU, and a reset-before GRU written out in torch.

Neighbours: `tests/rtcore/test_f32.py` (the same classes against numpy, to the bit).
"""

import numpy as np
import pytest

from rtcore import DenseF32, GruF32

torch = pytest.importorskip("torch", reason="torch is an optional extra: rtcore[torch]")

# Greatest difference over greatest value. Both sides round every operation to 2^-24 of itself but sum in different
# orders; the sums here hold up to some 200 terms, and a GRU's state feeds back over 100 frames.
LIMIT = 2e-6
FRAMES = 100

ACTIVATIONS = {"linear": lambda x: x, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}


def assert_near(layer, actual, expected, seed):
    """Normalised by the greatest value; prints the worst elements by difference and by their own relative error."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype == np.float32
    difference = np.abs(actual.astype(np.float64) - expected)
    relative = difference / np.maximum(np.abs(expected), np.finfo(np.float32).tiny)
    error = difference.max() / np.abs(expected).max()
    worst = tuple(int(i) for i in np.unravel_index(difference.argmax(), difference.shape))
    own = tuple(int(i) for i in np.unravel_index(relative.argmax(), relative.shape))
    summary = (
        f"{layer} seed {seed}: normalised {error:.3g}, at {list(worst)} expected {expected[worst]:.9g}, "
        f"actual {actual[worst]:.9g}; elementwise {relative[own]:.3g} at {list(own)} of {expected[own]:.3g}"
    )
    print(summary)
    assert error <= LIMIT, summary


def arrays(module):
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize(("m", "n"), [(1, 1), (42, 24), (97, 131)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(m, n, bias, activation):
    seed = 1
    torch.manual_seed(seed)
    linear = torch.nn.Linear(m, n, bias=bias)
    x = torch.randn(FRAMES, m)
    with torch.no_grad():
        expected = ACTIVATIONS[activation](linear(x)).numpy()
    layer = DenseF32.from_torch(**arrays(linear), activation=activation)
    assert_near(f"Linear {m}x{n} {activation}", layer.run(x.numpy()), expected, seed)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (13, 7), (42, 24), (90, 96), (65, 131)])
@pytest.mark.parametrize("bias", [True, False])
def test_gru(m, n, bias):
    seed = 2
    torch.manual_seed(seed)
    gru = torch.nn.GRU(m, n, bias=bias)
    x, h = torch.randn(FRAMES, m), torch.rand(n) - 0.5
    with torch.no_grad():
        expected = gru(x, h[None])[0].numpy()
    w = {name.removesuffix("_l0"): values for name, values in arrays(gru).items()}
    layer = GruF32.from_torch(**w)
    layer.state = h.numpy()
    assert_near(f"GRU {m}x{n} bias={bias}", layer.run(x.numpy()), expected, seed)


def reset_before_gru(weight_ih, weight_hh, bias_ih, bias_hh, activation, x, h):
    """h~ = act(Wx + R (r o h) + b), torch's gate order r, z, n and h' = z h + (1 - z) h~."""
    n = len(h)
    bias = bias_ih + bias_hh
    out = []
    for frame in x:
        inputs = weight_ih @ frame + bias
        r, z = torch.sigmoid(inputs[: 2 * n] + weight_hh[: 2 * n] @ h).chunk(2)
        candidate = ACTIVATIONS[activation](inputs[2 * n :] + weight_hh[2 * n :] @ (r * h))
        h = z * h + (1 - z) * candidate
        out.append(h)
    return torch.stack(out)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize(("m", "n"), [(1, 1), (42, 24), (65, 97)])
def test_gru_with_reset_before(m, n, activation):
    seed = 3
    torch.manual_seed(seed)
    gru = torch.nn.GRU(m, n)
    w = [getattr(gru, f"{name}_l0").detach() for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    x = torch.randn(FRAMES, m)
    expected = reset_before_gru(*w, activation, x, torch.zeros(n)).numpy()
    layer = GruF32.from_torch(*(p.numpy() for p in w), activation=activation, reset_after=0)
    assert_near(f"GRU reset before {m}x{n} {activation}", layer.run(x.numpy()), expected, seed)
