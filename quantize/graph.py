"""The imported model: a float graph over frames, and the float reference that runs it.

A graph describes ONE STEP: one frame of a stream, or one whole window. Every tensor is a vector of `width` features per
step; the batch and time axes are gone. In a window it is the features of all positions, [T][F] or [H][W][C], row-major;
each node says how it sees them. `Signature` remembers how the model's own arguments and results lay their axes, so that
a run can take and return what the torch module takes and returns.

Neighbours: `torch_import.py` (makes a Graph), `float_run.py` (runs it in float64/float32), `ranges.py` (observes that
run), `plan.py` (gives each tensor a format).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Node:
    """One operation. `where` is the place in the user's source ("model.py:12 in forward: ..."), for messages.

    op           inputs   attrs                                                params (float64 arrays)
    linear       x        -                                                    weight [N, M], bias [N]
    gru          x        activation "tanh"|"relu"|..., reset_after bool,      weight_ih [3N, M], weight_hh [3N, N],
                          initial: (state input name, row) or None;            bias_ih [3N], bias_hh [3N]; gates r, z, n
                          gate_slope: of hard gates, 0 or absent for sigmoids
    lstm         x        initial, initial_cell: (state input name, row)       weight_ih [4N, M], weight_hh [4N, P],
                          or None; gate_slope as of gru                        bias_ih [4N], bias_hh [4N]; gates i f g o
                                                                               weight_hr [P, N], or no
                                                                               projection and P = N
                                                                               weight_peephole [3N], gates i f o, or
                                                                               no peepholes
                                                                               coupled (f = 1 - i): [3N, ..], gates
                                                                               i g o; weight_peephole [2N], i o
    rnn          x        activation "tanh"|"relu", initial as of gru          weight_ih [N, M], weight_hh [N, N],
                                                                               bias_ih [N], bias_hh [N]
    cell         y        - (y: the output of an lstm node; gives its cell)    -
    activation   x        activation "sigmoid"|"tanh"|"relu"                   -
    affine       x        fold: True from a batch norm (goes into the linear   scale [N], offset [N]
                          before it); frac: a format that is known
    function     x        function: a key of functions.FUNCTIONS, its          -
                          constants by name
    clamp        x        low, high (-inf, inf where open)                     -
    prelu        x        - (slope * x for x < 0; abs has slope -1)            slope [N] or [1]
    minimum/maximum a, b  - (widths equal, or one of them 1)                   -
    softmax/log_softmax x - (over the features)                                -
    layer_norm   x        eps                                                  weight [N], bias [N]
    add/sub/mul  a, b     - (widths equal, or one of them 1)                   -
    concat       x1..xn   -                                                    -
    slice        x        start, stop                                          -

    affine is scale * x + offset, feature by feature. Bias arrays are always present (zeros when the module has none).
    A one-layer, one-direction gru, lstm or rnn per node.

    rows (attribute of many; absent: 1): x is so many rows, each treated alike; of a concat, the parts meet row by row.
    shapes (of add, sub, mul, minimum, maximum with rows): (rows or 1, columns or 1) of a and of b, which broadcast.
    window, reverse, starts (of recurrent nodes over a window): its steps; whether the last one comes first; which
    initial states ("initial", "initial_cell") the further inputs are. Such a node begins anew each time; its output is
    [window][N].
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attrs: dict[str, Any] = field(default_factory=dict)
    params: dict[str, np.ndarray] = field(default_factory=dict)
    where: str = ""


def lstm_form(node: Node) -> tuple[int, bool]:
    """The units of an lstm node, and whether its gates are coupled: its parameters' shapes say both."""
    units = node.params["weight_hr" if "weight_hr" in node.params else "weight_hh"].shape[1]
    return units, len(node.params["weight_ih"]) == 3 * units


@dataclass(frozen=True)
class Argument:
    """One argument of the model.

    kind "frames": axes is one atom per axis, from "batch", "time", "feature"; tensor names the graph tensor. sizes: of
                   the feature axes; layout: their positions among themselves in the order of memory, () where it is
                   their own.
    kind "state":  an initial recurrent state; axes also use "layer" (rows, in order, of `layers`: names of recurrent
                   nodes, "NODE:cell" for the cell of an lstm node) and "one" (an axis of length 1).
    """

    name: str
    kind: str
    axes: tuple[str, ...]
    tensor: str = ""
    layers: tuple[str, ...] = ()
    width: int = 0
    sizes: tuple[int, ...] = ()
    layout: tuple[int, ...] = ()


@dataclass(frozen=True)
class Result:
    """One result of the model.

    axes: per axis a tuple of atoms ("batch", "time", "feature", "layer"), in order: () is an axis of length 1, a longer
          tuple a merged axis. Without "time" the result is the last step's value. tensors: one graph tensor, or one
          per row of the "layer" axis. state: True when it is a returned recurrent state (h_n, c_n). sizes: of its
          "feature" atoms, in order.
    """

    name: str
    axes: tuple[tuple[str, ...], ...]
    tensors: tuple[str, ...]
    state: bool = False
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Signature:
    """How the model is called: positional/keyword arguments in order, results, and the result's container.

    container: "single", "tuple", "list" or "dict" (keys = Result.name), nested containers are flattened to "tuple".
    """

    arguments: tuple[Argument, ...]
    results: tuple[Result, ...]
    container: str = "single"


@dataclass(frozen=True)
class Graph:
    """nodes in execution order; widths of every tensor, inputs included."""

    nodes: tuple[Node, ...]
    widths: dict[str, int]
    signature: Signature
    notes: tuple[str, ...] = ()  # what the importer decided and says so, e.g. "streaming: time is axis 1 of x"
