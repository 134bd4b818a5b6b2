"""Reads the text form of RNNoise's tables that FFmpeg's `arnndn` filter takes (rnnoise-nu, version 1).

The line `rnnoise-nu model file version 1`, then integers between white space. Per layer, in the order of ORDER:
nb_inputs nb_neurons activation (0 tanh, 1 sigmoid, 2 relu); then a dense layer's weights [nb_inputs][N] and bias [N],
or a GRU's input weights [nb_inputs][3N], recurrent weights [N][3N] and bias [3N], gates z r h. Values in 1/256,
-128..127.

Neighbours: `lineage_tables.py` (what it returns), `lineage.py` (makes modules of it), `lineage_c.py` (the C form).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import numpy as np

from quantize.errors import FormatError
from quantize.lineage_tables import LayerTable, read_text

HEADER = "rnnoise-nu model file version 1"
ORDER = ("input_dense", "vad_gru", "noise_gru", "denoise_gru", "denoise_output", "vad_output")
ACTIVATIONS = ("tanh", "sigmoid", "relu")
WIDEST = 128  # neurons and inputs that arnndn itself takes
SCALE = 1 / 256


class Integers:
    """The file's integers, one after the other, each with its line."""

    def __init__(self, path: str | os.PathLike, text: str):
        self.path = path
        self.words = self.split(text)
        self.line = 1

    @staticmethod
    def split(text: str) -> Iterator[tuple[int, str]]:
        """(line, word) of everything after the first line."""
        for line, content in enumerate(text.split("\n")[1:], 2):
            for word in content.split():
                yield line, word

    def take(self, count: int, what: str, low: int, high: int) -> list[int]:
        """The next `count` integers."""
        values = []
        for line, word in self.words:
            self.line = line
            if not re.fullmatch(r"[-+]?[0-9]{1,9}", word):
                raise self.error(f"{what}: {word[:40]!r} is no integer")
            value = int(word)
            if not low <= value <= high:
                raise self.error(f"{what}: value {len(values) + 1} of {count} is {value}, allowed are {low}..{high}")
            values.append(value)
            if len(values) == count:
                return values
        raise self.error(f"the file ends in {what}: expected {count} values, found {len(values)}")

    def table(self, layer: str, what: str, shape: tuple[int, ...]) -> np.ndarray:
        """An array of the layer, in values."""
        values = self.take(int(np.prod(shape)), f"{layer}, {what} {list(shape)}", -128, 127)
        return np.array(values, np.float64).reshape(shape) * SCALE

    def end(self) -> None:
        extra = next(self.words, None)
        if extra is not None:
            self.line = extra[0]
            count = 1 + sum(1 for _ in self.words)
            raise self.error(f"{count} more values after vad_output, the last layer; expected the end of the file")

    def error(self, message: str) -> FormatError:
        return FormatError(f"{self.path}, line {self.line}: {message}")


def read_rnnn(path: str | os.PathLike) -> list[LayerTable]:
    """The six layers. Raises FormatError naming file, line, layer, array, and what was expected and found."""
    text = read_text(path)
    first = text[: len(HEADER) + 80].split("\n")[0].rstrip()
    if first != HEADER:
        raise FormatError(f"{path}, line 1: expected {HEADER!r}, found {first[:80]!r}")
    numbers = Integers(path, text)
    layers = [read_layer(numbers, name) for name in ORDER]
    numbers.end()
    return layers


def read_layer(numbers: Integers, name: str) -> LayerTable:
    inputs, n = (numbers.take(1, f"{name}, {what}", 1, WIDEST)[0] for what in ("nb_inputs", "nb_neurons"))
    (code,) = numbers.take(1, f"{name}, activation (0 tanh, 1 sigmoid, 2 relu)", 0, 2)
    if not name.endswith("_gru"):
        weights = numbers.table(name, "weights", (inputs, n))
        return LayerTable(name, ACTIVATIONS[code], weights, numbers.table(name, "bias", (n,)))
    weights = numbers.table(name, "input weights", (inputs, 3 * n))
    recurrent = numbers.table(name, "recurrent weights", (n, 3 * n))
    return LayerTable(name, ACTIVATIONS[code], weights, numbers.table(name, "bias", (3 * n,)), recurrent)
