"""Window nets on every engine: the oracle's bits on the host, in plain C and on every emulated core, tensor by tensor.

Neighbours: `window_nets.py` (the nets), `tests/rtcore/test_windows.py` (the host under disturbances), `oracle.py`,
`plain_c.py`, `test_functions_everywhere.py` (the same for functions).
"""

import numpy as np
import pytest

import nets
import oracle
import window_nets
from bits import assert_equal_bits
from firmware_sim import Simulator
from firmware_sim.toolchain import TARGETS
from plain_c import PlainC


def everywhere(tables, frames, seed):
    """Every engine against the oracle: outputs, every tensor, every state."""
    outputs, trace, states = oracle.run(tables, frames)
    found, history = PlainC(tables).run(frames)
    for name, expected, actual in zip(tables.outputs, outputs, found, strict=True):
        assert_equal_bits(expected, actual, f"plain C, output {name}", seed)
    for name, values in states.items():
        assert_equal_bits(values, history[name], f"plain C, state of {name}", seed)
    for target in ("host", *TARGETS):
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
