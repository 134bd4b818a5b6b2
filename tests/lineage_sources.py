"""Files of the RNNoise/Opus family, made of random tables, and how C programs of the family are built and run.

Neighbours: `rtcore/test_lineage.py` (such programs against the float layers), `quantize/test_lineage_*.py` (readers).
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import numpy as np

from rtcore import _build


def c_array(ctype, name, values):
    """`static const` table; nine digits carry a float32 exactly."""
    flat = np.ravel(values)
    form = "{}" if flat.dtype == np.int8 else "{:.8e}f"
    items = [form.format(v) for v in flat.tolist()]
    lines = (", ".join(items[i : i + 8]) for i in range(0, len(items), 8))
    return f"static const {ctype} {name}[{len(items)}] = {{\n   " + ",\n   ".join(lines) + "\n};\n"


def build_and_run(folder, program, kernels, defines=()):
    """Compiles the program, the family's names at its disposal; returns stdout's numbers, float32 [lines, ..]."""
    head = "".join(f"#define {d}\n" for d in defines) + '#include <stdio.h>\n#include "rtcore_lineage.h"\n'
    (folder / "main.c").write_text(head + program)
    sources = [_build.CSRC / name for name in kernels]
    flags = ["-O2", *_build.WARNINGS, *_build.KERNEL_FLAGS, f"-I{_build.CSRC}"]
    subprocess.run(["cc", *flags, "main.c", *sources, "-o", "main"], cwd=folder, check=True)
    output = subprocess.run([folder / "main"], capture_output=True, text=True, check=True).stdout
    return np.array([line.split() for line in output.splitlines()], np.float32)


@dataclass(frozen=True)
class Made:
    """A layer's tables as the family lays them out: int8, or float32 values. recurrent: None for a dense layer."""

    name: str
    activation: str
    weights: np.ndarray
    bias: np.ndarray
    recurrent: np.ndarray | None = None
    reset_after: int = 0

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """By their C identifiers."""
        arrays = {f"{self.name}_weights": self.weights, f"{self.name}_bias": self.bias}
        return arrays if self.recurrent is None else arrays | {f"{self.name}_recurrent_weights": self.recurrent}

    @property
    def sizes(self) -> tuple[int, int]:
        """nb_inputs, nb_neurons"""
        return self.weights.shape[0], self.weights.shape[1] // (1 if self.recurrent is None else 3)


def make(rng, name, inputs, neurons, activation, gru=False, int8=True, reset_after=0, scale=256) -> Made:
    """Random tables of usual spread; int8 ones reach their ends."""

    def table(*shape, spread):
        values = rng.normal(0, spread, shape)
        if not int8:
            return values.astype(np.float32)
        raw = np.clip(np.rint(scale * values), -128, 127).astype(np.int8)
        raw.flat[:2] = (-128, 127)[: raw.size]
        return raw

    rows = 3 * neurons if gru else neurons
    weights = table(inputs, rows, spread=1 / np.sqrt(inputs))
    bias = table(2 * rows if reset_after else rows, spread=0.3)
    recurrent = table(neurons, rows, spread=1 / np.sqrt(neurons)) if gru else None
    return Made(name, activation, weights, bias, recurrent, reset_after)


def c_source(layers, form="rnnoise", int8_type="rnn_weight") -> str:
    """The tables as C. form: "rnnoise" (0.1), "opus", "opus unprefixed" or "nnet"."""
    text = (
        '/* This file is made, not written */\n#ifdef HAVE_CONFIG_H\n#include "config.h"\n#endif\n#include "rnn.h"\n\n'
    )
    for layer in layers:
        for name, values in layer.arrays.items():
            text += c_array(int8_type if values.dtype == np.int8 else "float", name, values) + "\n"
        gru = layer.recurrent is not None
        last = [f"ACTIVATION_{layer.activation.upper()}"]
        if form.startswith("opus"):
            last = [] if gru else [str(("tanh", "sigmoid").index(layer.activation))]
        elif form == "nnet" and gru:
            last.append(str(layer.reset_after))
        tables = ["bias", "weights", *(["recurrent_weights"] if gru else [])]
        fields = [*(f"{layer.name}_{table}" for table in tables), ", ".join([*map(str, layer.sizes), *last])]
        kind = ("Analysis" if form == "opus" else "") + ("GRULayer" if gru else "DenseLayer")
        text += f"const {kind} {layer.name} = {{\n   " + ",\n   ".join(fields) + "\n};\n\n"
    return text


def rnnn_source(layers) -> str:
    """The tables in the text form of arndnn."""
    lines = ["rnnoise-nu model file version 1"]
    for layer in layers:
        code = ("tanh", "sigmoid", "relu").index(layer.activation)
        lines.append(" ".join(map(str, (*layer.sizes, code))))
        for table in (layer.weights, layer.recurrent, layer.bias):
            if table is not None:
                lines.append(" ".join(map(str, table.ravel().tolist())))
    return "\n".join(lines) + "\n"


def rnnoise_layers(rng, features=42, dense=24, vad=24, noise=48, denoise=96, bands=22, gru="relu") -> list[Made]:
    """The six layers of RNNoise 0.1 with int8 tables, in the order of its files."""
    return [
        make(rng, "input_dense", features, dense, "tanh"),
        make(rng, "vad_gru", dense, vad, gru, gru=True),
        make(rng, "noise_gru", dense + vad + features, noise, gru, gru=True),
        make(rng, "denoise_gru", vad + noise + features, denoise, gru, gru=True),
        make(rng, "denoise_output", denoise, bands, "sigmoid"),
        make(rng, "vad_output", vad, 1, "sigmoid"),
    ]
