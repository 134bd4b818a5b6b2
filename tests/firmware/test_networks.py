"""The six whole networks of `networks.py`, end to end: torch to tables, host, generated C, emulated cores.

Bits: the oracle's on the host for every tensor, the host's on every emulated core (`validate` compares outputs and
states). Accuracy: 75 dB with int16 weights and 40 with int8 against float64. Neighbours:
`test_windows_everywhere.py` (random nets of single kinds).
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

pytest.importorskip("torch", reason="an optional extra: rtcore[torch]")

import oracle
import quantize
from bits import assert_equal_bits
from firmware_sim import Simulator, validate
from networks import NETWORKS
from quantize.formats import to_raw
from quantize.signature import to_frames
from rtcore import Net

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export's, about its own treatment of nn.GRU

SOME = ("cortex-m0", "cortex-m4", "rv32imc")
BOUNDS = {16: 75.0, 8: 40.0}


@functools.cache
def quantized(name: str, bits: int):
    """(graph, model, network) of a network, quantized on half of its frames."""
    network = NETWORKS[name]()
    graph = quantize.import_model(network.model, network.frames)
    half = network.frames[: len(network.frames) // 2]
    return graph, quantize.quantize_graph(graph, [half], weight_bits=bits), network


@pytest.mark.parametrize("name", NETWORKS)
def test_the_form_is_found(name):
    graph, _, network = quantized(name, 16)
    timed = any("time" in argument.axes for argument in graph.signature.arguments)
    assert timed == (network.form == "stream"), graph.notes


@pytest.mark.parametrize("bits", BOUNDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_hosts_bits_are_the_oracles(name, bits):
    graph, qmodel, network = quantized(name, bits)
    frames, _, _ = to_frames(graph.signature, network.frames[-1:])
    tables = qmodel.tables
    inputs = [to_raw(frames[x], tables.tensors[x].frac)[0][:, :6] for x in tables.inputs]
    run = Net(tables).run(inputs, trace=True)
    _, trace, _ = oracle.run(tables, [x[0] for x in inputs])[:3]
    for tensor, rows in trace.items():
        assert_equal_bits(np.array(rows), run.trace[tensor][0], f"{name}: tensor {tensor}", 11)


@pytest.mark.parametrize("bits", BOUNDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_accuracy(name, bits):
    graph, qmodel, network = quantized(name, bits)
    report = validate(qmodel, graph, network.frames, min_sqnr=BOUNDS[bits])
    for output in report.outputs:
        print(f"{name}, {bits} bits: {output.name} {output.sqnr_db:.1f} dB")
    assert report.ok, f"{name}, {bits} bits: {[(o.name, o.sqnr_db) for o in report.outputs]}"


@pytest.mark.parametrize("target", SOME)
@pytest.mark.parametrize("bits", BOUNDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_firmwares_bits_are_the_hosts(name, bits, target):
    for module in ("ziglang", "unicorn", "elftools"):
        pytest.importorskip(module, reason="an optional extra: rtcore[mcu]")
    graph, qmodel, network = quantized(name, bits)
    frames = network.frames[:2] if network.frames.ndim > 2 else network.frames[:8]
    frames = frames[:, :12] if network.form == "stream" and frames.ndim > 2 else frames
    report = validate(qmodel, graph, frames, target, min_sqnr=0.0)
    assert report.ok, report


@pytest.mark.parametrize("name", NETWORKS)
def test_a_saved_network_gives_the_same(name, tmp_path):
    _, qmodel, network = quantized(name, 8)
    path = tmp_path / "net.safetensors"
    qmodel.save(path)
    one, other = (Simulator(model).run(network.frames[:2]) for model in (qmodel, quantize.load(path)))
    pairs = zip(*([r] if isinstance(r, np.ndarray) else list(r) for r in (one, other)), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
