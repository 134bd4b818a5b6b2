"""The stated stack bound, a second opinion: gcc's own frame sizes along every chain of calls of generated code.

The emulator paints the stack of what zig built (test_emulator.py); here nothing runs. Needs gcc for the core.
Neighbours: `quantize/emit_c.py` (STACK_BYTES, which every generated header states).
"""

import re
import shutil
import subprocess

import numpy as np
import pytest

from nets import function_net, memory_net, random_tables, rnnoise_net
from quantize.emit_c import STACK_BYTES, render
from window_nets import option_net, random_window

ARM, RISCV = "arm-none-eabi-gcc", "riscv64-unknown-elf-gcc"
CORES = {cpu: (ARM, f"-mcpu={cpu}", "-mthumb") for cpu in ("cortex-m0", "cortex-m4", "cortex-m33")}
CORES["cortex-m55"] = (ARM, "-mcpu=cortex-m55", "-mfloat-abi=hard", "-mthumb")
CORES["rv32imc"] = (RISCV, "-march=rv32imc", "-mabi=ilp32", "-ffreestanding")
RUNTIME = 32  # bytes granted to a routine of the compiler's library (long multiplication, shifts, division)


def longest_chain(folder):
    """The API function that reaches deepest, its bytes of stack and the calls: by gcc's call graph files."""
    sizes, calls = {}, {}
    for file in folder.rglob("*.ci"):
        text = file.read_text()
        for title, label in re.findall(r'^node: { title: "([^"]+)" label: "([^"]*)"', text, re.M):
            size = re.search(r"(\d+) bytes \((\w+)", label)
            if size:
                assert size[2] == "static", f"{title}: the stack is not bounded by its source"
                sizes[title] = int(size[1])
        for source, target in re.findall(r'^edge: { sourcename: "([^"]+)" targetname: "([^"]+)"', text, re.M):
            calls.setdefault(source, set()).add(target)

    def depth(name):
        best = max((depth(callee) for callee in calls.get(name, ())), default=(0, ()))
        return sizes.get(name, RUNTIME) + best[0], (name, *best[1])

    return max(depth(name) for name in sizes)


@pytest.mark.parametrize("options", ["-O2", "-Os", "-O3"])
@pytest.mark.parametrize("core", CORES)
def test_no_chain_of_calls_exceeds_the_stated_stack(core, options, tmp_path):
    compiler = CORES[core]
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"{compiler[0]} is not installed")
    rng = np.random.default_rng(4)
    some = {seed: random_tables(np.random.default_rng(seed)) for seed in (0, 1, 3)}
    some |= {
        "rnnoise": rnnoise_net(rng, 16, 64),
        "memory": memory_net(rng, 16, 64),
        "functions": function_net(rng, 5, 1),
        "options": option_net(rng, 16, 64, ("in groups", "3x2, strided, padded after")),
        "window": random_window(rng, how=3),
        "copy": random_window(rng, how=5),
    }
    for seed, tables in some.items():
        for path, data in render(tables, "net").items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_bytes(data)
        for source in sorted(tmp_path.rglob("*.c")):
            command = [*compiler, options, "-std=c99", "-fcallgraph-info=su"]
            subprocess.run([*command, "-c", source.name, "-o", f"{source.stem}.o"], cwd=source.parent, check=True)
        used, chain = longest_chain(tmp_path)
        assert used <= STACK_BYTES, f"{used} bytes in {' -> '.join(chain)}, net of seed {seed}"
        print(used, chain)
