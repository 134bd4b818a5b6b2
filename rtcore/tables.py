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


@dataclass(frozen=True)
class Tensor:
    """One int16 vector per step. value = raw * 2**-frac.

    place says where its elements live during a step:
    "input"  the caller's buffer of frame input number `index`
    "output" the caller's buffer of output number `index` (written by the step, may be read back within it)
    "state"  the view of recurrent layer `owner` (the tensor *is* the state's int16 view)
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
    """One kernel call per step. `kind` names the kernel, rtcore_<kind> (SPEC.md section 7 has them all); `inputs` and
    `output` name tensors."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    output: str
    ints: dict[str, int] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class StateInput:
    """A model argument that sets initial states: int16 views, one row per recurrent layer in `layers`."""

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
        return tuple(layer for layer in self.layers if layer.kind == "gru_i16")

    @property
    def max_neurons(self) -> int:
        """The widest vector any layer touches: RTCORE_MAX_NEURONS for this net."""
        return max(t.width for t in self.tensors.values())
