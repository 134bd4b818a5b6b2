"""Host speed of one GRU step, side by side in one process: int16 with int16 and int8 weights, float32, and torch's
GRUCell.

Prints microseconds per step (the best of several rounds, alternating between systems, one thread) and ratios to torch,
and writes build/bench/host.csv and host.json. Ratios hold between machines better than times do; the spread of the
rounds is printed so that noise shows.

    python benches/host.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
import torch

from quantize import quantize_graph
from quantize.graph import Argument, Graph, Node, Result, Signature
from rtcore import GruF32, Net

SIZES = ((24, 24), (64, 64), (114, 96), (128, 256))
STEPS = 400
OUT = Path(__file__).resolve().parents[1] / "build" / "bench"
AXES = ("batch", "time", "feature")


def systems(inputs: int, units: int) -> dict:
    """name -> function that runs STEPS steps on the same frames."""
    torch.manual_seed(0)
    cell = torch.nn.GRU(inputs, units, batch_first=True)
    params = {name.removesuffix("_l0"): value.detach().double().numpy() for name, value in cell.named_parameters()}
    attrs = dict(activation="tanh", reset_after=True, initial=None)
    signature = Signature(
        (Argument("x", "frames", AXES, "x", (), inputs),), (Result("y", tuple((a,) for a in AXES), ("rnn",)),)
    )
    node = Node("gru", "rnn", ("x",), "rnn", attrs, params)
    graph = Graph((node,), {"x": inputs, "rnn": units}, signature)
    x = np.random.default_rng(0).standard_normal((1, STEPS, inputs))
    raw = np.clip(x * 4096, -32768, 32767).astype(np.int16)
    single = GruF32.from_torch(**params)
    frames = x[0].astype(np.float32)
    rows = torch.from_numpy(frames)
    grucell = torch.nn.GRUCell(inputs, units)

    def run_torch():
        h = torch.zeros(units)
        with torch.no_grad():
            for row in rows:
                h = grucell(row, h)

    runs = {"torch GRUCell f32": run_torch, "rtcore f32": lambda: single.run(frames)}
    for bits in (16, 8):
        net = Net(quantize_graph(graph, [x], bits).tables)
        runs[f"rtcore i16, w{bits}"] = lambda net=net: net.run([raw])
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rows = []
    for inputs, units in SIZES:
        runs = systems(inputs, units)
        times = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                times[name].append((time.perf_counter() - start) / STEPS * 1e6)
        reference = min(times["torch GRUCell f32"])
        for name, found in times.items():
            best = min(found)
            row = dict(inputs=inputs, units=units, system=name, us_per_step=round(best, 3))
            row |= dict(ratio_to_torch=round(best / reference, 4), spread=round(max(found) / best, 2))
            rows.append(row)
            print(
                f"GRU({inputs}, {units})  {name:20} {best:9.2f} us  {best / reference:7.3f} of torch (x{row['spread']})"
            )
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "host.json").write_text(json.dumps(rows, indent=1) + "\n")
    with (OUT / "host.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
