"""Float bits agree: dense, GRU and the activations on emulated cores are those of DenseF32 and GruF32 here.

The kernels are compiled as they are, without and with a floating-point unit, and called from a driver without main.
Neighbours: `test_f32_layers_mcu.py` (the other float layers), `rtcore/csrc/rtcore_*_f32.c`, `tests/rtcore/test_f32.py`
(the host's bits against numpy), `firmware_sim/board/` (start-up code, memory), `firmware_sim/emulator.py` (the core).
"""

import subprocess
import sys

import numpy as np
import pytest

from firmware_sim.emulator import Emulator
from firmware_sim.toolchain import BOARD, SCRIPT, TARGETS, Firmware
from rtcore import DenseF32, GruF32, _build

for module in ("ziglang", "unicorn", "elftools"):
    pytest.importorskip(module, reason="an optional extra: rtcore[mcu]")

SEED = 5
FRAMES, INPUTS, UNITS = 6, 9, 13  # a block of 8 rows, one of 4 and one alone

# Case: target, compiler flags. The M7's unit gets fused multiply-adds as soon as a compiler may contract.
CASES = {
    "soft-m4": ("cortex-m4", ("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m4")),
    "soft-m0": ("cortex-m0", ("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0")),
    "soft-m3": ("cortex-m3", ("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m3")),
    "hard-m4": ("cortex-m4", ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp")),
    "hard-m7": ("cortex-m7", ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m7+fp_armv8d16sp")),
    "soft-rv32imc": ("rv32imc", ("-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+c", "-mabi=ilp32")),
}

DRIVER = """
#include "rtcore.h"
{tables}
enum {{ T = {frames}, M = {inputs}, N = {units}, X = {n_sweep} }};
float hidden[T * N], states_after[T * N], states_before[T * N], states_hard[T * N], sigmoids[X], tanhs[X];
void run(void);
void run(void) {{
    static float after[N], before[N], hard[N], scratch[3 * N];
    const rtcore_dense_f32 dense = {{dense_b, dense_w, M, N, RTCORE_ACTIVATION_TANH}};
    const rtcore_gru_f32 gru_after = {{after_b, after_w, after_r, N, N, RTCORE_ACTIVATION_TANH, 1}};
    const rtcore_gru_f32 gru_before = {{before_b, before_w, before_r, N, N, RTCORE_ACTIVATION_RELU, 0}};
    for (int t = 0; t < T; t++) {{
        rtcore_dense_f32_step(&dense, hidden + t * N, frames + t * M);
        rtcore_gru_f32_step(&gru_after, after, hidden + t * N, scratch);
        rtcore_gru_f32_step(&gru_before, before, hidden + t * N, scratch);
        rtcore_gru_f32_gated(&gru_after, 0.2f, hard, hidden + t * N, scratch);
        for (int i = 0; i < N; i++) {{
            states_after[t * N + i] = after[i];
            states_before[t * N + i] = before[i];
            states_hard[t * N + i] = hard[i];
        }}
    }}
    rtcore_activation_f32(sigmoids, sweep, X, RTCORE_ACTIVATION_SIGMOID);
    rtcore_activation_f32(tanhs, sweep, X, RTCORE_ACTIVATION_TANH);
}}
"""


def c_array(name, values):
    """Nine digits carry a float32 exactly."""
    flat = np.ravel(values)
    return f"static const float {name}[{flat.size}] = {{" + ", ".join(f"{v:.8e}f" for v in flat.tolist()) + "};\n"


def inputs():
    """Named float32 tables, frames and the activations' sweep."""
    rng = np.random.default_rng(SEED)

    def normal(*shape):
        return rng.normal(0, 0.7, shape).astype(np.float32)

    m, n = INPUTS, UNITS
    tables = {"dense_w": normal(m, n), "dense_b": normal(n)}
    for gru, biases in (("after", 6), ("before", 3)):
        tables |= {f"{gru}_w": normal(n, 3 * n), f"{gru}_r": normal(n, 3 * n), f"{gru}_b": normal(biases * n)}
    exponents = np.float32(1.37) * np.exp2(np.arange(-149, 128, 3, dtype=np.float64)).astype(np.float32)
    bends = np.linspace(0, 110, 441, dtype=np.float32)  # to where sigmoid underflows, subnormals on the way
    sweep = np.concatenate((exponents, bends, np.float32([0.6249999, 0.625, 3.4e38])))
    return tables | {"frames": normal(FRAMES, m), "sweep": np.concatenate((sweep, -sweep))}


def on_host(t):
    hidden = DenseF32(t["dense_w"], t["dense_b"], "tanh").run(t["frames"])
    one, zero = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    return {
        "hidden": hidden,
        "states_after": GruF32(t["after_w"], t["after_r"], t["after_b"], "tanh", 1).run(hidden),
        "states_before": GruF32(t["before_w"], t["before_r"], t["before_b"], "relu", 0).run(hidden),
        "states_hard": GruF32(t["after_w"], t["after_r"], t["after_b"], "tanh", 1, gate_slope=0.2).run(hidden),
        "sigmoids": DenseF32(one, zero, "sigmoid").run(t["sweep"][:, None]),
        "tanhs": DenseF32(one, zero, "tanh").run(t["sweep"][:, None]),
    }


def build(folder, driver, target, flags):
    """The driver, the kernels and the board's start-up code, linked for a target."""
    (folder / "driver.c").write_text(driver)
    board = TARGETS[target]
    sources = [str(_build.CSRC / name) for name in _build.SOURCES_F32] + [str(BOARD / board.startup)]
    compile_flags = (*flags, "-O2", "-g0", *_build.WARNINGS, *_build.KERNEL_FLAGS, f"-I{_build.CSRC}")
    command = [sys.executable, "-m", "ziglang", "cc", *compile_flags, "driver.c", *sources]
    subprocess.run(
        [*command, "-Wl,-u,run", "-Wl,-e,board_reset", "-T", str(BOARD / SCRIPT), "-o", "run.elf"],
        cwd=folder,
        check=True,
    )
    return Firmware(folder / "run.elf", board, "run")


@pytest.mark.parametrize("case", CASES)
def test_bits_agree_with_the_host(tmp_path, case):
    t = inputs()
    tables = "".join(c_array(name, values) for name, values in t.items())
    driver = DRIVER.format(tables=tables, frames=FRAMES, inputs=INPUTS, units=UNITS, n_sweep=t["sweep"].size)
    assert_same_bits(tmp_path, driver, case, on_host(t))


def assert_same_bits(folder, driver, case, expected):
    """A driver's run() fills arrays by the names of `expected`, with its bits."""
    emulator = Emulator(build(folder, driver, *CASES[case]))
    emulator.call("run")
    print(f"{case}: {emulator.instructions} instructions")
    for name, values in expected.items():
        assert np.ptp(values[np.isfinite(values)]) > 0.1, name
        values = values.ravel()
        actual = np.frombuffer(emulator.read(name, values.nbytes), np.float32)
        same = (values.view(np.uint32) == actual.view(np.uint32)) | (np.isnan(values) & np.isnan(actual))
        wrong = np.flatnonzero(~same)  # which NaN a machine makes is its own affair
        if len(wrong):
            i = int(wrong[0])
            raise AssertionError(
                f"{name} [{i}]: host {values[i]!r}, {case} {actual[i]!r}, seed {SEED}; "
                f"{len(wrong)} of {values.size} differ"
            )
