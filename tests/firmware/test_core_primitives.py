"""The arithmetic that a core may write its own way (`rtcore_core.h`, `rtcore_wide.h`) against whole numbers in Python:
at the ends of its ranges, about points where a chord or a rounding begins, and at random.

Neighbours: `rtcore/csrc/rtcore_fixed.h` (what each promises), `test_cores.py` (rows and nets).
"""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from firmware_sim.emulator import Emulator
from firmware_sim.toolchain import BOARD, SCRIPT, TARGETS, Firmware, build_firmware
from nets import gru_net
from oracle import half_up, pre, sigma_minus
from rtcore import _build

for module in ("ziglang", "unicorn", "elftools"):
    pytest.importorskip(module, reason="an optional extra: rtcore[mcu]")

SEED = 71
MIN, MAX = -(2**31), 2**31 - 1

DRIVER = """
#include "rtcore_fixed.h"
#define FUNCTION(name, parameters, result) int32_t name parameters; int32_t name parameters { return result; }
FUNCTION(meet_0, (int32_t a, int32_t b), rtcore_meet(a, b, 0))
FUNCTION(meet, (int32_t a, int32_t b, int shift), rtcore_meet(a, b, shift))
FUNCTION(sigma, (int32_t a), rtcore_sigma(a))
FUNCTION(sigma_twice, (int32_t a), rtcore_sigma_twice(a))
FUNCTION(gate_mul, (int32_t s, int32_t v), rtcore_gate_mul(s, v))
FUNCTION(product_high, (int32_t s, int32_t v), (int32_t)rtcore_asr64(rtcore_gate_product(s, v), 32))
FUNCTION(product_low, (int32_t s, int32_t v), (int32_t)(uint32_t)rtcore_gate_product(s, v))
FUNCTION(requantize, (int32_t high, uint32_t low, int shift),
         rtcore_requantize((int64_t)high * 4294967296LL + low, shift))
FUNCTION(requantize_product, (int32_t acc, int mult, int shift),
         rtcore_requantize_product(acc, (int16_t)mult, shift))
"""
FUNCTIONS = ("meet_0", "meet", "sigma", "sigma_twice", "gate_mul", "product_high", "product_low", "requantize")
FUNCTIONS = (*FUNCTIONS, "requantize_product")

CASES = [(core, "zig") for core in _build.CORES] + [
    (core, "gcc") for core in _build.CORES if core.startswith("cortex-m0") or core == "portable"
]


def target_of(core):
    return next((target for target in TARGETS.values() if target.core == core), TARGETS["cortex-m0"])


def build(folder, core, compiler):
    """The functions of DRIVER with a core's headers."""
    target = target_of(core)
    (folder / "driver.c").write_text(DRIVER)
    if compiler == "zig":
        command = [sys.executable, "-m", "ziglang", "cc"]
        compiling, linking = target.compile, target.link
    elif shutil.which("arm-none-eabi-gcc"):
        command = ["arm-none-eabi-gcc"]
        compiling = linking = ("-mcpu=cortex-m0", "-mthumb", "-O2", "-ffreestanding", "-nostartfiles")
    else:
        pytest.skip("arm-none-eabi-gcc is not installed")
    folders = [f"-I{_build.CSRC / own}" for own in _build.CORES[core]]
    objects = []
    for source in (folder / "driver.c", _build.CSRC / "rtcore_sigma.c", BOARD / target.startup):
        objects.append(f"{source.stem}.o")
        compile_one = [*command, *compiling, *_build.WARNINGS, *folders, f"-I{_build.CSRC}", "-c", str(source)]
        subprocess.run([*compile_one, "-o", objects[-1]], cwd=folder, check=True)
    keep = [*(f"-Wl,-u,{name}" for name in FUNCTIONS), "-Wl,-e,board_reset", "-T", str(BOARD / SCRIPT)]
    subprocess.run([*command, *linking, *keep, *objects, "-o", "run.elf"], cwd=folder, check=True)
    return Emulator(Firmware(folder / "run.elf", target, "run"))


def values(rng, low, high, count):
    """Of [low, high]: the ends, powers of two and what is next to them, numbers of every size."""
    near = [sign * 2**k + d for k in range(32) for d in (-1, 0, 1) for sign in (-1, 1)]
    sizes = rng.integers(0, 32, count)
    mixed = [int(v) >> int(k) for v, k in zip(rng.integers(MIN, MAX + 1, count), sizes, strict=True)]
    return [v for v in (low, low + 1, high - 1, high, *near, *mixed) if low <= v <= high]


