"""The plain records that describe a fixed-point net: what quantize writes, Net runs and emit_c prints.

Nothing here computes. Arrays are *logical* (row-major, unpadded, rounding not yet folded into biases); packing for a
core is the business of whoever feeds a kernel (`rtcore.packing` on the host and in the generator). SPEC.md section 7
lists, kind by kind, the ints and arrays below.

Neighbours: `rtcore/net.pyx` (runs Tables), `quantize/tables.py` (makes them), `quantize/emit_c.py` (prints them as C).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

SPEC_VERSION = 1  # RTCORE_SPEC_VERSION; tests/test_architecture.py holds the two together

ACTIVATIONS = {"linear": 0, "sigmoid": 1, "tanh": 2, "relu": 3}  # RTCORE_ACTIVATION_*

GATE_SLOPES = (2.0**-9, 1.0)  # of hard gates, clip(slope * x + 1/2, 0, 1): the smallest and the largest
SLOPE_FRAC = 30  # fractional bits of a record's gate_slope

# The geometry of a convolution or a pool, members of the C rtcore_window by the same names.
WINDOW = (
    *("in_h", "in_w", "out_h", "out_w", "kernel_h", "kernel_w"),
    *("stride_h", "stride_w", "dilation_h", "dilation_w", "pad_h", "pad_w"),
)


@dataclass(frozen=True)
class Tensor:
    """One int16 vector per step. value = raw * 2**-frac.

    place says where its elements live during a step:
    "input"  the caller's buffer of frame input number `index`
    "output" the caller's buffer of output number `index` (written by the step, may be read back within it)
    "state"  the view of recurrent layer `owner` (the tensor *is* the state's int16 view: after `owner`'s last row)
    "arena"  elements `offset .. offset + width` of the arena
    "alias"  elements `offset .. offset + width` of tensor `owner` (a slice; or a segment of a concatenation)
    """

    name: str
    width: int
    frac: int
    place: str
    index: int = 0
    owner: str = ""
    offset: int = 0


@dataclass(frozen=True)
class Layer:
    """One kernel call per step, or one per row. `kind` names the kernel, rtcore_<kind> (SPEC.md section 7 has them);
    `inputs` and `output` name tensors.

    ints of any kind: `rows` calls (absent: 1), the row r of which reads a + r * pitch_a and b + r * pitch_b and writes
    y + r * pitch_y (elements, absent: 0); with `reverse` 1 the last row is computed first.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    output: str
    ints: dict[str, int] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class StatePart:
    """A part of what a recurrent layer remembers. A layer's state is one int32 vector, part after part.

    row:   its name in StateInput.layers: the layer's own for what the layer gives out, "LAYER:cell" for a cell.
    size, start: its elements, and where they begin in the vector.
    frac:  of its int16 view.
    wide:  member of the layer's C struct that keeps it as int32 in Q(frac + 15), as the vector does; "" where the view
           is all there is, and is what stands in the vector.
    view:  member that keeps the int16 view; "" where none is kept.
    """

    row: str
    size: int
    start: int
    frac: int
    wide: str
    view: str


def state_parts(layer: Layer) -> tuple[StatePart, ...]:
    """In the order of the layer's vector and of its C struct; () for a layer without a state."""
    i, name = layer.ints, layer.name
    if layer.kind == "gru_i16":
        return (StatePart(name, i["nb_neurons"], 0, i["state_frac"], "h", "view"),)
    if layer.kind == "lstm_i16":
        return (
            StatePart(f"{name}:cell", i["nb_neurons"], 0, i["cell_frac"], "c", ""),
            StatePart(name, i["nb_outputs"], i["nb_neurons"], i["state_frac"], "", "view"),
        )
    if layer.kind == "rnn_i16":
        return (StatePart(name, i["nb_neurons"], 0, i["state_frac"], "", "view"),)
    if layer.kind == "delay_i16":
        return (StatePart(name, i["frames"] * i["n"], 0, i["state_frac"], "", "view"),)
    return ()


def state_size(layer: Layer) -> int:
    """Elements of a recurrent layer's state vector."""
    return sum(part.size for part in state_parts(layer))


@dataclass(frozen=True)
class StateInput:
    """A model argument that sets initial states: int16 views, one row per name in `layers` (see StatePart.row)."""

    name: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Tables:
    """A whole net, in execution order.

    inputs, outputs: tensor names in the model's order (frame inputs and per-step outputs only).
    state_inputs:    initial states that the model takes as arguments.
    arena:           int16 elements that arena tensors need.
    meta:            JSON-serialisable extras (signature of the model's axes, ranges, proofs, provenance); no kernel
    reads it.
    """

    tensors: dict[str, Tensor]
    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    state_inputs: tuple[StateInput, ...] = ()
    arena: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    spec: int = SPEC_VERSION

    @property
    def states(self) -> tuple[Layer, ...]:
        """The recurrent layers, in execution order."""
        return tuple(layer for layer in self.layers if state_parts(layer))

    @property
    def state_rows(self) -> dict[str, tuple[Layer, StatePart]]:
        """Row -> the recurrent layer and the part of its state, in execution order, what a layer gives out first."""
        return {part.row: (layer, part) for layer in self.states for part in reversed(state_parts(layer))}

    def state_row(self, name: str) -> str:
        """The row of the state that tensor `name` shows: a recurrent layer's output, or a copy of its cell."""
        tensor = self.tensors[name]
        if tensor.place == "state":
            return tensor.owner
        reader = next(layer for layer in self.layers if layer.kind == "cell_i16" and layer.output == name)
        return f"{self.tensors[reader.inputs[0]].owner}:cell"

    def last_writers(self) -> dict[str, int]:
        """Tensor -> index of the layer after which it holds the step's value (-1: an input). An arena's elements may be
        another tensor's later in the step."""

        def root(name: str) -> str:
            while self.tensors[name].place == "alias":
                name = self.tensors[name].owner
            return name

        written = dict.fromkeys(self.tensors, -1)
        views = {tensor.owner: name for name, tensor in self.tensors.items() if tensor.place == "state"}
        for i, layer in enumerate(self.layers):
            written[root(layer.output)] = i
            written[views.get(layer.name, layer.output)] = i  # its state too, where it copies that to its output
        return {name: written[root(name)] for name in self.tensors}

    @property
    def max_neurons(self) -> int:
        """The widest vector any layer touches: RTCORE_MAX_NEURONS for this net."""
        units = [layer.ints.get("nb_neurons", 0) for layer in self.layers]  # more than the outputs where these project
        return max(*units, 0, *(t.width for t in self.tensors.values()))
