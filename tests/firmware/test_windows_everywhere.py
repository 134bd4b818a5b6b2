"""Window nets on every engine: the oracle's bits on the host, in plain C and on every emulated core, tensor by tensor.

Neighbours: `window_nets.py` (the nets), `tests/rtcore/test_windows.py` (the host under disturbances), `oracle.py`,
`plain_c.py`, `test_functions_everywhere.py` (the same for functions).
"""

import ctypes
import re
import subprocess
from dataclasses import replace

import numpy as np
import pytest

import nets
import oracle
import window_nets
from bits import assert_equal_bits
from boards import EVERYWHERE
from firmware_sim import Simulator
from firmware_sim.toolchain import build_host_library
from plain_c import PlainC
from quantize.emit_c import render
from quantize.golden import golden_vectors


def everywhere(tables, frames, seed):
    """Every engine against the oracle: outputs, every tensor, every state."""
    outputs, trace, states = oracle.run(tables, frames)
    found, history = PlainC(tables).run(frames)
    for name, expected, actual in zip(tables.outputs, outputs, found, strict=True):
        assert_equal_bits(expected, actual, f"plain C, output {name}", seed)
    for name, values in states.items():
        assert_equal_bits(values, history[name], f"plain C, state of {name}", seed)
    for target in EVERYWHERE:
        simulator = Simulator(tables, target)
        simulator.run_raw(tuple(frames) if len(frames) > 1 else frames[0], trace=True)
        for name, expected in trace.items():
            assert_equal_bits(expected, simulator.last_run.trace[name][0], f"{target}, tensor {name}", seed)
        for name, expected in states.items():
            assert_equal_bits(expected, simulator.last_run.state_trace[name][0], f"{target}, state of {name}", seed)


@pytest.mark.parametrize("how", range(window_nets.FORMS))
def test_every_form_gives_the_oracles_bits_everywhere(how):
    rng = np.random.default_rng(100 + how)
    tables = window_nets.random_window(rng, how=how)
    everywhere(tables, nets.random_frames(rng, tables, 3), 100 + how)


@pytest.mark.parametrize("acc", [32, 64])
@pytest.mark.parametrize("bits", [8, 16])
def test_every_option_of_a_window_gives_the_oracles_bits_everywhere(bits, acc):
    seed = bits + acc
    rng = np.random.default_rng(seed)
    tables = window_nets.option_net(rng, bits, acc)
    frames = nets.random_frames(rng, tables, 4)
    frames[0][0], frames[0][1] = 32767, -32768
    everywhere(tables, frames, seed)


def changed(tables, kind, **arrays):
    """The tables with arrays of every layer of a kind replaced."""
    layers = [replace(x, arrays=x.arrays | arrays) if x.kind == kind and x.arrays else x for x in tables.layers]
    return replace(tables, layers=tuple(layers))


def weights_of(library):
    """The address of the tables that are linked."""
    return ctypes.addressof(ctypes.c_char.in_dll(library.lib, "net_default_weights"))


@pytest.mark.parametrize(
    ("kind", "arrays", "error"),
    [
        ("conv_i16", {}, 0),
        ("conv_i16", {"weights": np.full((9, 12), -32768, np.int16)}, -6),  # RTCORE_E_WEIGHT
        ("conv_i16", {"shift": np.full(9, 63, np.uint8)}, -5),  # RTCORE_E_SHIFT
        ("pool_i16", {"mult": np.full(7, -1, np.int32)}, -5),
    ],
)
def test_the_generated_check_judges_the_tables_of_windows(kind, arrays, error):
    tables = changed(window_nets.option_net(np.random.default_rng(0), 16, 64, ["in groups"]), kind, **arrays)
    library = PlainC(tables)
    assert library.call("check", ctypes.c_void_p(weights_of(library))) == error


def test_tables_of_another_window_are_refused():
    """The same struct with one number of its geometry changed, as a table loaded from elsewhere may have it."""
    library = PlainC(window_nets.option_net(np.random.default_rng(0), 16, 64, ["in groups"]))
    symbols = subprocess.run(["nm", "-S", library.lib._name], check=True, capture_output=True, text=True).stdout
    size = int(re.search(r"^\w+ (\w+) \w net_default_weights$", symbols, re.M)[1], 16)
    original = ctypes.string_at(weights_of(library), size)
    assert library.call("check", ctypes.create_string_buffer(original, size)) == 0
    numbers = np.frombuffer(original, np.int32)
    geometry = [4, 5, 3, 5, 2, 3, 1, 1, 1, 1, 0, 1]  # rtcore_window of the option, as it stands in memory
    at = next(k for k in range(numbers.size - 12) if numbers[k : k + 12].tolist() == geometry)
    for member in range(12):
        other = numbers.copy()
        other[at + member] += 1
        assert library.call("check", ctypes.create_string_buffer(other.tobytes(), size)) == -1, member


def test_a_loop_is_written_for_rows_and_none_for_a_single_one():
    b = window_nets.WindowBuilder(np.random.default_rng(2))
    x = b.input(12)
    both = b.bidirectional(x, 3, 4, 4)
    b.output(both)
    code = render(b.tables(), "net")["net.c"].decode()
    rows = sum(layer.ints.get("rows", 1) > 1 for layer in b.layers)
    assert code.count("    for (int r = ") == rows == 2
    assert " + r * 4" in code and "rtcore_state_i16_set(" in code


@pytest.mark.parametrize("how", [2, 3, 7])
def test_golden_vectors_of_a_window_replay(how):
    tables = window_nets.random_window(np.random.default_rng(how), how=how)
    library = ctypes.CDLL(str(build_host_library(tables, selftest=golden_vectors(tables, 5))))
    assert library.net_selftest() == 0
