"""Window kernels against torch's own operations on the very numbers that the integers stand for.

The integers are exact sums rounded once, so that they lie within half an LSB of torch in float64 (a hair more, for its
own rounding); an average's multiplier is itself rounded, to 2^-24: one LSB. Largest values are equal. The tables'
weights come back through `dequantized`, which must give them in torch's order. Neighbours: `window_nets.py`,
`tests/rtcore/test_windows.py`.
"""

import numpy as np
import pytest
import torch

from quantize.dequantize import dequantized
from quantize.graph import Node
from rtcore import Layer, Net, Tables, Tensor
from window_nets import OPTIONS, WindowBuilder

FRAC = 9
LSB = 2.0**-FRAC


def run(layer, x, out):
    """One layer on int16 x of any shape -> int16 of shape `out`, and the tables."""
    tensors = {"x": Tensor("x", x.size, 11, "input"), "y": Tensor("y", int(np.prod(out)), FRAC, "output")}
    tables = Tables(tensors, (layer,), ("x",), ("y",))
    return Net(tables).run([x.reshape(1, 1, -1)]).outputs[0].reshape(out), tables


def planes(x, frac):
    """[H][W][C] to torch's [1, C, H, W] in float64."""
    return torch.from_numpy(np.moveaxis(x, -1, 0)[None] * 2.0**-frac)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("what", OPTIONS)
def test_convolutions_are_torchs(what, depthwise, bits):
    ints, m, per_group, groups = OPTIONS[what]
    rng = np.random.default_rng(len(what))
    b = WindowBuilder(rng)
    groups = m if depthwise else groups
    n = per_group * groups
    arrays = b.rows(n, ints["kernel_h"] * ints["kernel_w"] * m // groups, 11.0, bits, True, 64)
    own = {"multiplier": per_group} if depthwise else {"groups": groups}
    ints = ints | own | {"nb_inputs": m, "nb_neurons": n, "activation": 0, "acc_bits": 64}
    layer = Layer("depthwise_i16" if depthwise else "conv_i16", "conv", ("x",), "y", ints, arrays)
    x = rng.integers(-8000, 8001, (ints["in_h"], ints["in_w"], m)).astype(np.int16)
    y, tables = run(layer, x, (ints["out_h"], ints["out_w"], n))
    params = dequantized(Node("linear", "conv", ("x",), "y"), layer, tables).params
    assert params["weight"].shape == (n, m // groups, ints["kernel_h"], ints["kernel_w"])
    after = [
        (ints[f"out_{ax}"] - 1) * ints[f"stride_{ax}"]
        + ints[f"dilation_{ax}"] * (ints[f"kernel_{ax}"] - 1)
        - ints[f"pad_{ax}"]
        + 1
        - ints[f"in_{ax}"]
        for ax in "hw"
    ]
    padded = torch.nn.functional.pad(planes(x, 11), (ints["pad_w"], after[1], ints["pad_h"], after[0]))
    expected = torch.nn.functional.conv2d(
        padded,
        *(torch.from_numpy(np.ascontiguousarray(params[name])) for name in ("weight", "bias")),
        stride=(ints["stride_h"], ints["stride_w"]),
        dilation=(ints["dilation_h"], ints["dilation_w"]),
        groups=groups,
    )
    expected = np.clip(np.moveaxis(expected[0].numpy(), 0, -1), -32768 * LSB, 32767 * LSB)
    assert np.abs(y * LSB - expected).max() <= 0.5001 * LSB
    assert np.abs(y).max() > 100


@pytest.mark.parametrize("seed", range(40))
def test_pools_are_torchs(seed):
    rng = np.random.default_rng(seed)
    kernel, stride = (tuple(int(v) for v in rng.integers(1, 5, 2)) for _ in range(2))
    pad = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    ceil, count_pad, largest = (bool(v) for v in rng.integers(0, 2, 3))
    dilation = tuple(int(v) for v in rng.integers(1, 3, 2)) if largest else (1, 1)
    size = tuple(int(rng.integers(d * (k - 1) + 1, 12)) for k, d in zip(kernel, dilation, strict=True))
    x = rng.integers(-32768, 32768, (*size, 3)).astype(np.int16)
    if largest:
        module = torch.nn.MaxPool2d(kernel, stride, pad, dilation, ceil_mode=ceil)
    else:
        module = torch.nn.AvgPool2d(kernel, stride, pad, ceil_mode=ceil, count_include_pad=count_pad)
    expected = np.moveaxis(module(planes(x, FRAC))[0].numpy(), 0, -1)
    ints = {"n": 3, "largest": int(largest), "count_pad": int(count_pad), "shift": 0 if largest else 24}
    for k, ax in enumerate("hw"):
        numbers = {
            "in": size,
            "out": expected.shape,
            "kernel": kernel,
            "stride": stride,
            "dilation": dilation,
            "pad": pad,
        }
        ints |= {f"{name}_{ax}": int(values[k]) for name, values in numbers.items()}
    counts = range(1, kernel[0] * kernel[1] + 1)
    mult = {} if largest else {"mult": np.array([0, *(round(2**24 / c) for c in counts)], np.int32)}
    y, _ = run(Layer("pool_i16", "pool", ("x",), "y", ints, mult), x, expected.shape)
    assert np.abs(y * LSB - expected).max() <= (0 if largest else LSB)


def test_an_embedding_is_its_table():
    table = np.arange(-6, 6, dtype=np.int16)
    layer = Layer("embedding_i16", "emb", ("x",), "y", {"n": 3, "entries": 4}, {"table": table})
    y, tables = run(layer, np.array([2], np.int16), (3,))
    rows = dequantized(Node("embedding", "emb", ("x",), "y"), layer, tables).params["table"]
    assert np.array_equal(rows[2], y * LSB)
