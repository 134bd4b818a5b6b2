"""Kernels of a core's own against the portable ones on the same core: equal bits at every width, fewer instructions.

Neighbours: `rtcore/csrc/<core>/` (the kernels), `rtcore/_build.py` (CORES), `test_everywhere.py` (each target's own
kernels against the oracle).
"""

import numpy as np
import pytest

from bits import assert_equal_bits
from firmware_sim import Simulator
from firmware_sim.toolchain import TARGETS, build_firmware
from nets import Builder, random_frames, random_initial, random_tables
from quantize import QuantizeError
from quantize.emit_c import render

OWN = [name for name, target in TARGETS.items() if target.core != "portable"]


def dense(rng, columns, bits, acc):
    """One linear layer of a width that leaves remainders everywhere."""
    b = Builder(rng)
    y = b.tensor("y0", 5, 11, "output", index=0)
    b.outputs.append(y)
    b.dense(b.input(columns), 5, "linear", bits, acc, into=y)
    return b.tables()


@pytest.mark.parametrize("acc", [32, 64])
@pytest.mark.parametrize("bits", [8, 16])
def test_every_remainder_of_the_loops_gives_the_portable_bits(bits, acc):
    for columns in (*range(1, 19), 31, 32, 33):
        rng = np.random.default_rng(columns)
        tables = dense(rng, columns, bits, acc)
        frames = random_frames(rng, tables, 6)[0]
        frames[0], frames[1] = 32767, -32768
        host = Simulator(tables).run_raw(frames)
        own, portable = Simulator(tables, "cortex-m4"), Simulator(tables, "cortex-m4", core="portable")
        assert_equal_bits(host, own.run_raw(frames), f"{columns} columns, cortex-m4's own kernels", columns)
        assert_equal_bits(host, portable.run_raw(frames), f"{columns} columns, portable kernels", columns)


@pytest.mark.parametrize("target", OWN)
@pytest.mark.parametrize("seed", [3, 12])
def test_own_and_portable_kernels_agree_on_whole_nets(target, seed):
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, 60)
    frames = random_frames(rng, tables, 4)
    arguments = (*frames, *(random_initial(rng, tables) or []))
    runs = [Simulator(tables, target, core=core) for core in (None, "portable")]
    for simulator in runs:
        simulator.run_raw(arguments if len(arguments) > 1 else frames[0])
    for name, a, b in zip(tables.outputs, runs[0].last_run.outputs, runs[1].last_run.outputs, strict=True):
        assert_equal_bits(a[0], b[0], f"{target}, output {name}", seed)
    assert (runs[0].instructions < runs[1].instructions).all()


def test_a_core_that_does_not_fit_is_named():
    tables = dense(np.random.default_rng(0), 4, 8, 32)
    with pytest.raises(QuantizeError, match="unknown core 'cortex-m99'; kernels exist for portable, cortex-m4"):
        render(tables, "net", core="cortex-m99")
    with pytest.raises(QuantizeError, match="cortex-m0 does not run the kernels of 'cortex-m4'"):
        build_firmware(tables, "cortex-m0", core="cortex-m4")


def test_generated_tables_are_aligned_for_the_core_that_needs_it():
    tables = dense(np.random.default_rng(0), 4, 8, 32)
    files = {core: render(tables, "net", core=core) for core in ("portable", "cortex-m4")}
    assert b"aligned" not in files["portable"]["net_weights.h"]
    assert b"__attribute__((aligned(4))) int8_t" in files["cortex-m4"]["net_weights.h"]
    different = {name for name in files["portable"] if files["portable"][name] != files["cortex-m4"][name]}
    assert different == {"net_weights.h", "rtcore/rtcore_sums4.c"}
