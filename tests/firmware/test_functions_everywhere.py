"""Every kind of function and normalization on every engine: the oracle's bits on the host, in plain C and on every
emulated core, at the extremes of int16 too; and what the generated check refuses.

Neighbours: `test_simulator.py` (random nets, which hold these kinds among others), `test_emulator.py` (their stack),
`oracle.py`, `plain_c.py`.
"""

import ctypes
import dataclasses

import numpy as np
import pytest

import nets
import oracle
from bits import assert_equal_bits
from boards import EVERYWHERE
from firmware_sim import Simulator
from plain_c import PlainC
from quantize.emit_c import render


def frames_of(rng, tables):
    """Moderate, extreme and random frames; one that is constant, one with a single element at an extreme."""
    (x,) = nets.random_frames(rng, tables, 9)
    x[0], x[1] = 32767, -32768
    x[2] = 0
    x[2, 0] = -32768
    return x


@pytest.mark.parametrize(("seed", "width"), [(0, 1), (1, 7), (2, 33)])
def test_every_function_gives_the_oracles_bits_everywhere(seed, width):
    rng = np.random.default_rng(seed)
    tables = nets.function_net(rng, width)
    x = frames_of(rng, tables)
    outputs, trace, _ = oracle.run(tables, [x])
    for name, expected, actual in zip(tables.outputs, outputs, PlainC(tables).run([x])[0], strict=True):
        assert_equal_bits(expected, actual, f"plain C, output {name}", seed)
    for target in EVERYWHERE:
        simulator = Simulator(tables, target)
        simulator.run_raw(x, trace=True)
        for name, expected in trace.items():
            assert_equal_bits(expected, simulator.last_run.trace[name][0], f"{target}, tensor {name}", seed)


def checked(tables):
    """What NAME_check says of the tables that are linked."""
    library = PlainC(tables)
    weights = ctypes.c_char.in_dll(library.lib, "net_default_weights")
    return library.call("check", ctypes.c_void_p(ctypes.addressof(weights)))


def test_a_wrong_table_is_refused_by_the_check():
    tables = nets.function_net(np.random.default_rng(4), 3, 1)
    code = render(tables, "net")["net.c"].decode()
    assert "rtcore_table_i16_check(" in code
    assert checked(tables) == 0
    layers = [
        dataclasses.replace(layer, arrays={"nodes": np.full_like(layer.arrays["nodes"], 2**29)})
        if layer.kind == "table_i16"
        else layer
        for layer in tables.layers
    ]
    assert checked(dataclasses.replace(tables, layers=tuple(layers))) == -4  # RTCORE_E_TABLE
