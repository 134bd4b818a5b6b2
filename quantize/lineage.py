"""Networks of the RNNoise/Opus family, from the files they are kept in, as torch modules to wire and quantize.

    layers = quantize.lineage.load("rnn_data.c")         # {C identifier: Dense or quantize.nn.GRU}
    net = quantize.lineage.RNNoise(quantize.lineage.load_rnnn("voice.rnnn"))

int8 tables hold values of 1/256 or 1/128: float32 carries them exactly, and `quantize(..., weight_bits=8)` finds the
same integers again. Neighbours: `lineage_c.py` and `lineage_rnnn.py` (read the files), `lineage_tables.py` (what they
read), `nn.py` (the GRU), `rtcore/csrc/rtcore_lineage.h` (the family's C structs, for the same tables in float
firmware).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from quantize.errors import QuantizeError
from quantize.lineage_c import read_c
from quantize.lineage_rnnn import ORDER, read_rnnn
from quantize.lineage_tables import LayerTable
from quantize.nn import ACTIVATIONS, GRU


class Dense(torch.nn.Linear):
    """`torch.nn.Linear` with the activation of the family's DenseLayer: act(W x + b), x [.., M] to [.., N].

    activation: "linear", "sigmoid", "tanh" or "relu"; ValueError for another.
    """

    def __init__(self, in_features: int, out_features: int, activation: str = "linear") -> None:
        super().__init__(in_features, out_features)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
        self.activation = activation

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation!r}"

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](super().forward(x))


def load(path: str | os.PathLike, scale: float | None = None) -> dict[str, torch.nn.Module]:
    """Reads a C source of the family: every layer struct in it, under its C identifier, in the file's order.

    scale: value of a raw 1 in integer tables. None takes what `#define WEIGHTS_SCALE` in the file says, else the
    generation's own: 1/256 for RNNoise 0.1, 1/128 for Opus' analysis net and for int8 weights of nnet.h beside a float
    bias. Float tables are taken as they stand, whatever the scale. What stands under #if counts as for a compiler
    without -D options: of `#ifdef X ... #else ... #endif` the second part, unless the file defines X.

    Dense layers are called like `nn.Linear`; GRUs like `nn.GRU(batch_first=True)`: `y, h = gru(x)`. float32, eval mode.

    Raises FormatError, naming file, line and array, for what is no such source, for arrays of a wrong count, values out
    of range and an unknown scale; UnsupportedError for layers that no module here computes (sparse, embeddings,
    convolutions, tables of RNNoise 0.2); QuantizeError for a scale that is no positive number.
    """
    return modules_of(read_c(path, scale))


def load_rnnn(path: str | os.PathLike) -> dict[str, torch.nn.Module]:
    """Reads the text form of FFmpeg's `arnndn` filter (rnnoise-nu, version 1): the six layers of RNNoise, by name.

    Modules as `load` makes them; `RNNoise` wires them. Raises FormatError, naming file, line, layer and array.
    """
    return modules_of(read_rnnn(path))


def modules_of(tables: list[LayerTable]) -> dict[str, torch.nn.Module]:
    """A module per table, by its name."""
    return {table.name: (dense if table.recurrent is None else gru)(table).eval() for table in tables}


def dense(table: LayerTable) -> Dense:
    layer = Dense(*table.weights.shape, table.activation)
    with torch.no_grad():
        layer.weight.copy_(tensor(table.weights.T))
        layer.bias.copy_(tensor(table.bias))
    return layer


def gru(table: LayerTable) -> GRU:
    """The family's gates z r h become torch's r z n; one bias of 3N is the input's, the recurrent one is then zero."""
    columns, rows = table.weights.shape
    n = rows // 3
    order = np.r_[n : 2 * n, 0:n, 2 * n : rows]
    layer = GRU(columns, n, table.activation, table.reset_after, batch_first=True)
    bias = np.zeros(2 * rows)
    bias[: table.bias.size] = table.bias
    with torch.no_grad():
        layer.weight_ih.copy_(tensor(table.weights.T[order]))
        layer.weight_hh.copy_(tensor(table.recurrent.T[order]))
        layer.bias_ih.copy_(tensor(bias[:rows][order]))
        layer.bias_hh.copy_(tensor(bias[rows:][order]))
    return layer


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


class RNNoise(torch.nn.Module):
    """The net of RNNoise 0.1 (Valin 2018), wired: features [.., T, 42] to gains [.., T, 22] and vad [.., T, 1].

    The three GRUs read what lies before them and the features again: noise_gru reads (input_dense, vad_gru, features),
    denoise_gru reads (vad_gru, noise_gru, features); denoise_output reads denoise_gru, vad_output reads vad_gru.

    modules: the six layers by name, as `load` or `load_rnnn` give them; widths are the layers' own, so that nets of
    other feature and band counts work, too. Raises QuantizeError naming a layer that is missing, of another kind, or of
    a width that does not fit the one before it.
    """

    def __init__(self, modules: Mapping[str, torch.nn.Module]) -> None:
        super().__init__()
        kinds = {name: GRU if name.endswith("_gru") else Dense for name in ORDER}
        for name, kind in kinds.items():
            if not isinstance(modules.get(name), kind):
                found = type(modules[name]).__name__ if name in modules else "none"
                raise QuantizeError(
                    f"RNNoise needs {name}, a {kind.__name__}; found {found} among {', '.join(modules)}"
                )
            setattr(self, name, modules[name])
        features, hidden = self.input_dense.in_features, self.input_dense.out_features
        vad, noise, denoise = (modules[name].hidden_size for name in ORDER[1:4])
        expected = {
            "vad_gru": hidden,
            "noise_gru": hidden + vad + features,
            "denoise_gru": vad + noise + features,
            "denoise_output": denoise,
            "vad_output": vad,
        }
        for name, inputs in expected.items():
            layer = modules[name]
            found = layer.input_size if isinstance(layer, GRU) else layer.in_features
            if found != inputs:
                raise QuantizeError(f"RNNoise: {name} has {found} inputs, what it reads is {inputs} wide")

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features: [B, T, F] or one stream [T, F]. Returns gains and vad, both within 0..1."""
        hidden = self.input_dense(features)
        vad, _ = self.vad_gru(hidden)
        noise, _ = self.noise_gru(torch.cat([hidden, vad, features], -1))
        denoise, _ = self.denoise_gru(torch.cat([vad, noise, features], -1))
        return self.denoise_output(denoise), self.vad_output(vad)
