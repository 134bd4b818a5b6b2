"""Depthwise convolutions of Cortex-M3, M4 and M55 against the host: equal bits of every geometry, of every form of
a layer and at its extremes; which layers their kernel takes, and that portable kernels refuse a stream.

Neighbours: `rtcore/csrc/thumb2/rtcore_depthwise_stream_i16.c` (the kernel), `rtcore/streams.py` (what it reads),
`test_windows_everywhere.py` (every core against the oracle).
"""

import ctypes
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from bits import assert_equal_bits
from boards import EVERYWHERE, M55, on
from firmware_sim import Simulator
from firmware_sim.disassembly import Code
from firmware_sim.engines import McuEngine
from firmware_sim.stack import StackReader
from firmware_sim.toolchain import build_firmware, find_target
from nets import random_frames
from quantize.emit_c import render, unreached
from rtcore import streams
from rtcore.packing import PackedStream, pack_depthwise
from rtcore.tables import ACTIVATIONS
from window_nets import WindowBuilder, geometry

TARGETS = [name for name in EVERYWHERE if name in ("cortex-m3", "cortex-m4", M55)]
CORES = list(streams.DEPTHWISE_STREAMS)
SIZE = (5, 6)  # of the input


def axis(rng, size):
    """(in, kernel, stride, dilation, padding before, after) with at least one output."""
    while True:
        kernel, stride, dilation = (int(n) for n in (rng.integers(1, 6), rng.integers(1, 4), rng.integers(1, 4)))
        before, after = (int(n) for n in rng.integers(0, kernel * dilation + 1, 2))
        if size + before + after > dilation * (kernel - 1):
            return size, kernel, stride, dilation, before, after


def layer(b, x, channels, multiplier=1, axes=None, **changes):
    """A depthwise layer over the first channels of x with random tables; changes: of its arrays and ints."""
    ints = geometry(*(axes or [axis(b.rng, size) for size in SIZE])) | {"multiplier": multiplier}
    part, n = b.slice(x, 0, int(np.prod(SIZE)) * channels), channels * multiplier
    bits, acc = changes.pop("form", (None, None))
    y = b.convolution("depthwise_i16", part, ints, channels, n, ints["kernel_h"] * ints["kernel_w"], bits, acc)
    last = b.layers[-1]
    arrays = {name: np.broadcast_to(changes.get(name, a), a.shape).astype(a.dtype) for name, a in last.arrays.items()}
    own = {name: changes[name] for name in last.ints if name in changes}
    b.layers[-1] = replace(last, ints=last.ints | own, arrays=arrays)
    b.output(y)


def agree(tables, frames, seed):
    """The cores give the host's bits, tensor by tensor. Returns the layers' forms, None for tables."""
    host = Simulator(tables)
    host.run_raw(frames)
    for target in TARGETS:
        own = Simulator(tables, target)
        own.run_raw(frames)
        for name, a, b in zip(tables.outputs, host.last_run.outputs, own.last_run.outputs, strict=True):
            assert_equal_bits(a[0], b[0], f"{target}, output {name}", seed)
    layers = [x for x in tables.layers if x.kind == "depthwise_i16"]
    forms = [[getattr(pack_depthwise(x, core)[0], "form", None) for x in layers] for core in CORES]
    assert forms == forms[:1] * len(CORES)
    return forms[0]


