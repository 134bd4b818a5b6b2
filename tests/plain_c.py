"""The generated C as a shared library of this machine, called through ctypes: "plain C" in the tests' comparisons.

Neighbours: `firmware_sim/toolchain.py` (builds it), `firmware_sim/board/board.c` (the symbols read here).
"""

from __future__ import annotations

import ctypes

import numpy as np

from firmware_sim.toolchain import build_host_library
from rtcore.tables import Tables


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class PlainC:
    """One net with one state, the library's own."""

    def __init__(self, tables: Tables, name: str = "net", flags: tuple[str, ...] = ("-O2",)):
        self.tables = tables
        self.name = name
        self.lib = ctypes.CDLL(str(build_host_library(tables, name=name, flags=flags)))
        self.state = ctypes.addressof(ctypes.c_char.in_dll(self.lib, "board_state"))
        self.units = {layer.name: layer.ints["nb_neurons"] for layer in tables.states}
        self.layout = list((ctypes.c_uint32 * (2 * len(self.units) + 1)).in_dll(self.lib, "board_layers"))

    def call(self, function: str, *args) -> int:
        return getattr(self.lib, f"{self.name}_{function}")(*args)

    def h(self, layer: str) -> np.ndarray:
        """The 32-bit state of a layer."""
        n = self.units[layer]
        offset = self.layout[2 * list(self.units).index(layer)]
        return np.ctypeslib.as_array((ctypes.c_int32 * n).from_address(self.state + offset)).copy()

    def run(self, inputs, initial=None):
        """One stream from the reset state. Returns outputs ([T, width] each) and states (layer -> [T, N])."""
        self.call("reset", ctypes.c_void_p(self.state))
        if initial is not None:
            self.call("set_state", ctypes.c_void_p(self.state), *map(pointer, initial))
        steps = inputs[0].shape[0]
        outputs = [np.zeros((steps, self.tables.tensors[y].width), np.int16) for y in self.tables.outputs]
        states = {name: np.zeros((steps, n), np.int32) for name, n in self.units.items()}
        for t in range(steps):
            rows = [np.ascontiguousarray(x[t]) for x in inputs]
            results = [y[t] for y in outputs]
            assert self.call("step", ctypes.c_void_p(self.state), *map(pointer, [*rows, *results])) == 1
            for name in states:
                states[name][t] = self.h(name)
        return outputs, states
