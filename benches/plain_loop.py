"""What a plain loop takes for the matrices of the RNNoise-shaped frame: rows one after another, requantized, no gates.

A loop as one writes it first, and as most small runtimes have it (`plain_loop.c`), compiled by the pinned zig as the
firmware is (-Os), and for speed (-O2, -O3). Beside it the figures of `mcu.csv`, which are of whole frames, gates and
calls included.

    python benches/plain_loop.py [--cores cortex-m4,..]
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

from firmware_sim.emulator import Emulator
from firmware_sim.toolchain import BOARD, SCRIPT, TARGETS, Firmware

HERE = Path(__file__).resolve().parent
CORES = ("cortex-m0", "cortex-m3", "cortex-m4", "rv32imc")
# rows, columns: dense 42 -> 24, GRU 24/24, GRU 90/48, GRU 114/96, dense 96 -> 22
MATRICES = ((24, 42), (72, 24), (72, 24), (144, 90), (144, 48), (288, 114), (288, 96), (22, 96))
LEVELS = ("-Os", "-O2", "-O3")


def build(core: str, level: str, folder: Path) -> Emulator:
    """plain_loop.c for a core."""
    target = TARGETS[core]
    flags = [level if flag == "-Os" else flag for flag in target.compile]
    zig = [sys.executable, "-m", "ziglang", "cc"]
    objects = []
    for source in (HERE / "plain_loop.c", BOARD / target.startup):
        objects.append(folder / f"{source.stem}.o")
        subprocess.run([*zig, *flags, "-std=c99", "-c", source, "-o", objects[-1]], check=True)
    names = ("w16", "w8", "weights", "bias", "x", "y")
    link = [*target.link, *(f"-Wl,-u,plain_{name}" for name in names), "-Wl,-e,board_reset", "-T", BOARD / SCRIPT]
    subprocess.run([*zig, *link, *objects, "-o", folder / "plain.elf"], check=True)
    return Emulator(Firmware(folder / "plain.elf", target, "plain"))


def frame(board: Emulator, bits: int) -> int:
    """Instructions of all matrices."""
    buffers = [board.symbol(f"plain_{name}").address for name in ("weights", "bias", "x", "y")]
    last = (10,) if bits == 16 else (20000, 20)
    count = 0
    for rows, columns in MATRICES:
        board.call(f"plain_w{bits}", *buffers, rows, columns, *last)
        count += board.instructions
    return count


def main(cores: list[str]) -> None:
    with (HERE / "mcu.csv").open() as file:
        ours = {
            (r["core"], r["weight_bits"], r["kernels"]): int(r["instructions"])
            for r in csv.DictReader(file)
            if r["model"] == "rnnoise"
        }
    print(
        f"{'core':<10} {'weights':<7} {'loop -Os':>10} {'-O2':>10} {'-O3':>10}   {'frame: own':>10} {'portable':>10}"
        "  own / loop -Os"
    )
    for core in cores:
        for bits in (16, 8):
            counts = []
            for level in LEVELS:
                with tempfile.TemporaryDirectory() as folder:
                    counts.append(frame(build(core, level, Path(folder)), bits))
            own, portable = (ours[core, str(bits), kernels] for kernels in (TARGETS[core].core, "portable"))
            print(
                f"{core:<10} int{bits:<4} {' '.join(f'{count:10,}' for count in counts)}   {own:10,} {portable:10,}"
                f"  {own / counts[0]:.2f}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", default=",".join(CORES))
    main(parser.parse_args().cores.split(","))
