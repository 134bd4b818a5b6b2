"""The generated C as a shared library of this machine, called through ctypes: "plain C" in the tests' comparisons.

Neighbours: `firmware_sim/toolchain.py` (builds it), `firmware_sim/board/board.c` (the symbols read here).
"""

from __future__ import annotations

import ctypes

import numpy as np

from firmware_sim.toolchain import build_host_library, state_arrays
from rtcore.tables import Tables, state_size


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class PlainC:
    """One net with one state, the library's own."""

    def __init__(self, tables: Tables, name: str = "net", flags: tuple[str, ...] = ("-O2",)):
        self.tables = tables
        self.name = name
        self.lib = ctypes.CDLL(str(build_host_library(tables, name=name, flags=flags)))
        self.state = ctypes.addressof(ctypes.c_char.in_dll(self.lib, "board_state"))
        self.arrays = state_arrays(tables)
        self.offsets = list((ctypes.c_uint32 * (len(self.arrays) + 1)).in_dll(self.lib, "board_parts"))

    def call(self, function: str, *args) -> int:
        return getattr(self.lib, f"{self.name}_{function}")(*args)

    def h(self, layer: str) -> np.ndarray:
        """The state vector of a layer."""
        parts = []
        for (owner, member, part), offset in zip(self.arrays, self.offsets, strict=False):
            if owner == layer and member == (part.wide or part.view):
                kind = ctypes.c_int32 if part.wide else ctypes.c_int16
                parts.append(np.ctypeslib.as_array((kind * part.size).from_address(self.state + offset)))
        return np.concatenate(parts).astype(np.int32)

    def run(self, inputs, initial=None):
        """One stream from the reset state. Returns outputs ([T, width] each) and states (layer -> [T, N])."""
        self.call("reset", ctypes.c_void_p(self.state))
        if initial is not None:
            self.call("set_state", ctypes.c_void_p(self.state), *map(pointer, initial))
        steps = inputs[0].shape[0]
        outputs = [np.zeros((steps, self.tables.tensors[y].width), np.int16) for y in self.tables.outputs]
        states = {layer.name: np.zeros((steps, state_size(layer)), np.int32) for layer in self.tables.states}
        for t in range(steps):
            rows = [np.ascontiguousarray(x[t]) for x in inputs]
            results = [y[t] for y in outputs]
            assert self.call("step", ctypes.c_void_p(self.state), *map(pointer, [*rows, *results])) == 1
            for name in states:
                states[name][t] = self.h(name)
        return outputs, states
