"""What a net costs on a microcontroller: instructions, flash and stack per core, weight width and model, with portable
kernels and with the core's own.

Nets are quantized from random floats (seeded) and run as generated firmware on the emulated core, frame after frame;
the bits of both builds are compared with the host's on the way. Instructions are counted from entry to return of
NAME_step, or of the layer's kernel where the model is one layer, and averaged over the frames; they are not cycles.
Flash is code and tables of the linked net, stack what the call writes of a painted one, below its caller.

    python benches/mcu.py [--cores cortex-m4,..] [--models rnnoise,..] [--check | --widths]

All of it goes to build/bench/mcu.csv. --check compares with benches/mcu.csv instead, names every cell that differs
and exits with 1: counts are deterministic given the pinned compiler (constraints.txt), so that every change of speed
or size shows. After a wanted change the new file is committed in its place. The M55 runs in qemu-system-arm; where
that is not installed it is skipped, and said so. --widths compares the kernels on linear layers of 1 to 256 inputs and
prints where a core's own are closest to the portable ones.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from pathlib import Path

import numpy as np

from firmware_sim.engines import HostEngine, McuEngine
from firmware_sim.qemu import PROGRAM
from firmware_sim.toolchain import build_firmware, find_target
from quantize import quantize_graph
from quantize.graph import Argument, Graph, Node, Result, Signature
from rtcore.tables import Tables

HERE = Path(__file__).resolve().parent
REFERENCE = HERE / "mcu.csv"
OUT = HERE.parent / "build" / "bench" / "mcu.csv"
FRAMES = 4
BTF = ("batch", "time", "feature")
CORES = ("cortex-m0", "cortex-m3", "cortex-m4", "qemu:cortex-m55", "rv32imc")  # M7 and M33 run the kernels of M4
KEY = ("core", "model", "weight_bits", "kernels")


class Random:
    """A float net with uniform weights of +-1 / sqrt(units), as torch initialises them."""

    def __init__(self, inputs: int):
        self.rng = np.random.default_rng(0)
        self.widths = {"x": inputs}
        self.nodes: list[Node] = []
        self.frames = self.rng.standard_normal((1, 64, inputs))

    def add(self, op: str, inputs: tuple[str, ...], width: int, attrs: dict, bound: float = 0.0, **shapes) -> str:
        name = f"{op}{len(self.nodes)}"
        params = {key: self.rng.uniform(-bound, bound, shape) for key, shape in shapes.items()}
        self.nodes.append(Node(op, name, inputs, name, attrs, params))
        self.widths[name] = width
        return name

    def linear(self, x: str, units: int, activation: str) -> str:
        m = self.widths[x]
        y = self.add("linear", (x,), units, {}, m**-0.5, weight=(units, m), bias=(units,))
        return self.add("activation", (y,), units, {"activation": activation})

    def recurrent(self, op: str, x: str, units: int, gates: int, **attrs) -> str:
        rows = gates * units
        shapes = {"weight_ih": (rows, self.widths[x]), "weight_hh": (rows, units), "bias_ih": rows, "bias_hh": rows}
        return self.add(op, (x,), units, attrs, units**-0.5, **shapes)

    def gru(self, x: str, units: int, activation: str = "tanh", reset_after: bool = True) -> str:
        return self.recurrent("gru", x, units, 3, activation=activation, reset_after=reset_after, initial=None)

    def lstm(self, x: str, units: int) -> str:
        return self.recurrent("lstm", x, units, 4, initial=None, initial_cell=None)

    def concat(self, *parts: str) -> str:
        return self.add("concat", parts, sum(self.widths[part] for part in parts), {})

    def tables(self, output: str, weight_bits: int) -> Tables:
        arguments = (Argument("x", "frames", BTF, "x", (), self.widths["x"]),)
        signature = Signature(arguments, (Result("y", tuple((axis,) for axis in BTF), (output,)),))
        return quantize_graph(Graph(tuple(self.nodes), self.widths, signature), [self.frames], weight_bits).tables


def rnnoise(net: Random, **form) -> str:
    """The shape of RNNoise 0.1, 86,952 multiplications."""
    d = net.linear("x", 24, "tanh")
    vad = net.gru(d, 24, **form)
    noise = net.gru(net.concat(d, vad, "x"), 48, **form)
    return net.linear(net.gru(net.concat(vad, noise, "x"), 96, **form), 22, "sigmoid")


# name -> (inputs, how the net is made of them, the kernel that is measured, or "" for the whole step)
MODELS = {
    "rnnoise": (42, rnnoise, ""),
    "rnnoise-v01": (42, lambda net: rnnoise(net, activation="relu", reset_after=False), ""),
    "gru-24x24": (24, lambda net: net.gru("x", 24), "rtcore_gru_i16_step"),
    "gru-90x48": (90, lambda net: net.gru("x", 48), "rtcore_gru_i16_step"),
    "gru-114x96": (114, lambda net: net.gru("x", 96), "rtcore_gru_i16_step"),
    "gru-128x128": (128, lambda net: net.gru("x", 128), "rtcore_gru_i16_step"),
    "lstm-24x24": (24, lambda net: net.lstm("x", 24), "rtcore_lstm_i16_step"),
    "lstm-90x48": (90, lambda net: net.lstm("x", 48), "rtcore_lstm_i16_step"),
}


def tables_of(model: str, weight_bits: int) -> Tables:
    """The net of a row of the table."""
    inputs, make, _ = MODELS[model]
    net = Random(inputs)
    return net.tables(make(net), weight_bits)


def frames_of(tables: Tables) -> np.ndarray:
    """int16 [FRAMES, width]: noise of a third of the range, and the extremes."""
    rng = np.random.default_rng(1)
    x = rng.integers(-10000, 10001, (FRAMES, tables.tensors[tables.inputs[0]].width))
    x[-1] = rng.choice([-32768, 32767], x.shape[1])
    return x.astype(np.int16)


def measure(model: str, weight_bits: int, target: str, kernels: str) -> dict:
    """One row of the table."""
    tables, kernel = tables_of(model, weight_bits), MODELS[model][2]
    engine = McuEngine(tables, build_firmware(tables, target, core=kernels))
    host = HostEngine(tables)
    counts, stack = [], 0
    for frame in frames_of(tables):
        before = engine.get_state()
        seen: dict[str, tuple] = {}
        board = engine.board
        with board.watching([kernel] if kernel else [], seen.__setitem__):
            outputs, counted = engine.step([frame])
        after = engine.get_state()
        expected, _ = host.step([frame])
        if not all(np.array_equal(a, b) for a, b in zip(outputs, expected, strict=True)):
            raise RuntimeError(f"{model}, {weight_bits} bits, {target}, {kernels}: not the host's bits")
        if kernel:
            function, arguments = kernel, (*seen[kernel], engine.free, engine.outputs[0][0])  # the last: rows, scratch
        else:
            function = "net_step"
            arguments = (engine.state, *(address for address, _ in (*engine.inputs, *engine.outputs)))
        engine.set_state(before)
        stack = max(stack, board.stack_used(function, *arguments))
        counts.append(board.instructions if kernel else int(counted[0]))
        engine.set_state(after)
    sizes = board.sizes()
    return {
        "core": target,
        "model": model,
        "weight_bits": weight_bits,
        "kernels": kernels,
        "instructions": round(float(np.mean(counts))),
        "code": sizes.code,
        "tables": sizes.tables,
        "stack": stack,
    }


def rows(cores: list[str], models: list[str]):
    """Row after row, portable kernels first."""
    for target in cores:
        for model in models:
            for weight_bits in (16, 8):
                for kernels in dict.fromkeys(("portable", find_target(target).core)):
                    yield measure(model, weight_bits, target, kernels)


def by_width(target: str, weight_bits: int, kernels: str) -> np.ndarray:
    """Instructions of linear layers of 1..256 inputs and 8 outputs, [256]."""
    net = Random(256)
    parts = []
    for n in range(1, 257):
        part = net.add("slice", ("x",), n, {"start": 0, "stop": n})
        parts.append(net.add("linear", (part,), 8, {}, n**-0.5, weight=(8, n), bias=(8,)))
    tables = net.tables(net.concat(*parts), weight_bits)
    engine = McuEngine(tables, build_firmware(tables, target, core=kernels))
    calls: list[tuple] = []
    with engine.board.watching(["rtcore_dense_i16_step"], lambda _, arguments: calls.append(arguments)):
        engine.step([frames_of(tables)[0]])
    counts = []
    for arguments in calls:
        engine.board.call("rtcore_dense_i16_step", *arguments)
        counts.append(engine.board.instructions)
    return np.array(counts)


def compare_widths(target: str) -> None:
    """Prints the largest and the last ratio of a core's own kernels to the portable ones."""
    for weight_bits in (16, 8):
        ratio = by_width(target, weight_bits, find_target(target).core) / by_width(target, weight_bits, "portable")
        worst = int(ratio.argmax())
        print(f"{target:15} w{weight_bits:<2} worst {ratio[worst]:.2f} at {worst + 1} inputs; at 256 {ratio[-1]:.2f}")