@pytest.mark.parametrize("form", [(8, 32), (8, 64), (16, 32), (16, 64)], ids="w{0[0]}_a{0[1]}".format)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_windows_over_every_number_of_channels(form, seed):
    rng = np.random.default_rng(seed)
    b = WindowBuilder(rng)
    x = b.input(int(np.prod(SIZE)) * 17)
    for channels in (*range(1, 18), 4, 8, 12, 16):
        layer(b, x, channels, multiplier=1 + (channels == 8 and b.coin()), form=form)
    tables = b.tables()
    forms = agree(tables, random_frames(rng, tables, 6)[0], seed)
    assert any(forms) and None in forms


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_full_scale(activation):
    """Weights, biases and inputs at the ends of their ranges: sums that just fit, rows that leave ACT and, without a
    stream, rows that leave PRE."""
    rng = np.random.default_rng(3)
    b = WindowBuilder(rng)
    x = b.input(int(np.prod(SIZE)) * 8)
    axes = (SIZE[0], 5, 1, 1, 2, 2), (SIZE[1], 5, 1, 1, 2, 2)
    for bits, ends in ((8, [-128, 127]), (16, [-32767, 32767])):
        for shift in (2, 12, 22, 30):
            weights = rng.choice(ends, (8, 25))
            weights[0], weights[1] = ends
            mult, bias = (rng.integers(16384, 32768, 8), 2**30) if bits == 8 else (1, 2**44)
            tables = {"weights": weights, "bias": rng.choice([-bias, bias], 8), "mult": mult, "shift": shift}
            numbers = {"activation": ACTIVATIONS[activation], "acc_bits": 32 if bits == 8 else 64}
            layer(b, x, 8, axes=axes, form=(bits, 32 if bits == 8 else 64), **tables, **numbers)
    frames = random_frames(rng, b.tables(), 6)[0]
    frames[0], frames[1] = 32767, -32768
    forms = agree(b.tables(), frames, 3)
    w8, w16 = streams.W8_A32 + streams.BOUNDED, streams.W16_A64 + streams.BOUNDED
    assert forms == [None, None, w8, w8, None, None, w16, w16]


def test_a_stream_is_packed_for_what_the_kernel_takes():
    b = WindowBuilder(np.random.default_rng(0))
    x = b.input(int(np.prod(SIZE)) * 8)
    layer(b, x, 8, form=(8, 32), activation=ACTIVATIONS["relu"], shift=30)
    one = b.tables().layers[0]
    for core in CORES:
        (packed,) = pack_depthwise(one, core)
        assert isinstance(packed, PackedStream)
        assert packed.stride * 2 == packed.nbytes == 2 * (36 + 4 * one.arrays["weights"].shape[1])
    others = (("portable", one), ("cortex-m4", replace(one, ints=one.ints | {"activation": ACTIVATIONS["tanh"]})))
    for core, other in others:
        assert not isinstance(pack_depthwise(other, core)[0], PackedStream)


@pytest.mark.parametrize("target", on("cortex-m3", "cortex-m4", M55))
def test_streams_alone_need_no_stack_for_tables(target):
    """The worst stack is that of the stream, and reached; with tables beside it, it is theirs."""
    b = WindowBuilder(np.random.default_rng(0))
    x = b.input(int(np.prod(SIZE)) * 8)
    found = []
    for multiplier in (1, 2):
        layer(b, x, 8, multiplier, form=(8, 32), activation=ACTIVATIONS["relu"], shift=30)
        tables = b.tables()
        engine = McuEngine(tables, build_firmware(tables, target))
        reader = StackReader(engine.board, Code(engine.board), unreached(tables, find_target(target).core))
        io = (address for address, _ in (*engine.inputs, *engine.outputs))
        found.append((engine.board.stack_used("net_step", engine.state, *io), reader.worst("net_step")))
    (painted, stream), (deeper, both) = found
    assert 0 < painted == stream.bytes < deeper <= both.bytes
    assert "rtcore_depthwise_i16_tables_position" in both.chain


def test_portable_kernels_refuse_a_stream(tmp_path):
    b = WindowBuilder(np.random.default_rng(0))
    layer(b, b.input(int(np.prod(SIZE)) * 8), 8, form=(8, 32), activation=ACTIVATIONS["relu"], shift=30)
    own, portable = (render(b.tables(), "net", core=core) for core in ("cortex-m4", "portable"))
    for name, weights, result in (("portable", portable, 0), ("own", own, -4)):  # RTCORE_E_TABLE
        folder = tmp_path / name
        for file, text in (portable | {"net_weights.h": weights["net_weights.h"]}).items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(text)
        sources = [*folder.glob("*.c"), *folder.glob("rtcore/*.c")]
        subprocess.run(["cc", "-shared", "-fPIC", "-I", folder, *sources, "-o", folder / "net.so"], check=True)
        library = ctypes.CDLL(str(folder / "net.so"))
        tables = ctypes.addressof(ctypes.c_char.in_dll(library, "net_default_weights"))
        assert library.net_check(ctypes.c_void_p(tables)) == result
