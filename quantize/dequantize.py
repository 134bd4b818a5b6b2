"""The float graph on the very weights (and slopes) that the integers stand for: what separates rounding weights from
arithmetic.

Neighbours: `tables.py` (made the integers), `float_run.py` (runs the graph), `firmware_sim/compare.py` (error budget).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quantize.graph import Graph, Node
from quantize.plan import BOUNDED, NORMAL_FRAC, PRE_FRAC, STATE_EXTRA
from rtcore.tables import ACTIVATIONS, SLOPE_FRAC, Layer, Tables

WEIGHTED = {"dense_i16", "gru_i16", "lstm_i16", "rnn_i16", "affine_i16", "prelu_i16", "layernorm_i16"} | {
    "conv_i16",
    "depthwise_i16",
    "embedding_i16",
}
BOUNDED_CODES = tuple(ACTIVATIONS[name] for name in BOUNDED)


def dequantized_graph(graph: Graph, tables: Tables) -> Graph:
    """`graph` with every weight, bias, scale and offset replaced by its table's exact value (float64)."""
    layers = {layer.name: layer for layer in tables.layers}
    return replace(graph, nodes=tuple(dequantized(node, layers.get(node.name), tables) for node in graph.nodes))


def dequantized(node: Node, layer: Layer | None, tables: Tables) -> Node:
    if layer is None or layer.kind not in WEIGHTED:
        return node
    x_frac, out_frac = tables.tensors[layer.inputs[0]].frac, tables.tensors[layer.output].frac
    if layer.kind in ("dense_i16", "conv_i16", "depthwise_i16"):
        target = PRE_FRAC if layer.ints["activation"] in BOUNDED_CODES else out_frac
        weight, bias = values(layer, "", x_frac, target)
        if layer.kind != "dense_i16":  # [rows, taps * channels] to torch's [rows, channels, kernel_h, kernel_w]
            taps = layer.ints["kernel_h"], layer.ints["kernel_w"]
            weight = np.moveaxis(weight.reshape(weight.shape[0], *taps, -1), -1, 1)
        return replace(node, params={"weight": weight, "bias": bias})
    if layer.kind == "embedding_i16":
        table = layer.arrays["table"].reshape(layer.ints["entries"], layer.ints["n"])
        return replace(node, params={"table": table * 2.0**-out_frac})
    if layer.kind == "affine_i16":
        a = layer.arrays
        lsb = 2.0 ** -(out_frac + a["shift"].astype(np.float64))
        return replace(node, params={"scale": a["mult"] * lsb * 2.0**x_frac, "offset": a["bias"] * lsb})
    if layer.kind == "prelu_i16":
        a = layer.arrays
        return replace(node, params={"slope": a["mult"] * 2.0 ** (x_frac - out_frac - a["shift"].astype(np.float64))})
    if layer.kind == "layernorm_i16":
        a = layer.arrays
        lsb = 2.0 ** -(out_frac + a["shift"].astype(np.float64))
        attrs = node.attrs | {"eps": layer.ints["epsilon"] / layer.ints["n"] ** 2 * 2.0 ** (-2 * x_frac)}
        return replace(
            node, attrs=attrs, params={"weight": a["mult"] * lsb * 2.0**NORMAL_FRAC, "bias": a["bias"] * lsb}
        )
    if "gate_slope" in layer.ints:
        node = replace(node, attrs=node.attrs | {"gate_slope": layer.ints["gate_slope"] * 2.0**-SLOPE_FRAC})
    if layer.kind != "gru_i16":
        return replace(node, params=meeting(layer, x_frac, out_frac))
    n = layer.ints["nb_neurons"]
    top = PRE_FRAC if layer.ints["activation"] in BOUNDED_CODES else out_frac + STATE_EXTRA
    gates, candidate = PRE_FRAC - layer.ints["gate_shift"], top - layer.ints["candidate_shift"]
    targets = np.repeat([gates, gates, candidate], n)
    order = np.r_[n : 2 * n, 0:n, 2 * n : 3 * n]  # the lineage's z r h back to torch's r z n
    params = {}
    for side, short, frac in (("input", "ih", x_frac), ("recurrent", "hh", layer.ints["state_frac"])):
        weight, bias = values(layer, f"{side}_", frac, targets)
        params |= {f"weight_{short}": weight[order], f"bias_{short}": bias[order]}
    return replace(node, params=params)


def meeting(layer: Layer, x_frac: int, out_frac: int) -> dict[str, np.ndarray]:
    """Of an lstm_i16 or an rnn_i16: all rows of both matrices share a target."""
    if layer.kind == "lstm_i16":
        target = PRE_FRAC - layer.ints["gate_shift"]
    else:
        top = PRE_FRAC if layer.ints["activation"] in BOUNDED_CODES else out_frac + STATE_EXTRA
        target = top - layer.ints["shift"]
    params = {}
    for side, short, frac in (("input", "ih", x_frac), ("recurrent", "hh", out_frac)):
        params[f"weight_{short}"], params[f"bias_{short}"] = values(layer, f"{side}_", frac, target)
    if "projection_weights" in layer.arrays:
        params["weight_hr"], _ = values(layer, "projection_", 15, out_frac)
    if "peephole_weights" in layer.arrays:
        frac = layer.arrays["peephole_shift"].astype(np.float64) + PRE_FRAC - layer.ints["cell_frac"] - STATE_EXTRA
        params["weight_peephole"] = layer.arrays["peephole_weights"] * 2.0**-frac
    return params


def values(layer: Layer, prefix: str, x_frac: int, target) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of a matrix: one accumulator LSB is mult * 2^-(shift + target)."""
    a = layer.arrays
    lsb = a[f"{prefix}mult"] * 2.0 ** -(a[f"{prefix}shift"].astype(np.float64) + target)
    return a[f"{prefix}weights"] * (lsb * 2.0**x_frac)[:, None], a[f"{prefix}bias"] * lsb