def installed(cores: list[str]) -> list[str]:
    """Those whose emulator is there; says which are not."""
    found = [core for core in cores if not find_target(core).machine or shutil.which(PROGRAM)]
    for core in cores:
        if core not in found:
            print(f"{core:15} skipped: {PROGRAM} is not installed")
    return found


def shown(row: dict, before: dict | None) -> str:
    ratio = f"{row['instructions'] / before['instructions']:6.2f}" if before else "      "
    text = "{core:15} {model:12} w{weight_bits:<3} {kernels:10} {instructions:9,}".format(**row)
    return f"{text} {ratio}  {row['code']:6,} + {row['tables']:7,} B  stack {row['stack']}"


def differences(found: list[dict], reference: Path) -> list[str]:
    """Every cell of `found` that the reference has otherwise, or not."""
    with reference.open(newline="") as file:
        known = {tuple(row[key] for key in KEY): row for row in csv.DictReader(file)}
    lines = []
    for row in found:
        key = tuple(str(row[name]) for name in KEY)
        old = known.get(key, {})
        lines += [
            f"{' '.join(key)}: {name} {old.get(name, 'missing')} -> {value}"
            for name, value in row.items()
            if old.get(name) != str(value)
        ]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", default=",".join(CORES))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--check", action="store_true", help="compare with benches/mcu.csv")
    parser.add_argument("--widths", action="store_true", help="linear layers of 1 to 256 inputs")
    options = parser.parse_args()
    cores = installed(options.cores.split(","))
    if options.widths:
        for target in cores:
            compare_widths(target)
        return 0
    found: list[dict] = []
    for row in rows(cores, options.models.split(",")):
        same = found and found[-1]["kernels"] == "portable" and row["kernels"] != "portable"
        print(shown(row, found[-1] if same else None), flush=True)
        found.append(row)
    if options.check:
        lines = differences(found, REFERENCE)
        print("\n".join(lines) if lines else f"as in benches/mcu.csv: {', '.join(cores)}")
        return 1 if lines else 0
    if len(found) < len(CORES) * len(MODELS) * 4:
        return 0  # a part of the table
    OUT.parent.mkdir(parents=True, exist_ok=True)
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