def pairs(rng, first, second, count):
    """The ends of both, and random pairs."""
    ends = [(a, b) for a in first[:4] for b in second[:4]]
    return ends + [(first[i], second[j]) for i, j in rng.integers(0, (len(first), len(second)), (count, 2)).tolist()]


def beside_the_limit(rng, count):
    """(acc, mult, shift) whose product, shifted, comes close to where PRE ends."""
    found = []
    while len(found) < count:
        shift, mult, sign = int(rng.integers(0, 17)), int(rng.integers(1, 32768)), int(rng.choice([-1, 1]))
        acc = sign * ((2**31 << shift) // mult + int(rng.integers(-3, 4)))
        if MIN <= acc <= MAX:
            found.append((acc, mult, shift))
    return found


@pytest.mark.parametrize(("core", "compiler"), CASES)
def test_primitives_are_exact(core, compiler, tmp_path):
    rng = np.random.default_rng(SEED)
    emulator = build(tmp_path, core, compiler)
    anything = values(rng, MIN, MAX, 400)
    pres, gates, states = (values(rng, low, high, 400) for low, high in ((-MAX, MAX), (0, MAX), (-(2**30), 2**30)))

    def check(function, arguments, expected, least=MIN):
        actual = max(emulator.call(function, *arguments), least)
        assert actual == expected, f"{core}, {compiler}: {function}{arguments} is {actual}, not {expected}; seed {SEED}"

    for a, b in pairs(rng, pres, pres, 1000):  # a core may saturate to INT32_MIN where others go to -INT32_MAX
        check("meet_0", (a, b), pre(a + b), least=-MAX)
        shift = int(rng.integers(0, 32))
        check("meet", (a, b, shift), pre((a + b) << shift), least=-MAX)
    nodes = [i * 2**16 + d for i in (0, 1, 2, 500, 1022, 1023, 1024, 1025) for d in (-1, 0, 1, 32767, 32768, 32769)]
    for a in (*pres, *nodes, *(-t for t in nodes), *(t // 2 for t in nodes)):
        check("sigma", (a,), sigma_minus(abs(a)))
        check("sigma_twice", (a,), sigma_minus(2 * abs(a)))
    for s, v in pairs(rng, gates, anything, 1000):
        check("gate_mul", (s, v), half_up(s * v, 32))
    for s, v in pairs(rng, gates, states, 1000):
        check("product_high", (s, v), s * v >> 32)
        check("product_low", (s, v), (s * v + 2**31) % 2**32 - 2**31)
    for high, low in pairs(rng, [v >> 2 for v in anything], anything, 1000):
        shift = int(rng.integers(0, 63))
        check("requantize", (high, low, shift), pre((high << 32) + low % 2**32 >> shift))
    for acc, mult in pairs(rng, anything, values(rng, 1, 32767, 100), 1000):
        shift = int(rng.integers(0, 63))
        check("requantize_product", (acc, mult, shift), pre(half_up(acc * mult, shift)))
    for acc, mult, shift in beside_the_limit(rng, 1000):
        check("requantize_product", (acc, mult, shift), pre(half_up(acc * mult, shift)))


def test_the_row_of_a_sum_that_leaves_int32_is_exact():
    """Cortex-M0's int8 kernel gives it to rtcore_m0_row; a word is factor << 16 | up << 8 | down, the factor even."""
    rng = np.random.default_rng(SEED)
    emulator = Emulator(build_firmware(gru_net(rng, 5, 4, 3, 8, 32), "cortex-m0"))

    def check(acc, mult, up, down):
        actual = emulator.call("rtcore_m0_row", acc, mult << 17 | up << 8 | down)
        expected = pre(half_up(acc * mult, 16 + down - up))
        assert actual == expected, f"{acc} * {mult}, {up} up and {down} down: {actual}, not {expected}; seed {SEED}"

    for acc, mult, shift in beside_the_limit(rng, 1000):
        check(acc, mult, 16 - shift, 0)
    for acc, mult in pairs(rng, values(rng, MIN, MAX, 400), values(rng, 2**14, 2**15 - 1, 100), 1000):
        check(acc, mult, int(rng.integers(0, 17)), int(rng.integers(0, 31)))
